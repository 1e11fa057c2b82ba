"""
Telling errors apart: whose fault it is, and whether trying again helps.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import json
import pickle
import socket
import ssl
import urllib.error

from email.message import Message
from email.utils import formatdate

import httpx
import pytest
import requests

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.api_calls.metrics import ERROR_TYPES
from celery_obs.areas.channels.errors import (
    ApiError,
    ApiTimeoutError,
    AuthError,
    ChannelError,
    CircuitOpenError,
    NetworkError,
    RateLimitError,
    ValidationError,
    classify,
    classify_status,
    is_retryable,
    retry_after,
    seconds_of,
)
from celery_obs.testing import FakeClock


REQUEST = httpx.Request("GET", "http://channel.test/")


def answered(code: int, **headers: str) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(code, headers=headers, request=REQUEST))


def answered_to_requests(code: int, **headers: str) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = code
    response.headers.update(headers)
    return requests.HTTPError("no", response=response)


KNOWN = [
    (ApiError("no"), "server_error", True),
    (AuthError("no"), "auth", False),
    (RateLimitError("no"), "rate_limit", True),
    (NetworkError("no"), "network", True),
    (ApiTimeoutError("no"), "timeout", True),
    (ValidationError("no"), "validation", False),
    (CircuitOpenError("no"), "circuit_breaker", True),
    (httpx.ConnectTimeout("no"), "timeout", True),
    (httpx.PoolTimeout("no"), "timeout", True),
    (httpx.ConnectError("no"), "network", True),
    (httpx.RemoteProtocolError("no"), "network", True),
    (httpx.TooManyRedirects("no"), "server_error", True),
    (httpx.UnsupportedProtocol("no"), "validation", False),
    (answered(401), "auth", False),
    (answered(429), "rate_limit", True),
    (answered(503), "server_error", True),
    (answered_to_requests(403), "auth", False),
    (answered_to_requests(422), "validation", False),
    (requests.ConnectTimeout("no"), "timeout", True),
    (requests.ReadTimeout("no"), "timeout", True),
    (requests.ConnectionError("no"), "network", True),
    (requests.TooManyRedirects("no"), "server_error", True),
    (requests.exceptions.JSONDecodeError("no", "<html>", 0), "server_error", True),
    (requests.exceptions.MissingSchema("no"), "validation", False),
    (urllib.error.HTTPError("http://channel.test/", 500, "no", Message(), None), "server_error", True),
    (urllib.error.URLError("no"), "network", True),
    (json.JSONDecodeError("no", "<html>", 0), "server_error", True),
    (TimeoutError("no"), "timeout", True),
    (asyncio.TimeoutError("no"), "timeout", True),
    (concurrent.futures.TimeoutError("no"), "timeout", True),
    (ConnectionResetError("no"), "network", True),
    (OSError(errno.EHOSTUNREACH, "no"), "network", True),
    (socket.gaierror("no"), "network", True),
    (ssl.SSLError("no"), "network", True),
]


@pytest.mark.parametrize(
    ("error", "kind", "retryable"), KNOWN, ids=[f"{n} {type(error).__name__}" for n, (error, _, _) in enumerate(KNOWN)]
)
def test_what_clients_raise_has_a_kind(error: Exception, kind: str, retryable: bool) -> None:
    """
    Whatever client an application uses, its errors are told apart alike.
    """
    assert (kind, retryable) == (classify(error), is_retryable(error))


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), FileNotFoundError("a bug"), MemoryError()])
def test_what_no_channel_did_has_none(error: BaseException) -> None:
    """
    A bug of the application is its own failure, and trying again does not mend it.
    """
    assert (None, False) == (classify(error), is_retryable(error))


@given(code=st.integers(-1000, 2000))
def test_every_status_has_at_most_one_kind(code: int) -> None:
    """
    All codes from 400 on are failures of some kind, and none below is.
    """
    kind = classify_status(code)

    assert (kind is not None) == (code >= 400)
    assert kind is None or kind in ERROR_TYPES


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        (b"7", 7.0),
        ("-3", None),
        ("soon", None),
        ("", None),
        (None, None),
        (7, None),
        ("9" * 60, 86400.0),
        ("9" * 10_000, None),
        ("1e400", 86400.0),
        (formatdate(1030, usegmt=True), 30.0),
        (formatdate(10, usegmt=True), 0.0),
        ("Thu, 32 Foo 2026 99:99:99 GMT", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_retry_after_is_seconds_or_a_date(value: object, expected: float | None) -> None:
    """
    Both forms of the header are read, what makes no sense is nothing, and no channel stops us for more than a day.
    """
    assert expected == seconds_of(value, clock=FakeClock(1000.0))


@given(value=st.text(max_size=80) | st.binary(max_size=80))
def test_no_header_breaks_the_reading_of_it(value: str | bytes) -> None:
    """
    Whatever a channel sends, it is a number of seconds within a day, or nothing.
    """
    seconds = seconds_of(value)

    assert seconds is None or 0 <= seconds <= 86400


def test_an_error_tells_when_to_ask_again() -> None:
    """
    Ours say it themselves; those of clients carry the channel's header.
    """
    assert 7.0 == retry_after(RateLimitError("no", retry_after=7.0))
    assert 7.0 == retry_after(answered(429, **{"Retry-After": "7"}))
    assert 7.0 == retry_after(answered_to_requests(429, **{"Retry-After": "7"}))
    assert retry_after(ValueError("no")) is None


def test_our_errors_travel_between_processes() -> None:
    """
    A pool child hands its exception to the main process, whole.
    """
    error = pickle.loads(pickle.dumps(RateLimitError("no", channel="airbnb", status_code=429, retry_after=7.0)))  # noqa: S301 -- our own.

    assert isinstance(error, ChannelError)
    assert ("no", "airbnb", 429, 7.0) == (str(error), error.channel, error.status_code, error.retry_after)
