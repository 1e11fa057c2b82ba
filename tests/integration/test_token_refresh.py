"""
Refreshing tokens at a real OAuth2 endpoint, with the token kept in a real Redis: what is stored, what is said, and what is never said.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import re
import time

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_obs.areas.channels import errors
from celery_obs.areas.channels.api_calls.events import ApiCallFinished
from celery_obs.areas.channels.breakers.state import Breakers
from celery_obs.areas.channels.connections.events import ConnectionErrored
from celery_obs.areas.channels.connections.state import Connection, TokenExpiry
from celery_obs.areas.channels.pauses.state import Pauses
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens import oauth
from celery_obs.areas.channels.tokens.api import RedisTokens, Token, Tokens
from celery_obs.demo.provider import Fault, Provider
from celery_obs.exceptions import CeleryObsError, ConfigurationError
from celery_obs.state import keys
from celery_obs.state.locks import Flight, FlightTimeoutError
from celery_obs.testing import FakeClock
from tests.certificates import Authority
from tests.servers import RedisServer, free_port, wait_until
from tests.tokens import CHANNEL, KEY, Rig, answering, dripping, rig_of, secrets_in, texts_of
from tests.unit.telemetry.traces.builders import attributes_of, observer


pytestmark = pytest.mark.integration

ONE = "conn-1"
TOKEN_GUARD = f"{CHANNEL}.token"
CANARY = "rt-canary-5417"


@pytest.fixture(scope="module")
def channel() -> Iterator[Provider]:
    """
    A channel whose tokens rotate; a refresh token works once.
    """
    with Provider() as provider:
        yield provider


@pytest.fixture
def provider(channel: Provider) -> Provider:
    channel.faults.clear()
    channel.forget_requests()
    return channel


@pytest.fixture
def rig(redis_server: RedisServer, provider: Provider) -> Iterator[Rig]:
    """
    An engine with a connection whose token is from the channel.
    """
    with rig_of(redis_server.url, token_url=provider.token_url) as rig:
        rig.redis.flushall()
        rig.connect(ONE, provider.accounts.authorize(ONE))
        yield rig


def stored(connection_id: str = ONE) -> Token:
    found = tokens.get(connection_id)
    assert found is not None
    return found


def stored_without_refresh_token() -> None:
    tokens.store(ONE, Token(access_token="at", refresh_token="", expires_at=None, lifetime=None))


def refusal(connection_id: Any = ONE, **options: Any) -> CeleryObsError:
    """
    Refresh what cannot be, and return the error.
    """
    with pytest.raises(CeleryObsError) as caught:
        tokens.refresh(connection_id, **options)
    return caught.value


# --- what works -------------------------------------------------------------------------------------------------------------------


def test_a_refresh_stores_the_new_pair_and_says_how_long_it_is_good_for(rig: Rig, provider: Provider) -> None:
    """
    The channel takes what is stored afterwards, and the cluster knows the new expiry.
    """
    began = time.time()

    outcome = tokens.refresh(ONE)

    token = stored()
    assert (ONE, CHANNEL, "refreshed", 3600.0) == (outcome.connection_id, outcome.channel_type, outcome.status, outcome.lifetime)
    assert provider.accounts.who(token.access_token) == ONE
    assert provider.accounts.accepts(token.refresh_token)
    assert outcome.expires_at == token.expires_at == pytest.approx(began + 3600, abs=5)
    assert {ONE: TokenExpiry(outcome.expires_at, 3600.0)} == rig.facts.token_expiries()
    assert {} == rig.facts.refreshes()


def test_a_refresh_is_told_once_with_the_call_that_it_made(rig: Rig) -> None:
    """
    One event for the refresh, one for the request; nothing failed.
    """
    tokens.refresh(ONE)

    call, refreshed = rig.events
    assert ApiCallFinished(CHANNEL, "/oauth/token", "POST", "200", call.duration, "", ONE) == call
    assert (CHANNEL, ONE, "success", "") == (refreshed.channel_type, refreshed.connection_id, refreshed.status, refreshed.error)
    assert 0 < call.duration <= refreshed.duration < 5


@pytest.mark.parametrize(
    ("before", "end"),
    [
        pytest.param(lambda _: None, ("success", ""), id="well"),
        pytest.param(lambda provider: provider.accounts.revoke(ONE), ("refused", "TokenRefusedError"), id="refused"),
        pytest.param(lambda _: tokens.refresh(ONE), ("fresh", ""), id="fresh"),
        pytest.param(lambda _: stored_without_refresh_token(), ("abandoned", "NoTokenError"), id="none"),
    ],
)
def test_what_begins_ends_whatever_comes_of_it(rig: Rig, provider: Provider, before: Any, end: tuple[str, str]) -> None:
    """
    A refresh is a span's beginning and its end, with the call between them.
    """
    before(provider)
    traces, memory = observer()
    for event_type, hear in traces.subscriptions():
        rig.engine.hub.subscribe(event_type, hear)

    with contextlib.suppress(CeleryObsError):
        tokens.refresh(ONE)

    *calls, span = memory.spans()
    assert (f"refresh_token {CHANNEL}", end) == (
        span.name,
        (attributes_of(span)["channel.refresh_status"], attributes_of(span).get("error.type", "")),
    )
    assert all(call.parent == span.context for call in calls)


def test_two_hundred_at_once_ask_the_channel_once(rig: Rig, provider: Provider) -> None:
    """
    All get the result of the one that asks.
    """
    provider.faults.switch_on(Fault("slow", value=0.3, times=1))
    with ThreadPoolExecutor(200) as pool:
        outcomes = list(pool.map(lambda _: tokens.refresh(ONE), range(200)))

    assert 1 == provider.requests("/oauth/token")
    assert 1 == len({(outcome.expires_at, outcome.lifetime) for outcome in outcomes})
    assert {"refreshed", "fresh"} >= {outcome.status for outcome in outcomes}
    assert provider.accounts.accepts(stored().refresh_token)
    assert 1 == len(rig.refreshes)


def test_all_that_wait_get_the_error_of_the_one_that_asks(rig: Rig, provider: Provider) -> None:
    """
    A channel that is down is asked once, too, and counted once.
    """
    provider.faults.switch_on(Fault("slow", value=0.4, times=1))
    provider.accounts.revoke(ONE)
    with ThreadPoolExecutor(20) as pool:
        refusals = list(pool.map(lambda _: refusal(), range(20)))

    assert {tokens.TokenRefusedError} == {type(each) for each in refusals}
    assert 1 == len({str(each) for each in refusals})
    assert 1 == provider.requests("/oauth/token")
    assert 1 == len(rig.refreshes)


def test_who_comes_right_after_is_told_that_the_token_is_fresh(rig: Rig, provider: Provider) -> None:
    """
    A second message about one expiry costs no second refresh, unless the caller insists.
    """
    first = tokens.refresh(ONE)
    second = tokens.refresh(ONE)
    third = tokens.refresh(ONE, force=True)

    assert ["refreshed", "fresh", "refreshed"] == [first.status, second.status, third.status]
    assert first.expires_at == second.expires_at
    assert 2 == provider.requests("/oauth/token")


def test_after_a_while_a_token_is_not_fresh_any_more(redis_server: RedisServer, provider: Provider) -> None:
    """
    A minute later it is refreshed again.
    """
    clock = FakeClock()
    with rig_of(redis_server.url, token_url=provider.token_url, clock=clock) as rig:
        rig.connect(ONE, provider.accounts.authorize(ONE))
        tokens.refresh(ONE)
        clock.advance(tokens.FRESH + 1)

        assert "refreshed" == tokens.refresh(ONE).status


def test_a_channel_that_does_not_rotate_keeps_its_refresh_token(redis_server: RedisServer) -> None:
    """
    An answer without a refresh token leaves the old one in force.
    """
    with answering({"access_token": "at-2", "expires_in": "60"}) as (url, asked), rig_of(redis_server.url, token_url=url) as rig:
        rig.facts.register([Connection(ONE, CHANNEL)])
        tokens.store(ONE, Token(access_token="at-1", refresh_token=CANARY, scope="calendar"))

        tokens.refresh(ONE)

        assert ("at-2", CANARY, "calendar", 60.0) == (stored().access_token, stored().refresh_token, stored().scope, stored().lifetime)
    assert [f"grant_type=refresh_token&refresh_token={CANARY}"] == asked


@pytest.mark.parametrize(("said", "lifetime"), [(0, 3600), (-1, 3600), ("soon", 3600), (1e18, oauth.LONGEST_LIFETIME), ("120", 120)])
def test_a_strange_time_to_live_costs_no_token(rig: Rig, provider: Provider, said: object, lifetime: float) -> None:
    """
    What is no time to live counts as not said: the token is stored, and taken to be good for as long as the last one.
    """
    provider.faults.switch_on(Fault("expires_in", value=said))

    outcome = tokens.refresh(ONE)

    assert lifetime == outcome.lifetime
    assert provider.accounts.accepts(stored().refresh_token)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_client_says_who_it_is_where_the_channel_wants_it(redis_server: RedisServer, provider: Provider, method: str) -> None:
    """
    Both places work.
    """
    client = {
        "token_url": provider.token_url,
        "client_id": "demo-client",
        "client_secret": "demo-secret",
        "token_endpoint_auth_method": method,
    }
    with rig_of(redis_server.url, oauth_clients={CHANNEL: client}) as rig:
        rig.connect(ONE, provider.accounts.authorize(ONE))

        assert "refreshed" == tokens.refresh(ONE, force=True).status


# --- what fails -------------------------------------------------------------------------------------------------------------------


def test_a_token_that_the_channel_takes_no_more_puts_the_connection_into_error(rig: Rig, provider: Provider) -> None:
    """
    A revoked grant is for a person: not retryable, and the connection says so, until the customer has authorised again.
    """
    provider.accounts.revoke(ONE)

    error = refusal()

    assert isinstance(error, tokens.TokenRefusedError)
    assert not error.retryable
    assert "let the customer authorise again" in str(error)
    assert [("refused", "TokenRefusedError")] == [(event.status, event.error) for event in rig.refreshes]
    assert ConnectionErrored(CHANNEL, ONE) in rig.events
    assert ("error", {}) == (rig.facts.connections()[ONE].status, rig.facts.refreshes())

    rig.connect(ONE, provider.accounts.authorize(ONE))
    assert ("active", "refreshed") == (rig.facts.connections()[ONE].status, tokens.refresh(ONE).status)


def test_a_refresh_by_hand_that_works_ends_the_error(rig: Rig) -> None:
    """
    An operator who tries, and sees it work, has not to mend the connection's status, too.
    """
    rig.facts.set_status(ONE, "error")

    tokens.refresh(ONE)

    assert "active" == rig.facts.connections()[ONE].status


def test_who_was_replaced_does_not_spend_the_token_that_somebody_else_spends(
    rig: Rig, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A process that was not seen for a while asks whether it still leads before it asks the channel.
    """
    monkeypatch.setattr(tokens, "LEAD", 0.2)

    def lose_the_lead(point: str) -> None:
        if point == "intended":
            rig.redis.delete(keys.lock(f"token:{ONE}"))
            wait_until(lambda: lost, what="the leader to learn it")

    lost: list[object] = []
    monkeypatch.setattr(Flight, "lose", lambda flight: lost.append(flight._gone.set()))
    monkeypatch.setattr(tokens, "reached", lose_the_lead)

    with pytest.raises(FlightTimeoutError, match="taken over"):
        tokens.refresh(ONE)
    assert 0 == provider.requests("/oauth/token")


def test_the_clock_of_another_worker_may_be_ahead(redis_server: RedisServer, provider: Provider) -> None:
    """
    A token from the near future is fresh, too.
    """
    clock = FakeClock()
    with rig_of(redis_server.url, token_url=provider.token_url, clock=clock) as rig:
        rig.connect(ONE, provider.accounts.authorize(ONE))
        tokens.refresh(ONE)
        clock.advance(-5)

        assert "fresh" == tokens.refresh(ONE).status


def test_a_client_that_is_wrong_is_no_reason_to_bother_the_customer(redis_server: RedisServer, provider: Provider) -> None:
    """
    invalid_client is about the settings: the connection stays as it is.
    """
    client = {"token_url": provider.token_url, "client_id": "demo-client", "client_secret": "wrong-canary"}
    with rig_of(redis_server.url, oauth_clients={CHANNEL: client}) as rig:
        rig.connect(ONE, provider.accounts.authorize(ONE))
        error = refusal(force=True)

        assert isinstance(error, tokens.ClientRefusedError)
        assert "refuses our client (invalid_client)" in str(error)
        assert [] == secrets_in(texts_of(error), "wrong-canary")
        assert [("failure", "ClientRefusedError")] == [(event.status, event.error) for event in rig.refreshes]
        assert "active" == rig.facts.connections()[ONE].status


@pytest.mark.parametrize(
    ("fault", "kind", "said", "error_type"),
    [
        pytest.param(Fault("outage"), errors.ApiError, r"failed \(503\)", "server_error", id="503"),
        pytest.param(Fault("html"), errors.ApiError, "is not a JSON object", "server_error", id="HTML"),
        pytest.param(Fault("endless"), errors.ApiError, "more than 262144 bytes", "server_error", id="endless"),
        pytest.param(Fault("redirect"), errors.ApiError, r"redirects elsewhere \(307\)", "server_error", id="redirect loop"),
        pytest.param(Fault("drop"), errors.NetworkError, "cannot be reached", "network", id="dropped"),
        pytest.param(Fault("slow", value=30), errors.ApiTimeoutError, "did not answer within 0.5 s", "timeout", id="slow"),
        pytest.param(Fault("rate_limit", value=7), errors.RateLimitError, "too often", "rate_limit", id="429"),
    ],
)
def test_what_may_pass_is_retryable_and_told_without_the_answer(
    redis_server: RedisServer, fault: Fault, kind: type[errors.ChannelError], said: str, error_type: str
) -> None:
    """
    The error says what came instead of a token, no word of the body, and nothing is lost.
    """
    with Provider() as provider:
        client = {"token_url": provider.token_url, "client_id": "demo-client", "client_secret": "demo-secret", "timeout": 0.5}
        with rig_of(redis_server.url, oauth_clients={CHANNEL: client}) as rig:
            grant = provider.accounts.authorize(ONE)
            rig.connect(ONE, grant)
            provider.faults.switch_on(fault)
            began = time.monotonic()

            error = refusal(force=True)

            assert kind is type(error)
            assert isinstance(error, errors.ChannelError)
            assert error.retryable
            assert re.search(said, str(error))
            assert "\n" not in str(error)
            assert time.monotonic() - began < 3
            assert [] == secrets_in(texts_of(error), *grant[:2], "demo-secret")
            assert 1 == provider.requests("/oauth/token")
            assert [error_type] == [event.error_type for event in rig.events if isinstance(event, ApiCallFinished)]
            assert ["failure"] == [event.status for event in rig.refreshes]
            assert (7.0 if error_type == "rate_limit" else None) == error.retry_after
            provider.faults.clear()
            rig.redis.delete(keys.paused(TOKEN_GUARD))  # Seven seconds later.
            assert "refreshed" == tokens.refresh(ONE).status


def test_a_redirect_to_another_host_takes_no_secret_there(redis_server: RedisServer) -> None:
    """
    It is not followed.
    """
    with (
        answering({"access_token": "at-theirs"}) as (elsewhere, asked),
        answering(b"", status=302, headers={"Location": elsewhere}) as (url, _),
    ):
        with rig_of(redis_server.url, token_url=url) as rig:
            rig.facts.register([Connection(ONE, CHANNEL)])
            tokens.store(ONE, Token(access_token="at-1", refresh_token=CANARY))
            error = refusal()

        assert "is not followed" in str(error)
        assert [] == asked


BOMB = gzip.compress(b" " * 50_000_000)


class Response(NamedTuple):
    """
    What a channel answers.
    """

    body: object
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        pytest.param(Response([]), errors.ApiError, "not a JSON object", id="a list"),
        pytest.param(Response(b"[" * 200_000), errors.ApiError, "not a JSON object", id="a tower"),
        pytest.param(Response(b"\xff\x00"), errors.ApiError, "not a JSON object", id="bytes"),
        pytest.param(Response({}), errors.ApiError, "holds no token", id="nothing"),
        pytest.param(Response({"access_token": ""}), errors.ApiError, "holds no token", id="an empty token"),
        pytest.param(Response({"access_token": 5}), errors.ApiError, "holds no token", id="a number for a token"),
        pytest.param(
            Response({"access_token": "a", "refresh_token": [CANARY]}), errors.ApiError, "holds no token", id="a list for a token"
        ),
        pytest.param(Response(BOMB, 200, {"Content-Encoding": "gzip"}), errors.ApiError, "more than 262144 bytes", id="a bomb"),
        pytest.param(Response({"error": "invalid_grant"}), tokens.TokenRefusedError, "invalid_grant", id="refused with 200"),
        pytest.param(Response({"error": "server_error"}, 400), errors.ApiError, "cannot answer now", id="server_error"),
        pytest.param(Response({"error": CANARY}, 400), tokens.ClientRefusedError, "a code that OAuth2 does not have", id="their own code"),
        pytest.param(
            Response({"error": [CANARY]}, 400), tokens.ClientRefusedError, "a code that OAuth2 does not have", id="a list for a code"
        ),
        pytest.param(Response(b"<html>", 403), errors.AuthError, r"rejected our credentials \(403\)", id="a wall"),
        pytest.param(Response(b"<html>", 404), errors.ValidationError, r"does not take our request \(404\)", id="not there"),
        pytest.param(
            Response({"error": "invalid_grant", "error_description": f'the token "{CANARY}\n" is over'}, 400),
            tokens.TokenRefusedError,
            "invalid_grant",
            id="echo",
        ),
    ],
)
def test_an_answer_that_makes_no_sense_is_told_without_it(redis_server: RedisServer, answer: Response, kind: type, said: str) -> None:
    """
    Whatever comes, there is one error of a known class, which holds nothing of the answer and nothing of what we sent.
    """
    with answering(answer.body, status=answer.status, headers=answer.headers) as (url, _), rig_of(redis_server.url, token_url=url) as rig:
        rig.facts.register([Connection(ONE, CHANNEL)])
        tokens.store(ONE, Token(access_token="at-canary-1", refresh_token=CANARY))

        error = refusal()

        assert kind is type(error)
        assert re.search(said, str(error))
        assert [] == secrets_in(texts_of(error), CANARY, "at-canary-1", "demo-secret", "<html>")
        assert CANARY == stored().refresh_token


def test_a_channel_that_is_not_there_is_a_network_error(redis_server: RedisServer) -> None:
    """
    No server listens: that may pass.
    """
    with rig_of(redis_server.url, token_url=f"http://127.0.0.1:{free_port()}/oauth/token") as rig:
        rig.facts.register([Connection(ONE, CHANNEL)])
        tokens.store(ONE, Token(access_token="at-1", refresh_token=CANARY))
        error = refusal()

        assert errors.NetworkError is type(error)
        assert [] == secrets_in(texts_of(error), CANARY, "demo-secret")
        assert "none" == next(event.status_code for event in rig.events if isinstance(event, ApiCallFinished))


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n{"], ids=["headers", "body"]
)
def test_an_answer_that_comes_byte_by_byte_is_ended_in_time(redis_server: RedisServer, said: bytes) -> None:
    """
    Each byte comes soon enough, all of them never: the timeout is for the whole.
    """
    with dripping(said) as url:
        client = {"token_url": url, "client_id": "demo-client", "client_secret": "demo-secret", "timeout": 0.4}
        with rig_of(redis_server.url, oauth_clients={CHANNEL: client}) as rig:
            rig.facts.register([Connection(ONE, CHANNEL)])
            tokens.store(ONE, Token(access_token="at-1", refresh_token=CANARY))
            began = time.monotonic()

            error = refusal()

            assert errors.ApiTimeoutError is type(error)
            assert 0.3 < time.monotonic() - began < 3
            assert [] == secrets_in(texts_of(error), CANARY, "demo-secret")


def test_over_tls_the_channel_has_to_prove_itself_and_to_be_in_time(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A certificate that no authority vouches for is no channel; one that is vouched for has as long as any other.
    """
    authority = Authority(tmp_path)
    for vouched, kind in ((False, errors.NetworkError), (True, errors.ApiTimeoutError)):
        with dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", authority.issue("localhost")) as url:
            client = {"token_url": url, "client_id": "demo-client", "client_secret": "demo-secret", "timeout": 0.4}
            with rig_of(redis_server.url, oauth_clients={CHANNEL: client}) as rig:
                rig.facts.register([Connection(ONE, CHANNEL)])
                tokens.store(ONE, Token(access_token="at-1", refresh_token=CANARY))
                if vouched:
                    monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))

                error = refusal()

                assert kind is type(error)
                assert [] == secrets_in(texts_of(error), CANARY, "demo-secret")


def test_a_packed_answer_is_read(redis_server: RedisServer) -> None:
    """
    A channel that packs although we asked it not to is no reason to lose a token.
    """
    packed = gzip.compress(b'{"access_token": "at-2", "refresh_token": "rt-2", "expires_in": 60}')
    with answering(packed, headers={"Content-Encoding": "gzip"}) as (url, _), rig_of(redis_server.url, token_url=url) as rig:
        rig.facts.register([Connection(ONE, CHANNEL)])
        tokens.store(ONE, Token(access_token="at-1", refresh_token=CANARY))
        tokens.refresh(ONE)

        assert "rt-2" == stored().refresh_token


@pytest.mark.parametrize("connection_id", ["unknown", 'it\'s "quoted"\nand broken', "x" * 10_240, "", None, 7, ["conn-1"]])
def test_a_connection_that_nobody_knows_is_told_in_a_sentence(rig: Rig, provider: Provider, connection_id: Any) -> None:
    """
    Whatever stands for an id, the message is short, on one line, and says what is expected.
    """
    message = str(refusal(connection_id))

    assert re.search("There is no connection|The connection id", message)
    assert "Expected" in message
    assert "\n" not in message
    assert len(message) < 400
    assert 0 == provider.requests("/oauth/token")
    assert [] == rig.events


def test_an_id_may_be_anybodys_text(rig: Rig, provider: Provider) -> None:
    """
    Quotes, newlines and a hundred characters are an id as good as any once they are registered.
    """
    hostile = "o\"'\n\r\0 {}%s " * 60
    rig.connect(hostile, provider.accounts.authorize(hostile))

    assert "refreshed" == tokens.refresh(hostile).status


def test_without_a_token_there_is_nothing_to_refresh(rig: Rig) -> None:
    """
    The message says how it gets one.
    """
    rig.facts.register([Connection("new", CHANNEL)])

    assert "celery_obs.tokens.store()" in str(refusal("new"))


def test_a_channel_without_a_client_is_a_matter_of_settings(rig: Rig, provider: Provider) -> None:
    """
    The message names the setting and the channel.
    """
    rig.connect("other", provider.accounts.authorize("other"), channel="booking")

    error = refusal("other")

    assert isinstance(error, ConfigurationError)
    assert "oauth_clients has no client for the channel 'booking'; it has airbnb" in str(error)


def test_an_open_breaker_of_the_token_endpoint_keeps_it_from_being_asked(rig: Rig, provider: Provider) -> None:
    """
    The refresh fails as any call would, and may be tried again when the next probe is due.
    """
    Breakers(rig.redis).force_open(TOKEN_GUARD)

    error = refusal()

    assert isinstance(error, errors.CircuitOpenError)
    assert error.retryable
    assert 0 == provider.requests("/oauth/token")
    assert [("held_back", "CircuitOpenError")] == [(event.status, event.error) for event in rig.refreshes]
    assert {} == rig.facts.refreshes()


def test_a_pause_of_the_token_endpoint_holds_refreshes_back(rig: Rig, provider: Provider) -> None:
    """
    By an operator or a 429: the channel is not asked, and nothing of it has failed.
    """
    Pauses(rig.redis).pause(TOKEN_GUARD, actor="operator", reason="maintenance", seconds=60.0)

    error = refusal()

    assert isinstance(error, errors.RateLimitError)
    assert 0 == provider.requests("/oauth/token")
    assert [("held_back", "RateLimitError")] == [(event.status, event.error) for event in rig.refreshes]


def test_a_token_endpoint_that_is_down_opens_the_breaker(rig: Rig, provider: Provider) -> None:
    """
    Its failures count like those of other calls; a refused token says that the channel is well.
    """
    provider.faults.switch_on(Fault("outage"))
    seen = [type(refusal(force=True)) for _ in range(30)]

    assert errors.ApiError is seen[0]
    assert errors.CircuitOpenError is seen[-1]
    assert provider.requests("/oauth/token") == seen.count(errors.ApiError) < 30


def test_a_limit_that_is_reached_keeps_the_channel_from_being_asked(
    redis_server: RedisServer, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Refreshes are calls: the endpoint may have a limit of its own.
    """
    monkeypatch.setattr(tokens, "_RATE_LIMIT_WAIT", 0.0)
    limits = {TOKEN_GUARD: {"rate_limits": "1/3600s"}}
    with rig_of(redis_server.url, token_url=provider.token_url, channels=limits) as rig:
        rig.connect(ONE, provider.accounts.authorize(ONE))
        tokens.refresh(ONE, force=True)

        error = refusal(force=True)

        assert isinstance(error, errors.RateLimitError)
        assert error.retry_after is not None
        assert 1 == provider.requests("/oauth/token")
        assert {} == rig.facts.refreshes()
        assert ["success", "held_back"] == [event.status for event in rig.refreshes]


# --- what is kept -----------------------------------------------------------------------------------------------------------------


def everything_in(redis: Redis) -> Iterator[str]:
    """
    Go through all that Redis holds.
    """
    for key in redis.scan_iter():
        yield repr(key)
        yield repr(redis.dump(key))
        if redis.type(key) == b"hash":
            yield repr(redis.hgetall(key))


def test_no_secret_stands_in_redis_logs_or_events(rig: Rig, provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    """
    Neither the old pair nor the new one is found anywhere but encrypted, with every logger at its most talkative.
    """
    caplog.set_level(logging.DEBUG)
    old = stored()
    tokens.refresh(ONE)
    new = stored()
    provider.accounts.revoke(ONE)
    error = refusal(force=True)

    secrets = (old.access_token, old.refresh_token, new.access_token, new.refresh_token, "demo-secret", KEY)
    said = [record.getMessage() for record in caplog.records]
    texts = [
        *everything_in(rig.redis),
        *said,
        *map(repr, rig.events),
        repr(rig.engine.settings),
        repr(vars(rig.engine.settings)),
        repr((old, new)),
    ]
    assert said
    assert [] == secrets_in(iter(texts), *secrets)
    assert [] == secrets_in(texts_of(error), *secrets)


def test_a_copy_on_another_connection_is_refused(rig: Rig) -> None:
    """
    A token belongs to its connection: who can write to Redis cannot give it to another one.
    """
    rig.facts.register([Connection("thief", CHANNEL)])
    rig.redis.copy(keys.token(ONE), keys.token("thief"))

    error = refusal("thief")

    assert isinstance(error, tokens.TokenUnreadableError)
    assert "was made for another connection" in str(error)


@pytest.mark.parametrize("blob", [b"", b"nonsense", b"gAAAAA", b"\xff\xfe"])
def test_a_token_that_was_damaged_is_told_in_a_sentence(rig: Rig, blob: bytes) -> None:
    """
    The message says which setting to look at.
    """
    rig.redis.hset(keys.token(ONE), "blob", blob)

    assert "token_keys" in str(refusal())


def test_keys_are_changed_without_losing_a_token(rig: Rig) -> None:
    """
    A new key in front, everything encrypted anew, and the old key may go.
    """
    from cryptography.fernet import Fernet

    assert rig.engine.redis is not None
    new_key = Fernet.generate_key().decode()
    before = stored()
    rig.facts.register([Connection("damaged", CHANNEL), Connection("without", CHANNEL)])
    rig.redis.hset(keys.token("damaged"), "blob", b"nonsense")

    both = RedisTokens(rig.engine.redis, [new_key, KEY])
    rotation = both.rotate(sorted(rig.facts.connections()))

    assert (1, ("damaged",)) == rotation
    assert before == RedisTokens(rig.engine.redis, [new_key]).get(ONE)
    with pytest.raises(tokens.TokenUnreadableError):
        RedisTokens(rig.engine.redis, [KEY]).get(ONE)


def test_encrypting_anew_overwrites_no_token_that_was_refreshed_meanwhile(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Between the look and the write the refresh wins.
    """
    source = rig.engine.part(Tokens).source
    assert isinstance(source, RedisTokens)
    rotate = source._fernet.rotate

    def refresh_meanwhile(blob: bytes) -> bytes:
        tokens.refresh(ONE, force=True)
        return rotate(blob)

    monkeypatch.setattr(source._fernet, "rotate", refresh_meanwhile)
    before = stored()

    assert (0, ()) == tokens.rotate()
    assert before != stored()


def test_tokens_in_redis_need_a_key(redis_server: RedisServer) -> None:
    """
    Nothing is ever stored in clear: the message says how to make a key.
    """
    with rig_of(redis_server.url, token_keys=[]) as rig:
        rig.facts.register([Connection(ONE, CHANNEL)])
        with pytest.raises(ConfigurationError, match=r"Fernet\.generate_key"):
            tokens.store(ONE, Token(access_token="at-1"))


class Shelf:
    """
    A token source of the user's, which may fail for a while; what it says when it fails holds the token.
    """

    def __init__(self, failures: int = 0) -> None:
        self.tokens: dict[str, Token] = {}
        self.failures = failures

    def get(self, connection_id: str) -> Token | None:
        return self.tokens.get(connection_id)

    def put(self, connection_id: str, token: Token) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise LookupError(f"cannot store {token.refresh_token}")
        self.tokens[connection_id] = token


SHELF = Shelf()


def test_tokens_may_be_kept_in_a_place_of_the_users(redis_server: RedisServer, provider: Provider) -> None:
    """
    A place in a module is enough.
    """
    SHELF.failures = 0
    with rig_of(redis_server.url, token_url=provider.token_url, token_source=f"{__name__}:SHELF") as rig:
        rig.connect("shelved", provider.accounts.authorize("shelved"))
        tokens.refresh("shelved", force=True)

        assert provider.accounts.accepts(SHELF.tokens["shelved"].refresh_token)
        assert not rig.redis.exists(keys.token("shelved"))


def test_a_store_that_fails_for_a_moment_costs_no_token(redis_server: RedisServer, provider: Provider) -> None:
    """
    The new token is stored again and again, for the channel has taken the old one back.
    """
    shelf = Shelf()
    with rig_of(redis_server.url, token_url=provider.token_url, token_source=shelf) as rig:
        rig.connect(ONE, provider.accounts.authorize(ONE))
        shelf.failures = 3

        assert "refreshed" == tokens.refresh(ONE, force=True).status
        assert provider.accounts.accepts(shelf.tokens[ONE].refresh_token)


def test_a_token_that_cannot_be_stored_is_told_without_it(
    redis_server: RedisServer, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After a while it is an error that may be tried again, and the open refresh stays noted for the next scan.
    """
    monkeypatch.setattr(tokens, "_STORE_PATIENCE", 0.1)
    shelf = Shelf()
    with rig_of(redis_server.url, token_url=provider.token_url, token_source=shelf) as rig:
        rig.connect(ONE, provider.accounts.authorize(ONE))
        old, shelf.failures = shelf.tokens[ONE], 1000

        error = refusal(force=True)

        assert isinstance(error, tokens.TokenNotStoredError)
        assert error.retryable
        assert "(LookupError)" in str(error)
        assert [] == secrets_in(texts_of(error), old.refresh_token, "rt-", "cannot store")
        assert [ONE] == list(rig.facts.refreshes())


@pytest.mark.parametrize("place", ["tests.nowhere:SHELF", "tests.tokens:NOTHING", "json:loads", f"{__name__}:Shelf"])
def test_a_token_source_that_is_none_is_told_at_its_first_use(redis_server: RedisServer, place: str) -> None:
    """
    The message says what is there, and what is expected.
    """
    with rig_of(redis_server.url, token_source=place) as rig:
        rig.facts.register([Connection(ONE, CHANNEL)])
        with pytest.raises(ConfigurationError, match=r"token_source .* Expected"):
            tokens.get(ONE)


def test_without_redis_there_is_no_refresh() -> None:
    """
    Two processes could spend one refresh token, so that is refused with a sentence.
    """
    from celery_obs.areas.channels.engine import Engine
    from celery_obs.runtime.hub import ErrorReporter, Hub
    from celery_obs.settings import load

    engine = Engine(hub=Hub(on_error=ErrorReporter()), settings=load({}, {}, {"metrics_dir": "/nonexistent"}))

    with pytest.raises(ConfigurationError, match="Set redis_url"):
        Tokens(engine).refresh(ONE)


def test_when_redis_goes_away_after_the_token_is_stored_the_refresh_has_worked(
    rig: Rig, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What the cluster knows may be late; the error is counted and not the caller's.
    """
    counted: list[str] = []
    monkeypatch.setattr(rig.engine.hub, "on_error", lambda error, *, component: counted.append(component))

    def fail(*_: Any) -> None:
        raise RedisConnectionError("on purpose")

    monkeypatch.setattr(rig.engine.part(Tokens).facts, "token_stored", fail)

    assert "refreshed" == tokens.refresh(ONE).status
    assert ["sync.tokens"] == counted
    assert provider.accounts.accepts(stored().refresh_token)


def test_an_end_that_comes_from_outside_takes_nothing_along(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A time limit that strikes inside the libraries goes on as it is, without the frames that have seen the token.
    """

    class TimeLimit(Exception):  # noqa: N818 -- as Celery's.
        """
        What Celery raises into a task.
        """

    def strike(point: str) -> None:
        if point == "answered":
            try:
                raise LookupError(secret)
            except LookupError:
                raise TimeLimit from None

    secret = stored().refresh_token
    monkeypatch.setattr(tokens, "reached", strike)

    with pytest.raises(TimeLimit) as caught:
        tokens.refresh(ONE)

    assert [] == secrets_in(texts_of(caught.value), secret, "demo-secret")
    monkeypatch.undo()
    assert not rig.redis.exists(keys.lock(f"token:{ONE}"))


def test_the_eyes_of_these_tests_see_locals_and_causes() -> None:
    """
    A secret in a variable of a frame, or in the text of a cause, is found.
    """
    space: dict[str, Any] = {}
    program = (
        "def careless(kept):\n    try:\n        raise LookupError('caused by ' + kept)\n    except LookupError:\n        raise ValueError"
    )
    exec(compile(program, "careless.py", "exec"), space)  # noqa: S102 -- a frame that is not a test's.

    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- it has no text.
        space["careless"](CANARY)

    found = secrets_in(texts_of(caught.value), CANARY)
    assert {f"caused by {CANARY}", f"careless: kept={CANARY!r}"} <= set(found)
