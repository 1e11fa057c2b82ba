"""
Slots: one file of numbers a process, owned through a POSIX lock, handed on from a dead process to the next.

A pool child takes the slot of its place in the pool, so that recycled and killed children reuse a few files for ever:
counters go on where the last owner left them, gauges start anew, and what the last owner was doing when it died is told (see `celery_obs.recorder.attempts`).

A file has room for every series of the node.  Where these are many, it takes disk space only for those that its owners used: the rest of it is holes.
So each store into a lane or a gauge comes after `Slot.back`; a store into a hole of a full disk would end the process with SIGBUS, and so would a look.

Forks: a slot belongs to the process that claimed it.  POSIX locks are not inherited, so a forked child has to claim its own and must not write to this one.
Threads: claiming is not thread-safe; writing numbers is, because ``view[i] += n`` is one step under the GIL since Python 3.10.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import mmap
import os
import secrets
import struct
import sys
import time

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from celery_obs.exceptions import LayoutError

from .format import MAGIC, MOST_GAUGES, VERSION, WORD, Exemplar, Gauge, Header, Record, exemplar_region, folder_name, slot_number
from .layout import MOST_LANES, LayoutFile
from .opening import RefusedError, allocate, new_file, open_file, open_folder
from .remainder import pending_nodes
from .ring import Seen, look_after, ring_name


__all__ = [
    "Node",
    "Slot",
    "holder_lives",
    "holder_pid",
    "is_alive",
    "is_held",
    "is_still",
    "layout_id_of",
    "locks",
    "remove_folder",
    "slot_numbers",
    "tell_cut_off",
    "whole_lock",
]


_GROWTH: Final = 4096  # Lanes are added in steps of 32 KiB.
_PAGE: Final = 4096  # Disk space is taken in steps of as many bytes.
_CUT: Final = 1 << 20
_MOST_RECORDS: Final = 1 << 16
_MOST_ROOM: Final = 4 * MOST_LANES  # A file grows to twice of what it needs.
_FIRST_SPARE: Final = 100_000
_CLAIM_PATIENCE: Final = 0.1
_RETIRING_PATIENCE: Final = 5.0
_FLOCK = struct.Struct("qqihh4x" if sys.platform == "darwin" else "hh4xqqi4x")


def holder_lives(lock: int, number: int) -> bool:
    """
    Tell whether a living process other than this one owns slot *number*.

    Args:
        lock: A descriptor of the node's lock file, open for reading.

        number: The slot.

    Asking takes no lock, so it disturbs no process (fcntl(2), F_GETLK).
    """
    kind, length = _holder(lock, number, 1)
    return kind != fcntl.F_UNLCK and length == 1  # All slots at once are held by a process that retires the node.


def holder_pid(lock: int, number: int) -> int:
    """
    Return the id of the process that owns slot *number*, as this process sees it; 0 where none does, or none that can be seen from this PID namespace.

    Args:
        lock: As for `holder_lives`.

        number: The slot.
    """
    kind, length, pid = _lock_on(lock, number, 1)
    return pid if kind != fcntl.F_UNLCK and length == 1 and pid > 0 else 0


def is_held(lock: int) -> bool:
    """
    Tell whether a living process other than this one owns any slot; asked as `holder_lives`.
    """
    return _holder(lock, 0, 0)[0] != fcntl.F_UNLCK


def _holder(lock: int, first: int, number: int) -> tuple[int, int]:
    """
    Return the kind and the length of a lock on *number* bytes from *first* on; a length of 0 is one of all bytes.
    """
    return _lock_on(lock, first, number)[:2]


def _lock_on(lock: int, first: int, number: int) -> tuple[int, int, int]:
    """
    Return the kind, the length and the owner of a lock on these bytes.
    """
    if sys.platform == "darwin":
        answer = fcntl.fcntl(lock, fcntl.F_GETLK, _FLOCK.pack(first, number, 0, fcntl.F_WRLCK, os.SEEK_SET))
        _, length, pid, kind, _ = _FLOCK.unpack(answer)
    else:
        answer = fcntl.fcntl(lock, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, number, 0))
        kind, _, _, length, pid = _FLOCK.unpack(answer)
    return kind, length, pid


def slot_numbers(folder: Path | int, *, most: int | None = None) -> Iterator[int]:
    """
    Go through the numbers of the slot files in a node's folder.

    Args:
        folder: The folder, or its descriptor.

        most: How many entries to look at; None for all.
    """
    with os.scandir(folder) as entries:
        for entry in islice(entries, most):
            number = slot_number(entry.name)
            if number is not None:
                yield number


@contextlib.contextmanager
def whole_lock(folder: Path) -> Iterator[bool]:
    """
    Hold all slots of a node for as long as the context lasts; tell whether that could be had.

    Never for a folder whose lock this process has open: closing it drops every lock that the process has there.
    """
    try:
        lock = open_file(folder / "lock", os.O_RDWR | os.O_CREAT)
    except OSError:
        yield False
        return
    try:
        yield locks(lock) and is_still(lock, folder / "lock")
    finally:
        os.close(lock)


def locks(lock: int) -> bool:
    """
    Take a lock on the whole of an open file, if it is free.
    """
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in {errno.EACCES, errno.EAGAIN}:
            return False
        raise
    return True


def is_still(descriptor: int, path: Path) -> bool:
    """
    Tell whether the open file is the one that *path* names now.
    """
    try:
        return os.fstat(descriptor).st_ino == path.lstat().st_ino
    except OSError:
        return False


def is_alive(folder: Path) -> bool:
    """
    Tell whether a living process other than this one holds a slot of the node.
    """
    with whole_lock(folder) as ours:
        return not ours


def remove_folder(folder: Path) -> None:
    """
    Remove what a merged node left; the caller holds its slots.  What cannot be removed stays for the next one.
    """
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == "lock", path.name == "layout", path.name)):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    folder.rmdir()


def layout_id_of(folder: Path) -> int | None:
    """
    Return the identity of the layout in a node's folder; None where there is none.
    """
    try:
        with os.fdopen(open_file(folder / "layout"), "rb") as file:
            return int(json.loads(file.readline(1 << 12))["id"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


class Slot:
    """
    A slot's file, mapped as int64 words.

    Make one with `Node.claim` or `Node.others`.

    Attributes:
        number: Its place in the node.

        words: The whole file as int64 words, shared with the sidecar.

        floats: The same memory as float64, for the values of gauges.

        memory: The same as bytes, for exemplars.

        exemplars: How many exemplars there is room for.

        inherited: The header as the owner before this one left it.
    """

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self._descriptor = descriptor
        self._backed: set[int] = set()
        self._map(os.fstat(descriptor).st_size)
        self.inherited = self._header = self.words[: Header.WORDS].tolist()
        self.records_at = self.inherited[Header.RECORDS_AT]
        self.records = self.inherited[Header.RECORDS]
        self.gauges_at = self.inherited[Header.GAUGES_AT]
        self.gauges = self.inherited[Header.GAUGES]
        self.exemplars_at, self.exemplars = exemplar_region(self.inherited)
        self.lanes_at = self.inherited[Header.LANES_AT]

    @property
    def lanes(self) -> int:
        """
        How many lanes fit into the file as it is mapped now.
        """
        return len(self.words) - self.lanes_at

    def _map(self, size: int) -> None:
        self._memory = mmap.mmap(self._descriptor, size - size % WORD)
        self.words = memoryview(self._memory).cast("q")
        self.floats = memoryview(self._memory).cast("d")
        self.memory = memoryview(self._memory)

    @property
    def descriptor(self) -> int:
        """
        The open file.
        """
        return self._descriptor

    def mend(self) -> bool:
        """
        Make sure that the file is as long as it is mapped; return whether another program had cut it off.

        A process that touches a page that is gone dies by SIGBUS.  So the file gets its length again, as a new slot, in which nothing is counted yet:
        readers keep what they saw of the old one.  Call it from time to time, and before a look at what was not touched for long.

        Raises:
            OSError: if the file cannot be made longer; it is not to be touched then.
        """
        size = len(self.words) * WORD
        if os.fstat(self._descriptor).st_size >= size:
            self._header = self.words[: Header.WORDS].tolist()
            return False
        _restore(self._descriptor, self._header, size)
        for page in self._backed:
            allocate(self._descriptor, page * _PAGE, min(_PAGE, size - page * _PAGE))
        return True

    def reserve(self, lanes: int) -> None:
        """
        Make room for *lanes* lanes; views taken before stay valid for the lanes that they had.

        Raises:
            OSError: when the file system does not take a file of that size.
        """
        if lanes > self.lanes:
            size = (self.lanes_at + _rounded(max(lanes, 2 * self.lanes))) * WORD
            os.ftruncate(self._descriptor, size)
            self._map(size)

    def back(self, word: int, words: int = 1) -> None:
        """
        Take the disk space under *words* words from *word* on, so that they can be written and read; once is enough.

        Raises:
            OSError: when the disk is full.
        """
        first, last = word * WORD // _PAGE, ((word + words) * WORD - 1) // _PAGE
        backed = self._backed
        if first in backed and last in backed and last - first < 2:  # noqa: PLR2004 -- nothing between them.
            return
        end = len(self.words) * WORD
        for page in range(first, last + 1):
            if page not in backed:
                allocate(self._descriptor, page * _PAGE, min(_PAGE, end - page * _PAGE))
                backed.add(page)

    def back_all(self, lanes: int) -> None:
        """
        Take the disk space under the first *lanes* lanes at once, in a slot that was just claimed.

        Raises:
            OSError: when the disk is full.
        """
        if lanes:
            first, last = self.lanes_at * WORD // _PAGE, ((self.lanes_at + lanes) * WORD - 1) // _PAGE
            allocate(self._descriptor, first * _PAGE, min((last + 1) * _PAGE, len(self.words) * WORD) - first * _PAGE)
            self._backed.update(range(first, last + 1))

    def totals(self, number: int) -> list[int]:
        """
        Return the first *number* lanes, 0 for those that the file has no room for; without touching holes.
        """
        data = os.pread(self._descriptor, number * WORD, self.lanes_at * WORD)
        known = memoryview(data[: len(data) // WORD * WORD]).cast("q").tolist()
        return known + [0] * (number - len(known))

    def set_gauges(self, number: int) -> Iterator[int]:
        """
        Go through the places, of the first *number*, whose gauge is set; without touching holes.
        """
        data = os.pread(self._descriptor, min(number, self.gauges) * Gauge.WORDS * WORD, self.gauges_at * WORD)
        stamps = memoryview(data[: len(data) // (Gauge.WORDS * WORD) * Gauge.WORDS * WORD]).cast("q")[Gauge.SET_AT :: Gauge.WORDS]
        return (place for place, stamp in enumerate(stamps) if stamp)

    def unset_gauge(self, place: int) -> None:
        """
        Take away what a gauge that is set was set to.
        """
        self.words[self.gauges_at + place * Gauge.WORDS + Gauge.SET_AT] = 0

    def close(self) -> None:
        """
        Let go of the file.  Views that others took stay valid; the lock is the node's to drop.
        """
        os.close(self._descriptor)


class _Room(NamedTuple):
    """
    How much a slot file has to have room for.
    """

    records: int
    gauges: int
    exemplars: int
    lanes: int


def tell_cut_off(path: Path) -> None:
    """
    Say that a slot file was mended.
    """
    logging.getLogger("celery_obs").error(
        "celery_obs: the metric file %s was truncated by another program. What was counted there since the last scrape may be missing; counting goes on. "
        "Find out what truncates files in that directory, and exclude the directory from it.",
        path,
    )


def set_aside(path: Path) -> None:
    """
    Move what is none of our files out of the way, for a person to look at; under the name that readers tell of.

    Raises:
        OSError: if that cannot be done.
    """
    path.replace(path.with_name(f"{path.name}.bad"))


def _open_slot(path: Path, *, layout_id: int, room: _Room) -> int:
    """
    Open the slot file at *path*, made or remade as needed; the caller holds the slot's lock.
    """
    try:
        descriptor = open_file(path, os.O_RDWR)
    except FileNotFoundError:
        return _create(path, b"", layout_id=layout_id, room=room)
    except RefusedError:
        set_aside(path)
        return _create(path, b"", layout_id=layout_id, room=room)
    header = _header(descriptor)
    if header is None or header[Header.LAYOUT_ID] != layout_id:
        os.close(descriptor)
        set_aside(path)
        return _create(path, b"", layout_id=layout_id, room=room)
    if header[Header.RECORDS] < room.records or header[Header.GAUGES] < room.gauges or exemplar_region(header)[1] < room.exemplars:
        old = os.pread(descriptor, os.fstat(descriptor).st_size // WORD * WORD, 0)
        os.close(descriptor)
        return _create(path, old, layout_id=layout_id, room=room)
    return descriptor


def _create(path: Path, old: bytes, *, layout_id: int, room: _Room) -> int:
    """
    Make a slot file that has its final name only once it is whole; carry over *old*, the bytes of the same slot with smaller tables.

    Exemplars are not carried over: they are examples, and new ones come soon.
    """
    header = list(memoryview(old)[: Header.WORDS * WORD].cast("q")) or [0] * Header.WORDS
    running = _words(old, header[Header.RECORDS_AT], header[Header.RECORDS] * Record.WORDS)
    values = _words(old, header[Header.GAUGES_AT], header[Header.GAUGES] * Gauge.WORDS)
    kept = old[header[Header.LANES_AT] * WORD :]
    records = max(room.records, header[Header.RECORDS])
    gauges = max(room.gauges, header[Header.GAUGES])
    exemplars = max(room.exemplars, exemplar_region(header)[1])
    gauges_at = Header.WORDS + records * Record.WORDS
    exemplars_at = gauges_at + gauges * Gauge.WORDS
    lanes_at = exemplars_at + exemplars * Exemplar.WORDS
    header[: Header.SLOT_ID + 1] = [MAGIC, VERSION, layout_id, header[Header.SLOT_ID] or secrets.randbits(62) | 1]
    header[Header.RECORDS_AT : Header.LANES_AT + 1] = [Header.WORDS, records, gauges_at, gauges, exemplars_at, exemplars, lanes_at]
    fresh = path.with_name(f"{path.name}.new")
    descriptor = new_file(fresh)
    try:
        os.ftruncate(descriptor, (lanes_at + _rounded(max(room.lanes, len(kept) // WORD))) * WORD)
        allocate(descriptor, 0, gauges_at * WORD)
        if exemplars:
            allocate(descriptor, exemplars_at * WORD, exemplars * Exemplar.WORDS * WORD)
        os.pwrite(descriptor, struct.pack(f"={Header.WORDS}q", *header) + running, 0)
        _carry_over(descriptor, values, gauges_at * WORD)
        _carry_over(descriptor, kept, lanes_at * WORD)
        fresh.replace(path)
    except OSError:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    return descriptor


def _words(data: bytes, at: int, number: int) -> bytes:
    return data[at * WORD : (at + number) * WORD]


def _carry_over(descriptor: int, data: bytes, at: int) -> None:
    """
    Write *data* at byte *at*, and leave holes where there is nothing but zeros.
    """
    for start in range(0, len(data), _PAGE):
        portion = data[start : start + _PAGE]
        if any(portion) and os.pwrite(descriptor, portion, at + start) < len(portion):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _rounded(lanes: int) -> int:
    return -(-max(lanes, 1) // _GROWTH) * _GROWTH


def _header(descriptor: int) -> list[int] | None:
    """
    Read a slot file's header; None if the file is not one of ours in this version, or shorter than its header says.
    """
    data = os.pread(descriptor, Header.WORDS * WORD, 0)
    if len(data) < Header.WORDS * WORD:
        return None
    words = list(struct.unpack(f"={Header.WORDS}q", data))
    size = os.fstat(descriptor).st_size
    return words if _is_sound(words, size // WORD) else None


def _is_sound(words: Sequence[int], size: int) -> bool:
    """
    Tell whether a header is one that we wrote, in a file of *size* words.
    """
    records, gauges, lanes_at = words[Header.RECORDS], words[Header.GAUGES], words[Header.LANES_AT]
    return (
        words[Header.MAGIC] == MAGIC
        and words[Header.VERSION] == VERSION
        and words[Header.RECORDS_AT] == Header.WORDS
        and 0 <= records <= _MOST_RECORDS
        and 0 <= gauges <= MOST_GAUGES
        and words[Header.GAUGES_AT] == Header.WORDS + records * Record.WORDS
        and words[Header.GAUGES_AT] + gauges * Gauge.WORDS <= lanes_at <= size
        and 0 <= words[Header.LANES_USED] <= size - lanes_at <= _MOST_ROOM
    )


def _restore(descriptor: int, header: Sequence[int], size: int) -> None:
    """
    Give a slot file that was cut off under its owner the header and the size that it had, and the space under all that its owner may touch.

    It is another slot from here on, with nothing in it.  The size comes last: until then readers take the file for damaged, and keep what they know.
    """
    fresh = [*header]
    fresh[Header.SLOT_ID], fresh[Header.EXEMPLARS_WRITTEN] = secrets.randbits(62) | 1, 0
    os.pwrite(descriptor, struct.pack(f"={Header.WORDS}q", *fresh), 0)
    for start in range(Header.WORDS * WORD, os.fstat(descriptor).st_size, _CUT):
        os.pwrite(descriptor, bytes(min(_CUT, os.fstat(descriptor).st_size - start)), start)
    os.ftruncate(descriptor, size)
    for first, words in (
        (0, header[Header.GAUGES_AT]),
        (header[Header.EXEMPLARS_AT], header[Header.EXEMPLARS] * Exemplar.WORDS),
        (header[Header.LANES_AT], header[Header.LANES_USED]),
    ):
        if words > 0:
            allocate(descriptor, first * WORD, words * WORD)


class _Look(NamedTuple):
    """
    A slot file of another process, as it was when it was whole.
    """

    inode: int
    size: int
    header: list[int]


class Node:
    """
    One node's folder, seen from a process that writes there.

    Args:
        metrics_dir: The folder that holds all nodes.

        name: The node's name; see `celery_obs.recorder.format.folder_name`.

        gauges: How many gauges a new slot file has room for.

    Raises:
        OSError: if the folder cannot be made or written.
    """

    def __init__(self, metrics_dir: Path, name: str, *, gauges: int) -> None:
        self.name = name
        self.folder = metrics_dir / folder_name(name)
        self._make_folder()
        self._clear_away(metrics_dir)
        self.file = self._open_layout()
        self.layout = self.file.layout
        self._gauges = gauges
        self._lock: int | None = None
        self._owned: set[int] = set()
        self._seen: dict[int, _Look] = {}
        self._rings: dict[int, Seen | None] = {}
        self._is_inherited = False

    def _clear_away(self, metrics_dir: Path) -> None:
        """
        Begin anew in a folder whose numbers were merged into the remainder, by a process that died before it could remove them.
        """
        pending = pending_nodes(metrics_dir)
        deadline = time.monotonic() + _RETIRING_PATIENCE
        while pending and layout_id_of(self.folder) in pending:
            with whole_lock(self.folder) as ours:
                if ours:
                    remove_folder(self.folder)
            if not ours:
                if time.monotonic() > deadline:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self.folder))
                time.sleep(0.001)
            self._make_folder()

    def _make_folder(self) -> None:
        """
        Make the folder if it is missing, and make sure that it is one that we may write to.
        """
        with contextlib.suppress(FileExistsError):  # No folder is there: said below.
            self.folder.mkdir(parents=True, exist_ok=True)
        os.close(open_folder(self.folder, writes=True))

    def is_current(self) -> bool:
        """
        Tell whether the layout and the lock that this process has open are still those of the folder, and not of one that was retired meanwhile.
        """
        return is_still(self.file.descriptor, self.folder / "layout") and is_still(self.lock, self.folder / "lock")

    def _open_layout(self) -> LayoutFile:
        path = self.folder / "layout"
        try:
            file = LayoutFile(path)
        except (LayoutError, RefusedError):
            set_aside(path)
            return LayoutFile(path)
        if file.layout.lanes < self._lanes_in_use(file.layout.layout_id):
            file.close()  # The layout lost its end: lanes given out anew would mix two series.
            set_aside(path)
            return LayoutFile(path)
        return file

    def _lanes_in_use(self, layout_id: int | None) -> int:
        used = 0
        for number in slot_numbers(self.folder):
            with contextlib.suppress(OSError), os.fdopen(open_file(self.folder / f"slot-{number}"), "rb", buffering=0) as file:
                header = _header(file.fileno())
                if header is not None and header[Header.LAYOUT_ID] == layout_id:
                    used = max(used, header[Header.LANES_USED])
        return used

    def claim(self, number: int | None, *, records: int, exemplars: int = 0) -> Slot:
        """
        Take a slot for this process, for as long as it lives.

        Args:
            number: The slot to take; None for the lowest free one.

            records: How many attempts it can run at once.

            exemplars: How many exemplars it may want to keep.

        A slot that a process holds is waited for a tenth of a second, for the sweep of the main process holds one for microseconds;
        then a spare one is taken, the lowest that is free, so that the number of files stays bounded.
        """
        deadline = time.monotonic() + _RETIRING_PATIENCE
        if number is not None and not self._wait_for(number):
            number = None
            spare = _FIRST_SPARE
        else:
            spare = 0
        while number is None:
            number, spare = (spare, spare) if self.try_lock(spare) else (None, spare + 1)
            if spare % _FIRST_SPARE == _FIRST_SPARE - 1:  # All at once are held by a process that retires the node, for milliseconds.
                if time.monotonic() > deadline:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self.folder / "lock"))
                spare -= _FIRST_SPARE - 1
                time.sleep(0.001)
        path = self.folder / f"slot-{number}"
        room = _Room(records, self._gauges, exemplars, self.layout.lanes)
        slot = Slot(number, _open_slot(path, layout_id=self.layout.layout_id or 0, room=room))
        os.utime(slot.descriptor)  # A sign of life, for stores into mapped memory leave none.
        return slot

    def others(self, own: Slot | None) -> Iterator[Slot]:
        """
        Open the slots of this node except *own*, one after the other, changing nothing; those that are not whole are passed over.
        """
        self.file.refresh()
        for number in sorted(slot_numbers(self.folder)):
            if own is not None and number == own.number:
                continue
            with contextlib.suppress(OSError):
                self._rings[number] = look_after(self.folder / ring_name(number), self._rings.get(number))
            with contextlib.suppress(OSError):
                descriptor = open_file(self.folder / f"slot-{number}", os.O_RDWR)
                try:
                    header = _header(descriptor) or self._mended(number, descriptor)
                    if header is not None and header[Header.LAYOUT_ID] == self.layout.layout_id:
                        slot = Slot(number, descriptor)
                        self._seen[number] = _Look(os.fstat(descriptor).st_ino, len(slot.words) * WORD, header)
                        yield slot
                finally:
                    os.close(descriptor)

    def _mended(self, number: int, descriptor: int) -> list[int] | None:
        """
        Mend a slot file that was whole when it was looked at before, and was cut off since; its owner would die of it.  Return its header.
        """
        known, found = self._seen.get(number), os.fstat(descriptor)
        if known is None or known.inode != found.st_ino or known.size <= found.st_size:
            return None
        _restore(descriptor, known.header, known.size)
        tell_cut_off(self.folder / f"slot-{number}")
        return _header(descriptor)

    def _wait_for(self, number: int) -> bool:
        deadline = time.monotonic() + _CLAIM_PATIENCE
        while not self.try_lock(number):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def try_lock(self, number: int) -> bool:
        """
        Take the lock of slot *number* if it is free.  A lock that this process has is not taken twice.
        """
        if number in self._owned:
            return False
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError as exc:
            if exc.errno in {errno.EACCES, errno.EAGAIN}:
                return False
            raise
        self._owned.add(number)
        return True

    def unlock(self, number: int) -> None:
        """
        Give back the lock of slot *number*.
        """
        fcntl.lockf(self.lock, fcntl.LOCK_UN, 1, number)
        self._owned.discard(number)

    @property
    def lock(self) -> int:
        """
        The descriptor of the lock file: opened once a process and never closed while it lives, for any close drops all its locks.
        """
        if self._lock is None:
            self._lock = open_file(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        return self._lock

    def abandon(self) -> Node:
        """
        Return this node for a child that was just forked: what is known of the layout is kept, the parent's locks are not.
        """
        child = object.__new__(Node)
        child.name, child.folder, child.file, child.layout, child._gauges = self.name, self.folder, self.file, self.layout, self._gauges
        child._lock = None
        child._owned = set()
        child._seen = {}
        child._rings = {}
        child._is_inherited = True
        return child

    def close(self) -> None:
        """
        Drop all locks and close the files.

        A layout that was opened before the fork is left alone: beat inside a worker closes every descriptor that it inherits,
        so that the number may be free by now, or another process's.
        """
        if not self._is_inherited:
            self.file.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._owned.clear()
