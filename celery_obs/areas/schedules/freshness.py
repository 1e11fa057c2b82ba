"""
Freshness: watch a beat scheduler go through its schedule, and say what it fired and what is due.

Celery has no signal for a fired entry, so the methods that every scheduler has, ``tick`` and ``apply_async``, are wrapped on the scheduler at hand.
What is due, the adapter of its kind knows (see `celery_obs.areas.schedules.schedulers`).
What we add never raises and never changes what they do, with two exceptions:
beat wakes up at least every *pulse* seconds, where it would sleep for up to five minutes, so that a change of the schedule is seen;
and an entry of our own publishes nothing while its last message still waits for a worker (see `celery_obs.runtime.builtin_tasks.waiting`).
"""

from __future__ import annotations

import functools

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from celery import signals
from celery.beat import Scheduler

from celery_obs.clock import Clock, wall
from celery_obs.compat.celery import CONNECT
from celery_obs.runtime.builtin_tasks.waiting import Claim, Waiting
from celery_obs.runtime.hub import Hub

from . import firing
from .events import BeatTicked, EntryFired, EntryFiring, EntryMisfired, EntryScheduled, ScheduleChanged
from .firing import Firing
from .schedulers import adapter_of


__all__ = ["Pace", "ScheduleWatch"]


_MOVED: Final = 0.1
"""
Seconds by which a due time has to have moved to be told again: working it out twice does not give the same microsecond.
"""

_REST: Final = 1.0
"""
Seconds for which what is due is not looked at again while beat fires one entry after the other.
"""

_UID: Final = "celery_obs.beat.published"


class Pace(Protocol):
    """
    Hears how beat goes on; what tells a beat that waits from one that hangs.
    """

    def passing(self) -> None:
        """
        A pass through the schedule begins, or has come a step further.
        """

    def connecting(self) -> AbstractContextManager[None]:
        """
        Return what is entered while the scheduler tries to connect to its broker, however long that takes.
        """


class _Unheard:
    """
    The pace of a beat that has no heart of its own.
    """

    def passing(self) -> None:
        """
        Do nothing.
        """

    def connecting(self) -> AbstractContextManager[None]:
        """
        Enter nothing.
        """
        return nullcontext()


class ScheduleWatch:
    """
    Watch one scheduler.

    Args:
        scheduler: A `celery.beat.Scheduler`.

        hub: Hears what happened.

        pulse: Longest sleep between two ticks, in seconds.

        clock: Tells the time.

        pace: Hears that beat goes on.

        waiting: Knows whether the last message of an entry of ours still waits; None where that cannot be known.
    """

    def __init__(
        self,
        scheduler: Any,
        hub: Hub,
        *,
        pulse: float = 5.0,
        clock: Clock = wall,
        pace: Pace | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._hub = hub
        self._pulse = pulse
        self._clock = clock
        self._pace = pace if pace is not None else _Unheard()
        self._waiting = waiting
        self._adapter = adapter_of(scheduler, on_error=hub.on_error, clock=clock)
        self._tick = scheduler.tick
        self._apply_async = scheduler.apply_async
        self._apply_entry = scheduler.apply_entry
        self._announced: dict[str, float] = {}
        self._shown: tuple[frozenset[str], frozenset[str]] | None = None
        self._fired: set[str] = set()
        self._reported_at = 0.0

    def install(self) -> None:
        """
        Begin to watch.
        """
        self._scheduler.tick = self.tick
        self._scheduler.apply_async = self.apply_async
        if type(self._scheduler).apply_entry is not Scheduler.apply_entry:
            self._scheduler.apply_entry = self.apply_entry
        connect = getattr(self._scheduler, CONNECT, None)
        if connect is not None:
            setattr(self._scheduler, CONNECT, functools.partial(self._connect, connect))
        signals.after_task_publish.connect(self._published, weak=False, dispatch_uid=_UID)

    def uninstall(self) -> None:
        """
        Leave the scheduler as it was.
        """
        signals.after_task_publish.disconnect(dispatch_uid=_UID)
        for name in ("tick", "apply_async", "apply_entry", CONNECT):
            vars(self._scheduler).pop(name, None)

    def _published(self, headers: Any = None, **_: object) -> None:
        firing.published(headers)

    def _connect(self, connect: Callable[[], Any]) -> Any:
        with self._pace.connecting():
            return connect()

    # -- what is fired ----------------------------------------------------------------------------------------------

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Let the scheduler publish an entry's task, in a context that says which entry that is.
        """
        around = firing.current()
        if around is not None and around.entry == entry.name:
            around.is_seen = True
        claim = self._claimed(entry)
        if claim is None:
            return self._passed_over(entry, advance=kwargs.get("advance", True))
        one = Firing(str(entry.name), str(entry.task))
        self._hub.emit(EntryFiring(one.entry, getattr(entry, "schedule", None), one.stamps))
        try:
            with firing.firing(one):
                result = self._apply_async(entry, *args, **kwargs)
        except BaseException:
            claim.settle(published=one.is_published)
            self._hub.emit(EntryMisfired(one.entry, one.stamps))
            raise
        claim.settle(published=True)
        self._tell(one.entry)
        return result

    def apply_entry(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Let a scheduler that has a way of its own publish an entry's task; one that goes by its ``apply_async`` after all is seen there.
        """
        one = Firing(str(entry.name), str(entry.task))
        with firing.firing(one):
            result = self._apply_entry(entry, *args, **kwargs)
        if one.is_published and not one.is_seen:
            self._tell(one.entry)
        return result

    def _tell(self, entry: str) -> None:
        self._fired.add(entry)
        self._pace.passing()
        self._hub.emit(EntryFired(entry, self._clock()))

    def _claimed(self, entry: Any) -> Claim | None:
        try:
            return Claim() if self._waiting is None else self._waiting.claim(entry)
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._hub.on_error(exc, component="beat.waiting")
            return Claim()

    def _passed_over(self, entry: Any, *, advance: bool) -> None:
        """
        Have an entry's message that still waits stand for the one that would be published now.
        """
        if advance:
            self._scheduler.reserve(entry)
        self._tell(str(entry.name))

    # -- what is due ------------------------------------------------------------------------------------------------

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """
        Let the scheduler go through its schedule once, and say what is due next.
        """
        self._pace.passing()
        delay = self._tick(*args, **kwargs)
        try:
            now = self._clock()
            # One that has more to fire at once comes back for it: what is due in between is about to be fired, and looking at all is not free.
            if delay or not 0.0 <= now - self._reported_at < _REST:
                self._reported_at = now
                self.report()
            self._pace.passing()
            return min(delay, self._pulse)
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._hub.on_error(exc, component="beat.freshness")
            return delay

    def report(self) -> None:
        """
        Say that beat goes on, and, where that changed, which entries there are and when each is due.
        """
        now = self._clock()
        self._hub.emit(BeatTicked(now))
        fired, self._fired = self._fired, set()
        found = self._adapter.due(now, fired=fired)
        due = {entry: at for entry, at in (found or {}).items() if at is not None}
        self._show(frozenset(found or ()), frozenset(due), strangers=frozenset() if found is None else frozenset(fired) - frozenset(found))
        self._announced = {entry: known for entry, known in self._announced.items() if entry in due}
        for entry, at in due.items():
            if abs(self._announced.get(entry, 0.0) - at) > _MOVED:
                self._hub.emit(EntryScheduled(entry, at, now))
                self._announced[entry] = at

    def _show(self, entries: frozenset[str], due: frozenset[str], *, strangers: frozenset[str]) -> None:
        """
        Say which entries there are, where that changed; *strangers* were fired and are none of them any more.
        """
        if (entries, due) != self._shown or strangers:
            self._hub.emit(ScheduleChanged(entries, due))
            self._shown = (entries, due)
