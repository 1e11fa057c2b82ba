"""
Which numbers the events of schedules change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.vocabulary.spec import Metric

from .events import BeatTicked, EntryFired, EntryScheduled, ScheduleChanged
from .metrics import ENTRY_DUE, ENTRY_LAST_FIRED, HEARTBEAT


__all__ = ["Recording"]


class Recording:
    """
    The numbers of schedules.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._recorder = recorder

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.
        """
        return (
            (BeatTicked, self.beat_ticked),
            (EntryFired, self.entry_fired),
            (EntryScheduled, self.entry_scheduled),
            (ScheduleChanged, self.schedule_changed),
        )

    def beat_ticked(self, event: BeatTicked) -> None:
        """
        Note that beat lives.
        """
        self._recorder.set(HEARTBEAT, (), event.at, at=event.at)

    def entry_fired(self, event: EntryFired) -> None:
        """
        Note when an entry was published.  Its name comes from the schedule itself, so that it has a place whatever the limit of labels.
        """
        self._set_for_entry(ENTRY_LAST_FIRED, event.entry, event.at, at=event.at)

    def _set_for_entry(self, metric: Metric, entry: str, value: float, *, at: float) -> None:
        if not self._recorder.is_known(metric, (entry,)):
            self._recorder.declare([(metric, (entry,))])
        self._recorder.set(metric, (entry,), value, at=at)

    def entry_scheduled(self, event: EntryScheduled) -> None:
        """
        Note when an entry is due; see `entry_fired`.
        """
        self._set_for_entry(ENTRY_DUE, event.entry, event.due_at, at=event.at)

    def schedule_changed(self, event: ScheduleChanged) -> None:
        """
        Say nothing more of entries that left the schedule: they are not late, they are gone.  One that will not come up again is not late, either.
        """
        self._recorder.clear(ENTRY_DUE, keep=event.due)
        self._recorder.clear(ENTRY_LAST_FIRED, keep=event.entries)
