"""
Reconciliation: compare, day by day, what we and the channel hold for available.

Both sides are read as streams and merged as they come, so that memory does not grow with the window; what is known of a connection changes only
when the whole window was compared.  A comparison that dies in the middle has said nothing.
"""

from __future__ import annotations

import operator
import time

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from celery_obs.areas import optional
from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.connections.api import find_connection
from celery_obs.areas.channels.connections.events import ConnectionErrored
from celery_obs.areas.channels.connections.state import Connection, Drift, Facts
from celery_obs.areas.channels.sources import named
from celery_obs.exceptions import ConfigurationError
from celery_obs.vocabulary.spec import OTHER

from .calendars import UNKNOWN, CalendarError, Side, Unknown, by_windows, merged
from .events import ConnectionReconciled, ReconciliationEnded, ReconciliationStarted
from .state import MOST_TYPES, SAMPLE, Pending, PendingConnection, PendingDay


__all__ = [
    "CalendarError",
    "Comparison",
    "Reconciled",
    "ReconciliationSource",
    "Unknown",
    "by_windows",
    "classify",
    "compare",
    "merged",
    "reconcile",
    "source_of",
    "today_of",
]


_LONGEST: Final = 200


class ReconciliationSource(Protocol):
    """
    A source of both sides of a connection's calendar.

    With a method ``classify(day, local, remote)`` it also decides what type of conflict a day is, in one of a few words,
    or None where the two sides agree; see `classify`, which is used without it.

    With a method ``timezone(connection_id)`` it also says in which time zone the connection's days are: a name such as ``Pacific/Auckland``,
    or a `datetime.tzinfo`; None for the setting ``reconciliation_timezone``.  The window begins with today there.

    Since 0.1.
    """

    def local(self, connection_id: str, start: date, end: date) -> Side:
        """
        Go through our side: pairs of a day and what is available then, anything that can be compared, from *start* up to and without *end*.

        Days ascend, each comes once; a day on which this side holds nothing is left out, or has None.  Days outside the window are passed over.
        Days of which a side cannot tell are an `Unknown` in their place: they are not compared.
        """

    def remote(self, connection_id: str, start: date, end: date) -> Side:
        """
        Go through the channel's side, in the same way.
        """


class Reconciled(NamedTuple):
    """
    The result of a comparison.

    Attributes:
        connection_id: The connection.

        channel_type: The channel.

        checked: Days that at least one side holds something for.

        drifted: Those of them on which the two sides differ.

        conflicts: The same by type.

        at: When, in seconds since the epoch.

        unknown: Days that were not compared, because one side does not know them.

    Since 0.1.
    """

    connection_id: str
    channel_type: str
    checked: int
    drifted: int
    conflicts: Mapping[str, int]
    at: float
    unknown: int = 0


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


@dataclass(slots=True)
class Comparison:
    """
    What was found so far, in memory that does not grow.
    """

    checked: int
    drifted: int
    conflicts: dict[str, int]
    sample: list[PendingDay]
    unknown: int = 0


def compare(
    local: Side,
    remote: Side,
    *,
    start: date,
    end: date,
    classify: Callable[[date, Any, Any], str | None] = classify,
    today: Callable[[], date] = lambda: date.min,
) -> Comparison:
    """
    Compare two sides of one calendar.

    Args:
        local, remote: See `ReconciliationSource`.

        start, end: The window.

        classify: Says what kind of conflict a day is.

        today: Which day it is by now.  A day that is over when it is looked at is not compared: a channel that was asked after midnight has it no more.

    Raises:
        CalendarError: if a side's days do not ascend, or are not days.
    """
    found = Comparison(0, 0, {}, [])
    for day, ours, theirs in merged(local, remote, start=start, end=end):
        if day < today():
            continue
        if ours is UNKNOWN or theirs is UNKNOWN:
            found.unknown += 1
            continue
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


def today_of(at: float, zone: tzinfo) -> date:
    """
    Return the day that it is in *zone* at *at*, in seconds since the epoch.
    """
    return datetime.fromtimestamp(at, zone).date()


def _zone_of(engine: engines.Engine, source: ReconciliationSource, connection_id: str) -> tzinfo:
    """
    Return the time zone of a connection's days.

    Raises:
        ConfigurationError: if the source tells one that is none.
    """
    ask = getattr(source, "timezone", None)
    zone = ask(connection_id) if callable(ask) else None
    if isinstance(zone, tzinfo):
        return zone
    try:
        return ZoneInfo(engine.settings.reconciliation_timezone if zone is None else zone)
    except (ValueError, OSError, KeyError, TypeError) as exc:  # ZoneInfo's own error is a KeyError.
        message = (
            f"The reconciliation source's method timezone gave {repr(zone)[:_LONGEST]}. "
            "Expected the name of a time zone such as Pacific/Auckland, a datetime.tzinfo, or None."
        )
        raise ConfigurationError(message) from exc


def reconcile(connection_id: str, *, may_tell: Callable[[], bool] = lambda: True) -> Reconciled:
    """
    Compare the calendar of one connection, from today on for the setting ``reconciliation_days``, and store the result.

    Today is that of the connection's time zone, see `ReconciliationSource`.

    Args:
        connection_id: The connection.

        may_tell: Asked at the end whether the result is to be counted, too; a task that may run twice says no the second time.

    Raises:
        UnknownConnectionError: if there is no such connection.

        CalendarError: if a side's days do not ascend, or are not days.

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
    zone = _zone_of(engine, source, connection_id)
    start = today_of(now, zone)
    end = start + timedelta(days=engine.settings.reconciliation_days)
    try:
        with _closing(source.local(connection_id, start, end)) as local, _closing(source.remote(connection_id, start, end)) as remote:
            found = compare(
                local,
                remote,
                start=start,
                end=end,
                classify=getattr(source, "classify", classify),
                today=lambda: today_of(engine.clock(), zone),
            )
    except Exception:
        engine.hub.emit(ConnectionErrored(connection.channel_type, connection_id))
        raise
    result = Reconciled(connection_id, connection.channel_type, found.checked, found.drifted, dict(found.conflicts), now, found.unknown)
    if not _says_something(engine, result):
        return result
    _keep(engine, result, found.sample)
    if may_tell():
        _tell(engine, result, duration=time.perf_counter() - began)
    return result


def _says_something(engine: engines.Engine, result: Reconciled) -> bool:
    """
    Tell whether a comparison changes what is known: not where no day could be compared, nor where the connection was forgotten meanwhile.
    """
    if result.unknown and not result.checked:
        return False
    return engine.redis is None or Facts(engine.redis).connection(result.connection_id) is not None


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


_CONFLICTS: Final = optional("conflicts", "events")


def _tell(engine: engines.Engine, result: Reconciled, *, duration: float) -> None:
    if _CONFLICTS is not None:
        for conflict_type, count in sorted(result.conflicts.items(), key=operator.itemgetter(0)):
            for _ in range(count):
                engine.hub.emit(_CONFLICTS.ConflictDetected(conflict_type, result.channel_type))
    engine.hub.emit(ConnectionReconciled(result.channel_type, result.connection_id, result.checked, result.drifted, duration))
