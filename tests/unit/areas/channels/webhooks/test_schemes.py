"""
Signature schemes of providers: what their own libraries sign is right here, what we are given in their documents is right, and nothing else is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.areas.channels.webhooks.schemes import SCHEMES, SignatureScheme, scheme_of
from celery_obs.areas.channels.webhooks.signatures import InvalidSignatureError, Signed, check_scheme
from celery_obs.exceptions import ConfigurationError


NOW = 1_800_000_000.0
SECRET = "s3cret"
WHSEC = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
BODY = b'{"id": "evt-1", "amount": 42}'


# --- the other side -------------------------------------------------------------------------------------------------------------


def by_standardwebhooks(body: bytes, now: float) -> tuple[dict[str, str], str]:
    from standardwebhooks.webhooks import Webhook

    stamp = datetime.fromtimestamp(now, timezone.utc)
    signature = Webhook(WHSEC).sign("msg_1", stamp, body.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": str(int(now)), "webhook-signature": signature}, WHSEC


def by_svix(body: bytes, now: float) -> tuple[dict[str, str], str]:
    from svix.webhooks import Webhook

    signature = Webhook(WHSEC).sign("msg_1", datetime.fromtimestamp(now, timezone.utc), body.decode())
    return {"svix-id": "msg_1", "svix-timestamp": str(int(now)), "svix-signature": f"v1a,AAAA {signature}"}, WHSEC


def by_stripe(body: bytes, now: float) -> tuple[dict[str, str], str]:
    import stripe

    signature = stripe.WebhookSignature._compute_signature(f"{int(now)}.{body.decode()}", SECRET)
    return {"Stripe-Signature": f"t={int(now)},v1={signature},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"}, SECRET


def by_slack(body: bytes, now: float) -> tuple[dict[str, str], str]:
    from slack_sdk.signature import SignatureVerifier

    signature = SignatureVerifier(SECRET).generate_signature(timestamp=str(int(now)), body=body)
    assert signature is not None
    return {"X-Slack-Request-Timestamp": str(int(now)), "X-Slack-Signature": signature}, SECRET


OTHERS: dict[str, Callable[[bytes, float], tuple[dict[str, str], str]]] = {
    "standard-webhooks": by_standardwebhooks,
    "svix": by_svix,
    "stripe": by_stripe,
    "slack": by_slack,
}
"""
Signers that we did not write: the providers' own libraries.
"""


def digest(key: str, text: bytes) -> bytes:
    return hmac.new(key.encode(), text, hashlib.sha256).digest()


def as_documented(name: str, body: bytes, now: float) -> dict[str, str]:
    """
    Sign as the provider's document says, where it has no library for Python that signs.
    """
    iso = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    stamp = str(int(now))
    return {
        "shopify": {"X-Shopify-Hmac-SHA256": base64.b64encode(digest(SECRET, body)).decode()},
        "github": {"X-Hub-Signature-256": "sha256=" + digest(SECRET, body).hex()},
        "zendesk": {
            "X-Zendesk-Webhook-Signature": base64.b64encode(digest(SECRET, iso.encode() + body)).decode(),
            "X-Zendesk-Webhook-Signature-Timestamp": iso,
        },
        "paddle": {"Paddle-Signature": f"ts={stamp};h1={digest(SECRET, f'{stamp}:'.encode() + body).hex()}"},
        "typeform": {"Typeform-Signature": "sha256=" + base64.b64encode(digest(SECRET, body)).decode()},
    }[name]


def signed(name: str, body: bytes = BODY, now: float = NOW) -> tuple[dict[str, str], str]:
    return OTHERS[name](body, now) if name in OTHERS else (as_documented(name, body, now), SECRET)


def check(name: str, headers: Any, secret: str, *, body: bytes = BODY, now: float = NOW, tolerance: float | None = None) -> Signed:
    return check_scheme(scheme_of(name), body, headers, secrets=[secret], tolerance=tolerance, now=now)


def reason_of(*args: Any, **options: Any) -> str:
    with pytest.raises(InvalidSignatureError) as refused:
        check(*args, **options)
    return refused.value.reason


# --- what is right --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_what_a_provider_signs_is_right(name: str) -> None:
    """
    Of those that have a library that signs, it is the library that did.
    """
    headers, secret = signed(name)

    event_id, at = check(name, headers, secret)

    assert ("msg_1" if name in {"standard-webhooks", "svix"} else "") == event_id
    assert (NOW if "timestamp" in SCHEMES[name].signed else None) == at


@settings(max_examples=50)
@given(name=st.sampled_from(sorted(SCHEMES)), body=st.text(max_size=60).map(str.encode), now=st.integers(1_000_000_000, 4_000_000_000))
def test_any_body_at_any_time_is_right_as_it_was_signed(name: str, body: bytes, now: int) -> None:
    """
    Whatever is in it.
    """
    headers, secret = signed(name, body, float(now))

    check(name, headers, secret, body=body, now=float(now))


def test_the_vectors_of_the_documents_are_right() -> None:
    """
    GitHub's and Standard Webhooks' own examples.
    """
    github = {"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
    check("github", github, "It's a Secret to Everybody", body=b"Hello, World!")
    standard = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    check("standard-webhooks", standard, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", body=b'{"test": 2432232314}', now=1614265330.0)


def test_our_signatures_are_right_to_the_providers_own_libraries() -> None:
    """
    The other way round: what this module takes, their verifiers take, and what it refuses, they refuse.
    """
    import stripe

    from slack_sdk.signature import SignatureVerifier
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError
    from svix.webhooks import Webhook as Svix

    now = time.time()
    standard, svix = by_standardwebhooks(BODY, now)[0], by_svix(BODY, now)[0]
    slack, stripes = by_slack(BODY, now)[0], by_stripe(BODY, now)[0]

    Webhook(WHSEC).verify(BODY.decode(), standard)
    Svix(WHSEC).verify(BODY.decode(), svix)
    assert SignatureVerifier(SECRET).is_valid_request(BODY, slack)
    assert stripe.WebhookSignature.verify_header(BODY.decode(), stripes["Stripe-Signature"], SECRET, 300)
    for name, headers, secret in (
        ("standard-webhooks", standard, WHSEC),
        ("svix", svix, WHSEC),
        ("slack", slack, SECRET),
        ("stripe", stripes, SECRET),
    ):
        check(name, headers, secret, now=now)
        assert "too_old" == reason_of(name, headers, secret, now=now + 1000)
    with pytest.raises(WebhookVerificationError):
        Webhook(WHSEC).verify(BODY.decode() + " ", standard)


# --- what is wrong --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_what_was_changed_on_the_way_is_refused(name: str) -> None:
    """
    The body, the secret, the time and the id; a header that is missing, or that is none.
    """
    headers, secret = signed(name)
    scheme = SCHEMES[name]
    other = WHSEC[:-4] + "AAAA" if scheme.secret_prefix else "other"

    assert "wrong" == reason_of(name, headers, secret, body=BODY + b" ")
    assert "wrong" == reason_of(name, headers, other)
    assert "missing" == reason_of(name, {}, secret)
    for header in headers:
        assert reason_of(name, {**headers, header: ""}, secret) == "missing"
        assert reason_of(name, {**headers, header: "é" * 10}, secret) == "malformed"
        assert reason_of(name, {**headers, header: "x" * 10_000}, secret) == "malformed"


@pytest.mark.parametrize("name", sorted(name for name, scheme in SCHEMES.items() if "timestamp" in scheme.signed))
def test_an_old_webhook_is_refused_however_well_it_is_signed(name: str) -> None:
    """
    Five minutes by default, and as much as one says.
    """
    headers, secret = signed(name)

    assert "too_old" == reason_of(name, headers, secret, now=NOW + 301)
    assert "in_the_future" == reason_of(name, headers, secret, now=NOW - 301)
    check(name, headers, secret, now=NOW + 3000, tolerance=3600)


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [
        ("1800000000", ""),
        ("1800000000000", ""),
        ("2027-01-15T08:00:00Z", ""),
        ("2027-01-15T08:00:00.000+00:00", ""),
        ("yesterday", "malformed"),
        ("-5", "malformed"),
        ("1e9", "too_old"),
        ("9" * 41, "malformed"),
    ],
)
def test_the_time_may_be_in_seconds_milliseconds_or_iso(stamp: str, reason: str) -> None:
    """
    The text is what was signed, as it came.
    """
    scheme = SignatureScheme(name="acme", signature=("x-signature",), timestamp=("x-time",), signed=("timestamp", "body"))
    headers = {"X-Signature": digest(SECRET, stamp.encode() + BODY).hex(), "X-Time": stamp}

    if not reason:
        check_scheme(scheme, BODY, headers, secrets=[SECRET], tolerance=None, now=NOW)
        return
    with pytest.raises(InvalidSignatureError) as refused:
        check_scheme(scheme, BODY, headers, secrets=[SECRET], tolerance=None, now=NOW)
    assert reason == refused.value.reason


def test_each_of_several_active_secrets_is_enough() -> None:
    """
    While one replaces the other, the provider signs with both, or with one of them.
    """
    for name in SCHEMES:
        headers, secret = signed(name)
        other = "whsec_" + base64.b64encode(b"another").decode() if SCHEMES[name].secret_prefix else "another"

        check_scheme(SCHEMES[name], BODY, headers, secrets=[other, secret], tolerance=None, now=NOW)


def test_a_signature_under_another_name_does_not_count() -> None:
    """
    A forger does not get in by writing the signature of another version's scheme; Stripe's v0 is one that everybody can make.
    """
    headers, secret = signed("stripe")

    assert "malformed" == reason_of("stripe", {"Stripe-Signature": headers["Stripe-Signature"].replace("v1=", "v2=")}, secret)
    standard, secret = signed("standard-webhooks")
    assert "malformed" == reason_of(
        "standard-webhooks", {**standard, "webhook-signature": standard["webhook-signature"].replace("v1,", "v1a,")}, secret
    )


def test_a_wrong_secret_or_name_is_a_mistake_of_the_program() -> None:
    """
    The message says what to pass, and shows no secret.
    """
    headers, _ = signed("svix")
    with pytest.raises(ConfigurationError, match=r"Expected base64, with whsec_ before it") as refused:
        check("svix", headers, "whsec_n0 base64!")
    assert "n0 base64" not in str(refused.value)
    with pytest.raises(ConfigurationError, match=r"'acme'\. Expected one of standard-webhooks, svix, stripe"):
        scheme_of("acme")


@given(st.sampled_from(sorted(SCHEMES)), st.data())
def test_no_headers_of_a_stranger_get_through(name: str, data: st.DataObject) -> None:
    """
    Nothing but a refusal comes of them.
    """
    scheme = SCHEMES[name]
    wanted = [*scheme.signature[:1], *scheme.id[:1], *scheme.timestamp[:1]]
    headers = {header: data.draw(st.text(max_size=80) | st.just(f"{scheme.key}={'00' * 32}")) for header in wanted}

    with pytest.raises(InvalidSignatureError):
        check(name, headers, WHSEC if scheme.secret_prefix else SECRET)
