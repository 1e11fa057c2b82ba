"""
What can go wrong with a channel, as one small tree; each class knows whether trying again can help.

::

    ChannelError
    ├── ApiError            the channel failed (5xx, or an answer that makes no sense)      retryable
    ├── AuthError           it does not accept our token, or took it back                   not retryable
    ├── RateLimitError      we asked too often; says when to ask again                      retryable
    ├── NetworkError        no answer came                                                  retryable
    │   └── ApiTimeoutError     not in time                                                 retryable
    ├── ValidationError     it does not accept what we sent (4xx)                           not retryable
    └── CircuitOpenError    the breaker is open, the channel was not asked                  retryable

    UnknownConnectionError  nobody registered a connection of that name; no channel's fault
"""

from __future__ import annotations

import json
import math

from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final

from celery_obs.clock import Clock, wall
from celery_obs.exceptions import CeleryObsError
from celery_obs.redaction import mask
from celery_obs.vocabulary.api_calls import ErrorType


__all__ = [
    "ApiError",
    "ApiTimeoutError",
    "AuthError",
    "ChannelError",
    "CircuitOpenError",
    "NetworkError",
    "RateLimitError",
    "UnknownConnectionError",
    "ValidationError",
    "classify",
    "classify_status",
    "describe",
    "header",
    "is_retryable",
    "retry_after",
    "seconds_of",
    "status_of",
]


class ChannelError(CeleryObsError):
    """
    Something went wrong between us and a channel.

    Args:
        message: What was expected, what came, and what to do; never a token or a body.

        channel: The channel; empty where unknown.

        status_code: Of the answer; None without one.

        retry_after: Seconds until trying again may help; None where nobody said.
    """

    error_type: ClassVar[ErrorType] = "server_error"
    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, channel: str = "", status_code: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.channel = channel
        self.status_code = status_code
        self.retry_after = retry_after


class ApiError(ChannelError):
    """
    The channel failed: a 5xx, or an answer that makes no sense.
    """


class AuthError(ChannelError):
    """
    The channel does not accept our credentials.
    """

    error_type: ClassVar[ErrorType] = "auth"
    retryable: ClassVar[bool] = False


class RateLimitError(ChannelError):
    """
    We asked too often; *retry_after* says when to ask again.
    """

    error_type: ClassVar[ErrorType] = "rate_limit"


class NetworkError(ChannelError):
    """
    No answer came.
    """

    error_type: ClassVar[ErrorType] = "network"


class ApiTimeoutError(NetworkError):
    """
    No answer came in time.
    """

    error_type: ClassVar[ErrorType] = "timeout"


class ValidationError(ChannelError):
    """
    The channel does not accept what we sent.
    """

    error_type: ClassVar[ErrorType] = "validation"
    retryable: ClassVar[bool] = False


class CircuitOpenError(ChannelError):
    """
    The breaker is open, so that the channel was not asked; *retry_after* says when the next probe is due.
    """

    error_type: ClassVar[ErrorType] = "circuit_breaker"


class UnknownConnectionError(CeleryObsError):
    """
    Nobody registered a connection of that name.
    """


# --- telling errors apart ---------------------------------------------------------------------------------------------------------

_FINAL: Final[frozenset[ErrorType]] = frozenset({"auth", "validation"})
_UNREACHABLE: Final = frozenset({100, 101, 110, 111, 112, 113})  # errno of networks and hosts that are down or out of reach, on Linux.

_BY_STATUS: Final[dict[int, ErrorType]] = {401: "auth", 403: "auth", 407: "auth", 408: "timeout", 429: "rate_limit"}

_BY_CLASS: Final[dict[tuple[str, str], ErrorType]] = {
    ("httpx", "TimeoutException"): "timeout",
    ("httpx", "UnsupportedProtocol"): "validation",
    ("httpx", "TransportError"): "network",
    ("httpx", "TooManyRedirects"): "server_error",
    ("httpx", "DecodingError"): "server_error",
    ("httpx", "InvalidURL"): "validation",
    ("requests", "Timeout"): "timeout",
    ("requests", "InvalidURL"): "validation",
    ("requests", "MissingSchema"): "validation",
    ("requests", "InvalidSchema"): "validation",
    ("requests", "TooManyRedirects"): "server_error",
    ("requests", "ContentDecodingError"): "server_error",
    ("requests", "InvalidJSONError"): "server_error",
    ("requests", "RequestException"): "network",
    ("urllib3", "TimeoutError"): "timeout",
    ("urllib3", "LocationValueError"): "validation",
    ("urllib3", "HTTPError"): "network",
    ("urllib", "URLError"): "network",
    ("http", "HTTPException"): "network",
    ("aiohttp", "ServerTimeoutError"): "timeout",
    ("aiohttp", "ClientPayloadError"): "server_error",
    ("aiohttp", "ClientError"): "network",
    ("asyncio", "TimeoutError"): "timeout",
    ("concurrent", "TimeoutError"): "timeout",
    ("socket", "gaierror"): "network",
    ("socket", "herror"): "network",
    ("ssl", "SSLError"): "network",
}
"""
What a class of a client means, by its package and name: none of them has to be installed.
"""


def classify(error: BaseException) -> ErrorType | None:
    """
    Tell what kind of failure of a channel *error* is; None for one that is none, such as a bug.

    Known are our own tree, httpx, requests, urllib3, aiohttp, the standard library's, and whatever carries a response with a status code.
    An answer that cannot be read, HTML in place of JSON for one, is the channel's failure: *server_error*.
    """
    if isinstance(error, ChannelError):
        return error.error_type
    code = status_of(error)
    if code is not None:
        return classify_status(code) or "server_error"
    for kind in type(error).__mro__:
        known = _BY_CLASS.get((kind.__module__.partition(".")[0], kind.__name__))
        if known is not None:
            return known
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionError) or (isinstance(error, OSError) and error.errno in _UNREACHABLE):
        return "network"
    return "server_error" if isinstance(error, json.JSONDecodeError) else None


def classify_status(code: int) -> ErrorType | None:
    """
    Tell what kind of failure an HTTP status is; None for those below 400.
    """
    if code < 400:  # noqa: PLR2004 -- where HTTP's errors begin.
        return None
    return _BY_STATUS.get(code) or ("validation" if code < 500 else "server_error")  # noqa: PLR2004 -- where the server's begin.


def is_retryable(error: BaseException) -> bool:
    """
    Tell whether trying again may help: never where the channel refused what we sent or who we are, and never for what is no failure of a channel.
    """
    if isinstance(error, ChannelError):
        return error.retryable
    kind = classify(error)
    return kind is not None and kind not in _FINAL


def retry_after(error: BaseException, *, clock: Clock = wall) -> float | None:
    """
    Return the seconds after which the channel, or our own limiter or breaker, said that trying again may help; None where nobody did.
    """
    if isinstance(error, ChannelError):
        return error.retry_after
    headers = getattr(getattr(error, "response", None), "headers", None)
    return seconds_of(header(headers, "Retry-After"), clock=clock)


_LONGEST_HEADER: Final = 64
_LONGEST_AFTER: Final = 86400.0


def seconds_of(value: object, *, clock: Clock = wall) -> float | None:
    """
    Read the value of a ``Retry-After`` header: seconds, or an HTTP date.

    What makes no sense is None; a date that is over is 0, and more than a day is a day.
    """
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str) or len(value) > _LONGEST_HEADER:
        return None
    try:
        seconds = float(value) if value.strip()[:1].isdigit() else parsedate_to_datetime(value).timestamp() - clock()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), _LONGEST_AFTER)


def header(headers: Any, name: str) -> object:
    """
    Look *name* up in whatever a client calls headers, which may not be there.
    """
    try:
        return None if headers is None else headers.get(name) or headers.get(name.lower())
    except (AttributeError, TypeError):
        return None


def status_of(error: object) -> int | None:
    """
    Return the status code of the answer that *error* is about; clients call it by several names.
    """
    response = getattr(error, "response", None)
    for found in (getattr(response, "status_code", None), getattr(error, "code", None), getattr(error, "status", None)):
        if type(found) is int and 400 <= found < 1000:  # noqa: PLR2004 -- the status codes that are errors.
            return found
    return None


# --- saying what happened ---------------------------------------------------------------------------------------------------------

_LONGEST_READ: Final = 2000
_LONGEST_SHOWN: Final = 300


def describe(error: object) -> tuple[str, str]:
    """
    Return the class name of an error, and its text: on one line, shortened, without passwords and tokens as far as they can be told.

    A text alone is a *SyncFailed*.
    """
    name = type(error).__name__ if isinstance(error, BaseException) else "SyncFailed"
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 -- anybody's __str__.
        return name, ""
    text = " ".join(text[:_LONGEST_READ].split())
    text = mask(text)
    return name, text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
