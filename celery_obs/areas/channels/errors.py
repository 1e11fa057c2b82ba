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
    └── HeldBackError       we did not ask the channel: none of these is its failure        retryable
        ├── CircuitOpenError    the breaker is open
        └── LimitReachedError   our own rate limit is used up; a RateLimitError as well
    HeldBackTooLongError        a task was held back for longer than it may be              not retryable

    UnknownConnectionError  no connection of that name is registered; no channel's fault

What other exceptions are is told by `classify`, see `celery_obs.areas.channels.classification`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from celery_obs.exceptions import CeleryObsError
from celery_obs.telemetry.redaction import redact

from .api_calls.headers import RateLimitAnswer, header, rate_limit_answer, seconds_of
from .api_calls.metrics import ErrorType
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


__all__ = [
    "ApiError",
    "ApiTimeoutError",
    "AuthError",
    "ChannelError",
    "CircuitOpenError",
    "HeldBackError",
    "HeldBackTooLongError",
    "LimitReachedError",
    "NetworkError",
    "RateLimitAnswer",
    "RateLimitError",
    "UnknownConnectionError",
    "ValidationError",
    "classify",
    "classify_status",
    "describe",
    "header",
    "held_back",
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

        retry_after: Seconds until trying again may help; None where that is unknown.

    Since 0.1.
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

    Since 0.1.
    """


class AuthError(ChannelError):
    """
    The channel does not accept our credentials.

    Since 0.1.
    """

    error_type: ClassVar[ErrorType] = "auth"
    retryable: ClassVar[bool] = False


class RateLimitError(ChannelError):
    """
    We asked too often; *retry_after* says when to ask again.

    Since 0.1.
    """

    error_type: ClassVar[ErrorType] = "rate_limit"


class NetworkError(ChannelError):
    """
    No answer came.

    Since 0.1.
    """

    error_type: ClassVar[ErrorType] = "network"


class ApiTimeoutError(NetworkError):
    """
    No answer came in time.

    Since 0.1.
    """

    error_type: ClassVar[ErrorType] = "timeout"


class ValidationError(ChannelError):
    """
    The channel does not accept what we sent.

    Since 0.1.
    """

    error_type: ClassVar[ErrorType] = "validation"
    retryable: ClassVar[bool] = False


class HeldBackError(ChannelError):
    """
    We did not ask the channel, because of a rule of our own: a task that ends with it waits, and has not failed.

    Args:
        message, channel, retry_after: As in `ChannelError`.

        line: Name of the line in which those stand that come again; empty where there is none.

        spacing: Seconds between two of that line.

    Since 0.1.
    """

    error_type: ClassVar[ErrorType] = "circuit_breaker"

    def __init__(
        self,
        message: str,
        *,
        channel: str = "",
        status_code: int | None = None,
        retry_after: float | None = None,
        line: str = "",
        spacing: float = 0.0,
    ) -> None:
        super().__init__(message, channel=channel, status_code=status_code, retry_after=retry_after)
        self.line = line
        self.spacing = spacing


class CircuitOpenError(HeldBackError):
    """
    The breaker is open, so that the channel was not asked; *retry_after* says when the next probe is due.

    Since 0.1.
    """


class LimitReachedError(HeldBackError, RateLimitError):
    """
    Our own rate limit has no call left, or the channel said earlier how long it does not want to be called; the channel was not asked.

    Since 0.1.
    """

    error_type: ClassVar[ErrorType] = "rate_limit"


class UnknownConnectionError(CeleryObsError):
    """
    No connection of that name is registered.

    Since 0.1.
    """


class HeldBackTooLongError(ChannelError):
    """
    A task was held back for longer than the setting ``held_back_max_age`` says, and fails.

    Since 0.1.
    """

    error_type: ClassVar[ErrorType] = "timeout"
    retryable: ClassVar[bool] = False


# --- telling errors apart ---------------------------------------------------------------------------------------------------------


def is_retryable(error: BaseException) -> bool:
    """
    Tell whether trying again may help: never where the channel refused what we sent or who we are, and never for what is no failure of a channel.

    Of a group of exceptions every one has to be such that it may.

    Since 0.1.
    """
    return all(_may_pass(failure) for failure in failures_of(error))


def _may_pass(failure: Failure) -> bool:
    if isinstance(failure.error, ChannelError):
        return failure.error.retryable
    return failure.kind is not None and failure.kind not in FINAL


_DEEPEST: Final = 10


def held_back(error: BaseException | None) -> HeldBackError | None:
    """
    Return the refusal of our own that *error* is, or was raised from: then the channel was not asked.  None for everything else.

    Of a group, each member has to be one; the one with the longest wait is returned.

    Since 0.1.
    """
    for _ in range(_DEEPEST):
        if error is None or isinstance(error, HeldBackError):
            return error
        if isinstance(error, HeldBackTooLongError):
            return None
        members = getattr(error, "exceptions", None)
        if isinstance(members, tuple) and members:
            found = [held_back(each) if isinstance(each, BaseException) else None for each in members]
            refusals = [each for each in found if each is not None]
            return max(refusals, key=lambda each: each.retry_after or 0.0) if len(refusals) == len(found) else None
        error = error.__cause__
    return None


# --- saying what happened ---------------------------------------------------------------------------------------------------------

_LONGEST_READ: Final = 2000
_LONGEST_SHOWN: Final = 300


def describe(error: object) -> tuple[str, str]:
    """
    Return the class name of an error, and its text: on one line, shortened, without passwords and tokens as far as they can be told.

    A text alone is a *SyncFailed*.

    Since 0.1.
    """
    name = type(error).__name__ if isinstance(error, BaseException) else "SyncFailed"
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 -- a user's __str__.
        return name, ""
    text = " ".join(text[:_LONGEST_READ].split())
    text = redact(text)
    return name, text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
