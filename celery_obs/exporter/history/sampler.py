"""
The sampler: takes what areas have remembered from the sidecar's own page, each second, and writes it into the history's file.

It costs at most a hundredth of a processor: where a look takes longer than that allows, it looks less often, and says so with each sample.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from celery_obs.exporter.samples import labels_of
from celery_obs.exporter.scrape import InternalErrors, Runner
from celery_obs.recorder.opening import explain
from celery_obs.throttle import LogThrottle

from .declared import Among, Name, Remembered
from .file import Columns, HistoryFile, Moment, Shape, TakenError, moment, open_history, read_columns, read_shape, shape_for


__all__ = ["PERIODS", "SHARED_EVERY", "History", "Reading", "Sampler", "read_path", "shares"]


PERIODS: Final = (1.0, 5.0, 15.0, 60.0)
"""
Seconds between two looks: the first of these that keeps to the sidecar's share of a processor.
"""

SHARED_EVERY: Final = 10.0
"""
Seconds between two looks at what costs the broker or Redis something; in between, what was seen last is written again.
"""

_SHARE: Final = 0.01  # Of a processor.
_ALL_EVERY: Final = 60.0  # Seconds after which it is looked anew which collectors have what is remembered.
_LOOK_AGAIN: Final = 10.0  # Seconds after which one who does not write asks whether it may now.
_MOST_KNOWN: Final = 20_000  # Series whose names are kept at hand.

log = logging.getLogger("celery_obs.exporter")


def shares(declared: Iterable[Remembered], rows: int) -> Callable[[tuple[str, ...]], int]:
    """
    Divide *rows* among the groups of series that were *declared*, by weight: none can take another's room, and what was not declared has none.
    """
    weights = {(sample, *each.labels): each.weight for each in declared for sample in each.samples}
    whole = sum(weights.values())
    return lambda group: rows * weights.get(group, 0) // whole if whole else 0


class Reading:
    """
    Find what is remembered on pages.

    Args:
        declared: What is.
    """

    def __init__(self, declared: Iterable[Remembered]) -> None:
        self._declared = tuple(declared)
        self._known: dict[tuple[int, str], Name] = {}

    def values(self, pages: Iterable[str]) -> dict[Name, float]:
        """
        Return the values on *pages*, by series.
        """
        found: dict[Name, float] = {}
        for page in pages:
            for number, each in enumerate(self._declared):
                for sample in each.samples:
                    self._add(found, page, sample, number, each)
        return found

    def has_any(self, page: str) -> bool:
        """
        Tell whether *page* has anything that is remembered.
        """
        return any(f"# TYPE {each.metric.name} " in page for each in self._declared)

    def _add(self, found: dict[Name, float], page: str, sample: str, number: int, each: Remembered) -> None:
        for line in _lines(page, sample, each.metric.name):
            series, _, text = line.rpartition(" ")
            try:
                value = float(text)
            except ValueError:
                continue
            if value == 0 and each.skips_zeros:
                continue
            name = self._known.get((number, series)) or self._name(number, series, sample, each)
            found[name] = _together(each.among, found[name], value) if name in found else value

    def _name(self, number: int, series: str, sample: str, each: Remembered) -> Name:
        values = labels_of(series)
        name = Name(sample, tuple((label, values.get(label, "")) for label in each.labels), each.grows, each.fold)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[number, series] = name
        return name


def _together(among: Among, one: float, other: float) -> float:
    return one + other if among == "sum" else max(one, other) if among == "max" else min(one, other)


def _lines(page: str, sample: str, metric: str) -> Iterator[str]:
    """
    Go through the lines of one name; those of a histogram's sums stand apart from one another, in the block of their family.
    """
    start = page.find(f"# TYPE {metric} ")
    if start < 0:
        return
    end = page.find("\n# ", start)
    block = page[start : end if end >= 0 else len(page)]
    for head in (f"\n{sample}{{", f"\n{sample} "):
        at = block.find(head)
        while at >= 0:
            stop = block.find("\n", at + 1)
            yield block[at + 1 : stop if stop >= 0 else len(block)]
            at = block.find(head, stop) if stop >= 0 else -1


class History:
    """
    The history's file, for those who write and those who read it.

    Args:
        path: Where it is; None to keep it in memory, where it ends with the process.

        size: Bytes that it may take.

        declared: What is remembered.

    Threads: `append` is called by one at a time; any may read.
    """

    def __init__(self, path: Path | None, size: int, declared: Iterable[Remembered], *, errors: InternalErrors) -> None:
        self._path = path
        self._size = size
        self._shares = shares(declared, shape_for(size).rows)
        self._errors = errors
        self._throttle = LogThrottle()
        self._file: HistoryFile | None = None
        self._asked_at = -_LOOK_AGAIN
        self.labels = tuple(sorted({label for each in declared for label in each.labels}))

    @property
    def is_ours(self) -> bool:
        """
        Whether this process writes it.
        """
        return self._file is not None

    @property
    def left_out(self) -> int:
        """
        How many series of the last sample had no room.
        """
        return 0 if self._file is None else self._file.left_out

    def claim(self) -> bool:
        """
        Tell whether this process writes the file; see to it, every few seconds, if none other does.
        """
        if self._file is None and time.monotonic() - self._asked_at >= _LOOK_AGAIN:
            self._asked_at = time.monotonic()
            with contextlib.suppress(TakenError):
                self._file = self._opened()
        return self._file is not None

    def _opened(self) -> HistoryFile | None:
        if self._path is not None:
            try:
                return open_history(self._path, self._size, shares=self._shares, said=log.warning)
            except OSError as error:
                log.warning(
                    "The history is kept in memory, and ends with this process: %s Or give another place with --history-file.",
                    explain(error, within=self._path),
                )
        self._path = None
        try:
            return HistoryFile(os.memfd_create("celery-obs-history", os.MFD_CLOEXEC), shape_for(self._size), shares=self._shares)
        except (OSError, AttributeError) as error:  # No Linux.
            self._errors.count("history")
            log.warning("No history is kept: there is no memory for it (%s).", error)
            return None

    def append(self, at: Moment, values: Mapping[Name, float], *, period: float, zero_before: Collection[tuple[str, ...]]) -> None:
        """
        Write a sample, if this process may; of those groups that were told of before, a new series was 0.
        """
        file = self._file
        if file is None:
            return
        try:
            file.append(at, values, period=period, zero_before=zero_before)
        except OSError as error:
            self._errors.count("history")
            if self._throttle.allows("append"):
                log.warning("A sample of the history could not be written: %s.", error.strerror or error)
        if file.left_out and self._throttle.allows("left_out"):
            log.warning("%d series have no room in the history. Give it more with --history-bytes.", file.left_out)

    def read(self, fine: bool) -> Columns:  # noqa: FBT001 -- one of two.
        """
        Return what is there: the last minutes by the second, or the hours by the minute.

        Raises:
            OSError, ValueError: if it cannot be read.
        """
        file, path = self._file, self._path
        if file is not None:
            return read_columns(file.descriptor, file.shape, fine=True, coarse=not fine)
        try:
            return Columns({}, (), ()) if path is None else read_path(path, fine=fine)
        except FileNotFoundError:  # None was written yet.
            return Columns({}, (), ())

    def close(self) -> None:
        """
        Let another process write it.
        """
        file, self._file = self._file, None
        if file is not None:
            file.close()


def read_path(path: Path, *, fine: bool) -> Columns:
    """
    Read a history that another process may write.

    Raises:
        OSError: if it cannot be opened.

        ValueError: if it is none; the message is the end of a sentence that begins with its name.
    """
    from celery_obs.recorder.opening import open_file

    descriptor = open_file(path)
    try:
        shape: Shape | None = read_shape(descriptor)
        return Columns({}, (), ()) if shape is None else read_columns(descriptor, shape, fine=True, coarse=not fine)
    finally:
        os.close(descriptor)


class Sampler:
    """
    Look, and write down, until it is stopped.

    Args:
        runner: Has the pages.

        history: Keeps what is seen.

        reading: Finds it.

        errors: Counts looks that failed.

        now: Tells the time.

    Threads: one of its own, a daemon.
    """

    def __init__(
        self, runner: Runner, history: History, reading: Reading, *, errors: InternalErrors, now: Callable[[], Moment] = moment
    ) -> None:
        self._runner = runner
        self._history = history
        self._reading = reading
        self._errors = errors
        self._now = now
        self._sources: frozenset[str] | None = None
        self._sources_at = 0.0
        self._good: AbstractSet[str] = frozenset()  # The collectors whose pages were good at the last look.
        self._seen: AbstractSet[Name] = frozenset()
        self._took: deque[float] = deque(maxlen=5)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def period(self) -> float:
        """
        Seconds until the next look: by the cheapest of the last five, for the sidecar may have had other work beside any of them.
        """
        took = min(self._took) if len(self._took) == self._took.maxlen else 0.0
        return next((period for period in PERIODS if took <= period * _SHARE), PERIODS[-1])

    def step(self) -> None:
        """
        Look once, and write it down.
        """
        if not self._history.claim():
            self._good = frozenset()
            return
        begin, now = time.process_time(), time.monotonic()  # Of all threads, for collectors have their own.
        if now - self._sources_at >= _ALL_EVERY:
            self._sources, self._sources_at = None, now
        states = self._runner.watched(self._sources, shared_every=SHARED_EVERY)
        pages = {name: state.value.text for name, state in states.items() if state.ok and state.value is not None}
        if self._sources is None:
            self._sources = frozenset(name for name, page in pages.items() if self._reading.has_any(page)) or None
        at, values = self._now(), self._reading.values(pages.values())
        zero_before = (
            {name.group for name in self._reading.values(pages[each] for each in pages.keys() & self._good)} if self._grew(values) else ()
        )
        self._took.append(time.process_time() - begin)
        self._history.append(at, values, period=self.period, zero_before=zero_before)
        self._good, self._seen = pages.keys(), values.keys()

    def _grew(self, values: Mapping[Name, float]) -> bool:
        """
        Tell whether there are series that were not there at the last look.
        """
        return not values.keys() <= self._seen

    def start(self) -> None:
        """
        Begin.
        """
        self._thread = threading.Thread(target=self._run, name="celery-obs-history", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """
        End, and let another process write.
        """
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
        if self._thread is None or not self._thread.is_alive():
            self._history.close()

    def _run(self) -> None:
        while not self._stopped.wait(_until_next(self._now().ticks, self.period)):
            try:
                self.step()
            except Exception:  # noqa: BLE001 -- counted; the next look may work.
                self._errors.count("history")


def _until_next(ticks: float, period: float) -> float:
    """
    Return the seconds until the middle of the next period: a look that comes a little early or late is in its own one all the same.
    """
    return period * (math.floor(ticks / period + 0.5) + 0.5) - ticks
