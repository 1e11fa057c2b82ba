"""
The metric files, as bytes: what the words of a slot file mean, and what the lines of a layout file say.

A *node* (one Celery worker, one beat, the publishers of a host) has a folder ``<metrics_dir>/<node>.v1`` with

``layout``
    Which series exist and where each one's numbers lie.  Lines of JSON, only ever appended to, shared by all processes of the node.
``slot-<n>``
    The numbers of one process at a time.  Words of eight bytes in the machine's byte order.
``lock``
    Never read or written: the process that owns slot *n* holds a POSIX record lock on its byte *n*.
``heartbeat``
    One line for probes; its modification time is the last beat.

A slot file is a header, then the table of running attempts, then gauges, then (room for) exemplars, then lanes::

    word 0..31   header, see `Header`
    ...          `Header.RECORDS` x `Record.WORDS`: what the process is doing
    ...          `Header.GAUGES` x `Gauge.WORDS`: float64 value, int64 time of setting in microseconds (0: never set)
    ...          exemplars; version 1 writers leave the region empty, readers skip it
    ...          lanes to the end of the file: int64, never negative, never decreasing

A counter is one lane.  A histogram is one lane a bucket (not cumulative, ``+Inf`` last), then one for its sum in steps of the resolution.

Nothing is locked while numbers are written, and lines are appended to the layout without a lock, too: one ``write`` to a file opened with ``O_APPEND``
is not torn by another, every process reads the lines in the one order of the file, and of two equal lines all take the first.  So all agree on every lane.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from celery_obs.exceptions import LayoutError
from celery_obs.vocabulary.spec import Metric


__all__ = [
    "MAGIC",
    "VERSION",
    "WORD",
    "Exit",
    "Gauge",
    "Header",
    "Layout",
    "Phase",
    "Record",
    "Series",
    "family_line",
    "folder_name",
    "header_line",
    "node_name",
    "series_line",
    "width",
]


WORD: Final = 8
VERSION: Final = 1
MAGIC: Final = int.from_bytes(b"clryobs\x00", "little")


class Header:
    """
    The words at the front of a slot file.

    *MAGIC* to *SLOT_ID* never change once written.  *EXIT* is 0 while the owner has not said how it leaves.
    *LANES_USED* is how many lanes the owner knew of: a layout that describes fewer has lost its end.
    """

    MAGIC: Final = 0
    VERSION: Final = 1
    LAYOUT_ID: Final = 2
    SLOT_ID: Final = 3
    PID: Final = 4
    PARENT_PID: Final = 5
    GENERATION: Final = 6
    EXIT: Final = 7
    LANES_USED: Final = 8
    RECORDS_AT: Final = 9
    RECORDS: Final = 10
    GAUGES_AT: Final = 11
    GAUGES: Final = 12
    EXEMPLARS_AT: Final = 13
    EXEMPLARS: Final = 14
    LANES_AT: Final = 15
    ROLE: Final = 16
    WORDS: Final = 32


class Exit:
    """
    What the owner of a slot says of how it leaves, in `Header.EXIT`.

    *UNSAID*: it lives, or had no time to speak.  *RECYCLED*: it had done its number of tasks.  *MEMORY*: it was above its limit of memory.
    *SIGNAL*: it was told to go.  *LEFT*: it went by itself.  *TIMEOUT*: its task was over the hard limit; written by who settles the slot.
    """

    UNSAID: Final = 0
    RECYCLED: Final = 1
    MEMORY: Final = 2
    SIGNAL: Final = 3
    LEFT: Final = 4
    TIMEOUT: Final = 5


class Record:
    """
    The words that say what one attempt is, relative to the start of its record.

    *CELL* is the lane of the attempt's *started* counter, which stands for its task and queue.
    *STARTED_BEFORE* and *OUTCOME_BEFORE* are what a lane held before it was counted up: with them, counting can be done again without counting twice.
    *ATTEMPT* and *VERDICT_ON* are keys of task ids, see `celery_obs.metrics.attempts.attempt_keys`.
    *STARTED_AT* and *DUE_AT* are float64, in seconds since the epoch.
    *VERDICT* and *VERDICT_ON* are written by the main process: what to count an attempt as, then which attempt.
    """

    PHASE: Final = 0
    ATTEMPT: Final = 1
    CELL: Final = 2
    STARTED_AT: Final = 3
    RETRIES: Final = 4
    DUE_AT: Final = 5
    STARTED_BEFORE: Final = 6
    OUTCOME_LANE: Final = 7
    OUTCOME_BEFORE: Final = 8
    VERDICT: Final = 9
    VERDICT_ON: Final = 10
    WORDS: Final = 16


class Phase:
    """
    How far an attempt has come.

    *ANNOUNCED*: about to be counted as started.  *RUNNING*: in the task's body.  *FINISHING*: about to be counted as finished.
    *INTERRUPTED*: unwound by a BaseException, outcome not yet known.
    """

    IDLE: Final = 0
    ANNOUNCED: Final = 1
    RUNNING: Final = 2
    FINISHING: Final = 3
    INTERRUPTED: Final = 4


class Gauge:
    """
    The words of one gauge.
    """

    VALUE: Final = 0
    SET_AT: Final = 1
    WORDS: Final = 2


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


def folder_name(node: str) -> str:
    """
    Return the name of a node's folder.
    """
    return f"{quote(node, safe='@.-_+')}.v{VERSION}"


def node_name(folder: str) -> str | None:
    """
    Return the node whose folder is called *folder*, or None if that is not the folder of a node in our version.
    """
    stem, dot, version = folder.rpartition(".v")
    return unquote(stem) if dot and stem and version == str(VERSION) else None


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
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self.layout_id is None:
                self.layout_id = self._identity(line)
            elif line:
                self._take(line)

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
        except (ValueError, TypeError, KeyError):
            message = f"Expected the first line of a layout, got {line[:60]!r}."
            raise LayoutError(message) from None
        if version != VERSION or not isinstance(layout_id, int):
            message = f"Expected a layout of version {VERSION}, got version {version!r} with the identity {layout_id!r}."
            raise LayoutError(message)
        return layout_id

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if isinstance(entry, dict):
                self._declare_family(entry)
            else:
                self._declare_series(entry)
        except (ValueError, TypeError, KeyError, IndexError):
            self.bad_lines += 1

    def _declare_family(self, entry: dict[str, object]) -> None:
        metric = Metric(**{**entry, "labels": tuple(entry["labels"]), "buckets": tuple(entry["buckets"])})  # type: ignore[arg-type]  # read from a file: a wrong type is a bad line
        if metric not in self._numbers:
            self._numbers[metric] = len(self.families)
            self._places[metric] = {}
            self._values[metric] = tuple(set() for _ in metric.labels)
            self.families.append(metric)

    def _declare_series(self, entry: list[object]) -> None:
        number, *raw = entry
        if not isinstance(number, int) or number < 0 or not all(isinstance(value, str) for value in raw):
            message = "not a series"
            raise TypeError(message)
        metric = self.families[number]
        values = tuple(str(value) for value in raw)
        places = self._places[metric]
        if len(values) != len(metric.labels):
            message = "not the labels of its family"
            raise ValueError(message)
        if values in places:
            return
        if metric.kind == "gauge":
            at, self.gauges = self.gauges, self.gauges + 1
            if metric.aggregate == "mostrecent":
                self.lasting.add(at)
        else:
            at, self.lanes = self.lanes, self.lanes + width(metric)
        places[values] = at
        for seen, value in zip(self._values[metric], values, strict=True):
            seen.add(value)
        self.series.append(Series(metric, values, at))

    def __iter__(self) -> Iterator[Series]:
        """
        Go through all series in file order.
        """
        return iter(self.series)
