"""
The ring: the latest attempts of one process, a record of 128 bytes each, so that they can be searched without events and without a database.

It is a file beside the slot's, ``attempts-<n>``, that the owner of slot *n* maps and writes.  Words of eight bytes in the machine's byte order::

    word 0..15   header, see `RingHeader`
    ...          `RingHeader.ROWS` x `Row.WORDS`, and one more row where that is odd: of each attempt that runs, what the slot's table does not say
    ...          the journal of a batch that is being counted: `JOURNAL` x two words, a lane and what it is to hold; only where there is one row
    ...          `RingHeader.RECORDS` x `Finished.WORDS`: the latest attempts, whatever became of them
    ...          `RingHeader.FAILURES` x `Finished.WORDS`: the latest of those that did not succeed, which so are kept longer

Attempt number *s* of a ring stands at place *s* modulo its length.  `Finished.NUMBER` is 0 while a record is written, and *s* + 1 once it is whole: the last store.
So a reader takes a record for whole if it finds the same number before and after it read the rest (a sequence lock; readers wait for nothing).

Killed at any store, the record is finished by who settles the attempt in the slot, and only once: `Row.NUMBER` is the place that it was to have.

Where attempts run one at a time, they are counted out of the ring, in batches: see `celery_obs.recorder.batches`.

Forks: a ring belongs to the process that claimed its slot.  Threads: one row each; numbers are given out in one step.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys

from collections.abc import Mapping
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from .format import WORD
from .opening import RefusedError, allocate, new_file, open_file


__all__ = [
    "BATCH",
    "FACTS_FORM",
    "HELD_BACK_CAUSE",
    "JOURNAL",
    "LONGEST_ID",
    "RECORD_FORM",
    "RING_MAGIC",
    "RING_PREFIX",
    "RING_VERSION",
    "ROW_FORM",
    "AttemptRing",
    "Finished",
    "RingHeader",
    "Row",
    "Seen",
    "Shape",
    "encode_id",
    "look_after",
    "read_shape",
    "read_tail",
    "ring_name",
    "shape_of",
]


RING_MAGIC: Final = int.from_bytes(b"clryatt\x00", "little")
RING_VERSION: Final = 2

RING_PREFIX: Final = "attempts-"

LONGEST_ID: Final = 40
"""
Bytes of a task's id that a record has room for; of a longer one it has a digest.
"""

BATCH: Final = 32
"""
How many attempts are counted at once.
"""

JOURNAL: Final = BATCH * 11
"""
How many lanes one batch can change: an attempt changes eleven.
"""

HELD_BACK_CAUSE: Final = -1
"""
What `Finished.CAUSE` is for an attempt that was held back by a limit, a breaker or a pause of our own.
"""

_STEP: Final = 1 << 13  # Words whose disk space is taken at once: 64 KiB.  No record lies across two of them.
ROW_FORM: Final = struct.Struct("=40sdq8x")
"""
A row, as bytes.
"""

RECORD_FORM: Final = struct.Struct("=4q4d40s16s8x")
"""
A record, as bytes: for readers, for a writer stores its number apart.
"""

FACTS_FORM: Final = struct.Struct("=3q4d40s24x")
"""
A record behind its number, as bytes, without a trace.
"""

_MOST_NUMBERS: Final = 1 << 61
_MOST_ROWS: Final = 1 << 16
_MOST_RECORDS: Final = 1 << 20  # 128 MiB.
_DIGEST: Final = 19


class RingHeader:
    """
    The words at the front of a ring's file.

    *WRITTEN* and *FAILURES_WRITTEN* are how many records were ever begun: all but the last ones of them were overwritten.
    *COUNTED* is how many of the records the lanes of the slot have; `BY_ITSELF` where the owner counts each attempt by itself.
    *COUNTING* is what *COUNTED* is about to be; while they differ, the first *ENTRIES* entries of the journal are in force.
    """

    MAGIC: Final = 0
    VERSION: Final = 1
    LAYOUT_ID: Final = 2
    ROWS: Final = 3
    RECORDS: Final = 4
    FAILURES: Final = 5
    WRITTEN: Final = 6
    FAILURES_WRITTEN: Final = 7
    COUNTED: Final = 8
    COUNTING: Final = 9
    ENTRIES: Final = 10
    WORDS: Final = 16

    BY_ITSELF: Final = -1


class Row:
    """
    The words on an attempt that runs, relative to the start of its row.  Row *k* belongs to record *k* of the slot's table.

    *ID* is 40 bytes, zeros behind the id's own.  *WAIT* is float64, in seconds; negative where it is not known.
    *NUMBER* is 0 until the attempt's place in the ring is chosen; where attempts are counted in batches, it is chosen when the attempt begins.
    """

    ID: Final = 0
    WAIT: Final = 5
    NUMBER: Final = 6
    WORDS: Final = 8


class Finished:
    """
    The words on an attempt that ended, relative to the start of its record.

    *STARTED_LANE* is the lane of its *started* counter, which stands for its task and queue.  *STATE* is the number of its state in
    `celery_obs.areas.tasks.metrics.STATES`, with 256 times the number of retries before it added.
    *CAUSE* is the number of the lane after that of the counter of failures or retries that names its exception; 0 where none does; or `HELD_BACK_CAUSE`.
    *STARTED_AT* and *DUE_AT* are float64, in seconds since the epoch, *RUNTIME* and *WAIT* in seconds; *DUE_AT* is 0 and *WAIT* negative where not known.
    *ID* is as in `Row`.  *TRACE* is sixteen bytes, the first one first; zeros where nothing was traced.
    """

    NUMBER: Final = 0
    STARTED_LANE: Final = 1
    STATE: Final = 2
    CAUSE: Final = 3
    STARTED_AT: Final = 4
    RUNTIME: Final = 5
    WAIT: Final = 6
    DUE_AT: Final = 7
    ID: Final = 8
    TRACE: Final = 13
    WORDS: Final = 16


# The structures and the numbers in the hot path stand where the format says.
assert (Row.ID, Row.WAIT, Row.NUMBER, RingHeader.WORDS, RingHeader.WRITTEN, ROW_FORM.size) == (0, 5, 6, 16, 6, Row.WORDS * WORD)  # noqa: S101
assert (Finished.STARTED_LANE, Finished.STATE, Finished.CAUSE, Finished.STARTED_AT, Finished.RUNTIME) == (1, 2, 3, 4, 5)  # noqa: S101
assert (Finished.WAIT, Finished.DUE_AT, Finished.ID, Finished.TRACE, FACTS_FORM.size) == (6, 7, 8, 13, RECORD_FORM.size - WORD)  # noqa: S101
assert RECORD_FORM.size == Finished.WORDS * WORD  # noqa: S101


class Shape(NamedTuple):
    """
    How much a ring has room for: attempts at once, attempts that ended, and of those that did not succeed once more.
    """

    rows: int
    records: int
    failures: int

    @property
    def journal_at(self) -> int:
        """
        The word at which the journal begins.
        """
        return RingHeader.WORDS + (self.rows + 1) // 2 * 2 * Row.WORDS

    @property
    def batch(self) -> int:
        """
        How many attempts are counted at once; 0 where each is counted by itself.
        """
        return min(BATCH, self.records) if self.rows == 1 else 0

    @property
    def records_at(self) -> int:
        """
        The word at which the records begin.
        """
        return self.journal_at + (2 * JOURNAL if self.batch else 0)

    @property
    def failures_at(self) -> int:
        """
        The word at which the failures begin.
        """
        return self.records_at + self.records * Finished.WORDS

    @property
    def words(self) -> int:
        """
        The words of the whole file.
        """
        return self.failures_at + self.failures * Finished.WORDS


def shape_of(size: int, *, rows: int) -> Shape | None:
    """
    Return the shape of a ring of about *size* bytes, 128 MiB at most, a quarter of it for what did not succeed; None where there is room for nothing.
    """
    records = min(size // RECORD_FORM.size, _MOST_RECORDS)
    failures = records // 4
    return Shape(rows, records - failures, failures) if failures and rows else None


def ring_name(number: int) -> str:
    """
    Return the name of the ring's file of slot *number*.
    """
    return f"{RING_PREFIX}{number}"


def encode_id(task_id: str) -> bytes:
    """
    Return the 40 bytes that stand for a task's id; for a longer one ``#`` and a digest (BLAKE2b), so that it is found by its id all the same.
    """
    data = task_id.encode("utf-8", "surrogatepass")
    if len(data) > LONGEST_ID:
        data = b"#" + blake2b(data, digest_size=_DIGEST).hexdigest().encode()
    return data.ljust(LONGEST_ID, b"\0")


class AttemptRing:
    """
    The ring of one slot, mapped.

    Make one with `open`; the caller holds the slot's lock.

    Attributes:
        shape: What it has room for.

        batch: As `Shape.batch`.

        ids: The id of the attempt of each row, as it is kept.

        backed: The steps of `step` words each whose disk space was taken.

        words: The whole file as int64 words.

        memory: The same as bytes.

        written: How many attempts were ever put into it; where attempts are counted in batches, those that are whole.
    """

    __slots__ = (
        "_descriptor",
        "_failures",
        "_layout_id",
        "_map",
        "_numbers",
        "_records",
        "_records_at",
        "backed",
        "batch",
        "ids",
        "memory",
        "shape",
        "words",
        "written",
    )

    step: Final = _STEP

    def __init__(self, descriptor: int, layout_id: int, shape: Shape) -> None:
        self.shape = shape
        self.batch = shape.batch
        self._layout_id = layout_id
        self._records_at, self._records = shape.records_at, shape.records
        self.ids = [b""] * shape.rows
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, shape.words * WORD)
        self.memory = memoryview(self._map)
        self.words = self.memory.cast("q")
        self.backed: set[int] = set()
        for step in range((shape.records_at - 1) // _STEP + 1):
            self._back(step)
        self.written = self._next(RingHeader.WRITTEN, shape.records_at, shape.records)
        self._numbers = count(self.written)
        self._failures = count(self._next(RingHeader.FAILURES_WRITTEN, shape.failures_at, shape.failures))

    def _next(self, written: int, at: int, records: int) -> int:
        """
        Return the number of the next record.  Threads may have said how many there are in another order than they wrote them.
        """
        highest = max(self.words[written], self.words[RingHeader.COUNTED] if written == RingHeader.WRITTEN else 0)
        if self.shape.rows > 1:
            data = os.pread(self._descriptor, records * Finished.WORDS * WORD, at * WORD)  # Not the mapping: there may be holes.
            numbers = memoryview(data[: len(data) // WORD * WORD]).cast("q")[:: Finished.WORDS].tolist()
            highest = max(highest, *numbers)
        return highest if 0 <= highest < _MOST_NUMBERS else 0

    @classmethod
    def open(cls, folder: Path, number: int, *, layout_id: int, shape: Shape) -> AttemptRing:
        """
        Open the ring of slot *number* in a node's folder; made anew where there is none of that layout, and with what it held where its shape is another.

        Raises:
            OSError: if it cannot be made or read.
        """
        path = folder / ring_name(number)
        descriptor = _opened(path, layout_id, shape) or _created(path, layout_id, shape)
        try:
            return cls(descriptor, layout_id, shape)
        except (OSError, ValueError):
            os.close(descriptor)
            raise

    @classmethod
    def of_another(cls, folder: Path, number: int, *, layout_id: int) -> AttemptRing | None:
        """
        Open the ring that the last owner of slot *number* left; None where there is none that is whole.
        """
        path = folder / ring_name(number)
        try:
            descriptor = open_file(path, os.O_RDWR)
        except OSError:
            return None
        shape = read_shape(descriptor, layout_id)
        try:
            if shape is not None:
                return cls(descriptor, layout_id, shape)
        except (OSError, ValueError):
            pass
        os.close(descriptor)
        return None

    def count_from_here(self) -> None:
        """
        Say how the attempts of a new owner are counted: where in batches, all that is there now is counted, or will never be.
        """
        words, number = self.words, self.written if self.batch else RingHeader.BY_ITSELF
        words[RingHeader.WRITTEN] = self.written
        words[RingHeader.COUNTING] = words[RingHeader.COUNTED] = number

    def give_up(self) -> None:
        """
        Say that attempts are not put into this ring any more, and counted by themselves; what is in it is counted.
        """
        self.words[RingHeader.COUNTING] = self.words[RingHeader.COUNTED] = RingHeader.BY_ITSELF

    def make_room(self) -> int:
        """
        Take the disk space of the next attempt's record; return its number.  For an owner whose attempts run one at a time.

        Raises:
            OSError: when the disk is full.
        """
        at = self._records_at + self.written % self._records * 16
        if at >> 13 not in self.backed:
            self._back(at >> 13)
        return self.written + 1

    def begin(self, row: int, task_id: str, wait: float | None, number: int = 0) -> bytes:
        """
        Take down the attempt that begins in row *row*, before the slot says that it does.  Return its id as it is kept.

        Args:
            row: The number of its record in the slot's table.

            task_id: Its id.

            wait: Seconds that it waited; None where that is not known.

            number: What `make_room` returned; 0 where its place is chosen when it ends.
        """
        try:
            data = task_id.encode()
        except UnicodeEncodeError:
            data = encode_id(task_id)
        if len(data) > LONGEST_ID:
            data = encode_id(task_id)
        self.ids[row] = data
        ROW_FORM.pack_into(self.memory, 128 + row * 64, data, -1.0 if wait is None else wait, number)
        return data

    def end(  # noqa: PLR0917 -- it is called for every attempt, and keywords cost.
        self,
        row: int,
        lane: int,
        state: int,
        cause: int,
        started_at: float,
        runtime: float,
        wait: float | None,
        due_at: float | None,
        trace: int,
    ) -> None:
        """
        Put the attempt of row *row* into the ring.

        Args:
            row: As in `begin`.

            lane: Its started lane.

            state: As `Finished.STATE`.

            cause: As `Finished.CAUSE`.

            started_at: Seconds since the epoch.

            runtime: Seconds.

            wait: As in `begin`.

            due_at: Seconds since the epoch; None where not known.

            trace: The id of its trace; 0 where it has none.

        Raises:
            OSError: when the disk is full; the attempt is not in the ring then.
        """
        words, memory = self.words, self.memory
        if self.batch:
            number = self.written
            at = self._records_at + number % self._records * 16
        else:
            number = next(self._numbers)
            at = self._records_at + number % self._records * 16
            if at >> 13 not in self.backed:
                self._back(at >> 13)
            words[22 + row * 8] = number + 1
        words[6] = number + 1
        words[at] = 0
        wait = -1.0 if wait is None else wait
        FACTS_FORM.pack_into(memory, at * 8 + 8, lane, state, cause, started_at, runtime, wait, due_at or 0.0, self.ids[row])
        if trace:
            memory[(at + 13) * 8 : (at + 15) * 8] = trace.to_bytes(16, "big")
        words[at] = self.written = number + 1
        if state & 255:
            self._keep_failure(at)

    def settle(self, row: int, facts: tuple[int, int, int, float, float, float]) -> None:
        """
        Put the attempt of row *row*, whose process died, into the ring, unless that process had done so.

        May be done again, after dying at any store.

        Args:
            row: As in `begin`.

            facts: The words of `Finished` from *STARTED_LANE* to *DUE_AT*, without the wait, which the row knows.

        Raises:
            OSError: as `end`.
        """
        words, source = self.words, 16 + row * 8
        number = words[source + Row.NUMBER] - 1
        if not 0 <= number < _MOST_NUMBERS:
            number = self.written if self.batch else next(self._numbers)
            words[source + Row.NUMBER] = number + 1
        words[RingHeader.WRITTEN] = max(words[RingHeader.WRITTEN], number + 1)
        at = self._records_at + number % self._records * Finished.WORDS
        self._back(at // _STEP)
        if words[at] != number + 1:
            words[at] = 0
            task_id, wait, _ = ROW_FORM.unpack_from(self.memory, source * WORD)
            FACTS_FORM.pack_into(self.memory, (at + 1) * WORD, *facts[:5], wait, facts[5], task_id)
            words[at] = number + 1
        self.written = max(self.written, number + 1)
        if words[at + Finished.STATE] & 255:
            self._keep_failure(at)

    def has(self, number: int) -> bool:
        """
        Tell whether the record of attempt *number*, counted from 1, is whole.
        """
        return 0 < number < _MOST_NUMBERS and bool(read_tail(self._descriptor, self.shape, number - 1, most=1))

    def tail(self, counted: int) -> list[tuple[Any, ...]]:
        """
        Return the whole records behind the first *counted*, in order, one batch at most, as `RECORD_FORM` has them.
        """
        return read_tail(self._descriptor, self.shape, counted, most=self.batch)

    def _keep_failure(self, source: int) -> None:
        """
        Copy the record at *source* to those that are kept longer.  One that is there twice, for its process died in between, is told once by readers.
        """
        words, shape = self.words, self.shape
        number = next(self._failures)
        at = shape.failures_at + number % shape.failures * 16
        if at >> 13 not in self.backed:
            self._back(at >> 13)
        words[7] = number + 1
        words[at] = 0
        words[at + 1 : at + 16] = words[source + 1 : source + 16]
        words[at] = number + 1

    def mend(self) -> bool:
        """
        Make sure that the file is as long as it is mapped; return whether another program had cut it off, and what it held is gone.

        Raises:
            OSError: if it cannot be made longer; it is not to be touched then.
        """
        size = self.shape.words * WORD
        if os.fstat(self._descriptor).st_size >= size:
            return False
        os.ftruncate(self._descriptor, size)
        for step in self.backed:
            self._back(step)
        _write_header(self._descriptor, self._layout_id, self.shape)
        self.count_from_here()
        return True

    def _back(self, step: int) -> None:
        """
        Take the disk space of 64 KiB: a store into a hole of a full disk would end the process with SIGBUS.
        """
        first = step * _STEP
        allocate(self._descriptor, first * WORD, (min(first + _STEP, self.shape.words) - first) * WORD)
        self.backed.add(step)

    def close(self) -> None:
        """
        Let go of the file.
        """
        os.close(self._descriptor)


class Seen(NamedTuple):
    """
    A ring's file as it was when it was whole.
    """

    inode: int
    size: int
    header: bytes


def look_after(path: Path, seen: Seen | None) -> Seen | None:
    """
    Give the ring of another process its length again if it was cut off since it was *seen*, for its owner would die of it; return how it is now.

    What it held is gone.  None where no ring can be read.

    Raises:
        OSError: if it cannot be made longer.
    """
    try:
        descriptor = open_file(path, os.O_RDWR)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if seen is None or seen.inode != found.st_ino or found.st_size >= seen.size:
            return Seen(found.st_ino, found.st_size, os.pread(descriptor, RingHeader.WORDS * WORD, 0))
        os.pwrite(descriptor, seen.header, 0)
        os.ftruncate(descriptor, seen.size)
        allocate(descriptor, 0, seen.size)
        return seen
    finally:
        os.close(descriptor)


def read_tail(descriptor: int, shape: Shape, counted: int, *, most: int) -> list[tuple[Any, ...]]:
    """
    Return the whole records of an open ring that follow the first *counted*, in order, up to *most*, as `RECORD_FORM` has them.
    """
    first = counted % shape.records
    before_the_end = min(most, shape.records - first)
    data = os.pread(descriptor, before_the_end * RECORD_FORM.size, shape.records_at * WORD + first * RECORD_FORM.size)
    if most > before_the_end and len(data) == before_the_end * RECORD_FORM.size:
        data += os.pread(descriptor, (most - before_the_end) * RECORD_FORM.size, shape.records_at * WORD)
    found: list[tuple[Any, ...]] = []
    for record in RECORD_FORM.iter_unpack(data[: len(data) // RECORD_FORM.size * RECORD_FORM.size]):
        counted += 1
        if record[Finished.NUMBER] != counted:
            break
        found.append(record)
    return found


def read_shape(descriptor: int, layout_id: int) -> Shape | None:
    """
    Return the shape of an open ring; None if the file is no ring of that layout, or not as long as its header says.
    """
    data = os.pread(descriptor, RingHeader.WORDS * WORD, 0)
    if len(data) < RingHeader.WORDS * WORD:
        return None
    words = struct.unpack(f"={RingHeader.WORDS}q", data)
    shape = Shape(words[RingHeader.ROWS], words[RingHeader.RECORDS], words[RingHeader.FAILURES])
    is_whole = (
        words[RingHeader.MAGIC] == RING_MAGIC
        and words[RingHeader.VERSION] == RING_VERSION
        and words[RingHeader.LAYOUT_ID] == layout_id
        and 0 < shape.rows <= _MOST_ROWS
        and 0 < shape.records <= _MOST_RECORDS
        and 0 < shape.failures <= _MOST_RECORDS
        and os.fstat(descriptor).st_size >= shape.words * WORD
    )
    return shape if is_whole else None


def _opened(path: Path, layout_id: int, shape: Shape) -> int | None:
    """
    Open a ring of exactly that layout and shape; None where there is none.
    """
    try:
        descriptor = open_file(path, os.O_RDWR)
    except (FileNotFoundError, RefusedError):
        return None
    if read_shape(descriptor, layout_id) == shape:
        return descriptor
    os.close(descriptor)
    return None


def _write_header(descriptor: int, layout_id: int, shape: Shape) -> None:
    header = [RING_MAGIC, RING_VERSION, layout_id, *shape]
    os.pwrite(descriptor, struct.pack(f"={len(header)}q", *header), 0)


def _created(path: Path, layout_id: int, shape: Shape) -> int:
    """
    Make a ring's file, which has its name only once it is whole; with the latest attempts of the one of another shape that is there.
    """
    kept, failures = _held(path, layout_id)
    fresh = path.with_name(f"{path.name}.new")
    descriptor = new_file(fresh)
    try:
        os.ftruncate(descriptor, shape.words * WORD)
        _write_header(descriptor, layout_id, shape)
        _carry_over(descriptor, kept, shape.records_at, shape.records, RingHeader.WRITTEN)
        _carry_over(descriptor, failures, shape.failures_at, shape.failures, RingHeader.FAILURES_WRITTEN)
        fresh.replace(path)
    except OSError:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    return descriptor


def _held(path: Path, layout_id: int) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """
    Return the records of the ring at *path* by their numbers, and its failures; nothing where there is no ring of that layout.
    """
    try:
        descriptor = open_file(path)
    except OSError:
        return {}, {}
    try:
        shape = read_shape(descriptor, layout_id)
        if shape is None:
            return {}, {}
        return (
            _records(os.pread(descriptor, shape.records * RECORD_FORM.size, shape.records_at * WORD)),
            _records(os.pread(descriptor, shape.failures * RECORD_FORM.size, shape.failures_at * WORD)),
        )
    finally:
        os.close(descriptor)


def _records(data: bytes) -> dict[int, bytes]:
    whole = (data[at : at + RECORD_FORM.size] for at in range(0, len(data) - RECORD_FORM.size + 1, RECORD_FORM.size))
    return {number: record for record in whole if 0 < (number := int.from_bytes(record[:WORD], sys.byteorder, signed=True)) < _MOST_NUMBERS}


def _carry_over(descriptor: int, records: Mapping[int, bytes], at: int, room: int, written: int) -> None:
    latest = sorted(records)[-room:]
    for number in latest:
        os.pwrite(descriptor, records[number], at * WORD + (number - 1) % room * RECORD_FORM.size)
    if latest:
        os.pwrite(descriptor, latest[-1].to_bytes(WORD, sys.byteorder), written * WORD)
