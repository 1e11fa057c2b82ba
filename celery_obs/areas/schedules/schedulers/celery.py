"""
Celery's own schedulers, in memory and in a file: all entries are in ``schedule``, each with its last run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from celery.beat import PersistentScheduler, ScheduleEntry, Scheduler

from celery_obs.clock import Clock, wall
from celery_obs.compat.celery import SCHEDULER_METHODS
from celery_obs.runtime.hub import OnError

from .cached import DueTimes, timestamp


__all__ = ["Adapter", "is_own"]


_KEEPS: Final = (Scheduler.schedule, PersistentScheduler.schedule)


def is_own(kind: type) -> bool:
    """
    Tell whether schedulers of this *kind* keep their entries as Celery's do: also a subclass that changes something else, such as how it publishes.

    A class with other methods that decide what is fired may skip, add and keep entries as it likes.
    """
    return (
        all(getattr(kind, name, None) is getattr(Scheduler, name) for name in SCHEDULER_METHODS)
        and getattr(kind, "schedule", None) in _KEEPS
    )


class Adapter:
    """
    Ask one of Celery's own schedulers.

    Args:
        scheduler: The scheduler.

        on_error: As for all adapters; nothing here needs it.

        clock: Tells the time.
    """

    def __init__(self, scheduler: Any, *, on_error: OnError | None = None, clock: Clock = wall) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._times = DueTimes()

    def due(self, now: float, *, fired: Collection[str]) -> Mapping[str, float | None]:
        """
        Return every entry, each with when it is due.
        """
        return self._times.of(self._entries(), now=now)

    def _entries(self) -> Iterator[tuple[str, tuple[Any, ...], Callable[[], float | None]]]:
        for name, entry in self._scheduler.schedule.items():
            # The schedule itself stands in the version: its identity, were it gone, could be another's.
            yield name, (entry.last_run_at, entry.schedule), _Due(entry, self._clock)


class _Due:
    """
    When an entry is due.  One that decides for itself (its class has its own ``is_due``) cannot be asked.
    """

    __slots__ = ("_clock", "_entry")

    def __init__(self, entry: Any, clock: Clock) -> None:
        self._entry = entry
        self._clock = clock

    def __call__(self) -> float | None:
        entry = self._entry
        if type(entry).is_due is not ScheduleEntry.is_due:
            message = f"{type(entry).__name__} decides for itself when it is due"
            raise NotImplementedError(message)
        return timestamp(self._clock(), entry.schedule.remaining_estimate(entry.last_run_at))
