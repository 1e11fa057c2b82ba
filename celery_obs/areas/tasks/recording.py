"""
Which numbers the events of tasks change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter

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


__all__ = ["Recording"]


class Recording:
    """
    The numbers of tasks; starts and outcomes are counted by the attempt meter.

    Args:
        recorder: Knows where the numbers lie.

        attempts: Keeps, in a worker, what is to be counted when the process of a run dies.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._attempts = attempts
        self._published = SeriesWriter(recorder, PUBLISHED)
        self._received = SeriesWriter(recorder, RECEIVED)
        self._discarded = SeriesWriter(recorder, FINISHED)
        self._retried = SeriesWriter(recorder, RETRIES)
        self._failures = SeriesWriter(recorder, FAILURES)

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
        )

    def attempt_not_begun(self, event: AttemptNotBegun) -> None:
        """
        Count a failure that no start belongs to.
        """
        task, queue, exception = event
        self._discarded.count((task, queue, "failure"))
        self._failures.count((task, queue, exception, "false"))
