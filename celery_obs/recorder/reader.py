"""
The reader: one node's folder, read again at each scrape, at the cost of what changed.

Files are read with ``pread``, not mapped, so that a file that is truncated meanwhile cannot end the sidecar with SIGBUS.
All lanes of a process are added at once, as one big integer: lanes are never negative, and 64-bit sums do not spill into their neighbours
as long as every lane is below 2**61, which is checked.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import sys

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from celery_obs.clock import Clock, wall
from celery_obs.exceptions import LayoutError
from celery_obs.vocabulary.spec import Metric

from .batches import TailReader
from .exemplars import Noted, decode
from .format import MAGIC, VERSION, WORD, Exemplar, Gauge, Header, Phase, Record, exemplar_region, node_name, slot_number
from .layout import Layout, feed_from
from .merge import NodeNumbers
from .opening import RefusedError, explain, open_file, open_folder
from .remainder import Remainder
from .ring import RING_PREFIX, ring_name
from .slots import holder_lives, is_held
from .tally import Tally


__all__ = ["FileCounts", "GaugeReading", "NodeReader", "NodeReading", "RemainderReader", "RunningAttempt", "look"]


_HEADER = struct.Struct(f"={Header.WORDS}q")
_GAUGE = struct.Struct("=dq")
_SPILL: Final = 0xE0
_MOST_RECORDS: Final = 1 << 16
_ROLE_WORKER: Final = 0
_RECENT: Final = 3600.0
_SKEW: Final = 60.0
_MOST_NAMES: Final = 20_000
_RESERVED: Final = 256  # Descriptors that are left for connections.
_MOST_PROBLEMS: Final = 20
_TRIES: Final = 4


class RunningAttempt(NamedTuple):
    """
    An attempt that a living process is at.
    """

    started_lane: int
    started_at: float


class GaugeReading(NamedTuple):
    """
    What one process has set a gauge to.
    """

    place: int
    value: float
    set_at: int
    is_live: bool


class FileCounts(NamedTuple):
    """
    How many files are in which state.
    """

    live: int = 0
    dead: int = 0
    vanished: int = 0
    corrupt: int = 0
    unsupported: int = 0


class NodeReading(NamedTuple):
    """
    What a node says at one moment.

    Attributes:
        lanes: The totals of all its processes, lane by lane.

        gauges: What its processes have set.

        running: What its living processes are at.

        is_up: Whether its main process lives; None if the node is not a worker.

        files: The states of its files.

        exemplars: The newest exemplar of each bucket that has one, by lane.
    """

    lanes: tuple[int, ...]
    gauges: list[GaugeReading]
    running: list[RunningAttempt]
    is_up: bool | None
    files: FileCounts
    exemplars: Mapping[int, Noted] = {}


class _SlotView:
    """
    One slot file, and the last good numbers that came from it.
    """

    __slots__ = (
        "block",
        "descriptor",
        "exemplars",
        "exemplars_written",
        "front",
        "gauges",
        "header",
        "inode",
        "is_good",
        "lanes",
        "number",
        "problem",
        "records",
        "slot_id",
        "tail",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.tail = TailReader(number)
        self.descriptor = -1
        self.front = _HEADER.size
        self.inode = -1
        self.is_good = False
        self.problem = ""
        self.slot_id = 0
        self.header: tuple[int, ...] = ()
        self.block = b""
        self.lanes = 0
        self.records = b""
        self.gauges = b""
        self.exemplars = b""
        self.exemplars_written = 0

    def open(self, path: Path, inode: int, *, folder: int) -> None:
        """
        Look at the file that is there now, in the folder with the descriptor *folder*.
        """
        self.close()
        self.inode = inode
        try:
            descriptor = open_file(path, dir_fd=folder)
        except OSError as error:
            self.problem = explain(error, within=path)
            return
        if descriptor >= _most_descriptors():
            os.close(descriptor)  # The rest is for those who ask.
            self.problem = f"{path}: there are more files than this process may have open. Raise its limit of open files (ulimit -n)."
            return
        self.descriptor, self.problem = descriptor, ""

    def close(self) -> None:
        """
        Let go of the file, not of what it said.
        """
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        self.tail.close()

    def total(self) -> int:
        """
        Return its lanes, with what its ring has and they do not, as one number.
        """
        tails = (self.tail.changes, self.tail.lost)
        return self.lanes + sum(more << 64 * lane for tail in tails for lane, more in tail.items() if lane * WORD < len(self.block))

    def read(self, layout: Layout, tally: Tally) -> bool:
        """
        Read what is there now; return whether it is whole.  What is not whole changes nothing.
        """
        try:
            self.is_good = self.descriptor >= 0 and self._read(layout, tally)
        except OSError as error:
            self.is_good, self.problem = False, f"slot-{self.number}: {error.strerror}."
        return self.is_good

    def _read(self, layout: Layout, tally: Tally) -> bool:
        front = os.pread(self.descriptor, self.front, 0)
        if len(front) < _HEADER.size:
            return False
        header = _HEADER.unpack_from(front)
        if not _is_sound(header, layout):
            return False
        if self.slot_id not in {0, header[Header.SLOT_ID]}:
            return False  # Another file under our name: the node makes a new view of it.
        if header[Header.EXEMPLARS_WRITTEN] != self.exemplars_written:  # Before the lanes, so that none is newer than its bucket's count.
            self._read_exemplars(header)
        if not self._read_lanes(header, layout, tally):
            return False
        wanted = _HEADER.size + header[Header.RECORDS] * Record.FORM.size
        if len(front) < wanted:
            self.front = wanted
            front = os.pread(self.descriptor, wanted, 0)
        self.header, self.slot_id = header, header[Header.SLOT_ID]
        self.records = front[_HEADER.size : wanted]
        if layout.gauges:
            size = min(layout.gauges, header[Header.GAUGES]) * _GAUGE.size
            self.gauges = os.pread(self.descriptor, size, header[Header.GAUGES_AT] * WORD)
        return len(self.records) % Record.FORM.size == 0 and len(self.gauges) % _GAUGE.size == 0

    def _read_lanes(self, header: tuple[int, ...], layout: Layout, tally: Tally) -> bool:
        """
        Read the lanes and what they lack, so that they belong together; what was read before stays where a busy owner does not let it.
        """
        for _ in range(_TRIES):
            self.tail.begin()
            block = os.pread(self.descriptor, layout.lanes * WORD, header[Header.LANES_AT] * WORD)
            if len(block) % WORD or len(block) < min(header[Header.LANES_USED], layout.lanes) * WORD:
                return False
            lanes = self.lanes
            if block != self.block:
                lanes = int.from_bytes(block, "little")
                if lanes & _top_bits(layout.lanes):
                    return False
            if self.tail.finish(block, slot=self.descriptor, tally=tally):
                self.block, self.lanes = block, lanes
                break
        return True

    def _read_exemplars(self, header: tuple[int, ...]) -> None:
        at, places = exemplar_region(header)
        size = places * Exemplar.WORDS * WORD
        data = os.pread(self.descriptor, size, at * WORD)
        if len(data) == size:
            self.exemplars, self.exemplars_written = data, header[Header.EXEMPLARS_WRITTEN]

    def new_exemplars(self) -> Iterator[tuple[int, Noted]]:
        """
        Go through the exemplars that were read since this was last called.
        """
        data, self.exemplars = self.exemplars, b""
        return decode(data)


def _is_sound(header: tuple[int, ...], layout: Layout) -> bool:
    tables = Header.WORDS + header[Header.RECORDS] * Record.WORDS + header[Header.GAUGES] * Gauge.WORDS
    return (
        header[Header.MAGIC] == MAGIC
        and header[Header.VERSION] == VERSION
        and header[Header.LAYOUT_ID] == layout.layout_id
        and header[Header.RECORDS_AT] == Header.WORDS
        and 0 <= header[Header.RECORDS] < _MOST_RECORDS
        and 0 <= header[Header.GAUGES] < _MOST_RECORDS
        and tables <= header[Header.LANES_AT] < tables + _MOST_RECORDS
        and Header.WORDS <= header[Header.GAUGES_AT] <= header[Header.LANES_AT]
        and header[Header.LANES_USED] >= 0
    )


def _most_descriptors() -> int:
    """
    Return the first descriptor that files of others may not have.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - _RESERVED, soft // 2)


@lru_cache(maxsize=8)
def _top_bits(lanes: int) -> int:
    """
    Return the bits that no lane may have: with them, sums could spill into the next lane.
    """
    return int.from_bytes(bytes([0, 0, 0, 0, 0, 0, 0, _SPILL]) * lanes, "little")


class NodeReader:
    """
    Read one node's folder, as often as one likes.

    Args:
        folder: The folder, ``<node>.v1``.

        clock: Tells the time.

    Raises:
        LayoutError: if the layout there is damaged or missing.

        OSError: if it cannot be read.

    Threads: one at a time.
    """

    def __init__(self, folder: Path, *, clock: Clock = wall) -> None:
        self.folder = folder
        self.name = node_name(folder.name) or folder.name
        self.layout = Layout()
        self.problems: dict[str, str] = {}
        self._folder_file = open_folder(folder)
        try:
            self._layout_file = open_file(folder / "layout", dir_fd=self._folder_file)
        except OSError:
            os.close(self._folder_file)
            raise
        self._lock: int | None = None
        self._clock = clock
        self._exemplars: dict[int, Noted] = {}
        self._slots: dict[int, _SlotView] = {}
        self._retired: dict[int, int] = {}
        self._tally = Tally(self.layout)
        self._last: tuple[int, ...] = ()
        self._last_tails: list[Mapping[int, int]] = []
        self._last_sum = -1
        self._set_aside = 0
        self.layout_is_bad = False
        try:
            self.refresh_layout()
        except (LayoutError, OSError):
            self.close()
            raise
        if self.layout.layout_id is None:
            self.close()
            message = f"{folder / 'layout'} has no complete first line."
            raise LayoutError(message)

    def refresh_layout(self) -> None:
        """
        Take in what was appended to the layout.  One that became shorter is bad; what was read of it stays.

        Raises:
            LayoutError, OSError: as `feed_from`.
        """
        self.layout_is_bad = os.fstat(self._layout_file).st_size < self.layout.consumed
        feed_from(self._layout_file, self.layout, path=self.folder / "layout")

    @property
    def inode(self) -> int:
        """
        The layout file's number, which changes when the node's files are made anew.
        """
        return os.fstat(self._layout_file).st_ino

    def close(self) -> None:
        """
        Close all files.
        """
        os.close(self._layout_file)
        os.close(self._folder_file)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        for view in self._slots.values():
            view.close()

    def retire(self) -> NodeReading:
        """
        The folder is gone: close all files, and return what stays true of them.

        Nothing is read any more: what lies under that name later is another node's.
        """
        for view in self._slots.values():
            self._keep(view)
        self.close()
        self._slots.clear()
        return NodeReading(self._totals(), [], [], None, FileCounts(vanished=len(self._retired)))

    def read(self) -> NodeReading:
        """
        Read everything that changed, and add it up.
        """
        self.problems = {}
        self.refresh_layout()
        if self.layout_is_bad:
            self._note("layout", "is shorter than it was. Restart the worker, and it makes a new one")
        self._find_slots()
        live = dead = corrupt = 0
        gauges: list[GaugeReading] = []
        running: list[RunningAttempt] = []
        is_up: bool | None = None
        for number, view in self._slots.items():
            if not view.read(self.layout, self._tally):
                view = self._reopened(view)  # noqa: PLW2901 -- the same slot, looked at anew.
            if not view.is_good:
                corrupt += 1
                self._note(
                    f"slot-{number}",
                    view.problem or "is damaged, or shorter than its header says. The next process in its place makes a new one",
                )
                continue
            is_live = self._lives(number)
            live, dead = live + is_live, dead + (not is_live)
            gauges.extend(_gauges(view, is_live=is_live))
            self._keep_newest(view.new_exemplars())
            if number == 0 and view.header[Header.ROLE] == _ROLE_WORKER:
                is_up = is_live
            if is_live:
                running.extend(_running(view))
        corrupt += self._set_aside + self.layout_is_bad
        files = FileCounts(live, dead, len(self._retired), corrupt)
        return NodeReading(self._totals(), gauges, running, is_up, files, self._recent_exemplars())

    def _note(self, name: str, problem: str) -> None:
        """
        Remember why a file is passed over, for the log line.
        """
        if len(self.problems) < _MOST_PROBLEMS:
            path = str(self.folder / name)
            self.problems[name] = problem if problem.startswith(path) else f"{path} {problem}."

    def _keep_newest(self, found: Iterator[tuple[int, Noted]]) -> None:
        for lane, noted in found:
            known = self._exemplars.get(lane)
            if known is None or noted > known:
                self._exemplars[lane] = noted

    def _recent_exemplars(self) -> dict[int, Noted]:
        """
        Forget exemplars that are too old to look up, and those of a clock that was wrong, which would look newer than all that follow.
        """
        if self._exemplars:
            now = self._clock()
            first, last = (now - _RECENT) * 1e6, (now + _SKEW) * 1e6
            self._exemplars = {lane: noted for lane, noted in self._exemplars.items() if first <= noted.at <= last}
        return self._exemplars

    def _find_slots(self) -> None:
        """
        See which slot files are there, by name and inode, without opening those that are known.
        """
        there, rings = self._look_for_files()
        for gone in self._slots.keys() - there.keys():
            view = self._slots.pop(gone)
            self._keep(view)
            view.close()
        for place, inode in there.items():
            known = self._slots.get(place)
            if known is None:
                known = self._slots[place] = _SlotView(place)
            if known.inode != inode:
                known.open(self.folder / f"slot-{place}", inode, folder=self._folder_file)
            ring = rings.get(ring_name(place), -1)
            if known.tail.inode != ring:
                self._open_tail(known, ring)

    def _look_for_files(self) -> tuple[dict[int, int], dict[str, int]]:
        """
        Return the inodes of slot files, by number, and of rings, by name.
        """
        there: dict[int, int] = {}
        rings: dict[str, int] = {}
        self._set_aside = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder_file) as entries:
            for seen, entry in enumerate(entries):
                if seen >= _MOST_NAMES:
                    message = f"{self.folder} has more than {_MOST_NAMES} files. Remove those that celery_obs did not make."
                    raise LayoutError(message)
                number = slot_number(entry.name)
                if number is not None:
                    there[number] = entry.inode()
                elif entry.name.startswith(RING_PREFIX):
                    rings[entry.name] = entry.inode()
                elif entry.name.endswith(".bad") or (entry.name.startswith("slot-") and not entry.name.endswith(".new")):
                    self._set_aside += 1
                    self._note(entry.name, "is not a file of celery_obs. Look at it, and remove it")
        return there, rings

    def _open_tail(self, view: _SlotView, inode: int) -> None:
        """
        Look at the ring beside a slot that is there now.
        """
        view.tail.close()
        if inode >= 0:
            try:
                view.tail.open(self.folder, inode, dir_fd=self._folder_file, layout_id=self.layout.layout_id or 0)
            except OSError as error:
                path = self.folder / ring_name(view.number)
                self._note(path.name, explain(error, within=path))

    def _reopened(self, view: _SlotView) -> _SlotView:
        """
        Take a slot file that was made anew for what it is, and keep what the old one said.
        """
        fresh = _SlotView(view.number)
        fresh.open(self.folder / f"slot-{view.number}", view.inode, folder=self._folder_file)
        fresh.tail, view.tail = view.tail, fresh.tail  # The ring is the same, and what is in it was not counted in either.
        if view.slot_id and fresh.read(self.layout, self._tally) and fresh.slot_id != view.slot_id:
            self._retired[view.slot_id] = view.lanes
            view.close()
            self._slots[view.number] = fresh
            self._retired.pop(fresh.slot_id, None)
            return fresh
        fresh.tail, view.tail = view.tail, fresh.tail
        fresh.close()
        return view

    def _keep(self, view: _SlotView) -> None:
        if view.slot_id:
            self._retired[view.slot_id] = view.total()

    def _lives(self, number: int) -> bool:
        if self._lock is None:
            try:
                self._lock = open_file(self.folder / "lock", dir_fd=self._folder_file)
            except OSError as error:
                self._note("lock", explain(error, within=self.folder / "lock"))
                return False
        return holder_lives(self._lock, number)

    def _totals(self) -> tuple[int, ...]:
        present = {view.slot_id for view in self._slots.values()}
        for slot_id in present & self._retired.keys():
            del self._retired[slot_id]  # It vanished, and came back.
        total = sum(view.lanes for view in self._slots.values()) + sum(self._retired.values())
        count = self.layout.lanes
        tails = [tail for view in self._slots.values() for tail in (view.tail.changes, view.tail.lost) if tail]
        if total != self._last_sum or tails != self._last_tails or len(self._last) != count:
            self._last_sum, self._last_tails = total, tails
            lanes = list(struct.unpack(f"<{count}q", total.to_bytes(count * WORD, "little")))
            for tail in tails:
                for lane, more in tail.items():
                    if lane < count:
                        lanes[lane] += more
            self._last = tuple(lanes)
        return self._last


class RemainderReader:
    """
    Read the remainder, again when it was replaced.

    Args:
        path: The file.

    Attributes:
        merged: The nodes that it speaks for, by the identities of their layouts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looks: tuple[int, int, int] | None = None
        self._refused: tuple[tuple[int, int, int], Exception] | None = None
        self._numbers = NodeNumbers(Layout(), [])
        self._gauges: list[tuple[Metric, tuple[str, ...], GaugeReading]] = []
        self.merged: frozenset[int] = frozenset()

    def has_changed(self) -> bool:
        """
        Tell whether the file was replaced since it was read.
        """
        looks = self._look()
        return looks != self._looks and (self._refused is None or looks != self._refused[0])

    def refresh(self) -> None:
        """
        Read it if it was replaced; what cannot be read changes nothing.

        Raises:
            LayoutError, OSError: as `Remainder.read`.
        """
        looks = self._look()
        if looks == self._looks or looks is None:  # One that went is remembered.
            self._looks = looks
            return
        if self._refused is not None and self._refused[0] == looks:
            raise self._refused[1]  # It costs nothing while it stays as it is.
        try:
            remainder = Remainder.read(self._path)
        except (RefusedError, LayoutError) as error:
            self._refused = (looks, error.with_traceback(None))
            raise
        self._numbers = NodeNumbers(*remainder.as_layout())
        self._gauges = [
            (metric, values, GaugeReading(0, gauge.value, gauge.set_at, is_live=False))
            for (metric, values), gauge in remainder.gauges.items()
        ]
        self.merged = self.merged | frozenset(remainder.merged)
        self._looks = looks

    def numbers(self) -> NodeNumbers:
        """
        Return what all merged nodes counted.
        """
        return self._numbers

    def gauges(self) -> Iterable[tuple[Metric, tuple[str, ...], GaugeReading]]:
        """
        Return the gauges that they set for good.
        """
        return self._gauges

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.lstat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def look(folder: Path) -> tuple[object, ...] | None:
    """
    Return what changes when a process claims a slot in *folder*, or its files are made anew; None while one holds a slot.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.inode(), entry.stat(follow_symlinks=False)) for entry in entries)
        lock = open_file(folder / "lock")
    except OSError:
        return None
    try:
        if is_held(lock):
            return None
    finally:
        os.close(lock)
    return tuple((name, inode, status.st_mtime_ns, status.st_size) for name, inode, status in found)


def _gauges(view: _SlotView, *, is_live: bool) -> Iterator[GaugeReading]:
    for place, (value, set_at) in enumerate(_GAUGE.iter_unpack(view.gauges)):
        if set_at:
            yield GaugeReading(place, value, set_at, is_live)


def _running(view: _SlotView) -> Iterator[RunningAttempt]:
    for record in Record.FORM.iter_unpack(view.records):
        if record[Record.PHASE] in {Phase.ANNOUNCED, Phase.RUNNING}:
            yield RunningAttempt(record[Record.STARTED_LANE], record[Record.STARTED_AT])
