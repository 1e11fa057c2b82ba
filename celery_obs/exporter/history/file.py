"""
The history's file: a table of series, and two rings of samples, one of the last minutes and one of the last two hours.

Words of eight bytes in the machine's byte order::

    0          header: magic, version, rows, samples of the fine ring, samples of the coarse ring, CRC-32 of these
    4096       rows x 512 bytes: since which sample the row is a series', what it was before, and the series' name as JSON; CRC-32 of it all
    ...        fine ring: a sample each, of 64 bytes about it and a float64 a row, NaN where nothing is known
    ...        coarse ring: a minute each, as above

Sample number *s* of a ring stands at place *s* modulo its length, and is written in one piece with a CRC-32 over all of it: killed in the middle of that, or
read in the middle of it, it does not count, and what it was to take the place of was the oldest.  A row's name is written before the first sample that has a
value of it; when a series is gone from both rings, its row may become another's, from a sample on that the row names.

A minute is what its samples say, row by row, as the series' `Fold` has it; it is written when the next one begins, or by who opens the file next.

Files are read with ``pread``, not mapped: a file that is cut off meanwhile ends no one.  The one who writes holds a lock on the file (flock(2)).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import struct
import time
import zlib

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from celery_obs.recorder.opening import RefusedError, allocate, open_file

from .declared import Name


__all__ = [
    "FINE",
    "LEAST_BYTES",
    "MINUTE",
    "MOST_BYTES",
    "Column",
    "Columns",
    "HistoryFile",
    "Moment",
    "Row",
    "Shape",
    "TakenError",
    "moment",
    "open_history",
    "read_columns",
    "read_shape",
    "shape_for",
]


MAGIC: Final = int.from_bytes(b"clryhis\x00", "little")
VERSION: Final = 1
FINE: Final = 600
COARSE: Final = 120
MINUTE: Final = 60.0
LEAST_BYTES: Final = 256 * 1024
MOST_BYTES: Final = 64 * 1024 * 1024

_TABLE_AT: Final = 4096
_HEADER = struct.Struct("=5qI4x")
_ENTRY = struct.Struct("=qdII")  # Since, before, length of the name, CRC-32.
_ENTRY_SIZE: Final = 512
_LONGEST_NAME: Final = _ENTRY_SIZE - _ENTRY.size
_HEAD = struct.Struct("=qqdddQII8x")  # Number, sample, at, by the monotonic clock, period, boot, rows, CRC-32.
_CHECK_AT: Final = 52
_MOST_NUMBERS: Final = 1 << 61
_TRIES: Final = 3
_UNKNOWN: Final = math.nan


class Moment(NamedTuple):
    """
    A time by two clocks.

    Attributes:
        at: Seconds since the epoch.

        ticks: Seconds by a clock that goes on evenly, whatever becomes of the other one; from the start of the machine on.

        boot: Which start that was.
    """

    at: float
    ticks: float
    boot: int


def moment() -> Moment:
    """
    Return what time it is.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # It goes on while the machine sleeps, where there is such a clock.
    return Moment(time.time(), time.clock_gettime(clock), _boot())


def _boot(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> int:
    try:
        name = path.read_bytes()
    except OSError:
        name = b"%d" % round(time.time() - time.monotonic(), -1)  # No Linux: as good a name as there is.
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little")


class Shape(NamedTuple):
    """
    How large a file's parts are.
    """

    rows: int
    fine: int = FINE
    coarse: int = COARSE

    @property
    def stride(self) -> int:
        """
        Bytes of a sample.
        """
        return _HEAD.size + 8 * self.rows

    @property
    def fine_at(self) -> int:
        return _TABLE_AT + self.rows * _ENTRY_SIZE

    @property
    def coarse_at(self) -> int:
        return self.fine_at + self.fine * self.stride

    @property
    def size(self) -> int:
        return self.coarse_at + self.coarse * self.stride


def shape_for(size: int, *, fine: int = FINE, coarse: int = COARSE) -> Shape:
    """
    Return the largest shape that fits into *size* bytes.
    """
    rows = (size - _TABLE_AT - (fine + coarse) * _HEAD.size) // (_ENTRY_SIZE + 8 * (fine + coarse))
    return Shape(max(1, rows), fine, coarse)


class Row(NamedTuple):
    """
    What the table says of a row.

    Attributes:
        name: The series.

        since: The first sample that has a value of it.

        before: What it was in the sample before that; NaN where not known.
    """

    name: Name
    since: int
    before: float


class Column(NamedTuple):
    """
    One sample of all series, or one minute.

    Attributes:
        number: Its number in its ring.

        sample: The number of the sample, of a minute of its last one.

        at: When it was taken, by both clocks.

        period: Seconds between this sample and the next one, as planned.

        values: By row.
    """

    number: int
    sample: int
    at: Moment
    period: float
    values: array[float]

    @property
    def minute(self) -> tuple[int, int]:
        """
        The minute that it belongs to.
        """
        return self.at.boot, math.floor(self.at.ticks / MINUTE)


class Columns(NamedTuple):
    """
    What a file holds.

    Attributes:
        rows: The series, by row.

        fine: The last samples, in their order.

        coarse: The minutes before, in their order.
    """

    rows: Mapping[int, Row]
    fine: Sequence[Column]
    coarse: Sequence[Column]

    def minutes(self) -> Iterator[Column]:
        """
        Go through all minutes, those included that are not written yet.
        """
        yield from self.coarse
        last = self.coarse[-1].sample if self.coarse else 0
        yield from (_fold(samples, self.rows) for samples in _by_minute(column for column in self.fine if column.sample > last))


def _by_minute(columns: Iterable[Column]) -> Iterator[list[Column]]:
    samples: list[Column] = []
    for column in columns:
        if samples and samples[-1].minute != column.minute:
            yield samples
            samples = []
        samples.append(column)
    if samples:
        yield samples


def _fold(samples: Sequence[Column], rows: Mapping[int, Row]) -> Column:
    """
    Make a minute of its samples.
    """
    values = array("d", samples[0].values)
    for column in samples[1:]:
        _fold_in(values, column.values, rows)
    return samples[-1]._replace(values=values)


def _fold_in(values: array[float], newer: array[float], rows: Mapping[int, Row]) -> None:
    for place, row in rows.items():
        value, kept = newer[place], values[place]
        if math.isnan(value):
            continue
        fold = row.name.fold
        if fold == "last" or math.isnan(kept) or (value > kept if fold == "max" else value < kept):
            values[place] = value


# -- reading ------------------------------------------------------------------------------------------------------------


def read_shape(descriptor: int) -> Shape | None:
    """
    Return the shape of an open file; None where nothing was written to it yet.

    Raises:
        ValueError: if it is no file of ours, or one that is not whole; the message is the end of a sentence that begins with its name.
    """
    data = os.pread(descriptor, _HEADER.size, 0)
    if not any(data):
        return None
    magic, version, rows, fine, coarse, check = _HEADER.unpack(data) if len(data) == _HEADER.size else (0,) * 6
    if magic != MAGIC:
        message = "is no history of celery_obs"
        raise ValueError(message)
    if version != VERSION:
        message = f"is a history in version {version}; this version of celery_obs writes {VERSION}"
        raise ValueError(message)
    shape = Shape(rows, fine, coarse)
    sound = check == zlib.crc32(data[: _HEADER.size - 8]) and min(shape) > 0 and shape.size <= MOST_BYTES
    if not sound or os.fstat(descriptor).st_size < shape.size:
        message = "is damaged, or was cut off"
        raise ValueError(message)
    return shape


def read_columns(descriptor: int, shape: Shape, *, fine: bool = True, coarse: bool = True) -> Columns:
    """
    Read an open file; what is not whole, or written at this moment, is left out.

    Args:
        fine: Whether to read the last samples.

        coarse: Whether to read the minutes.
    """
    columns = Columns({}, (), ())
    for _ in range(_TRIES):
        table = os.pread(descriptor, shape.rows * _ENTRY_SIZE, _TABLE_AT)
        columns = Columns(
            dict(_rows(table)),
            tuple(_ring(descriptor, shape, shape.fine_at, shape.fine)) if fine else (),
            tuple(_ring(descriptor, shape, shape.coarse_at, shape.coarse)) if coarse else (),
        )
        if os.pread(descriptor, len(table), _TABLE_AT) == table:
            break  # Else a row may have become another series' meanwhile.
    return columns


def _ring(descriptor: int, shape: Shape, at: int, length: int) -> list[Column]:
    # One by one: a ring at once would be in memory twice.
    found = (_column(os.pread(descriptor, shape.stride, at + place * shape.stride), place, length, shape.rows) for place in range(length))
    return sorted((column for column in found if column is not None), key=lambda column: column.number)


def _column(data: bytes, place: int, length: int, rows: int) -> Column | None:
    if len(data) < _HEAD.size:
        return None
    number, sample, at, ticks, period, boot, count, check = _HEAD.unpack_from(data)
    if not 0 < number < _MOST_NUMBERS or number % length != place or count != rows or check != _check(data):
        return None
    return Column(number, sample, Moment(at, ticks, boot), period, array("d", data[_HEAD.size :]))


def _check(data: bytes) -> int:
    return zlib.crc32(data[_HEAD.size :], zlib.crc32(data[:_CHECK_AT]))


def _rows(table: bytes) -> Iterator[tuple[int, Row]]:
    for place in range(len(table) // _ENTRY_SIZE):
        row = _row(table[place * _ENTRY_SIZE : (place + 1) * _ENTRY_SIZE])
        if row is not None:
            yield place, row


def _row(data: bytes) -> Row | None:
    since, before, length, check = _ENTRY.unpack_from(data)
    if since <= 0 or length > _LONGEST_NAME:
        return None
    name = data[_ENTRY.size : _ENTRY.size + length]
    if check != _entry_check(since, before, name):
        return None
    try:
        metric, labels, grows, fold = json.loads(name)
        found = Name(str(metric), tuple((str(label), str(value)) for label, value in labels), bool(grows), fold)
    except (ValueError, TypeError, RecursionError):
        return None
    return Row(found, since, before) if found.fold in {"last", "max", "min"} else None


def _entry(row: Row) -> bytes | None:
    """
    Write a row; None for a name that is too long.
    """
    metric, labels, grows, fold = row.name
    name = json.dumps([metric, labels, grows, fold], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(name) > _LONGEST_NAME:
        return None
    return _ENTRY.pack(row.since, row.before, len(name), _entry_check(row.since, row.before, name)) + name


def _entry_check(since: int, before: float, name: bytes) -> int:
    return zlib.crc32(name, zlib.crc32(struct.pack("=qd", since, before)))


# -- writing ------------------------------------------------------------------------------------------------------------


class HistoryFile:
    """
    Write a history, and go on where the last one who did left it.

    Args:
        descriptor: The open file, which this closes.  The caller sees to it that no other one writes.

        shape: What it is to have.  A file that was never written to gets it; any other has it.

        shares: How many rows series of each `Name.group` may have; of others, none are added.

    Attributes:
        left_out: How many series of the last sample had no room.

    Raises:
        OSError: if it cannot be read, or its room cannot be had.

    Threads: one at a time.
    """

    def __init__(self, descriptor: int, shape: Shape, *, shares: Callable[[tuple[str, ...]], int]) -> None:
        self.descriptor = descriptor
        self.shape = shape
        self.left_out = 0
        self._shares = shares
        is_new = read_shape(descriptor) is None
        if is_new:
            self._begin()
        columns = Columns({}, (), ()) if is_new else read_columns(descriptor, shape)
        self._rows = dict(columns.rows)
        self._places = {row.name: place for place, row in self._rows.items()}
        self._used: dict[tuple[str, ...], int] = {}
        for row in self._rows.values():
            self._used[row.name.group] = self._used.get(row.name.group, 0) + 1
        self._free = [place for place in reversed(range(shape.rows)) if place not in self._rows]
        self._number = columns.fine[-1].number if columns.fine else 0
        self._minute = columns.coarse[-1].number if columns.coarse else 0
        self._seen = self._last_seen(columns)
        self._gone = 0  # No sample up to this one is in the coarse ring any more.
        self._ends = [column.sample for column in columns.coarse]
        self._current: Column | None = None
        self._finish(columns)

    def _begin(self) -> None:
        """
        Take the room, and write the header last.
        """
        os.ftruncate(self.descriptor, 0)
        os.ftruncate(self.descriptor, self.shape.size)
        try:
            allocate(self.descriptor, 0, self.shape.size)
        except OSError:
            os.ftruncate(self.descriptor, 0)
            raise
        words = struct.pack("=5q", MAGIC, VERSION, *self.shape)
        self._write(words + struct.pack("=I4x", zlib.crc32(words)), 0)

    def _finish(self, columns: Columns) -> None:
        """
        Write those minutes that the last one who wrote did not come to.
        """
        last = self._ends[-1] if self._ends else 0
        minutes = list(_by_minute(column for column in columns.fine if column.sample > last))
        for samples in minutes[:-1]:
            self._write_minute(_fold(samples, self._rows))
        if minutes:
            self._current = _fold(minutes[-1], self._rows)

    @staticmethod
    def _last_seen(columns: Columns) -> dict[int, int]:
        seen = dict.fromkeys(columns.rows, 0)
        for column in (*columns.coarse, *columns.fine):
            seen.update((place, max(last, column.sample)) for place, last in seen.items() if not math.isnan(column.values[place]))
        return seen

    def append(self, at: Moment, values: Mapping[Name, float], *, period: float, zero_before: Collection[tuple[str, ...]] = ()) -> None:
        """
        Write one sample.

        Args:
            at: When it was taken.

            values: By series.

            period: Seconds until the next one, as planned.

            zero_before: Groups of series of which those that are new were 0 in the sample before this one.

        Raises:
            OSError: if it cannot be written.
        """
        number = self._number + 1
        row_values = array("d", [_UNKNOWN]) * self.shape.rows
        self.left_out = 0
        for name, value in values.items():
            place = self._places.get(name)
            if place is None:
                place = self._take_row(name, number, 0.0 if name.group in zero_before else _UNKNOWN)
            if place is None:
                self.left_out += 1
                continue
            row_values[place] = value
            self._seen[place] = number
        column = Column(number, number, at, period, row_values)
        if self._current is not None and self._current.minute != column.minute:
            self._write_minute(self._current)
            self._current = None
        self._write(_packed(column, self.shape.rows), self.shape.fine_at + number % self.shape.fine * self.shape.stride)
        self._number = number
        if self._current is None:
            self._current = column._replace(values=array("d", row_values))
        else:
            _fold_in(self._current.values, row_values, self._rows)
            self._current = column._replace(values=self._current.values)

    def _write_minute(self, column: Column) -> None:
        number = self._minute + 1
        packed = _packed(column._replace(number=number), self.shape.rows)
        self._write(packed, self.shape.coarse_at + number % self.shape.coarse * self.shape.stride)
        self._minute = number
        self._ends.append(column.sample)
        if len(self._ends) > self.shape.coarse:
            self._gone = self._ends.pop(0)

    def _take_row(self, name: Name, number: int, before: float) -> int | None:
        """
        Give a series a row; None where its group has had its share, or its name does not fit.
        """
        row = Row(name, number, before)
        entry = _entry(row)
        if entry is None:
            return None
        if self._used.get(name.group, 0) >= self._shares(name.group) or not self._free:
            self._clear_out()
            if self._used.get(name.group, 0) >= self._shares(name.group) or not self._free:
                return None
        place = self._free.pop()
        self._write(entry.ljust(_ENTRY_SIZE, b"\0"), _TABLE_AT + place * _ENTRY_SIZE)
        self._rows[place], self._places[name] = row, place
        self._used[name.group] = self._used.get(name.group, 0) + 1
        return place

    def _clear_out(self) -> None:
        """
        Let go of series that no minute has any more.
        """
        for place, seen in list(self._seen.items()):
            if seen <= self._gone:
                name = self._rows.pop(place).name
                del self._places[name], self._seen[place]
                self._used[name.group] -= 1
                self._free.append(place)

    def _write(self, data: bytes, at: int) -> None:
        if os.pwrite(self.descriptor, data, at) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """
        Close the file; another process may write to it now.
        """
        os.close(self.descriptor)


def _packed(column: Column, rows: int) -> bytes:
    head = _HEAD.pack(column.number, column.sample, *column.at[:2], column.period, column.at.boot, rows, 0)
    values = column.values.tobytes()
    return head[:_CHECK_AT] + struct.pack("=I", _check(head + values)) + head[_CHECK_AT + 4 :] + values


# -- opening ------------------------------------------------------------------------------------------------------------


class TakenError(Exception):
    """
    Another process writes the file.
    """


def open_history(path: Path, size: int, *, shares: Callable[[tuple[str, ...]], int], said: Callable[[str], object]) -> HistoryFile:
    """
    Open the history at *path* for writing; make it, and set aside what is there and cannot be used.

    Args:
        size: Bytes that it may take.  One of another size is begun anew.

        said: Hears what was set aside, and why.

    Raises:
        TakenError: if another process writes it.

        OSError: if it cannot be made or written.
    """
    wanted = shape_for(size)
    for _ in range(_TRIES):
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            found = _claimed(descriptor, path, wanted, said)
        except BaseException:
            os.close(descriptor)
            raise
        if found:
            try:
                return HistoryFile(descriptor, wanted, shares=shares)
            except BaseException:
                os.close(descriptor)
                raise
        os.close(descriptor)
    raise RefusedError(path, "is replaced again and again by another process", "Find out which one, and stop it.")


def _claimed(descriptor: int, path: Path, wanted: Shape, said: Callable[[str], object]) -> bool:
    """
    Lock the file, and tell whether it is still the one at *path*, and can be used.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TakenError from None
    if not _is_at(descriptor, path):
        return False
    if os.fstat(descriptor).st_nlink > 1:
        raise RefusedError(path, "has another name as well, so it may be another's file", "Remove it.")
    try:
        shape = read_shape(descriptor)
    except ValueError as error:
        path.replace(f"{path}.bad")
        said(f"{path} {error}. It was set aside as {path.name}.bad, and a new one is begun.")
        return False
    if shape is not None and shape != wanted:
        path.unlink()
        said(f"{path} has another size than is wanted now, so a new one is begun.")
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        there, ours = path.lstat(), os.fstat(descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
    return False
