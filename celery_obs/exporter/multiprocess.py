"""
The user's own metrics from a multiprocess directory of prometheus_client, as its MultiProcessCollector would show them, without reading it anew each time.

Its files only ever get more entries, so that each key is parsed once; a scrape reads the values.
What is counted stays counted: a counter's file that goes away or breaks leaves its last values here.
"""

from __future__ import annotations

import json
import logging
import os
import re
import struct

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from math import fsum
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client.core import Metric as Family
from prometheus_client.utils import floatToGoString

from celery_obs.recorder.opening import open_file
from celery_obs.throttle import LogThrottle
from celery_obs.vocabulary.spec import valid_name

from .exposition import Page, render
from .scrape import InternalErrors


__all__ = ["StockCollector"]


_HEADER: Final = 8
_COMPONENT: Final = "multiproc_file"
_SUMMED_TYPES: Final = frozenset({"counter", "histogram", "summary"})
_MODES: Final = frozenset({"all", "min", "max", "sum", "mostrecent"})
_INT = struct.Struct("i")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LARGEST: Final = 1 << 25
_MOST_NAMES: Final = 100_000

log = logging.getLogger("celery_obs.exporter")


class _Source(NamedTuple):
    """
    What a file's name says of it.
    """

    kind: str
    mode: str
    pid: str

    @property
    def is_live(self) -> bool:
        return self.mode.startswith("live")


class _Series(NamedTuple):
    """
    A sample's identity.
    """

    metric: str
    sample: str
    labels: tuple[tuple[str, str], ...]


class _Reading(NamedTuple):
    """
    The values of a file, in the order of its entries.
    """

    values: list[float]
    stamps: list[float]


class StockCollector:
    """
    Serves a directory.

    Args:
        directory: What the user's processes have as ``PROMETHEUS_MULTIPROC_DIR``.

        errors: Counts files that are empty, broken, or went away.
    """

    name: Final = "multiproc"
    inline: Final = True

    def __init__(self, directory: Path, *, errors: InternalErrors) -> None:
        self._directory = directory
        self._errors = errors
        self._throttle = LogThrottle()
        self._keys = _Keys()
        self._files: dict[str, _File] = {}
        # What vanished files had counted: series to total.
        self._retired: dict[tuple[str, _Series], float] = {}

    def collect(self) -> Page:
        """
        Read what is new and merge everything.

        Raises:
            OSError: if the directory cannot be listed.
        """
        self._refresh()
        return render(self._families())

    def _refresh(self) -> None:
        with os.scandir(self._directory) as entries:
            present = {entry.name for entry in islice(entries, _MOST_NAMES) if entry.name.endswith(".db") and entry.name.isprintable()}
        for name in sorted(self._files.keys() - present):
            self._retire(name)
        for name in sorted(present):
            source = _source_of(name)
            if source is None:
                continue
            file = self._files.get(name) or _File(self._directory / name, source, self._keys)
            problem = file.refresh()
            if file.was_replaced:
                self._retire(name)
                file = _File(self._directory / name, source, self._keys)
                problem = file.refresh()
            self._files[name] = file
            if problem and file.has_news(problem):
                self._report(name, problem)

    def _retire(self, name: str) -> None:
        """
        Take over what a file counted that is no longer there.
        """
        file = self._files.pop(name, None)
        if file is None:
            return
        if file.source.kind in _SUMMED_TYPES:
            for series, value in zip(file.series(), file.reading.values, strict=True):
                key = (file.source.kind, series)
                self._retired[key] = fsum((self._retired.get(key, 0.0), value))
        if not file.source.is_live:
            self._report(name, "went away")

    def _report(self, name: str, problem: str) -> None:
        self._errors.count(_COMPONENT)
        if self._throttle.allows(problem):
            log.warning("The metric file %s %s; its counts so far are kept.", self._directory / name, problem)

    def _families(self) -> Iterator[Family]:
        # The same metric of two kinds of file would be an error of the user's; the first kind is shown.
        merges: dict[str, _Merge] = {}
        for file in self._in_order():
            if file.source.kind == "gauge":
                for series, value, stamp in zip(file.series(), file.reading.values, file.reading.stamps, strict=True):
                    merge = merges.setdefault(series.metric, _Merge("gauge", file.source.mode.removeprefix("live")))
                    merge.add(file.source, series, value, stamp)
        for (kind, number), values in self._summed().items():
            series = self._keys.series(number)
            merges.setdefault(series.metric, _Merge(kind, "")).add_all(kind, series, values)
        for (kind, series), value in self._retired.items():
            merges.setdefault(series.metric, _Merge(kind, "")).add_all(kind, series, [value])
        for metric, merge in merges.items():
            try:
                yield merge.family(metric, self._keys.help_of(metric))
            except (ValueError, TypeError):  # An invalid name or bucket; its neighbours are good.
                self._report(metric, "has an invalid name or bucket")

    def _summed(self) -> Mapping[tuple[str, int], list[float]]:
        """
        Gather the values of all files by kind and key; a key's meaning is looked up once, not for each file.
        """
        gathered: dict[str, defaultdict[int, list[float]]] = {kind: defaultdict(list) for kind in sorted(_SUMMED_TYPES)}
        for file in self._in_order():
            if file.source.kind in gathered:
                by_number = gathered[file.source.kind]
                for number, value in zip(file.numbers, file.reading.values, strict=True):
                    by_number[number].append(value)
        return {(kind, number): values for kind, by_number in gathered.items() for number, values in by_number.items()}

    def _in_order(self) -> Iterator[_File]:
        return (self._files[name] for name in sorted(self._files))


class _Keys:
    """
    All keys that were ever read, each parsed and kept once, whatever number of files have it.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._series: list[_Series] = []
        self._help: dict[str, str] = {}

    def number(self, key: bytes) -> int:
        """
        Return the number of *key*.

        Raises:
            ValueError: if *key* is none of prometheus_client's.
        """
        number = self._numbers.get(key)
        if number is None:
            series = self._parse(key)
            number = self._numbers[key] = len(self._series)
            self._series.append(series)
        return number

    def series(self, number: int) -> _Series:
        return self._series[number]

    def help_of(self, metric: str) -> str:
        return self._help.get(metric, "")

    def _parse(self, key: bytes) -> _Series:
        try:
            metric, sample, labels, text = json.loads(key)
            pairs = tuple(sorted((str(name), str(value)) for name, value in labels.items()))
        except (TypeError, AttributeError, RecursionError) as error:
            message = "not a key of prometheus_client"
            raise ValueError(message) from error
        is_key = isinstance(metric, str) and isinstance(sample, str) and isinstance(text, str) and sample.startswith(metric)
        if not is_key or not valid_name(sample) or not all(_LABEL.fullmatch(name) for name, _ in pairs):
            message = "not a key of prometheus_client"
            raise ValueError(message)
        "".join((text, *(value for _, value in pairs))).encode()  # Half of a surrogate pair would spoil the whole page.
        self._help.setdefault(metric, text)
        return _Series(metric, sample, pairs)


class _File:
    """
    One file, as far as it was understood.

    Attributes:
        numbers: The keys' numbers, in the order of the entries.

        reading: The values at the last refresh that could read them.

        was_replaced: Whether another file has taken the place of the one that was read before.
    """

    def __init__(self, path: Path, source: _Source, keys: _Keys) -> None:
        self._path = path
        self.source = source
        self._keys = keys
        self._inode: int | None = None
        self._used = _HEADER
        self.numbers = array("I")
        # Where values are, counted in eights of bytes.
        self._places = array("I")
        self._first_key = b""
        self._problem = ""
        self.reading = _Reading([], [])
        self.was_replaced = False

    def series(self) -> Iterator[_Series]:
        return map(self._keys.series, self.numbers)

    def has_news(self, problem: str) -> bool:
        """
        Tell whether *problem* is another one than the last time.
        """
        before, self._problem = self._problem, problem
        return problem != before

    def refresh(self) -> str:
        """
        Read new keys and all values, and return what is wrong with the file, or nothing.
        """
        try:
            with os.fdopen(open_file(self._path), "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if self._inode is not None and status.st_ino != self._inode:
                    self.was_replaced = True
                    return ""
                return self._read(file.fileno(), status)
        except FileNotFoundError:
            return "" if self.source.is_live else "went away while it was read"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        except MemoryError:
            return "does not fit into memory"

    def _read(self, descriptor: int, status: os.stat_result) -> str:
        if status.st_size < _HEADER:
            if self._inode is not None and self.numbers:
                self.was_replaced = True
                return ""
            return "is shorter than a header" if status.st_size else ""  # Its process is about to give it its size.
        used = _INT.unpack(os.pread(descriptor, _INT.size, 0))[0]
        if used <= 0 and not self.numbers:
            return ""  # Its process is about to write the header.
        if used < self._used:
            self.was_replaced = bool(self.numbers)
            return "" if self.was_replaced else "has an invalid header"
        if min(used, status.st_size) > _LARGEST:
            return f"is larger than {_LARGEST >> 20} MiB"
        problem = "" if used <= status.st_size else "is shorter than its header says"
        content = _read_all(descriptor, min(used, status.st_size))
        if self._first_key and not content.startswith(self._first_key, _HEADER):
            self.was_replaced = True
            return ""
        self._inode = status.st_ino
        problem = self._parse(content) or problem
        if self._places and len(content) < (self._places[-1] + 2) * 8:
            return problem or "is shorter than it was"
        doubles = memoryview(content)[: len(content) // 8 * 8].cast("d")
        values = [doubles[place] for place in self._places]
        stamps = [doubles[place + 1] for place in self._places] if self.source.mode.endswith("mostrecent") else [0.0] * len(values)
        self.reading = _Reading(values, stamps)
        return problem

    def _parse(self, content: bytes) -> str:
        """
        Take in the entries that came since the last time.  A bad one is tried again the next time: it may be half written.
        """
        end = len(content)
        while self._used < end:
            if self._used + 4 > end:
                return "ends in the middle of an entry"
            length = _INT.unpack_from(content, self._used)[0]
            key_at = self._used + 4
            value_at = key_at + length + 8 - (length + 4) % 8
            if length <= 0 or value_at + 16 > end:
                return "has an invalid entry"
            try:
                number = self._keys.number(content[key_at : key_at + length].rstrip(b" "))
            except ValueError:
                return "has an invalid key"
            if not self.numbers:
                self._first_key = content[self._used : value_at]
            self.numbers.append(number)
            self._places.append(value_at // 8)
            self._used = value_at + 16
        return ""


class _Merge:
    """
    One metric out of many files.
    """

    def __init__(self, kind: str, mode: str) -> None:
        self._kind = kind
        self._mode = mode
        self._values: defaultdict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = defaultdict(list)
        self._newest: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, float]] = {}

    def add_all(self, kind: str, series: _Series, values: Iterable[float]) -> None:
        """
        Add what is summed up.
        """
        if kind == self._kind:
            self._values[series.sample, series.labels] += values

    def add(self, source: _Source, series: _Series, value: float, stamp: float) -> None:
        """
        Add one process's value of a gauge.
        """
        if source.kind != self._kind:
            return
        if self._mode == "mostrecent":
            if stamp > 0:
                key = (series.sample, series.labels)
                self._newest[key] = max(self._newest.get(key, (0.0, value)), (stamp, value))
        elif self._mode == "all":
            # Like the original, which lets the last one win where two have one series.
            self._values[series.sample, (*series.labels, ("pid", source.pid))] = [value]
        else:
            self._values[series.sample, tuple(pair for pair in series.labels if pair[0] != "pid")].append(value)

    def family(self, name: str, text: str) -> Family:
        """
        Return the metric with its samples.

        Raises:
            ValueError: if *name* is none, or a bucket's bound.
        """
        family = Family(name, text, self._kind)
        if self._kind == "histogram":
            self._add_histogram(family)
            return family
        for (sample, labels), (_, value) in self._newest.items():
            family.add_sample(sample, dict(labels), value)
        combine = {"min": min, "max": max}.get(self._mode, fsum) if self._kind == "gauge" else fsum
        for (sample, labels), values in self._values.items():
            family.add_sample(sample, dict(labels), combine(values))
        return family

    def _add_histogram(self, family: Family) -> None:
        buckets: defaultdict[tuple[tuple[str, str], ...], dict[float, list[float]]] = defaultdict(dict)
        for (sample, labels), values in self._values.items():
            bound = next((value for key, value in labels if key == "le"), None)
            if bound is None:
                family.add_sample(sample, dict(labels), fsum(values))
            else:
                without = tuple(pair for pair in labels if pair[0] != "le")
                buckets[without].setdefault(float(bound), []).extend(values)
        for labels, by_bound in buckets.items():
            so_far: list[float] = []
            for edge in sorted(by_bound):
                so_far += by_bound[edge]
                family.add_sample(f"{family.name}_bucket", {**dict(labels), "le": floatToGoString(edge)}, fsum(so_far))
            family.add_sample(f"{family.name}_count", dict(labels), fsum(so_far))


def _source_of(name: str) -> _Source | None:
    kind, *parts = name.removesuffix(".db").split("_")
    if kind in _SUMMED_TYPES:
        return _Source(kind, "", "")
    if kind == "gauge" and len(parts) >= 2 and parts[0].removeprefix("live") in _MODES:  # noqa: PLR2004 -- mode and process.
        return _Source(kind, parts[0], parts[1])
    return None


def _read_all(descriptor: int, size: int) -> bytes:
    content = os.pread(descriptor, size, 0)
    while len(content) < size:
        more = os.pread(descriptor, size - len(content), len(content))
        if not more:
            break
        content += more
    return content
