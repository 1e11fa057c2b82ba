"""
Reconciliation: compare, day by day, what we and the channel hold for available.

Both sides are read as streams and merged as they come, so that memory does not grow with the window; what is known of a connection changes only
when the whole window was compared.  A comparison that dies in the middle has said nothing.
"""

from __future__ import annotations

import operator
import time

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final, NamedTuple, Protocol

from celery_obs.exceptions import CeleryObsError, ConfigurationError
from celery_obs.state.facts import Connection, Drift, Facts
from celery_obs.state.pending import MOST_TYPES, SAMPLE, Pending, PendingConnection, PendingDay
from celery_obs.vocabulary.conflicts import ConflictDetected
from celery_obs.vocabulary.connections import ConnectionErrored
from celery_obs.vocabulary.reconciliation import ConnectionReconciled, ReconciliationEnded, ReconciliationStarted
from celery_obs.vocabulary.spec import OTHER

from . import engine as engines
from .connections import find_connection
from .sources import named


__all__ = ["CalendarError", "Comparison", "Reconciled", "ReconciliationSource", "classify", "compare", "merged", "reconcile", "source_of"]


_LONGEST: Final = 200


class CalendarError(CeleryObsError):
    """
    One side's days came in another form, or in another order, than agreed.
    """


class ReconciliationSource(Protocol):
    """
    What knows both sides of a connection's calendar.

    An object with a method ``classify(day, local, remote)`` besides says itself what kind of conflict a day is, in one of a few words,
    or None where the two sides agree; see `classify`, which is used without it.

    Since 0.1.
    """

    def local(self, connection_id: str, start: date, end: date) -> Iterable[tuple[date, Any]]:
        """
        Go through our side: pairs of a day and what is available then, anything that can be compared, from *start* up to and without *end*.

        Days ascend, each comes once; a day on which this side holds nothing is left out.  Days outside the window are passed over.
        """

    def remote(self, connection_id: str, start: date, end: date) -> Iterable[tuple[date, Any]]:
        """
        Go through the channel's side, in the same way.
        """


class Reconciled(NamedTuple):
    """
    What a comparison found.

    Attributes:
        connection_id: Whose account.

        channel_type: The channel.

        checked: Days that at least one side holds something for.

        drifted: Those of them on which the two sides differ.

        conflicts: The same by type.

        at: When, in seconds since the epoch.
    """

    connection_id: str
    channel_type: str
    checked: int
    drifted: int
    conflicts: Mapping[str, int]
    at: float


# --- two streams ------------------------------------------------------------------------------------------------------------------


def classify(day: date, local: Any, remote: Any) -> str | None:
    """
    Say what kind of conflict a day is: ``missing_local``, ``missing_remote`` or ``availability_mismatch``; None where the sides agree.
    """
    if local is None:
        return None if remote is None else "missing_local"
    if remote is None:
        return "missing_remote"
    return None if local == remote else "availability_mismatch"


def merged(
    local: Iterable[tuple[date, Any]], remote: Iterable[tuple[date, Any]], *, start: date, end: date
) -> Iterator[tuple[date, Any, Any]]:
    """
    Go through the days of both sides in order, each with what the two hold; None for a side that holds nothing.

    Of each side one day is held at a time.

    Raises:
        CalendarError: if a side's days do not ascend, or are no days.
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


def _days(side: Iterable[tuple[date, Any]], name: str, start: date, end: date) -> Iterator[tuple[date, Any]]:
    """
    Go through the days of one side that lie in the window, and see that they ascend.
    """
    last: date | None = None
    for pair in side:
        try:
            day, available = pair
        except (TypeError, ValueError):
            day, available = None, None
        if not isinstance(day, date) or isinstance(day, datetime):
            message = f"The {name} side gave {repr(pair)[:_LONGEST]}. Expected pairs of a datetime.date and what is available on it."
            raise CalendarError(message)
        if last is not None and day <= last:
            problem = "twice" if day == last else f"after {last}"
            message = f"The {name} side gave {day} {problem}. Expected days in ascending order, each once: sort them in the reconciliation source's method {name}."
            raise CalendarError(message)
        last = day
        if day >= end:
            return  # The rest is later still.
        if day >= start:
            yield day, available


@dataclass(slots=True)
class Comparison:
    """
    What was found so far, in memory that does not grow.
    """

    checked: int
    drifted: int
    conflicts: dict[str, int]
    sample: list[PendingDay]


def compare(
    local: Iterable[tuple[date, Any]],
    remote: Iterable[tuple[date, Any]],
    *,
    start: date,
    end: date,
    classify: Callable[[date, Any, Any], str | None] = classify,
) -> Comparison:
    """
    Compare two sides of one calendar.

    Raises:
        CalendarError: if a side's days do not ascend, or are no days.
    """
    found = Comparison(0, 0, {}, [])
    for day, ours, theirs in merged(local, remote, start=start, end=end):
        found.checked += 1
        conflict = classify(day, ours, theirs)
        if conflict is None:
            continue
        found.drifted += 1
        known = conflict if conflict in found.conflicts or len(found.conflicts) < MOST_TYPES - 1 else OTHER
        found.conflicts[known] = found.conflicts.get(known, 0) + 1
        if len(found.sample) < SAMPLE:
            found.sample.append(PendingDay(day.isoformat(), conflict, _text(ours), _text(theirs)))
    return found


def _text(available: Any) -> str | None:
    return None if available is None else str(available)[:_LONGEST]


# --- one connection ---------------------------------------------------------------------------------------------------------------


def source_of(engine: engines.Engine) -> ReconciliationSource:
    """
    Return the source that the setting ``reconciliation_source`` names.

    Raises:
        ConfigurationError: if there is none, or it is another thing.
    """
    value = engine.settings.reconciliation_source
    if value is None:
        message = (
            "Drift cannot be looked for: the setting reconciliation_source is not set. "
            "Expected a place such as 'proj.calendar:SOURCE', an object with the methods local and remote."
        )
        raise ConfigurationError(message)
    source: ReconciliationSource = named("reconciliation_source", value, "local", "remote")
    return source


def reconcile(connection_id: str, *, may_tell: Callable[[], bool] = lambda: True) -> Reconciled:
    """
    Compare the calendar of one connection, from today on for the setting ``reconciliation_days``, and keep what was found.

    Args:
        connection_id: Whose account.

        may_tell: Asked at the end whether what was found is to be counted, too; tasks that may come twice say no the second time.

    Raises:
        UnknownConnectionError: if there is no such connection.

        CalendarError: if a side's days do not ascend, or are no days.

        Exception: whatever the source raises, or Redis; what was known of the connection stays then.

    Since 0.1.
    """
    engine = engines.current()
    connection = find_connection(engine, connection_id)
    source = source_of(engine)
    started = ReconciliationStarted(connection.channel_type, connection_id)
    engine.hub.emit(started)
    try:
        result = _reconcile(engine, connection, source, may_tell)
    except BaseException as exc:
        engine.hub.emit(ReconciliationEnded(started, 0, 0, type(exc).__name__))
        raise
    engine.hub.emit(ReconciliationEnded(started, result.checked, result.drifted, ""))
    return result


def _reconcile(engine: engines.Engine, connection: Connection, source: ReconciliationSource, may_tell: Callable[[], bool]) -> Reconciled:
    connection_id = connection.connection_id
    now, began = engine.clock(), time.perf_counter()
    start = datetime.fromtimestamp(now, timezone.utc).date()
    end = start + timedelta(days=engine.settings.reconciliation_days)
    try:
        with _closing(source.local(connection_id, start, end)) as local, _closing(source.remote(connection_id, start, end)) as remote:
            found = compare(local, remote, start=start, end=end, classify=getattr(source, "classify", classify))
    except Exception:
        engine.hub.emit(ConnectionErrored(connection.channel_type, connection_id))
        raise
    result = Reconciled(connection_id, connection.channel_type, found.checked, found.drifted, dict(found.conflicts), now)
    _keep(engine, result, found.sample)
    if may_tell():
        _tell(engine, result, duration=time.perf_counter() - began)
    return result


def _closing(side: Any) -> Any:
    """
    Close a side that can be closed, such as a generator that holds a cursor, also when the other fails.
    """
    return closing(side) if callable(getattr(side, "close", None)) else nullcontext(side)


def _keep(engine: engines.Engine, result: Reconciled, sample: Iterable[PendingDay]) -> None:
    if engine.redis is None:
        return
    pending = Pending(engine.redis)
    if result.drifted:
        pending.put(
            PendingConnection(result.connection_id, result.channel_type, result.drifted, result.conflicts, tuple(sample), result.at)
        )
    else:
        pending.remove(result.connection_id)
    Facts(engine.redis).reconciled(result.connection_id, result.channel_type, Drift(result.drifted, result.checked, result.at))


def _tell(engine: engines.Engine, result: Reconciled, *, duration: float) -> None:
    for conflict_type, count in sorted(result.conflicts.items(), key=operator.itemgetter(0)):
        for _ in range(count):
            engine.hub.emit(ConflictDetected(conflict_type, result.channel_type))
    engine.hub.emit(ConnectionReconciled(result.channel_type, result.connection_id, result.checked, result.drifted, duration))
