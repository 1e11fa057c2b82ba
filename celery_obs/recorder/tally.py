"""
The tally: what the records of attempts that ended add to the lanes.  The one place that says so, for who counts and for who reads.

It looks up the series by the layout alone, so that a reader, or the heir of a process that died, counts as the writer would have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from math import floor
from typing import Any, Final, NamedTuple

from celery_obs.areas.tasks.metrics import ATTEMPTS, FINAL_STATES, FINISHED, LATENCY, QUEUE_WAIT, RUNTIME, STARTED, STATES
from celery_obs.vocabulary.spec import Metric

from .layout import Layout, Series
from .ring import HELD_BACK_CAUSE


__all__ = ["Tally"]


_LONGEST: Final = 1e9  # Seconds.  What is longer was not written by us, and is counted, but not observed.
_HIGHEST: Final = 1 << 40  # No attempt has as many retries before it.
_NAMES: Final = frozenset(metric.name for metric in (STARTED, FINISHED, RUNTIME, QUEUE_WAIT, LATENCY, ATTEMPTS))


class _Times(NamedTuple):
    """
    A histogram's lanes.
    """

    at: int
    edges: tuple[float, ...]
    sum_at: int
    scale: float


_NOWHERE: Final = _Times(-1 << 40, (), -1 << 40, 0.0)
"""
Where what has no series is put, and left.
"""


class _Outcome(NamedTuple):
    """
    The lanes of one outcome of one task on one queue.
    """

    finished: int
    runtime: _Times
    is_final: bool


class _Pair(NamedTuple):
    """
    The lanes of one task on one queue, whatever its outcome.
    """

    wait: _Times
    latency: _Times
    attempts: _Times
    outcomes: dict[int, _Outcome]


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
        changes: defaultdict[int, int] = defaultdict(int)
        alike, used = (-1, 0, 0), 0
        of_runtime = of_wait = of_latency = _NOWHERE
        runtimes = waits = latencies = 0
        for _, lane, word, cause, started_at, runtime, wait, due_at, _, _ in records:
            if (lane, word, cause) != alike:  # Most are as the one before: what they share is added once.
                self._add(changes, alike, used, (of_runtime, runtimes), (of_wait, waits), (of_latency, latencies))
                alike, used = (lane, word, cause), 0
                runtimes = waits = latencies = 0
                of_runtime, of_wait, of_latency = self._times_of(*alike)
            used += 1
            at, edges, _, scale = of_runtime
            if 0.0 <= runtime < _LONGEST:
                changes[at + bisect_left(edges, runtime)] += 1
                runtimes += floor(runtime * scale)
            at, edges, _, scale = of_wait
            if 0.0 <= wait < _LONGEST:
                changes[at + bisect_left(edges, wait)] += 1
                waits += floor(wait * scale)
            if due_at:
                at, edges, _, scale = of_latency
                latency = started_at + runtime - due_at
                if latency < _LONGEST:
                    changes[at + bisect_left(edges, latency)] += 1
                    latencies += floor(latency * scale) if latency > 0.0 else 0
        self._add(changes, alike, used, (of_runtime, runtimes), (of_wait, waits), (of_latency, latencies))
        return {lane: more for lane, more in changes.items() if lane >= 0}

    def _times_of(self, lane: int, word: int, cause: int) -> tuple[_Times, _Times, _Times]:
        """
        Return where the runtime, the wait and the latency of an attempt are observed.
        """
        found = self._outcome_of(lane, word)
        if found is None:
            return _NOWHERE, _NOWHERE, _NOWHERE
        pair, outcome = found
        return outcome.runtime, pair.wait, pair.latency if outcome.is_final and cause != HELD_BACK_CAUSE else _NOWHERE

    def _add(self, changes: defaultdict[int, int], alike: tuple[int, int, int], used: int, *sums: tuple[_Times, int]) -> None:
        """
        Add what *used* attempts share, whose records have the lane, the word and the cause that *alike* says.
        """
        lane, word, cause = alike
        found = self._outcome_of(lane, word)
        if not used or found is None:
            return
        pair, outcome = found
        changes[lane] += used
        changes[outcome.finished] += used
        for times, total in sums:
            changes[times.sum_at] += total
        if 0 < cause <= self.layout.lanes:
            changes[cause - 1] += used
        if outcome.is_final and cause != HELD_BACK_CAUSE:
            at, edges, sum_at, _ = pair.attempts
            attempts = (word >> 8) + 1
            changes[at + bisect_left(edges, attempts)] += used
            changes[sum_at] += used * attempts

    def _outcome_of(self, lane: int, word: int) -> tuple[_Pair, _Outcome] | None:
        """
        Return the lanes of the records with that lane and word; None where there are none.
        """
        pair = self._pairs.get(lane) or self._pair(lane)
        outcome = None if pair is None or not 0 <= word < _HIGHEST else pair.outcomes.get(word & 255)
        return None if pair is None or outcome is None else (pair, outcome)

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
        at, edges, sum_at, scale = pair.wait
        if 0.0 <= wait < _LONGEST and at >= 0:
            changes[at + bisect_left(edges, wait)] = 1
            changes[sum_at] = floor(wait * scale)
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
            {
                number: _Outcome(finished.at, self._times(RUNTIME, (*values, state)), state in FINAL_STATES)
                for number, state in enumerate(STATES)
                if (finished := self._series.get((FINISHED.name, (*values, state)))) is not None
            },
        )
        return found

    def _times(self, metric: Metric, values: tuple[str, ...]) -> _Times:
        series = self._series.get((metric.name, values))
        if series is None:
            return _NOWHERE
        family = series.family
        return _Times(series.at, family.buckets, series.at + len(family.buckets) + 1, round(1 / family.resolution))
