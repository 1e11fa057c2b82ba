"""
Two calendars side by side: streams of days that are merged as they come, and what to do with days of which a side cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

from celery_obs.exceptions import CeleryObsError


__all__ = ["UNKNOWN", "CalendarError", "Side", "Unknown", "by_windows", "merged"]


_LONGEST: Final = 200
_DAY: Final = timedelta(days=1)


class CalendarError(CeleryObsError):
    """
    One side's days came in another form, or in another order, than agreed.
    """


class Unknown(NamedTuple):
    """
    Days that one side does not know: it does not look that far ahead, or a page of its answer failed.

    A side returns it in place of these days.  They are not compared, so what the other side has there is not drift.

    Attributes:
        start: The first of them.

        end: The day after the last.

    Since 0.1.
    """

    start: date
    end: date


Side: TypeAlias = Iterable["tuple[date, Any] | Unknown"]
"""
One side of a calendar, in ascending order.
"""


class _NotKnown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _NotKnown()
"""
What a side holds on a day of which it cannot tell.
"""


def merged(local: Side, remote: Side, *, start: date, end: date) -> Iterator[tuple[date, Any, Any]]:
    """
    Go through the days of both sides in order, each with what the two hold; None for a side that holds nothing, `UNKNOWN` for one that cannot tell.

    Of each side one day is held at a time.

    Raises:
        CalendarError: if a side's days do not ascend, or are not days.
    """
    ours, theirs = _days(local, "local", start, end), _days(remote, "remote", start, end)
    mine, other = next(ours, None), next(theirs, None)
    while mine is not None or other is not None:
        if other is None or (mine is not None and mine[0] < other[0]):
            assert mine is not None  # noqa: S101 -- for the type checker: one of the two is there.
            yield mine[0], mine[1], None
            mine = next(ours, None)
        elif mine is None or other[0] < mine[0]:
            yield other[0], None, other[1]
            other = next(theirs, None)
        else:
            yield mine[0], mine[1], other[1]
            mine, other = next(ours, None), next(theirs, None)


def _days(side: Side, name: str, start: date, end: date) -> Iterator[tuple[date, Any]]:
    """
    Go through the days of one side that lie in the window, and see that they ascend.

    A day that comes again at once with what it had before is passed over: pages of an answer overlap.
    """
    last: date | None = None
    had: Any = None
    for first, beyond, available in _items(side, name):
        if last is not None and first <= last:
            if first == last and available is not UNKNOWN and available == had:
                continue
            problem = f"twice, with {repr(had)[:_LONGEST]} and {repr(available)[:_LONGEST]}" if first == last else f"after {last}"
            message = f"The {name} side gave {first} {problem}. Expected days in ascending order, each once: sort them in the reconciliation source's method {name}."
            raise CalendarError(message)
        last, had = beyond - _DAY, available
        if first >= end:
            return  # The rest is later still.
        day = max(first, start)
        while day < min(beyond, end):
            yield day, available
            day += _DAY


def _items(side: Side, name: str) -> Iterator[tuple[date, date, Any]]:
    """
    Go through what a side gave: the first day, the day after the last one, and what is available on them.
    """
    for item in side:
        try:
            first, second = item
        except (TypeError, ValueError):
            raise _no_day(item, name) from None
        if not _is_day(first):
            raise _no_day(item, name)
        if not isinstance(item, Unknown):
            # date.max has no day after it; no window reaches so far.
            yield first, first + _DAY if first < date.max else first, second
        elif _is_day(second) and first < second:
            yield first, second, UNKNOWN
        else:
            raise _no_day(item, name)


def _is_day(value: object) -> TypeGuard[date]:
    return isinstance(value, date) and not isinstance(value, datetime)


def _no_day(item: object, name: str) -> CalendarError:
    message = (
        f"The {name} side gave {repr(item)[:_LONGEST]}. Expected pairs of a datetime.date and what is available on it, "
        "or an Unknown with the first day and the day after the last one."
    )
    return CalendarError(message)


def by_windows(
    ask: Callable[[date, date], Iterable[tuple[date, Any]] | None], start: date, end: date, *, days: int
) -> Iterator[tuple[date, Any] | Unknown]:
    """
    Read a calendar that a channel returns in parts: one call for each window of days.

    The days of each answer may come in any order, overlap with other answers, and go beyond what was asked.

    Args:
        ask: Returns the days from its first argument on, up to and without its second; None where the channel does not know these.

        start, end: The whole window.

        days: How many to ask for at once.

    Raises:
        ValueError: if *days* is not a whole number above 0.

        CalendarError: if an answer holds one day twice, with different values.

    Since 0.1.
    """
    if days < 1:
        message = f"by_windows was to ask for {days!r} days at once. Expected a whole number above 0."
        raise ValueError(message)
    first = start
    while first < end:
        beyond = min(first + timedelta(days=days), end)
        answer = ask(first, beyond)
        if answer is None:
            yield Unknown(first, beyond)
        else:
            window = (first, beyond)
            yield from sorted((pair for pair in answer if window[0] <= pair[0] < window[1]), key=lambda pair: pair[0])
        first = beyond
