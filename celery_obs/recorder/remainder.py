"""
The remainder: what nodes counted whose folders are gone, in one file that is replaced as a whole.

``<metrics_dir>/remainder`` holds the sums of all nodes that were merged into it, and which nodes those are.
Renaming a new one into its place is the one moment at which a node stops to count by its folder and begins to count here:
readers pass over folders of nodes that the remainder names, whatever is still left of them.

The file is lines of JSON: a head; the nodes merged of late, by the identity of their layout; then, as in a layout, a line a family,
and a line a series with its numbers behind the labels.  Only what is not 0 is kept.
"""

from __future__ import annotations

import json
import os

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from celery_obs.areas.schedules import metrics as beat
from celery_obs.areas.workers import metrics as workers
from celery_obs.exceptions import LayoutError
from celery_obs.vocabulary.spec import Metric

from .format import VERSION
from .layout import Layout, family_line, header_line, label_values, series_line, width
from .opening import open_file, read_file, replace_file


__all__ = ["ENDS_WITH_ITS_NODE", "REMAINDER", "Lasting", "Remainder", "pending_nodes"]


REMAINDER: Final = "remainder"
"""
The file's name in the metrics directory; no node's folder can be called that.
"""

ENDS_WITH_ITS_NODE: Final = frozenset({workers.HEARTBEAT, beat.HEARTBEAT, beat.ENTRY_DUE, beat.ENTRY_LAST_FIRED})
"""
Gauges that say something of a node itself, or of the schedule that it announced, and are of no use without it.
"""

_KEPT_NAMES: Final = 7 * 86400.0  # Seconds for which a merged node is remembered after its folder went.
_KEPT_GAUGES: Final = 90 * 86400.0
_LONGEST_HEAD: Final = 1 << 20
_LARGEST: Final = 1 << 27
_HIGHEST: Final = 1 << 63


class Lasting(NamedTuple):
    """
    A gauge that outlives who set it.
    """

    value: float
    set_at: int


@dataclass(slots=True)
class Remainder:
    """
    What the file says.

    Attributes:
        pending: Nodes whose folders were still there when they were merged: layout identity to folder name.

        merged: All nodes merged of late: layout identity to the second of its merge.

        lanes: Numbers by series, in steps of the metric's resolution.

        gauges: Lasting gauges by series.
    """

    pending: dict[int, str] = field(default_factory=dict)
    merged: dict[int, float] = field(default_factory=dict)
    lanes: dict[tuple[Metric, tuple[str, ...]], list[int]] = field(default_factory=dict)
    gauges: dict[tuple[Metric, tuple[str, ...]], Lasting] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Remainder:
        """
        Read the file at *path*; one that is not there says nothing.

        Raises:
            LayoutError: if it is damaged.

            OSError: if it cannot be read.
        """
        try:
            lines = read_file(path, most=_LARGEST).split(b"\n")
        except FileNotFoundError:
            return cls()
        if lines.pop():
            message = f"{path} ends in the middle of a line."
            raise LayoutError(message)
        made = cls()
        try:
            made.pending = _pending(lines[0])
            made.merged = {int(layout_id): float(at) for layout_id, at in json.loads(lines[1]).items()}
            made._take(lines[2:])
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, ArithmeticError) as error:
            message = f"{path} is damaged: {type(error).__name__}: {str(error)[:200]}."
            raise LayoutError(message) from error
        return made

    def _take(self, lines: Iterable[bytes]) -> None:
        layout = Layout()
        layout.feed(header_line(1))
        for line in lines:
            if line.startswith(b"{"):
                layout.feed(line + b"\n")
                continue
            number, *values, numbers = json.loads(line)
            metric = layout.families[number]
            key = (metric, label_values(metric, values))
            if metric.kind == "gauge":
                self.gauges[key] = Lasting(float(numbers[0]), int(numbers[1]))
            elif len(numbers) == width(metric) and all(isinstance(each, int) and 0 <= each < _HIGHEST for each in numbers):
                self.lanes[key] = numbers
            else:
                message = f"the numbers of {metric.name} are invalid"
                raise ValueError(message)

    def add(self, layout: Layout, lanes: Sequence[int], gauges: Iterable[tuple[int, Lasting]], *, folder: str, now: float) -> None:
        """
        Take over what a node counted, and what it set for good.

        Args:
            layout: The node's.

            lanes: Its totals, lane by lane.

            gauges: Its lasting gauges, each with its place.

            folder: The name of its folder.

            now: Seconds since the epoch.
        """
        places = {series.at: series for series in layout if series.family.kind == "gauge"}
        for series in layout:
            if series.family.kind != "gauge":
                fresh = lanes[series.at : series.at + width(series.family)]
                if any(fresh):
                    known = self.lanes.get((series.family, series.values)) or [0] * len(fresh)
                    self.lanes[series.family, series.values] = [old + new for old, new in zip(known, fresh, strict=True)]
        for place, gauge in gauges:
            series = places[place]
            if series.family not in ENDS_WITH_ITS_NODE:
                key = (series.family, series.values)
                self.gauges[key] = max(gauge, self.gauges.get(key, gauge), key=lambda each: each.set_at)
        assert layout.layout_id is not None  # noqa: S101 -- a layout that was read has one.
        self.pending[layout.layout_id] = folder
        self.merged[layout.layout_id] = now

    def forget(self, *, present: Iterable[int], now: float) -> None:
        """
        Drop the names of nodes whose folders are gone and that were merged long ago, and gauges that were set long ago.

        Args:
            present: Identities of the layouts that are still there.

            now: Seconds since the epoch.
        """
        there = frozenset(present)
        self.pending = {layout_id: folder for layout_id, folder in self.pending.items() if layout_id in there}
        self.merged = {layout_id: at for layout_id, at in self.merged.items() if layout_id in self.pending or now - at < _KEPT_NAMES}
        self.gauges = {key: gauge for key, gauge in self.gauges.items() if now - gauge.set_at / 1e6 < _KEPT_GAUGES}

    def write(self, path: Path) -> None:
        """
        Put this in the place of the file at *path*; the caller holds the lock of who merges.

        Raises:
            OSError: if that cannot be done; the old file is as it was.
        """
        replace_file(path, self._lines(), durable=True)

    def _lines(self) -> Iterator[bytes]:
        yield json.dumps({"celery_obs": VERSION, "pending": self.pending}).encode() + b"\n"
        yield json.dumps(self.merged).encode() + b"\n"
        numbers: dict[Metric, int] = {}
        content: list[tuple[tuple[Metric, tuple[str, ...]], Sequence[Any]]] = [*self.lanes.items(), *self.gauges.items()]
        for (metric, values), words in content:
            if metric not in numbers:
                numbers[metric] = len(numbers)
                yield family_line(metric)
            yield series_line(numbers[metric], values)[:-2] + b"," + json.dumps(list(words)).encode() + b"]\n"

    def as_layout(self) -> tuple[Layout, list[int]]:
        """
        Return the counted series as a node would have them: a layout, and its totals.
        """
        layout = Layout()
        layout.feed(header_line(1))
        lanes: list[int] = []
        for (metric, values), numbers in self.lanes.items():
            layout.add(metric, values)
            lanes += numbers
        return layout, lanes


def pending_nodes(metrics_dir: Path) -> dict[int, str]:
    """
    Return the nodes that were merged and may not be cleared away yet; at the cost of one line.
    """
    try:
        with os.fdopen(open_file(metrics_dir / REMAINDER), "rb") as file:
            return _pending(file.readline(_LONGEST_HEAD))
    except (OSError, LayoutError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _pending(line: bytes) -> dict[int, str]:
    head = json.loads(line)
    if head["celery_obs"] != VERSION:
        message = f"Expected a remainder of version {VERSION}, got {head['celery_obs']!r}."
        raise LayoutError(message)
    return {int(layout_id): str(folder) for layout_id, folder in head["pending"].items()}
