"""
Telling errors apart: what kind of failure of a channel an exception is, whichever client raised it.

The rows that say so are data: those of `celery_obs.areas.channels.failures`, those of the setting ``client_errors``, and those that the program adds
with `register_client_error`.
"""

from __future__ import annotations

import math
import re
import warnings

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from celery_obs.clock import Clock, wall

from . import engine as engines
from .api_calls.headers import RateLimitAnswer, about_limits, rate_limit_answer
from .api_calls.metrics import ErrorType
from .failures import ANY_ERROR, CLIENTS, ClientError, client_error, followed


__all__ = [
    "FINAL",
    "Failure",
    "classify",
    "classify_status",
    "failures_of",
    "rate_limit_of",
    "register_client_error",
    "retry_after",
    "status_of",
]


FINAL: Final[frozenset[ErrorType]] = frozenset({"auth", "validation"})
"""
Kinds with which trying again does not help.
"""

_UNREACHABLE: Final = frozenset({100, 101, 110, 111, 112, 113})  # errno of networks and hosts that are down or out of reach, on Linux.
_BY_STATUS: Final[dict[int, ErrorType]] = {401: "auth", 403: "auth", 407: "auth", 408: "timeout", 420: "rate_limit", 429: "rate_limit"}
_WORST_FIRST: Final[tuple[ErrorType, ...]] = ("auth", "validation", "rate_limit", "server_error", "timeout", "network", "circuit_breaker")
_DEEPEST: Final = 16
_MOST: Final = 100


class Failure(NamedTuple):
    """
    What one exception is.

    Attributes:
        error: The exception that told: the one that was asked about, or one that it wraps or was caused by.

        kind: What kind of failure; None for one that is not a failure of a channel, such as a bug.

        status: The HTTP status of the answer; None without one.

        headers: Those of the answer's headers that may say something about a rate limit, by their names in lower case.

        retry_after: Seconds that the exception itself tells.
    """

    error: BaseException
    kind: ErrorType | None
    status: int | None = None
    headers: Mapping[str, str] = {}
    retry_after: float | None = None


# --- what is asked ----------------------------------------------------------------------------------------------------------------


def classify(error: BaseException) -> ErrorType | None:
    """
    Tell what kind of failure of a channel *error* is; None for another error, such as a bug.

    Consulted are, in this order: the row of its class, a status code that it carries, the exception that it wraps, and the one that it was raised from.
    Of a group of exceptions, the kind for which a retry helps least counts.
    An answer that cannot be read, HTML in place of JSON for one, is the channel's failure: *server_error*.

    Since 0.1.
    """
    kinds = {failure.kind for failure in failures_of(error)}
    return next((kind for kind in _WORST_FIRST if kind in kinds), None)


def classify_status(code: int, headers: Any = None) -> ErrorType | None:
    """
    Tell what kind of failure an HTTP status is; None for those below 400.

    Args:
        code: The status.

        headers: Of the answer.  A 403 that says when to ask again, or that nothing is left of a limit, is a rate limit's.

    Since 0.1.
    """
    if code < 400:  # noqa: PLR2004 -- where HTTP's errors begin.
        return None
    if code == 403 and headers is not None and _is_limit(rate_limit_answer(headers)):  # noqa: PLR2004 -- as GitHub answers.
        return "rate_limit"
    return _BY_STATUS.get(code) or ("validation" if code < 500 else "server_error")  # noqa: PLR2004 -- where the server's begin.


def _is_limit(answer: RateLimitAnswer) -> bool:
    return answer.retry_after is not None or answer.remaining == 0


def status_of(error: object) -> int | None:
    """
    Return the status code of the answer that *error* is about, wherever its client keeps it.

    Since 0.1.
    """
    found = failures_of(error) if isinstance(error, BaseException) else ()
    return next((failure.status for failure in found if failure.status is not None), None)


def rate_limit_of(error: BaseException, *, clock: Clock = wall) -> RateLimitAnswer:
    """
    Return what the answer that *error* is about said about its rate limit; of a group, the longest that one has to wait.

    Since 0.1.
    """
    answers = [_answer(failure, clock) for failure in failures_of(error)]
    return max(answers, key=lambda each: (each.retry_after or 0.0, each.reset_after or 0.0), default=RateLimitAnswer())


def _answer(failure: Failure, clock: Clock) -> RateLimitAnswer:
    answer = rate_limit_answer(failure.headers, clock=clock)
    return answer if failure.retry_after is None else answer._replace(retry_after=failure.retry_after)


def retry_after(error: BaseException, *, clock: Clock = wall) -> float | None:
    """
    Return the seconds after which the channel, or our own limiter or breaker, said that trying again may help; None where nothing was said.

    An answer without ``Retry-After`` that says that nothing is left of its limit says when that begins anew.

    Since 0.1.
    """
    answer = rate_limit_of(error, clock=clock)
    if answer.retry_after is None and answer.remaining == 0:
        return answer.reset_after
    return answer.retry_after


# --- looking at an exception ------------------------------------------------------------------------------------------------------


def failures_of(error: BaseException) -> list[Failure]:
    """
    Go into an exception, and return what is found: one, or one for each exception of a group.
    """
    return list(_found(error, _DEEPEST, set()))


def _found(error: BaseException, depth: int, seen: set[int]) -> Iterator[Failure]:
    if id(error) in seen or len(seen) >= _MOST or depth <= 0:
        return
    seen.add(id(error))
    row = _row_of(type(error))
    inside = [each for each in _inside(error, row) if id(each) not in seen]
    if inside:
        found = [failure for each in inside for failure in _found(each, depth - 1, seen)]
        if any(failure.kind is not None for failure in found):
            yield from found
            return
    failure = _failure_of(error, row)
    if failure.kind is None and error.__cause__ is not None:
        found = list(_found(error.__cause__, depth - 1, seen))
        if any(each.kind is not None for each in found):
            yield from found
            return
    yield failure


def _inside(error: BaseException, row: ClientError) -> Iterator[BaseException]:
    for found in followed(error, row.inside):
        several = found if isinstance(found, (list, tuple)) else (found,)
        yield from (each for each in several if isinstance(each, BaseException))


def _failure_of(error: BaseException, row: ClientError) -> Failure:
    """
    Read one exception as its row says.
    """
    status = _status(error, row)
    headers = about_limits(next(followed(error, row.headers), None)) if row.headers else {}
    seconds = next((float(each) for each in followed(error, row.retry_after) if _is_number(each)), None)
    kind = _by_code(error, row) or (None if status is None else classify_status(status, headers)) or row.kind
    if kind is None and isinstance(error, OSError) and error.errno in _UNREACHABLE:
        kind = "network"
    return Failure(error, kind, status, headers, seconds)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _status(error: BaseException, row: ClientError) -> int | None:
    for found in followed(error, row.status):
        code = int(found) if isinstance(found, str) and found.isdecimal() and len(found) == 3 else found  # noqa: PLR2004 -- digits.
        # An IntEnum is one, too; where we only guess, a number below 400 may be anything.
        if isinstance(code, int) and (400 if row is ANY_ERROR else 100) <= code < 1000:  # noqa: PLR2004 -- what HTTP calls a status code.
            return int(code)
    if row.text:
        match = re.search(row.text, str(error)[:_LONGEST_TEXT])
        return None if match is None else int(match[1])
    return None


_LONGEST_TEXT: Final = 2000


def _by_code(error: BaseException, row: ClientError) -> ErrorType | None:
    for found in followed(error, row.code):
        if isinstance(found, str):
            kind = row.codes.get(found) if row.codes else _AS_KIND.get(found)
            if kind is not None:
                return kind
    return None


_AS_KIND: Final[Mapping[str, ErrorType]] = {kind: kind for kind in _WORST_FIRST}
"""
The codes of those that use our own words.
"""


# --- rows -------------------------------------------------------------------------------------------------------------------------


def _by_name(rows: Iterable[ClientError]) -> dict[str, list[ClientError]]:
    found: dict[str, list[ClientError]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return found


_KNOWN: Final = _by_name(CLIENTS)
_ADDED: Final[dict[str, list[ClientError]]] = {}


def register_client_error(
    of: type[BaseException] | str, meaning: str | Mapping[str, Any] | None = None, *, told: str | Mapping[str, Any] | None = None
) -> None:
    """
    Say what the exceptions of a client unknown to celery_obs mean, for this process.

    ::

        register_client_error("acme.errors.Busy", "rate_limit")
        register_client_error(acme.ApiError, {"status": "http_code", "headers": "answer.headers", "code": "word", "codes": {"SLOW": "rate_limit"}})

    It holds for all that derive from the class, unless a row names one of those; what was said of a class before is replaced.
    The setting ``client_errors`` says the same for all processes.

    Args:
        of: The class, or its module and name.

        meaning: A kind, or a dict of: *kind*, *codes*, and the paths *status*, *headers*, *code*, *retry_after* and *inside*;
            see `celery_obs.areas.channels.failures.ClientError`.

        told: Deprecated name of *meaning*.

    Raises:
        PolicyError: if that is wrong, which is a ValueError.

    Since 0.1.
    """
    if told is not None:
        warnings.warn("The argument told of register_client_error is deprecated. Write meaning instead.", DeprecationWarning, stacklevel=2)
        meaning = told
    row = client_error(f"{of.__module__}.{of.__name__}" if isinstance(of, type) else of, meaning)
    _ADDED[row.name] = [row, *(each for each in _ADDED.get(row.name, ()) if each.of != row.of)]


def _row_of(kind: type) -> ClientError:
    tables = (_ADDED, engines.current().part(_configured), _KNOWN)
    for each in kind.__mro__:
        for table in tables:
            for row in table.get(each.__name__, ()):
                if f"{each.__module__}.".startswith(f"{row.module}."):
                    return row
    return ANY_ERROR if issubclass(kind, Exception) else _NOTHING


_NOTHING: Final = ClientError("builtins.BaseException")


def _configured(engine: engines.Engine) -> dict[str, list[ClientError]]:
    return _by_name(engine.settings.client_errors)
