"""
The tally: what the records of attempts that ended add to the lanes.  The one place that says so, for who counts and for who reads.

It looks up the series by the layout alone, so that a reader, or the heir of a process that died, counts as the writer would have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from math import floor
from typing import Any, Final, NamedTuple

from celery_obs.areas.tasks.metrics import ATTEMPTS, FINAL_STATES, FINISHED, LATENCY, QUEUE_WAIT, RUNTIME, STARTED, STATES
from celery_obs.vocabulary.spec import Metric

from .layout import Layout, Series
from .ring import HELD_BACK_CAUSE


__all__ = ["Tally"]


_LONGEST: Final = 1e9  # Seconds.  What is longer was not written by us, and is counted, but not observed.
_NAMES: Final = frozenset(metric.name for metric in (STARTED, FINISHED, RUNTIME, QUEUE_WAIT, LATENCY, ATTEMPTS))
_STATES: Final = len(STATES)


class _Times(NamedTuple):
    """
    A histogram's lanes.
    """

    at: int
    edges: tuple[float, ...]
    sum_at: int
    scale: float


class _Outcome(NamedTuple):
    """
    The lanes of one outcome of one task on one queue.
    """

    finished: int | None
    runtime: _Times | None
    is_final: bool


class _Pair(NamedTuple):
    """
    The lanes of one task on one queue, whatever its outcome.
    """

    wait: _Times | None
    latency: _Times | None
    attempts: _Times | None
    outcomes: tuple[_Outcome, ...]


class Tally:
    """
    Add up what attempts change.

    Args:
        layout: Says which lane is what.  It may grow meanwhile.

    Threads: one at a time.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._read = 0
        self._series: dict[tuple[str, tuple[str, ...]], Series] = {}
        self._values: dict[int, tuple[str, ...]] = {}
        self._pairs: dict[int, _Pair] = {}

    def of(self, records: Iterable[tuple[Any, ...]]) -> dict[int, int]:
        """
        Return by how much each lane grows with *records*, which are as `celery_obs.recorder.ring.RECORD_FORM` has them.

        A record of a task that the layout does not know, or in a state that is none, changes nothing.
        """
        if len(self.layout.series) != self._read:
            self._refresh()
        changes: dict[int, int] = {}
        lanes = self.layout.lanes
        for _, lane, word, cause, started_at, runtime, wait, due_at, _, _ in records:
            pair, state = self._pairs.get(lane) or self._pair(lane), word & 255
            if pair is None or state >= _STATES:
                continue
            outcome = pair.outcomes[state]
            if outcome.finished is None:
                continue
            changes[lane] = changes.get(lane, 0) + 1
            changes[outcome.finished] = changes.get(outcome.finished, 0) + 1
            _observe(changes, outcome.runtime, runtime)
            if wait >= 0.0:
                _observe(changes, pair.wait, wait)
            if 0 < cause <= lanes:
                changes[cause - 1] = changes.get(cause - 1, 0) + 1
            if outcome.is_final and cause != HELD_BACK_CAUSE:
                _observe(changes, pair.attempts, (word >> 8) + 1)
                if due_at:
                    latency = started_at + runtime - due_at
                    _observe(changes, pair.latency, max(0.0, latency))
        return changes

    def of_running(self, lane: int, wait: float) -> dict[int, int]:
        """
        Return by how much each lane grows with an attempt that began, and did not end yet.
        """
        if len(self.layout.series) != self._read:
            self._refresh()
        pair = self._pairs.get(lane) or self._pair(lane)
        if pair is None:
            return {}
        changes = {lane: 1}
        if wait >= 0.0:
            _observe(changes, pair.wait, wait)
        return changes

    def _refresh(self) -> None:
        fresh = self.layout.series[self._read :]
        self._read += len(fresh)
        for series in fresh:
            name = series.family.name
            if name in _NAMES:  # Of two families of a name, for buckets were changed, the later one is written to.
                self._series[name, series.values] = series
                if name == STARTED.name:
                    self._values[series.at] = series.values
        self._pairs.clear()

    def _pair(self, lane: int) -> _Pair | None:
        values = self._values.get(lane)
        if values is None:
            return None
        found = self._pairs[lane] = _Pair(
            self._times(QUEUE_WAIT, values),
            self._times(LATENCY, values),
            self._times(ATTEMPTS, values),
            tuple(
                _Outcome(self._lane(FINISHED, (*values, state)), self._times(RUNTIME, (*values, state)), state in FINAL_STATES)
                for state in STATES
            ),
        )
        return found

    def _lane(self, metric: Metric, values: tuple[str, ...]) -> int | None:
        series = self._series.get((metric.name, values))
        return None if series is None else series.at

    def _times(self, metric: Metric, values: tuple[str, ...]) -> _Times | None:
        series = self._series.get((metric.name, values))
        if series is None:
            return None
        family = series.family
        return _Times(series.at, family.buckets, series.at + len(family.buckets) + 1, round(1 / family.resolution))


def _observe(changes: dict[int, int], times: _Times | None, value: float) -> None:
    if times is not None and 0.0 <= value < _LONGEST:
        bucket = times.at + bisect_left(times.edges, value)
        changes[bucket] = changes.get(bucket, 0) + 1
        changes[times.sum_at] = changes.get(times.sum_at, 0) + floor(value * times.scale)
