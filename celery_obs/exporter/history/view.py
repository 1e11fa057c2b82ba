"""
What is asked of the history: series over a time, a value each so many seconds, gaps told as gaps.

Times are by the clock that goes on evenly, and shown by the other one as that is now: where a clock was set, what was seen before moves with it, and nothing
happened twice or never.  What was seen before the machine started is shown by the clock of then.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from .declared import Name
from .file import MINUTE, Column, Columns, Moment, Row


__all__ = ["Asked", "Line", "Lines", "look"]


_LATE: Final = 2.5  # So many periods without a sample are a gap.


class Asked(NamedTuple):
    """
    What is asked for.

    Attributes:
        wants: Tells of a series whether it is.

        seconds: How far to look back.

        step: Seconds between two values.

        limit: How many series, in the order of their names.

        after: Those after this one.
    """

    wants: Callable[[Name], bool]
    seconds: float
    step: float
    limit: int
    after: Name | None = None


class Line(NamedTuple):
    """
    One series.

    Attributes:
        name: Its name.

        values: A value each step; of what grows, its rate a second; None where it is not known.
    """

    name: Name
    values: list[float | None]


class Lines(NamedTuple):
    """
    What was found.

    Attributes:
        start: When the first step begins, in seconds since the epoch.

        step: Seconds of a step: as asked, or more where samples are further apart.

        steps: How many values each line has.

        lines: In the order of their names.

        more: Whether there are more series than these.
    """

    start: float
    step: float
    steps: int
    lines: list[Line]
    more: bool


def look(columns: Columns, asked: Asked, *, now: Moment) -> Lines:
    """
    Return what is asked for.
    """
    chosen = sorted((row.name, place) for place, row in columns.rows.items() if asked.wants(row.name))
    if asked.after is not None:
        chosen = [each for each in chosen if each[0] > asked.after]
    is_coarse = asked.step >= MINUTE
    begin = now.ticks - asked.seconds
    timed = _timed(columns.minutes() if is_coarse else columns.fine, now, at_least=2 * MINUTE if is_coarse else 0.0)
    samples = [sample for sample in timed if sample.ticks >= begin - sample.gap - asked.step]
    step = asked.step if is_coarse or not samples else max(asked.step, samples[-1].column.period)
    last = math.floor(now.ticks / step)
    if samples and now.ticks - samples[-1].ticks <= _LATE * samples[-1].column.period:
        last = math.floor(samples[-1].ticks / step)  # The next sample is not due yet.
    count = max(1, math.ceil(asked.seconds / step))
    grid = _Grid(last - count + 1, count, step)
    lines = [Line(name, _values(samples, columns.rows[place], place, grid)) for name, place in chosen[: asked.limit]]
    return Lines(now.at - now.ticks + grid.first * step, step, count, lines, len(chosen) > asked.limit)


class _Sample(NamedTuple):
    """
    A sample, with its time by this machine's clock, and after how many seconds without another one there is a gap.
    """

    ticks: float
    gap: float
    column: Column


class _Grid(NamedTuple):
    first: int
    steps: int
    step: float

    def place(self, ticks: float) -> int | None:
        at = math.floor(ticks / self.step) - self.first
        return at if 0 <= at < self.steps else None

    def between(self, begin: float, end: float) -> range:
        """
        Return the steps that lie between those of two times.
        """
        first, last = math.floor(begin / self.step) - self.first + 1, math.floor(end / self.step) - self.first
        return range(max(0, first), min(self.steps, last))

    def parts(self, begin: float, end: float) -> Iterator[tuple[int, float]]:
        """
        Divide a time among the steps that it reaches into: each step, and the seconds of it.
        """
        first, last = math.floor(begin / self.step) - self.first, math.floor(end / self.step) - self.first
        for at in range(max(0, first), min(self.steps - 1, last) + 1):
            start = (self.first + at) * self.step
            part = min(end, start + self.step) - max(begin, start)
            if part > 0:
                yield at, part


def _timed(columns: Iterable[Column], now: Moment, *, at_least: float) -> Iterator[_Sample]:
    """
    Say when each was, and leave out what is not over yet by the clocks: theirs was wrong.
    """
    offset = now.at - now.ticks
    for column in columns:
        ticks = column.at.ticks if column.at.boot == now.boot else column.at.at - offset
        if ticks <= now.ticks:
            yield _Sample(ticks, max(_LATE * column.period, at_least), column)


def _values(samples: Sequence[_Sample], row: Row, place: int, grid: _Grid) -> list[float | None]:
    if row.name.grows:
        return _rates(samples, row, place, grid)
    values: list[float | None] = [None] * grid.steps
    before: tuple[_Sample, float] | None = None
    for sample in samples:
        value = sample.column.values[place]
        if sample.column.sample < row.since or math.isnan(value):
            before = None
            continue
        if before is not None and sample.ticks - before[0].ticks <= max(sample.gap, before[0].gap):
            # A look that came late is no gap: what was seen before it stands until then.
            for late in grid.between(before[0].ticks, sample.ticks):
                values[late] = before[1] if values[late] is None else values[late]
        before = sample, value
        at = grid.place(sample.ticks)
        if at is None:
            continue
        kept, fold = values[at], row.name.fold
        if kept is None or fold == "last" or (value > kept if fold == "max" else value < kept):
            values[at] = value
    return values


def _rates(samples: Sequence[_Sample], row: Row, place: int, grid: _Grid) -> list[float | None]:
    """
    Return by how much it grew a second: between two samples without a gap evenly, so that the rates of all steps add up to what it grew by.
    """
    grown, seconds = [0.0] * grid.steps, [0.0] * grid.steps
    before: tuple[_Sample, float] | None = None
    for sample, value in _with_before(samples, row, place):
        if math.isnan(value):
            before = None
            continue
        if before is not None:
            begin, took = before[0].ticks, sample.ticks - before[0].ticks
            if 0 < took <= max(sample.gap, before[0].gap):
                more = value - before[1] if value >= before[1] else value  # It began anew.
                for at, part in grid.parts(begin, sample.ticks):
                    grown[at] += more * part / took
                    seconds[at] += part
        before = sample, value
    return [more / took if took else None for more, took in zip(grown, seconds, strict=True)]


def _with_before(samples: Sequence[_Sample], row: Row, place: int) -> Iterator[tuple[_Sample, float]]:
    """
    Go through the values of a row, from the sample on before which it was none.
    """
    earlier: _Sample | None = None
    for sample in samples:
        if sample.column.sample < row.since:
            earlier = sample
            continue
        if earlier is not None:
            yield earlier, row.before
            earlier = None
        yield sample, sample.column.values[place]
