"""
The metrics observer: which numbers each event changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.areas.schedules.events import BeatTicked, EntryFired, EntryScheduled, ScheduleChanged
from celery_obs.areas.schedules.metrics import ENTRY_DUE, ENTRY_LAST_FIRED
from celery_obs.areas.schedules.metrics import HEARTBEAT as BEAT_HEARTBEAT
from celery_obs.areas.sidecar.events import ObservationDropped, TelemetryDropped
from celery_obs.areas.sidecar.metrics import DROPPED
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import (
    AttemptInterrupted,
    AttemptKillDecided,
    AttemptNotBegun,
    TaskDiscarded,
    TaskFinished,
    TaskPublished,
    TaskReceived,
    TaskRetried,
    TaskStarted,
)
from .metrics import FAILURES, FINISHED, PUBLISHED, RECEIVED, RETRIES


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
        self._published = SeriesWriter(recorder, PUBLISHED)
        self._received = SeriesWriter(recorder, RECEIVED)
        self._discarded = SeriesWriter(recorder, FINISHED)
        self._retried = SeriesWriter(recorder, RETRIES)
        self._failures = SeriesWriter(recorder, FAILURES)
        self._dropped = SeriesWriter(recorder, DROPPED)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.  An event whose fields are the labels is counted as it is.
        """
        return (
            (TaskStarted, self._attempts.started),
            (TaskFinished, self._attempts.finished),
            (AttemptInterrupted, self._attempts.interrupted),
            (AttemptKillDecided, self._attempts.kill_decided),
            (TaskPublished, self._published.count),
            (TaskReceived, self._received.count),
            (TaskDiscarded, self._discarded.count),
            (TaskRetried, self._retried.count),
            (AttemptNotBegun, self.attempt_not_begun),
            (ObservationDropped, self._dropped.count),
            (TelemetryDropped, self.telemetry_dropped),
            (BeatTicked, self.beat_ticked),
            (EntryFired, self.entry_fired),
            (EntryScheduled, self.entry_scheduled),
            (ScheduleChanged, self.schedule_changed),
        )

    def attempt_not_begun(self, event: AttemptNotBegun) -> None:
        """
        Count a failure that no start belongs to.
        """
        task, queue, exception = event
        self._discarded.count((task, queue, "failure"))
        self._failures.count((task, queue, exception, "false"))

    def telemetry_dropped(self, event: TelemetryDropped) -> None:
        """
        Count what will not arrive.
        """
        self._dropped.inc((event.reason,), event.number)

    def beat_ticked(self, event: BeatTicked) -> None:
        """
        Note that beat lives.
        """
        self._recorder.set(BEAT_HEARTBEAT, (), event.at, at=event.at)

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
