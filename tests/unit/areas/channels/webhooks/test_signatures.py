"""
Signatures of webhooks: every way in which channels write them, and every way in which they are wrong.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from typing import Any, cast

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.webhooks.signatures import InvalidSignatureError, check_signature
from celery_obs.exceptions import ConfigurationError


NOW = 1_800_000_000
BODY = b'{"id": "evt-1"}'


def sign(body: bytes, *, secret: bytes = b"s3cret", algorithm: str = "sha256") -> bytes:
    """
    Sign as a channel does.
    """
    return hmac.new(secret, body, getattr(hashlib, algorithm)).digest()


def check(signature: str | None, *, body: bytes = BODY, **options: Any) -> None:
    """
    Check with one secret, unless *options* say otherwise.
    """
    wanted = {"secrets": ["s3cret"], "algorithm": "sha256", "tolerance": None, "timestamp": None, "now": NOW}
    check_signature(body, signature, **cast(Any, {**wanted, **options}))


def reason_of(signature: str | None, **options: Any) -> str:
    """
    Return why *signature* is refused; empty when it is not.
    """
    try:
        check(signature, **options)
    except InvalidSignatureError as refused:
        return refused.reason
    return ""


@given(
    body=st.binary(max_size=200),
    secret=st.binary(min_size=1, max_size=80),
    algorithm=st.sampled_from(["sha256", "sha384", "sha512", "sha1"]),
    write=st.sampled_from(
        [
            bytes.hex,
            lambda raw: raw.hex().upper(),
            lambda raw: base64.b64encode(raw).decode(),
            lambda raw: base64.urlsafe_b64encode(raw).decode(),
        ]
    ),
    is_named=st.booleans(),
)
def test_what_was_signed_with_the_secret_is_right_however_it_is_written(
    *, body: bytes, secret: bytes, algorithm: str, write: Any, is_named: bool
) -> None:
    """
    Hexadecimal or base64, with the algorithm before it or without.
    """
    written = f"{algorithm}=" * is_named + write(sign(body, secret=secret, algorithm=algorithm))

    check(written, body=body, secrets=[b"another", secret], algorithm=algorithm)


@given(st.text(max_size=100) | st.binary(min_size=32, max_size=32).map(bytes.hex), st.none() | st.just(300))
def test_what_was_not_signed_with_the_secret_is_refused(signature: str, tolerance: float | None) -> None:
    """
    Whatever a stranger writes, nothing but a refusal comes of it.
    """
    assert reason_of(signature, tolerance=tolerance) in {"missing", "malformed", "wrong"}


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_a_body_with_one_byte_changed_is_refused(place: int, change: int) -> None:
    """
    The signature is over every byte.
    """
    changed = bytes(byte ^ change if index == place else byte for index, byte in enumerate(BODY))

    assert "wrong" == reason_of(sign(BODY).hex(), body=changed)


@pytest.mark.parametrize(("age", "reason"), [(0, ""), (300, ""), (301, "too_old"), (-300, ""), (-301, "in_the_future"), (NOW, "too_old")])
def test_an_old_webhook_is_refused_however_well_it_is_signed(age: int, reason: str) -> None:
    """
    What was heard long ago cannot be sent again; clocks may differ by the tolerance.
    """
    stamp = NOW - age
    signature = sign(f"{stamp}.".encode() + BODY).hex()

    assert reason == reason_of(f"t={stamp},v1={signature}", tolerance=300)
    assert reason == reason_of(f"sha256={signature}", tolerance=300, timestamp=str(stamp))


@pytest.mark.parametrize("stamp", [str(NOW), f"{NOW}000", "2027-01-15T08:00:00Z", "2027-01-15T08:00:00.000+00:00"])
def test_the_time_is_read_in_seconds_in_milliseconds_and_in_iso(stamp: str) -> None:
    """
    The text is what was signed, as it came.
    """
    signature = sign(f"{stamp}.".encode() + BODY).hex()

    assert "" == reason_of(signature, tolerance=300, timestamp=stamp)
    assert "" == reason_of(f"t={stamp},v1={signature}", tolerance=300)
    assert "too_old" == reason_of(signature, tolerance=300, timestamp=stamp, now=NOW + 301)


def test_one_of_several_signatures_is_enough() -> None:
    """
    A channel that replaces its secret signs with both.
    """
    good = sign(f"{NOW}.".encode() + BODY).hex()
    bad = sign(b"other").hex()

    check(f"t={NOW}, v1={bad}, v1={good}", tolerance=300)


def test_a_time_cannot_be_left_out_where_one_is_asked_for() -> None:
    """
    Nor can a time that was not asked for be moved into the body.
    """
    assert "malformed" == reason_of(sign(BODY).hex(), tolerance=300)
    assert "malformed" == reason_of(f"t={NOW}x,v1={sign(BODY).hex()}", tolerance=300)
    assert "malformed" == reason_of(f"t={'9' * 5000},v1=00", tolerance=300)
    assert reason_of(f"t={NOW},v1={sign(f'{NOW}.'.encode() + BODY).hex()}")


@pytest.mark.parametrize(
    ("signature", "reason"), [(None, "missing"), ("", "missing"), ("sha1=" + "0" * 64, "malformed"), ("\udcff", "malformed")]
)
def test_why_it_is_refused_is_told(signature: str | None, reason: str) -> None:
    """
    Missing, malformed and wrong are different mistakes.
    """
    assert reason == reason_of(signature)


def test_neither_the_secret_nor_the_signature_is_in_the_message() -> None:
    """
    Messages end in logs.
    """
    signature = "ab" * 32
    with pytest.raises(InvalidSignatureError) as refused:
        check(signature)

    assert "s3cret" not in str(refused.value)
    assert signature not in str(refused.value)


@pytest.mark.parametrize("secrets", [[], [""], ["good", b""]])
def test_an_empty_secret_is_a_mistake_of_the_program(secrets: list[str]) -> None:
    """
    Everybody could sign with it.
    """
    with pytest.raises(ConfigurationError, match="secret of the webhook's signature is empty"):
        check(sign(BODY, secret=b"").hex(), secrets=secrets)


def test_an_unknown_algorithm_and_a_parsed_body_are_mistakes_of_the_program() -> None:
    """
    The message says what to pass.
    """
    with pytest.raises(ConfigurationError, match=r"'md5'\. Expected one of sha256"):
        check("00", algorithm="md5")
    with pytest.raises(ConfigurationError, match=r"this body is a str\. Pass request\.body"):
        check("00", body=cast(bytes, "text"))
