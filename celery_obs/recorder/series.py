"""
One metric's series by label values, with their words remembered for as long as the recorder's slot is the same.
"""

from __future__ import annotations

import time

from bisect import bisect_left
from typing import Final

from celery_obs.vocabulary.spec import Metric

from .recorder import Recorder


__all__ = ["SeriesWriter"]


_HIGHEST: Final = 1 << 53


class SeriesWriter:
    """
    Record into the series of one metric.

    Args:
        recorder: Knows where the numbers lie.

        metric: The metric.

    What finds no room is not recorded, and the recorder counts that.  Threads: safe under the GIL.  Forks: through the recorder.
    """

    __slots__ = ("_edges", "_epoch", "_sum_at", "_words", "metric", "recorder")

    def __init__(self, recorder: Recorder, metric: Metric) -> None:
        self.recorder = recorder
        self.metric = metric
        self._edges = metric.buckets
        self._sum_at = len(metric.buckets) + 1
        self._epoch: object = None
        self._words: dict[tuple[str, ...], int] = {}

    def count(self, values: tuple[str, ...]) -> int | None:
        """
        Count up by one step: for counters of whole things.  Return the word that was counted up; None where there was no room.
        """
        recorder = self.recorder
        word = self._words.get(values) if self._epoch is recorder.epoch else None
        if word is None:
            word = self.word(values)
        slot = recorder.slot
        if word is None or slot is None:
            return None
        slot.words[word] += 1
        return word

    def inc(self, values: tuple[str, ...], amount: float = 1) -> None:
        """
        Add *amount* to a counter.

        Raises:
            ValueError: if *amount* is below 0, or more than a lane may be given at once.

            OverflowError: if it is infinite.
        """
        word = self.word(values)
        slot = self.recorder.slot
        if word is not None and slot is not None:
            slot.words[word] += self._steps(amount)

    def observe(self, values: tuple[str, ...], value: float) -> None:
        """
        Take one measured value into a histogram.

        Raises:
            ValueError, OverflowError: as `inc`.
        """
        word = self.word(values)
        slot = self.recorder.slot
        if word is not None and slot is not None:
            steps = self._steps(value)
            words = slot.words
            bucket = word + bisect_left(self._edges, value)
            words[bucket] += 1
            words[word + self._sum_at] += steps
            exemplars = self.recorder.exemplars
            if exemplars is not None:
                exemplars.note(bucket, value, time.time())

    def set(self, values: tuple[str, ...], value: float) -> None:
        """
        Set a gauge, for this process.
        """
        word = self.word(values)
        slot = self.recorder.slot
        if word is not None and slot is not None:
            slot.floats[word] = float(value)
            slot.words[word + 1] = int(time.time() * 1e6)

    def add(self, values: tuple[str, ...], amount: float) -> None:
        """
        Add *amount* to what this process has set a gauge to; one that it never set begins at 0.
        """
        word = self.word(values)
        slot = self.recorder.slot
        if word is not None and slot is not None:
            now = int(time.time() * 1e6)
            floats, words = slot.floats, slot.words
            floats[word] = amount + (floats[word] if words[word + 1] else 0.0)
            words[word + 1] = now

    def _steps(self, amount: float) -> int:
        steps = round(amount / self.metric.resolution)
        if not 0 <= steps < _HIGHEST:
            message = f"{self.metric.name} cannot take {amount!r}. Expected a number from 0 on."
            raise ValueError(message)
        return steps

    def word(self, values: tuple[str, ...]) -> int | None:
        """
        Return the index of a series' first word, or None when there is no room or no slot; as `Recorder.word`, and as dear only once.
        """
        recorder = self.recorder
        if self._epoch is not recorder.epoch:
            if not recorder.ready():
                return None
            self._words, self._epoch = {}, recorder.epoch
        word = self._words.get(values)
        if word is None:
            word = recorder.word(self.metric, values)
            if word is not None and recorder.is_known(self.metric, values):
                self._words[values] = word
        return word
