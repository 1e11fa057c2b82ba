"""
API calls: what they are counted as, who is asked before, and what the breaker hears.
"""

from __future__ import annotations

import json

from typing import Any

import httpx
import pytest

from celery_obs.areas.channels.api_calls.api import api_call
from celery_obs.areas.channels.api_calls.events import ApiCallFinished, EndpointFolded
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.errors import (
    ApiError,
    ApiTimeoutError,
    AuthError,
    CircuitOpenError,
    NetworkError,
    RateLimitError,
    ValidationError,
)
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.areas.sidecar.events import ObservationDropped


class Guards:
    """
    A breaker and a limiter that say what a test has them say.
    """

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.denial: Exception | None = None
        self.recorded: list[bool | None] = []
        self.acquired: list[tuple[str, str, float]] = []

    def allow(self, channel: str, **_: str) -> str:
        if self.refusal is not None:
            raise self.refusal
        return channel

    def record(self, permit: str, *, ok: bool | None, duration: float | None = None) -> None:
        assert "airbnb" == permit
        self.recorded.append(ok)

    def acquire(self, channel: str, connection_id: str = "", *, wait: float = 0.0, cost: int = 1) -> None:
        self.acquired.append((channel, connection_id, wait))
        if self.denial is not None:
            raise self.denial


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Guards:
    """
    The breaker and the limiter of this test.
    """
    made = Guards()
    monkeypatch.setattr(circuit_breaker, "allow", made.allow)
    monkeypatch.setattr(circuit_breaker, "record", made.record)
    monkeypatch.setattr(rate_limiter, "acquire", made.acquire)
    return made


def calls(heard: list[Any]) -> list[tuple[str, str, str, str]]:
    """
    Return endpoint, method, status and error of the calls that ended.
    """
    return [(event.endpoint, event.method, event.status_code, event.error_type) for event in heard if isinstance(event, ApiCallFinished)]


def test_a_call_is_told_with_its_answer(heard: list[Any], guards: Guards) -> None:
    """
    One event a call: which route, which status, how long until the headers.
    """
    with api_call("airbnb", "/listings/{id}", "get", connection_id="c-1", wait=2.0) as call:
        call.response(200)

    (event,) = heard
    assert ("airbnb", "/listings/{id}", "GET", "200", "", "c-1") == (*event[:4], event.error_type, event.connection_id)
    assert 0.0 <= event.duration < 5.0
    assert ([("airbnb", "c-1", 2.0)], [True]) == (guards.acquired, guards.recorded)


@pytest.mark.parametrize(
    ("status", "kind", "is_well", "raised"),
    [
        (204, "", True, None),
        (302, "", True, None),
        (400, "validation", True, ValidationError),
        (401, "auth", True, AuthError),
        (403, "auth", True, AuthError),
        (404, "validation", True, ValidationError),
        (408, "timeout", False, ApiTimeoutError),
        (409, "validation", True, ValidationError),
        (422, "validation", True, ValidationError),
        (429, "rate_limit", None, RateLimitError),
        (500, "server_error", False, ApiError),
        (503, "server_error", False, ApiError),
    ],
)
def test_a_status_tells_what_went_wrong_and_whether_the_channel_is_well(
    heard: list[Any], guards: Guards, *, status: int, kind: str, is_well: bool | None, raised: type[Exception] | None
) -> None:
    """
    A channel that refuses us has answered, so that its breaker stays closed; 429 says nothing either way.
    """
    with api_call("airbnb", "/x", "GET") as call:
        call.response(status, headers={} if status == 403 else {"retry-after": "7"})

    assert ([("/x", "GET", str(status), kind)], [is_well]) == (calls(heard), guards.recorded)
    if raised is None:
        call.raise_for_status()
        return
    with pytest.raises(raised) as caught:
        call.raise_for_status()
    assert (status, None if status == 403 else 7.0) == (caught.value.status_code, caught.value.retry_after)  # type: ignore[attr-defined]  # our tree.


@pytest.mark.parametrize(
    ("error", "told", "expected", "is_well"),
    [
        (httpx.ReadTimeout("no"), None, ("none", "timeout"), False),
        (httpx.ConnectError("no"), None, ("none", "network"), False),
        (httpx.TooManyRedirects("no"), 302, ("302", "server_error"), False),
        (NetworkError("no"), None, ("none", "network"), False),
        (AuthError("no"), None, ("none", "auth"), True),
        (json.JSONDecodeError("no", "<html>", 0), 200, ("200", "server_error"), False),
        (ValueError("a bug"), 200, ("200", ""), True),
        (ValueError("a bug"), 503, ("503", "server_error"), False),
        (ValueError("a bug"), None, ("none", ""), None),
        (KeyboardInterrupt(), None, ("none", ""), None),
        (
            httpx.HTTPStatusError("no", request=httpx.Request("GET", "http://x"), response=httpx.Response(401)),
            None,
            ("401", "auth"),
            True,
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_the_block_raises_tells_too_and_goes_on(
    heard: list[Any], guards: Guards, *, error: BaseException, told: int | None, expected: tuple[str, str], is_well: bool | None
) -> None:
    """
    A failure of the channel's is its kind; a bug of the caller's is no failure of a call, and the breaker hears nothing of it.
    """

    def ask() -> None:
        with api_call("airbnb", "/x", "GET") as call:
            if told is not None:
                call.response(told)
            raise error

    with pytest.raises(type(error)) as caught:
        ask()

    assert error is caught.value
    assert ([("/x", "GET", *expected)], [is_well]) == (calls(heard), guards.recorded)


def test_an_open_breaker_stops_the_call(heard: list[Any], guards: Guards) -> None:
    """
    The block is not entered, the limiter is not asked, and the call counts as one that was not made.
    """
    guards.refusal = CircuitOpenError("open", retry_after=30.0)

    with pytest.raises(CircuitOpenError), api_call("airbnb", "/x", "GET"):
        pytest.fail("The block was entered.")

    assert ([("/x", "GET", "none", "circuit_breaker")], [], []) == (calls(heard), guards.recorded, guards.acquired)


def test_the_limiter_stops_the_call_and_the_breaker_gets_its_permit_back(heard: list[Any], guards: Guards) -> None:
    """
    A probe that was let through and then denied by the limiter must not hold up the next one.
    """
    guards.denial = RateLimitError("slowly", retry_after=2.0)

    with pytest.raises(RateLimitError), api_call("airbnb", "/x", "GET"):
        pytest.fail("The block was entered.")

    assert ([], [None]) == (calls(heard), guards.recorded)


def test_a_path_with_ids_is_folded_and_told(heard: list[Any], guards: Guards) -> None:
    """
    Each call that had to be folded says so.
    """
    with api_call("airbnb", "/listings/42?token=hush", "GET") as call:
        call.response(200)

    assert [EndpointFolded("airbnb")] == [event for event in heard if isinstance(event, EndpointFolded)]
    assert [("/listings/{id}", "GET", "200", "")] == calls(heard)


@pytest.mark.parametrize("status", ["200", None, 0, -1, 10_000, 200.0])
def test_a_status_that_is_none_is_left_out_and_told(heard: list[Any], guards: Guards, status: Any) -> None:
    """
    A bad status costs the status, not the call.
    """
    with api_call("airbnb", "/x", "BREW") as call:
        call.response(status)

    assert [("/x", "_other", "none", "")] == calls(heard)
    assert ObservationDropped("bad_value") in heard


def test_without_setup_a_call_is_a_block() -> None:
    """
    Library code may make calls in programs that never set us up.
    """
    with api_call("airbnb", "/x", "GET") as call:
        call.response(200)

    call.raise_for_status()


def test_a_refusal_of_our_own_inside_the_block_is_nothing_that_the_channel_said(
    heard: list[Any], guards: Guards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The limiter learns from answers, not from itself.
    """
    taught: list[Any] = []
    monkeypatch.setattr(rate_limiter, "learn", lambda *args, **told: taught.append(told), raising=False)

    def ask(*, status: int | None) -> None:
        with api_call("airbnb", "/x", "GET"):
            raise RateLimitError("slowly", status_code=status, retry_after=7.0)

    for status in (None, 429):
        with pytest.raises(RateLimitError):
            ask(status=status)

    assert [{"remaining": None, "reset_after": None, "retry_after": 7.0}] == taught
