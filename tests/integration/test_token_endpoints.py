"""
How a token endpoint is asked: by a breaker, a limit and a pause of its own, at the connection's own URL, with hooks, signed assertions and certificates.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading

from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from celery_obs.areas.channels import errors
from celery_obs.areas.channels.api_calls.events import ApiCallFinished, EndpointFolded
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.breakers.state import Breakers
from celery_obs.areas.channels.connections.state import Connection
from celery_obs.areas.channels.engine import Engine
from celery_obs.areas.channels.pauses.state import Pauses
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.api import Token, TokenAnswer, TokenRequest, Tokens, guard_of
from celery_obs.demo.provider.zoo import CLIENT_ID, Zoo
from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime.hub import Hub
from celery_obs.testing import RaisingErrors
from tests.certificates import Authority
from tests.servers import RedisServer
from tests.tokens import Rig, answering, rig_of, secrets_in, texts_of


pytestmark = pytest.mark.integration

ONE = "conn-1"
GUID = "9188040d-6c67-4c5b-b112-36a304b66dad"


@contextlib.contextmanager
def rigged(redis_server: RedisServer, clients: Mapping[str, Any], **more: Any) -> Iterator[Rig]:
    with rig_of(redis_server.url, oauth_clients=clients, **more) as rig:
        rig.redis.flushall()
        yield rig


def consent(rig: Rig, zoo: Zoo, provider: str, connection_id: str = ONE, **url_parameters: str) -> None:
    given = zoo.authorize(provider, connection_id)
    rig.facts.register([Connection(connection_id, provider, url_parameters=url_parameters)])
    tokens.store(connection_id, Token(access_token=given.access_token, refresh_token=given.refresh_token))


def stored() -> Token:
    found = tokens.get(ONE)
    assert found is not None
    return found


# --- its own breaker, limit and pause ---------------------------------------------------------------------------------------------


def test_a_channel_that_is_held_back_still_gives_tokens(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    Its data API's breaker is open and its limit used up: the token is refreshed all the same.
    """
    with rigged(redis_server, {"fitbit": zoo.client("fitbit")}, channels={"fitbit": {"rate_limits": "1/3600s"}}) as rig:
        consent(rig, zoo, "fitbit")
        rate_limiter.acquire("fitbit", ONE)
        Breakers(rig.redis).force_open("fitbit")

        assert "refreshed" == tokens.refresh(ONE, force=True).status
        with pytest.raises(errors.RateLimitError):
            rate_limiter.acquire("fitbit", ONE)


def test_a_token_endpoint_that_is_down_opens_its_own_breaker_only(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    The customer's data may well be had with the tokens that are there.
    """
    with rigged(redis_server, {"slack": zoo.client("slack")}) as rig:
        consent(rig, zoo, "slack")
        zoo.answer_next("slack", "broken", times=5)

        seen = []
        for _ in range(6):
            with pytest.raises(errors.ChannelError) as caught:
                tokens.refresh(ONE, force=True)
            seen.append(type(caught.value))

        assert [errors.ApiError] * 5 + [errors.CircuitOpenError] == seen
        assert ("open", "closed") == tuple(circuit_breaker.registry.get_breaker(name).state for name in (guard_of("slack"), "slack"))
        assert ["broken"] * 5 == zoo.asked("slack")


def test_what_one_worker_is_told_all_workers_keep(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    Five processes' engines, each with another connection: one request goes out, and every one knows for how long.
    """
    with rigged(redis_server, {"strava": zoo.client("strava")}) as rig:
        engines = [Engine(hub=Hub(on_error=RaisingErrors()), settings=rig.engine.settings) for _ in range(5)]
        waits = []
        zoo.answer_next("strava", "throttled")
        for number, engine in enumerate(engines):
            consent(rig, zoo, "strava", f"conn-{number}")
            with pytest.raises(errors.RateLimitError) as caught:
                Tokens(engine).refresh(f"conn-{number}", force=True)
            waits.append(caught.value.retry_after)
            assert engine.redis is not None
            engine.redis.close()

        assert ["throttled"] == zoo.asked("strava")
        assert all(wait is not None and 20 < wait <= 30 for wait in waits)
        assert {} == rig.facts.refreshes()


def test_a_pause_of_an_operators_is_not_made_shorter(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    Who stops the refreshes of a channel by hand ends that, too.
    """
    with rigged(redis_server, {"strava": zoo.client("strava")}) as rig:
        consent(rig, zoo, "strava")
        zoo.answer_next("strava", "throttled")
        pauses = Pauses(rig.redis)
        stop = {"do": lambda: pauses.pause(guard_of("strava"), actor="maria", reason="maintenance")}
        tokens_reached = tokens.reached
        try:
            tokens.reached = lambda point: stop.pop("do", lambda: None)() if point == "answered" else None
            with pytest.raises(errors.RateLimitError):
                tokens.refresh(ONE, force=True)
        finally:
            tokens.reached = tokens_reached

        assert "maria" == pauses.paused([guard_of("strava")])[guard_of("strava")].actor
        with pytest.raises(errors.RateLimitError, match="paused until it is resumed"):
            tokens.refresh(ONE, force=True)
        pauses.resume(guard_of("strava"))
        assert "refreshed" == tokens.refresh(ONE, force=True).status


# --- the URL of one connection ----------------------------------------------------------------------------------------------------


def test_a_tenant_in_the_url_is_no_label(redis_server: RedisServer) -> None:
    """
    A GUID in a token_url makes one endpoint of all tenants, and nothing has to be folded.
    """
    good = {"access_token": "at-2", "refresh_token": "rt-2", "expires_in": 60}
    with answering(good) as (url, _):
        client = {"token_url": url.replace("/oauth/token", f"/{GUID}/oauth2/v2.0/token"), "client_id": "we", "provider": "microsoft"}
        with rigged(redis_server, {"outlook": client}) as rig:
            folded: list[EndpointFolded] = []
            rig.engine.hub.subscribe(EndpointFolded, folded.append)
            rig.facts.register([Connection(ONE, "outlook")])
            tokens.store(ONE, Token(access_token="at-1", refresh_token="rt-1"))

            tokens.refresh(ONE, force=True)

            assert ["/{id}/oauth2/v2.0/token"] == [event.endpoint for event in rig.events if isinstance(event, ApiCallFinished)]
            assert [] == folded


def test_the_url_is_filled_for_each_connection(redis_server: RedisServer) -> None:
    """
    What the connection has, else what the client has, else what the provider has.
    """
    asked: list[str] = []
    with serving(lambda handler: asked.append(handler.path)) as url:
        clients = {
            "shopify": {"token_url": f"{url}/{{shop}}/token", "client_id": "we", "client_secret": "s"},
            "microsoft": {
                "provider": "microsoft",
                "token_url": f"{url}/{{tenant}}/{{version}}",
                "client_id": "we",
                "url_parameters": {"version": "v2.0"},
            },
        }
        with rigged(redis_server, clients) as rig:
            for connection_id, channel, parameters in (
                ("a", "shopify", {"shop": "acme"}),
                ("b", "shopify", {"shop": "bolt"}),
                ("c", "microsoft", None),
                ("d", "microsoft", {"tenant": GUID}),
            ):
                rig.facts.register([Connection(connection_id, channel, url_parameters=parameters)])
                rig.facts.register([Connection(connection_id, channel)])  # Said again without them, as the census does.
                tokens.store(connection_id, Token(access_token="at-1", refresh_token="rt-1"))
                tokens.refresh(connection_id, force=True)

    assert ["/acme/token", "/bolt/token", "/common/v2.0", f"/{GUID}/v2.0"] == asked


@pytest.mark.parametrize("shop", [None, "evil.test/x", "..", "a@b"])
def test_a_connection_whose_url_cannot_be_filled_sends_nothing(redis_server: RedisServer, zoo: Zoo, shop: str | None) -> None:
    """
    The message names the placeholder; nothing is left open for the next scan, and the breaker heard nothing.
    """
    with rigged(redis_server, {"shopify": zoo.client("shopify")}) as rig:
        consent(rig, zoo, "shopify", **({} if shop is None else {"shop": shop}))

        with pytest.raises(ConfigurationError, match="shop") as caught:
            tokens.refresh(ONE, force=True)

        assert "evil" not in str(caught.value)
        assert ([], {}, []) == (zoo.ledger, rig.facts.refreshes(), rig.events)


# --- what others need -------------------------------------------------------------------------------------------------------------

Handling = Any


@contextlib.contextmanager
def serving(see: Any, *, context: ssl.SSLContext | None = None, answer: Any = None) -> Iterator[str]:
    """
    Serve a token to every caller; *see* looks at each request's handler, whose ``sent`` is the body.
    """

    class Handler(BaseHTTPRequestHandler):
        """
        One request.
        """

        def do_POST(self) -> None:
            self.sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
            see(self)
            content = json.dumps(answer or {"access_token": "at-2", "refresh_token": "rt-2", "expires_in": 60}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """
            Say nothing.
            """

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http{'s' if context else ''}://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def acme(redis_server: RedisServer, **client: Any) -> Iterator[Rig]:
    """
    An engine with one connection of a channel whose client is given.
    """
    with rigged(redis_server, {"acme": {"client_id": "we", **client}}) as rig:
        rig.facts.register([Connection(ONE, "acme")])
        tokens.store(ONE, Token(access_token="at-1", refresh_token="rt-1"))
        yield rig


def sign(request: TokenRequest) -> None:
    request.headers["X-Signature"] = f"{len(request.parameters['refresh_token'])}/{request.connection.connection_id}"
    request.parameters["account"] = "7"


def unwrap(answer: TokenAnswer) -> Any:
    return {"access_token": answer.data["tokens"]["access"], "refresh_token": answer.data["tokens"]["refresh"], "expires_in": 60}


def test_hooks_change_what_is_sent_and_what_is_read(redis_server: RedisServer) -> None:
    """
    For a provider that is like no other: named as a place, as any setting, or given as they are.
    """
    seen: list[Any] = []
    answer = {"tokens": {"access": "at-9", "refresh": "rt-9"}}
    with serving(seen.append, answer=answer) as url:
        hooks = {"before_request": f"{__name__}:sign", "after_response": unwrap}
        with acme(redis_server, token_url=f"{url}/t", parameters={"format": "compact"}, **hooks):
            tokens.refresh(ONE, force=True)

            assert ("at-9", "rt-9", 60.0) == (stored().access_token, stored().refresh_token, stored().lifetime)
    (handler,) = seen
    assert f"4/{ONE}" == handler.headers["X-Signature"]
    assert {"account": ["7"], "format": ["compact"], "client_id": ["we"]}.items() <= parse_qs(handler.sent).items()


def revoked(answer: TokenAnswer) -> None:
    if answer.data.get("state") == "gone":
        message = "The customer has removed us."
        raise tokens.TokenRefusedError(message)


def test_a_hook_may_say_that_a_grant_is_over(redis_server: RedisServer) -> None:
    """
    By raising what the engine raises.
    """
    with serving(lambda _: None, answer={"state": "gone"}) as url, acme(redis_server, token_url=url, after_response=revoked) as rig:
        with pytest.raises(tokens.TokenRefusedError, match="has removed us"):
            tokens.refresh(ONE, force=True)

        assert "error" == rig.facts.connections()[ONE].status


def careless(whatever: Any) -> None:
    raise LookupError(f"cannot do {whatever}")


def test_a_hook_that_fails_before_the_request_sends_nothing(redis_server: RedisServer) -> None:
    """
    The message names the hook and the class of its error, and no word of what it has seen.
    """
    seen: list[Any] = []
    with serving(seen.append) as url, acme(redis_server, token_url=url, before_request=careless) as rig:
        with pytest.raises(ConfigurationError, match=r"before_request that does not work \(LookupError\)") as caught:
            tokens.refresh(ONE, force=True)

        assert [] == secrets_in(texts_of(caught.value), "rt-1", "at-1")
        assert ([], {}) == (seen, rig.facts.refreshes())


def test_a_hook_that_fails_after_the_answer_costs_no_token(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The channel has taken the old token back: what can be read without the hook is stored, and the failure is counted.
    """
    with serving(lambda _: None) as url, acme(redis_server, token_url=url, after_response=careless) as rig:
        counted: list[Exception] = []
        monkeypatch.setattr(rig.engine.hub, "on_error", lambda error, **_: counted.append(error))

        assert "refreshed" == tokens.refresh(ONE, force=True).status
        assert "rt-2" == stored().refresh_token
        assert ["after_response" in str(error) for error in counted] == [True]
        assert [] == secrets_in(texts_of(counted[0]), "rt-2", "at-2")


KEYS: Mapping[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_client_may_sign_who_it_is(redis_server: RedisServer, algorithm: str) -> None:
    """
    private_key_jwt: the assertion is ours, for this endpoint, for a short while, and each is another one.
    """
    from joserfc import jwt
    from joserfc.jwk import import_key

    key = KEYS[algorithm]()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    seen: list[Any] = []
    with serving(seen.append) as url:
        method = {"token_endpoint_auth_method": "private_key_jwt", "private_key": pem, "private_key_id": "k1"}
        with acme(redis_server, token_url=f"{url}/t", signing_algorithm=algorithm, **method) as rig:
            for _ in range(2):
                tokens.refresh(ONE, force=True)
            assert pem[40:60] not in repr(rig.engine.settings)

    forms = [{name: values[0] for name, values in parse_qs(handler.sent).items()} for handler in seen]
    read = [
        jwt.decode(form["client_assertion"], import_key(public, "EC" if algorithm == "ES256" else "RSA"), [algorithm]) for form in forms
    ]
    assert {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"} == {form["client_assertion_type"] for form in forms}
    assert {("we", "we", f"{url}/t", "k1")} == {
        (each.claims["iss"], each.claims["sub"], each.claims["aud"], each.header["kid"]) for each in read
    }
    assert [300, 300] == [each.claims["exp"] - each.claims["iat"] for each in read]
    assert 2 == len({each.claims["jti"] for each in read})


def test_a_key_that_cannot_sign_is_told_without_it(redis_server: RedisServer) -> None:
    """
    Nothing is sent.
    """
    seen: list[Any] = []
    method = {"token_endpoint_auth_method": "private_key_jwt", "private_key": "-----BEGIN canary-key-----"}
    with serving(seen.append) as url, acme(redis_server, token_url=url, **method):
        with pytest.raises(ConfigurationError, match="private_key that does not work") as caught:
            tokens.refresh(ONE, force=True)

        assert [] == secrets_in(texts_of(caught.value), "canary-key", "rt-1")
        assert [] == seen


def test_a_client_may_show_a_certificate(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    tls_client_auth: an endpoint that wants one gets it, and the form has our name; without one there is no connection.
    """
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("ours"), authority.issue("localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.cert))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*theirs)
    seen: list[Any] = []
    with serving(seen.append, context=context) as url:
        shown = {"token_endpoint_auth_method": "tls_client_auth", "certificate": str(ours.cert), "certificate_key": str(ours.key)}
        with acme(redis_server, token_url=url, **shown):
            assert "refreshed" == tokens.refresh(ONE, force=True).status
        with acme(redis_server, token_url=url), pytest.raises(errors.NetworkError):
            tokens.refresh(ONE, force=True)
        missing = {**shown, "certificate": "/nowhere.pem"}
        with acme(redis_server, token_url=url, **missing), pytest.raises(ConfigurationError, match=r"does not work \(FileNotFoundError\)"):
            tokens.refresh(ONE, force=True)

    (handler,) = seen
    assert ["we"] == parse_qs(handler.sent)["client_id"]


def test_what_a_web_application_was_answered_is_read_as_a_refresh_is(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    The first token lies where the provider has it.
    """
    body = {"userid": "363", "access_token": "at-1", "refresh_token": "rt-1", "expires_in": 10_800}
    with rigged(redis_server, {"withings": zoo.client("withings")}):
        token = tokens.from_answer("withings", {"status": 0, "body": body})

        assert ("at-1", "rt-1", 10_800.0, {"userid": "363"}) == (token.access_token, token.refresh_token, token.lifetime, token.extra)
        with pytest.raises(tokens.TokenRefusedError):
            tokens.from_answer("withings", {"status": 503, "error": "Invalid Params: invalid refresh_token"})
        with pytest.raises(errors.ApiError, match="holds no token"):
            tokens.from_answer("withings", {"status": 0})
        with pytest.raises(ConfigurationError, match="has no client"):
            tokens.from_answer("acme", {})


def test_the_first_token_of_a_machine_account_needs_no_consent(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    Booking.com's tokens come for the client itself: the first refresh brings the first one.
    """
    with rigged(redis_server, {"booking": zoo.client("booking")}) as rig:
        rig.facts.register([Connection(ONE, "booking")])

        tokens.refresh(ONE)

        assert stored().access_token.startswith("at-booking-")
        assert CLIENT_ID != stored().refresh_token == ""
