"""
Schedulers: what each can tell of its schedule, one file for each kind.

A scheduler keeps its entries as it likes: in memory, in a database, in Redis.  An *adapter* knows how to ask one kind.
Which one it is shows in the classes that are already loaded; no package is imported for it.
"""

from __future__ import annotations

import sys

from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

from celery_obs.clock import Clock, wall
from celery_obs.runtime.hub import OnError

from . import celery, django, redbeat, unknown


__all__ = ["Adapter", "adapter_of", "prepared", "waits_for"]


class Adapter(Protocol):
    """
    What we ask of a scheduler, in beat's own thread, after each pass through the schedule.
    """

    def due(self, now: float, *, fired: Collection[str]) -> Mapping[str, float | None] | None:
        """
        Return every enabled entry, each with when it is due next, in seconds since the epoch.

        None for an entry that will not come up again, or of which that cannot be known.  None for the whole when the entries cannot be known.

        Args:
            now: Seconds since the epoch.

            fired: Names of the entries that were fired since the last time.
        """


_KINDS: Final = (
    ("django_celery_beat.schedulers", "DatabaseScheduler", django.Adapter),
    ("redbeat.schedulers", "RedBeatScheduler", redbeat.Adapter),
)


def adapter_of(scheduler: Any, *, on_error: OnError, clock: Clock = wall) -> Adapter:
    """
    Return the adapter that fits *scheduler*.

    Args:
        scheduler: A `celery.beat.Scheduler`.

        on_error: Hears of what is kept from beat.

        clock: Tells the time.
    """
    for module, name, adapter in _KINDS:
        known = getattr(sys.modules.get(module), name, None)
        if known is not None and isinstance(scheduler, known):
            made: Adapter = adapter(scheduler, on_error=on_error, clock=clock)
            return made
    if celery.is_own(type(scheduler)):
        return celery.Adapter(scheduler, on_error=on_error, clock=clock)
    return unknown.Adapter(scheduler)


def prepared(kind: Any, schedule: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any] | None:
    """
    Return *schedule* with those entries that are *ours* in the words of the *kind* of scheduler that is about to read it; None if they are so already.
    """
    known = getattr(sys.modules.get("django_celery_beat.schedulers"), "DatabaseScheduler", None)
    return django.prepared(schedule, ours) if known is not None and isinstance(kind, type) and issubclass(kind, known) else None


def waits_for(scheduler: Any) -> str:
    """
    Return what *scheduler* waits for before it goes through its schedule, in the words of an operator; empty when it does not.
    """
    known = getattr(sys.modules.get("redbeat.schedulers"), "RedBeatScheduler", None)
    return redbeat.waits_for(scheduler) if known is not None and isinstance(scheduler, known) else ""
