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

What other exceptions are is told by `classify`, see `celery_obs.sync.classification`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from celery_obs.exceptions import CeleryObsError
from celery_obs.redaction import mask
from celery_obs.vocabulary.api_calls import ErrorType

from .classification import (
    FINAL,
    Failure,
    classify,
    classify_status,
    failures_of,
    rate_limit_of,
    register_client_error,
    retry_after,
    status_of,
)
from .headers import RateLimitAnswer, header, rate_limit_answer, seconds_of


__all__ = [
    "ApiError",
    "ApiTimeoutError",
    "AuthError",
    "ChannelError",
    "CircuitOpenError",
    "NetworkError",
    "RateLimitAnswer",
    "RateLimitError",
    "UnknownConnectionError",
    "ValidationError",
    "classify",
    "classify_status",
    "describe",
    "header",
    "is_retryable",
    "rate_limit_answer",
    "rate_limit_of",
    "register_client_error",
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


def is_retryable(error: BaseException) -> bool:
    """
    Tell whether trying again may help: never where the channel refused what we sent or who we are, and never for what is no failure of a channel.

    Of a group of exceptions every one has to be such that it may.
    """
    return all(_may_pass(failure) for failure in failures_of(error))


def _may_pass(failure: Failure) -> bool:
    if isinstance(failure.error, ChannelError):
        return failure.error.retryable
    return failure.kind is not None and failure.kind not in FINAL


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
