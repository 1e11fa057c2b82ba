"""
The layout: which series a node has, and where the numbers of each lie; as lines of a file that only grows.

Lines are appended without a lock: one ``write`` to a file opened with ``O_APPEND`` is not torn by another, every process reads the lines in the one order
of the file, and of two equal lines all take the first.  So all agree on every lane, and a process that is stopped can hold up no other.

A counter is one lane.  A histogram is one lane a bucket (not cumulative, ``+Inf`` last), then one for its sum in steps of the resolution.
A gauge has a place of its own, in the region of gauges.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.exceptions import LayoutError
from celery_obs.vocabulary.spec import Aggregate, Kind, Metric

from .format import VERSION
from .opening import new_file, open_file


__all__ = [
    "MOST_LANES",
    "Layout",
    "LayoutFile",
    "Series",
    "family_line",
    "feed_from",
    "header_line",
    "label_values",
    "series_line",
    "width",
]


MOST_LANES: Final = 1 << 22
"""
Lanes that a node may have at most: twice as many as there may be samples on a page.
"""

_LARGEST: Final = 1 << 27  # Bytes of a layout: three times those of the largest node that there may be.
_LONGEST_LINE: Final = 1 << 16
_PORTION: Final = 1 << 20
_HIGHEST_ID: Final = 1 << 63
_MOST_SERIES: Final = 1 << 19
_MOST_BAD: Final = 10_000
_MOST_BUCKETS: Final = 4096
_FINEST, _COARSEST = 1e-12, 1e12
_KINDS: Final = frozenset(get_args(Kind))
_AGGREGATES: Final = frozenset(get_args(Aggregate))


class Series(NamedTuple):
    """
    One label set of one family, and where it lies.

    Attributes:
        family: The metric.

        values: Label values, in the order of the family's labels.

        at: First lane; for a gauge its place in the gauge region.
    """

    family: Metric
    values: tuple[str, ...]
    at: int


def width(metric: Metric) -> int:
    """
    Return how many lanes a series of *metric* takes.
    """
    return len(metric.buckets) + 2 if metric.kind == "histogram" else 1


def header_line(layout_id: int) -> bytes:
    """
    Return a layout's first line.
    """
    return _line({"celery_obs": VERSION, "id": layout_id})


def family_line(metric: Metric) -> bytes:
    """
    Return the line that declares a family.
    """
    return _line(_definition(metric))


def series_line(family: int, values: Sequence[str]) -> bytes:
    """
    Return the line that declares a series of the family with number *family*.
    """
    return _line([family, *values])


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _definition(metric: Metric) -> dict[str, object]:
    return {
        "name": metric.name,
        "kind": metric.kind,
        "help": metric.help,
        "labels": list(metric.labels),
        "buckets": list(metric.buckets),
        "resolution": metric.resolution,
        "aggregate": metric.aggregate,
    }


def _family(entry: dict[str, Any]) -> Metric:
    """
    Return the family that a line declares.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, OverflowError: if it declares none.
    """
    labels, buckets = tuple(entry["labels"]), tuple(entry["buckets"])
    metric = Metric(**{**entry, "labels": labels, "buckets": buckets})
    metric.help.encode()  # Half of a surrogate pair would spoil the whole page.
    is_family = (
        metric.kind in _KINDS
        and metric.aggregate in _AGGREGATES
        and _FINEST <= metric.resolution <= _COARSEST
        and len(buckets) <= _MOST_BUCKETS
        and all(isinstance(bound, (int, float)) and isfinite(bound) for bound in buckets)
    )
    if not is_family:
        message = "not a family"
        raise ValueError(message)
    return metric


def label_values(metric: Metric, raw: Sequence[object]) -> tuple[str, ...]:
    """
    Return what was read from a file as the label values of *metric*.

    Raises:
        ValueError, TypeError: if it cannot be them, or cannot be written on a page.
    """
    if len(raw) != len(metric.labels):
        message = "not the labels of its family"
        raise ValueError(message)
    values = tuple(value for value in raw if isinstance(value, str))
    if len(values) != len(raw):
        message = "not a series"
        raise TypeError(message)
    "".join(values).encode()  # As above.
    return values


class Layout:
    """
    What a layout file says, as far as it has been read.

    Feed it the file's bytes in any portions, in order.  A line that cannot be understood is passed over and counted in *bad_lines*:
    everybody passes over the same lines, so all agree on what follows.

    Attributes:
        layout_id: The file's identity; None until its first line was read.

        families: The families, by number.

        series: All series, in file order.

        lanes: How many lanes they take in all.

        gauges: How many gauges there are.

        lasting: The places of gauges whose value outlives the process that set it.
    """

    def __init__(self) -> None:
        self.layout_id: int | None = None
        self.families: list[Metric] = []
        self.series: list[Series] = []
        self.lanes = 0
        self.gauges = 0
        self.lasting: set[int] = set()
        self.consumed = 0
        self.bad_lines = 0
        self._numbers: dict[Metric, int] = {}
        self._places: dict[Metric, dict[tuple[str, ...], int]] = {}
        self._values: dict[Metric, tuple[set[str], ...]] = {}
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """
        Take in what follows in the file.

        Raises:
            LayoutError: if the file's first line is not that of a layout in our version.
        """
        self.consumed += len(data)
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: _LONGEST_LINE + 1]  # What is longer is no line of ours: its end is not needed.
        for line in lines:
            if self.layout_id is None:
                self.layout_id = self._identity(line)
            elif line:
                self._take(line)

    def add(self, metric: Metric, values: tuple[str, ...]) -> int:
        """
        Declare a series in a layout that is no file's; return its place, which it may have had before.
        """
        if metric not in self._numbers:
            self._enter(metric)
        place = self._places[metric].get(values)
        if place is None:
            self._place(metric, values)
            place = self._places[metric][values]
        return place

    def number(self, metric: Metric) -> int | None:
        """
        Return the number of a family, or None if it is not declared.
        """
        return self._numbers.get(metric)

    def place(self, metric: Metric, values: tuple[str, ...]) -> int | None:
        """
        Return where a series lies, or None if it is not declared.
        """
        places = self._places.get(metric)
        return None if places is None else places.get(values)

    def places(self, metric: Metric) -> Iterable[tuple[tuple[str, ...], int]]:
        """
        Return the label values and places of all series of *metric*.
        """
        return self._places.get(metric, {}).items()

    def values(self, metric: Metric) -> tuple[set[str], ...]:
        """
        Return, for each label of *metric*, the values that it has so far.
        """
        return self._values.get(metric) or tuple(set() for _ in metric.labels)

    @staticmethod
    def _identity(line: bytes) -> int:
        try:
            head = json.loads(line)
            version, layout_id = head["celery_obs"], head["id"]
        except (ValueError, TypeError, KeyError, RecursionError):
            message = f"Expected the first line of a layout, got {line[:60]!r}."
            raise LayoutError(message) from None
        if version != VERSION or not isinstance(layout_id, int) or not 0 < layout_id < _HIGHEST_ID:
            message = f"Expected a layout of version {VERSION}, got {line[:200]!r}."
            raise LayoutError(message)
        return layout_id

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line[: _LONGEST_LINE + 1])  # Of a longer one the end is missing, so that it is none.
            if isinstance(entry, dict):
                self._declare_family(entry)
            else:
                self._declare_series(entry)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, ArithmeticError):
            self.bad_lines += 1

    def _declare_family(self, entry: dict[str, Any]) -> None:
        metric = _family(entry)
        ours = CATALOGUE.get(metric.name)
        if ours == metric:
            metric = ours  # Look-ups compare by identity first.
        if metric not in self._numbers:
            self._enter(metric)

    def _enter(self, metric: Metric) -> None:
        self._numbers[metric] = len(self.families)
        self._places[metric] = {}
        self._values[metric] = tuple(set() for _ in metric.labels)
        self.families.append(metric)

    def _declare_series(self, entry: list[object]) -> None:
        number, *raw = entry
        if not isinstance(number, int) or number < 0:
            message = "not a series"
            raise TypeError(message)
        metric = self.families[number]
        values = label_values(metric, raw)
        if values not in self._places[metric]:
            if len(self.series) >= _MOST_SERIES or (metric.kind != "gauge" and self.lanes + width(metric) > MOST_LANES):
                message = "more than a node may have"
                raise ValueError(message)
            self._place(metric, values)

    def _place(self, metric: Metric, values: tuple[str, ...]) -> None:
        if metric.kind == "gauge":
            at, self.gauges = self.gauges, self.gauges + 1
            if metric.aggregate == "mostrecent":
                self.lasting.add(at)
        else:
            at, self.lanes = self.lanes, self.lanes + width(metric)
        self._places[metric][values] = at
        for seen, value in zip(self._values[metric], values, strict=True):
            seen.add(value)
        self.series.append(Series(metric, values, at))

    def __iter__(self) -> Iterator[Series]:
        """
        Go through all series in file order.
        """
        return iter(self.series)


def feed_from(descriptor: int, layout: Layout, *, path: Path) -> None:
    """
    Feed *layout* what its open file has more by now.

    Raises:
        LayoutError: if the file is larger than any layout, or none.

        OSError: if it cannot be read.
    """
    size = os.fstat(descriptor).st_size
    if size > _LARGEST:
        message = f"{path} has {size} bytes, which is more than any layout."
        raise LayoutError(message)
    while data := os.pread(descriptor, _PORTION, layout.consumed):
        layout.feed(data)
        if layout.bad_lines > _MOST_BAD:
            message = f"{path} has more than {_MOST_BAD} invalid lines."
            raise LayoutError(message)


class LayoutFile:
    """
    A node's layout file, open for appending, and what it says.

    Raises:
        LayoutError: if the file there is not a layout of our version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout = Layout()
        self._descriptor = self._open(path)
        self.refresh()
        if self.layout.layout_id is None:
            message = f"{path} has no complete first line."
            raise LayoutError(message)

    @staticmethod
    def _open(path: Path) -> int:
        flags = os.O_RDWR | os.O_APPEND
        try:
            return open_file(path, flags)
        except FileNotFoundError:
            fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
            descriptor = new_file(fresh)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(header_line(secrets.randbits(62) | 1))
                with contextlib.suppress(FileExistsError):  # Another process was first: take its file.
                    os.link(fresh, path)
            finally:
                fresh.unlink()
            return open_file(path, flags)

    def refresh(self) -> None:
        """
        Take in what other processes have appended.

        Raises:
            LayoutError: if the file is larger than any layout.
        """
        feed_from(self._descriptor, self.layout, path=self.path)

    @property
    def descriptor(self) -> int:
        """
        The open file.
        """
        return self._descriptor

    def declare(self, wanted: Sequence[tuple[Metric, tuple[str, ...]]]) -> None:
        """
        Make sure that all series of *wanted* are in the layout.

        Raises:
            OSError: when the file cannot be written; what could not be declared has no place.
        """
        families = dict.fromkeys(metric for metric, _ in wanted if self.layout.number(metric) is None)
        self._append(family_line(metric) for metric in families)
        self._append(
            series_line(self._number(metric), values)
            for metric, values in dict.fromkeys(wanted)
            if self.layout.place(metric, values) is None
        )

    def _number(self, metric: Metric) -> int:
        number = self.layout.number(metric)
        if number is None:
            message = f"The family {metric.name} was not written to {self.path}."
            raise OSError(errno.EIO, message)
        return number

    def _append(self, lines: Iterator[bytes]) -> None:
        data = b"".join(lines)
        if not data:
            return
        self.refresh()
        end = os.fstat(self._descriptor).st_size
        if end > self.layout.consumed or not self._ends_whole(end):
            data = b"\n" + data  # A torn line, left by a full disk: close it, or ours would be glued to it.
        written = os.write(self._descriptor, data)
        self.refresh()
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _ends_whole(self, end: int) -> bool:
        return os.pread(self._descriptor, 1, end - 1) == b"\n"

    def close(self) -> None:
        """
        Close the file; what was read stays known.
        """
        os.close(self._descriptor)
