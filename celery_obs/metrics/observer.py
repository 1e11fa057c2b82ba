"""
The metrics observer: which numbers each event changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.vocabulary.beat import ENTRY_DUE, ENTRY_LAST_FIRED, BeatTicked, EntryFired, EntryScheduled, ScheduleChanged
from celery_obs.vocabulary.beat import HEARTBEAT as BEAT_HEARTBEAT
from celery_obs.vocabulary.ourselves import DROPPED, ObservationDropped
from celery_obs.vocabulary.spec import Metric
from celery_obs.vocabulary.tasks import (
    FINISHED,
    PUBLISHED,
    RECEIVED,
    RETRIES,
    AttemptDoomed,
    AttemptInterrupted,
    TaskDiscarded,
    TaskFinished,
    TaskPublished,
    TaskReceived,
    TaskRetried,
    TaskStarted,
)

from .attempts import AttemptMeter
from .recorder import Recorder


__all__ = ["MetricsObserver"]


class MetricsObserver:
    """
    Turn events into numbers.

    Args:
        recorder: Knows where the numbers lie.

        attempts: Counts starts and outcomes.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, *, attempts: AttemptMeter) -> None:
        self._recorder = recorder
        self._attempts = attempts
        self._epoch: object = None
        self._published: dict[tuple[str, str], int] = {}
        self._received: dict[tuple[str, str], int] = {}

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.
        """
        return (
            (TaskStarted, self._attempts.started),
            (TaskFinished, self._attempts.finished),
            (AttemptInterrupted, self._attempts.interrupted),
            (AttemptDoomed, self._attempts.doomed),
            (TaskPublished, self.published),
            (TaskReceived, self.received),
            (TaskDiscarded, self.discarded),
            (TaskRetried, self.retried),
            (ObservationDropped, self.dropped),
            (BeatTicked, self.beat_ticked),
            (EntryFired, self.entry_fired),
            (EntryScheduled, self.entry_scheduled),
            (ScheduleChanged, self.schedule_changed),
        )

    def published(self, event: TaskPublished) -> None:
        """
        Count a message that was sent.
        """
        self._count(PUBLISHED, self._published, event)

    def received(self, event: TaskReceived) -> None:
        """
        Count a message that came.
        """
        self._count(RECEIVED, self._received, event)

    def discarded(self, event: TaskDiscarded) -> None:
        """
        Count a task that ended without an attempt.
        """
        self._recorder.count(FINISHED, event)

    def retried(self, event: TaskRetried) -> None:
        """
        Count an attempt that the main process asked for.
        """
        self._recorder.count(RETRIES, event)

    def dropped(self, event: ObservationDropped) -> None:
        """
        Count what could not be recorded.
        """
        self._recorder.count(DROPPED, event)

    def beat_ticked(self, event: BeatTicked) -> None:
        """
        Note that beat lives.
        """
        self._recorder.set(BEAT_HEARTBEAT, (), event.at, at=event.at)

    def entry_fired(self, event: EntryFired) -> None:
        """
        Note when an entry was published.
        """
        self._recorder.set(ENTRY_LAST_FIRED, (event.entry,), event.at, at=event.at)

    def entry_scheduled(self, event: EntryScheduled) -> None:
        """
        Note when an entry is due.
        """
        self._recorder.set(ENTRY_DUE, (event.entry,), event.due_at, at=event.at)

    def schedule_changed(self, event: ScheduleChanged) -> None:
        """
        Say nothing more of entries that left the schedule: they are not late, they are gone.
        """
        for metric in (ENTRY_DUE, ENTRY_LAST_FIRED):
            self._recorder.clear(metric, keep=event.entries)

    def _count(self, metric: Metric, known: dict[tuple[str, str], int], pair: tuple[str, str]) -> None:
        """
        Count up by one; *known* remembers the word of a label set that has a place of its own.
        """
        recorder = self._recorder
        if self._epoch is not recorder.epoch:
            if not recorder.ready():
                return
            self._published.clear()
            self._received.clear()
            self._epoch = recorder.epoch
        word = known.get(pair)
        if word is None:
            word = recorder.word(metric, pair)
            if word is None:
                return
            if recorder.is_known(metric, pair):
                known[pair] = word
        slot = recorder.slot
        if slot is not None:
            slot.words[word] += 1
