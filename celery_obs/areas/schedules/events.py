"""
The beat schedule: what was fired, what succeeded, and what is overdue.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple


__all__ = ["BeatTicked", "EntryFired", "EntryFiring", "EntryMisfired", "EntryScheduled", "ScheduleChanged"]


class BeatTicked(NamedTuple):
    """
    Beat went through its schedule once.

    Attributes:
        at: When, in seconds since the epoch.
    """

    at: float


class EntryFiring(NamedTuple):
    """
    Beat is about to publish the task of a schedule entry, in this thread.

    Attributes:
        entry: Its name.

        schedule: When it fires: an interval, a crontab or whatever Celery takes.

        headers: Those of the message, which may still be added to.
    """

    entry: str
    schedule: Any
    headers: MutableMapping[str, Any]


class EntryMisfired(NamedTuple):
    """
    Beat could not publish the task of a schedule entry.

    Attributes:
        entry: Its name.

        headers: As in `EntryFiring`.
    """

    entry: str
    headers: Mapping[str, Any]


class EntryFired(NamedTuple):
    """
    Beat published the task of a schedule entry.

    Attributes:
        entry: Its name.

        at: When, in seconds since the epoch.
    """

    entry: str
    at: float


class EntryScheduled(NamedTuple):
    """
    Beat worked out when an entry is due next.

    Attributes:
        entry: Its name.

        due_at: When it is due, in seconds since the epoch.

        at: When that was worked out, in seconds since the epoch.
    """

    entry: str
    due_at: float
    at: float


class ScheduleChanged(NamedTuple):
    """
    Entries came to the schedule or left it, or beat has just begun.

    Attributes:
        entries: The names of all that are in it now, without those that are disabled.

        due: The names of those of which it is known when they are due next.
    """

    entries: frozenset[str]
    due: frozenset[str]
