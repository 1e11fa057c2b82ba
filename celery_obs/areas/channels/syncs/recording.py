"""
Which numbers the events of syncs change.

A `SyncLost` changes none: the process that finds a dead process's slot counts the run there, see `AttemptMeter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import SyncFinished, SyncHeldBack, SyncLost, SyncStarted
from .metrics import DURATION, HELD_BACK, HOLD_REASONS, IN_PROGRESS, RECORD_RESULTS, RECORDS, STATUSES, TOTAL


__all__ = ["Recording", "sync_series"]


class Recording:
    """
    The numbers of syncs.

    Args:
        recorder: Knows where the numbers lie.

        attempts: Keeps, in a worker, what is to be counted when the process of a run dies.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._attempts = attempts
        attempts.lost_work[TOTAL.name] = lambda values: SyncLost(*values[:3])
        self._tracked: dict[int, int] = {}
        self._syncs = SeriesWriter(recorder, TOTAL)
        self._durations = SeriesWriter(recorder, DURATION)
        self._records = SeriesWriter(recorder, RECORDS)
        self._in_progress = SeriesWriter(recorder, IN_PROGRESS)
        self._held_back = SeriesWriter(recorder, HELD_BACK)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.
        """
        return ((SyncStarted, self.sync_started), (SyncFinished, self.sync_finished), (SyncHeldBack, self.sync_held_back))

    def sync_started(self, event: SyncStarted) -> None:
        """
        One more runs, and would count as a failure if its process died now.
        """
        channel, sync, direction, _, _ = event
        self._in_progress.add((channel, sync), 1.0)
        word = self._syncs.word((channel, sync, direction, "failure"))
        self._tracked[id(event)] = 0 if word is None else self._attempts.track_sync(word)

    def sync_finished(self, event: SyncFinished) -> None:
        """
        Count a run by outcome, time it, and count what it moved.
        """
        (channel, sync, direction, _, _), status, duration, created, updated, failed, skipped, _, _ = event
        pair = (channel, sync)
        self._in_progress.add(pair, -1.0)
        at = self._tracked.pop(id(event[0]), 0)
        if at == 0:
            self._syncs.count((channel, sync, direction, status))
        else:
            word = self._syncs.word((channel, sync, direction, status))
            if word is not None:
                self._attempts.settle_sync(at, word)
        self._durations.observe(pair, duration)
        if created:
            self._records.inc((channel, sync, "created"), created)
        if updated:
            self._records.inc((channel, sync, "updated"), updated)
        if failed:
            self._records.inc((channel, sync, "failed"), failed)
        if skipped:
            self._records.inc((channel, sync, "skipped"), skipped)

    def sync_held_back(self, event: SyncHeldBack) -> None:
        """
        Count a task that was put back.
        """
        self._held_back.count((event.channel_type, event.sync_type, event.reason))


def sync_series(channel: str, sync: str, direction: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a sync whose channel is known.
    """
    for status in STATUSES:
        yield TOTAL, (channel, sync, direction, status)
    for result in RECORD_RESULTS:
        yield RECORDS, (channel, sync, result)
    yield DURATION, (channel, sync)
    for reason in HOLD_REASONS:
        yield HELD_BACK, (channel, sync, reason)
