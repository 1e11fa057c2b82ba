"""
Freshness: watch a beat scheduler go through its schedule, and say what it fired and what is due.

Celery has no signal for a fired entry, so the two methods that every scheduler has, ``tick`` and ``apply_async``, are wrapped on the scheduler at hand:
the file scheduler, a database one or one in Redis alike.  What we add never raises and never changes what they do, with one exception:
beat wakes up at least every *pulse* seconds, where it would sleep for up to five minutes, so that its heartbeat tells whether it lives.
"""

from __future__ import annotations

import copy
import functools

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from celery_obs.clock import Clock, wall
from celery_obs.hub import Hub
from celery_obs.vocabulary import headers
from celery_obs.vocabulary.beat import BeatTicked, EntryFired, EntryFiring, EntryMisfired, EntryScheduled, ScheduleChanged


__all__ = ["ScheduleWatch"]


class ScheduleWatch:
    """
    Watch one scheduler.

    Args:
        scheduler: A `celery.beat.Scheduler`.

        hub: Hears what happened.

        pulse: Longest sleep between two ticks, in seconds.

        clock: Tells the time.

        connecting: Makes what is entered while the scheduler tries to connect to its broker, however long that takes.
    """

    def __init__(
        self,
        scheduler: Any,
        hub: Hub,
        *,
        pulse: float = 5.0,
        clock: Clock = wall,
        connecting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._scheduler = scheduler
        self._hub = hub
        self._pulse = pulse
        self._clock = clock
        self._connecting = connecting
        self._tick = scheduler.tick
        self._apply_async = scheduler.apply_async
        self._said: dict[str, float] = {}
        self._entries: frozenset[str] | None = None

    def install(self) -> None:
        """
        Begin to watch.
        """
        self._scheduler.tick = self.tick
        self._scheduler.apply_async = self.apply_async
        # The same from Celery 5.4 to 5.7; a scheduler without it is not seen to connect.
        connect = getattr(self._scheduler, "_ensure_connected", None)
        if connect is not None:
            self._scheduler._ensure_connected = functools.partial(self._connect, connect)  # noqa: SLF001 -- there is no other place.

    def uninstall(self) -> None:
        """
        Leave the scheduler as it was.
        """
        for name in ("tick", "apply_async", "_ensure_connected"):
            vars(self._scheduler).pop(name, None)

    def _connect(self, connect: Callable[[], Any]) -> Any:
        with self._connecting():
            return connect()

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """
        Let the scheduler go through its schedule once, and say what is due next.
        """
        delay = self._tick(*args, **kwargs)
        try:
            self.report()
            return min(delay, self._pulse)
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._hub.on_error(exc, component="beat.freshness")
            return delay

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Let the scheduler publish an entry's task, stamped with the entry's name.
        """
        stamped = self._stamped(entry, advance=kwargs.get("advance", True))
        try:
            result = self._apply_async(stamped, *args, **kwargs)
        except Exception:
            if stamped is not entry:
                self._hub.emit(EntryMisfired(entry.name, stamped.options["headers"]))
            raise
        try:
            self._hub.emit(EntryFired(entry.name, self._clock()))
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._hub.on_error(exc, component="beat.freshness")
        return result

    def _stamped(self, entry: Any, *, advance: bool) -> Any:
        """
        Return a copy of *entry* whose messages name it.  An entry that the scheduler still has to advance is passed on as it is.
        """
        if advance:
            return entry
        try:
            stamped = copy.copy(entry)
            stamps = {**(entry.options.get("headers") or {}), headers.ENTRY: entry.name}
            self._hub.emit(EntryFiring(entry.name, entry.schedule, stamps))
            stamped.options = {**entry.options, "headers": stamps}
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._hub.on_error(exc, component="beat.freshness")
            return entry
        return stamped

    def report(self) -> None:
        """
        Say that beat lives, and, where that changed, which entries there are and when each is due.
        """
        now = self._clock()
        self._hub.emit(BeatTicked(now))
        entries = self.entries()
        if entries != self._entries:
            self._hub.emit(ScheduleChanged(entries))
            self._entries = entries
        self._said = {entry: said for entry, said in self._said.items() if entry in entries}
        for entry, due_at in self._due(now):
            if abs(self._said.get(entry, 0.0) - due_at) > 1.0:
                self._hub.emit(EntryScheduled(entry, due_at, now))
                self._said[entry] = due_at

    def _due(self, now: float) -> Any:
        for name, entry in self._scheduler.schedule.items():
            try:
                yield name, now + entry.schedule.remaining_estimate(entry.last_run_at).total_seconds()
            except Exception as exc:  # noqa: BLE001 -- a schedule of somebody else's may not be able to tell.
                self._hub.on_error(exc, component="beat.freshness")

    def entries(self) -> frozenset[str]:
        """
        Return the names of all entries.
        """
        return frozenset(self._scheduler.schedule)
