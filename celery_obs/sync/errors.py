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
"""

from __future__ import annotations

import re

from typing import ClassVar, Final

from celery_obs.exceptions import CeleryObsError
from celery_obs.settings import mask
from celery_obs.vocabulary.api_calls import ErrorType


__all__ = [
    "ApiError",
    "ApiTimeoutError",
    "AuthError",
    "ChannelError",
    "CircuitOpenError",
    "NetworkError",
    "RateLimitError",
    "ValidationError",
    "describe",
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


# --- saying what happened ---------------------------------------------------------------------------------------------------------

_CREDENTIALS: Final = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]+", re.IGNORECASE)
_FIELDS: Final = re.compile(
    r"""((?:[\w-]*(?:token|secret|password|passwd|api[_-]?key|credential|signature)[\w-]*|authorization)["']?\s*[:=]\s*["']?)[^\s"',;&}\])]+""",
    re.IGNORECASE,
)
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
    text = _FIELDS.sub(r"\1***", _CREDENTIALS.sub(r"\1 ***", mask(text)))
    return name, text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
