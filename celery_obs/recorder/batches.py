"""
Batches: attempts that run one at a time are counted out of their ring, some thirty at once, without losing or doubling one through a death at any store.

Counting each attempt where it ends touches a dozen lanes, and costs more than writing its record.  So the owner of a slot only writes the record, and
from time to time adds up those that the lanes do not have yet, the *tail*::

    1. the journal is written: which lane is to hold what
    2. `RingHeader.COUNTING` says how many records that makes: from here on the journal is in force
    3. each lane is set to what the journal says
    4. `RingHeader.COUNTED` says the same number: the journal is done with

Killed before 2, nothing was counted, and the records are still there.  Killed after it, who comes next does 3 and 4, as often as it takes: what a lane is
to hold is absolute.  No record is written over before it is counted.

A reader adds the tail to the lanes, so that a scrape is exact at any moment, however old the last batch is.
It believes what it read if nothing was counted meanwhile.
"""

from __future__ import annotations

import os
import struct

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .format import WORD, Header, Phase, Record
from .opening import open_file
from .ring import JOURNAL, AttemptRing, RingHeader, Row, Shape, read_shape, read_tail, ring_name
from .slots import Slot
from .tally import Tally


__all__ = ["TailReader", "count_tail"]


_FRONT: Final = struct.Struct(f"={RingHeader.WORDS}q5qdq8x")  # The header and the one row.
_NUMBER: Final = RingHeader.WORDS + Row.NUMBER
_WAIT: Final = RingHeader.WORDS + Row.WAIT
_CUT_OFF: Final[tuple[int, ...]] = ()
_UNCHANGED: Final[Mapping[int, int]] = {}
_RECORD_AT: Final = Header.WORDS * WORD


# -- who counts ---------------------------------------------------------------------------------------------------------


def count_tail(ring: AttemptRing, slot: Slot, tally: Tally) -> None:
    """
    Count what is in *ring* and not yet in the lanes of *slot*; for its owner, or who holds the slot of a dead one.  May be done again after dying at any store.

    Raises:
        OSError: when the disk is full; what was not counted stays in the ring.
    """
    words = ring.words
    if words[RingHeader.COUNTED] == RingHeader.BY_ITSELF or not ring.batch:
        return
    _finish(ring, slot)
    while records := ring.tail(words[RingHeader.COUNTED]):
        changes = tally.of(records)
        lanes, at = slot.lanes_at, ring.shape.journal_at
        slot.reserve(max(changes, default=0) + 1)
        held, back, journal = slot.words, slot.back, array("q")
        for lane, more in changes.items():
            back(lanes + lane)
            journal.append(lane)
            journal.append(held[lanes + lane] + more)
        words[at : at + len(journal)] = memoryview(journal)
        words[RingHeader.ENTRIES] = len(changes)
        words[RingHeader.COUNTING] = words[RingHeader.COUNTED] + len(records)
        _finish(ring, slot)


def _finish(ring: AttemptRing, slot: Slot) -> None:
    """
    Do what the journal says, if it is in force.
    """
    words = ring.words
    counted, counting, entries = words[RingHeader.COUNTED], words[RingHeader.COUNTING], words[RingHeader.ENTRIES]
    if counted == counting:
        return
    if not counted < counting <= counted + ring.batch or not 0 <= entries <= JOURNAL:
        words[RingHeader.COUNTING] = counted  # Another program wrote into the file.
        return
    journal = words[ring.shape.journal_at : ring.shape.journal_at + 2 * entries].tolist()
    held, lanes, most, back = slot.words, slot.lanes_at, slot.lanes, slot.back
    for lane, value in zip(journal[::2], journal[1::2], strict=True):
        if 0 <= lane < most:
            back(lanes + lane)
            held[lanes + lane] = max(held[lanes + lane], value)
    words[RingHeader.COUNTED] = counting


# -- who reads ----------------------------------------------------------------------------------------------------------


class TailReader:
    """
    Read the tail of one slot's ring, beside its owner.

    Args:
        number: The slot.

    Attributes:
        changes: What the lanes lack, by lane, as it was last read whole.

        lost: What was in a tail that another program cut off, which stays counted for as long as this reader lives.

    Threads: one at a time.
    """

    __slots__ = ("_block", "_counted", "_descriptor", "_front", "_shape", "_was", "_whole", "changes", "inode", "lost", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.inode = -1
        self.changes: Mapping[int, int] = _UNCHANGED
        self.lost: dict[int, int] = {}
        self._whole = self._counted = 0
        self._block = b""
        self._descriptor = -1
        self._shape: Shape | None = None
        self._front: tuple[int, ...] | None = None
        self._was: tuple[object, ...] | None = None

    def open(self, folder: Path, inode: int, *, dir_fd: int, layout_id: int) -> None:
        """
        Look at the file that is there now.

        Raises:
            OSError: if it cannot be opened; it is not there then.
        """
        self.close()
        self._descriptor = open_file(folder / ring_name(self.number), dir_fd=dir_fd)
        self.inode = inode
        self._shape = read_shape(self._descriptor, layout_id)

    def close(self) -> None:
        """
        Let go of the file.
        """
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self.inode, self._shape, self._was = -1, -1, None, None

    def begin(self) -> None:
        """
        Note how much is counted; before the lanes are read.

        Raises:
            OSError: if the file cannot be read.
        """
        self._front = self._read_front()

    def _read_front(self) -> tuple[int, ...] | None:
        if self._shape is None or not self._shape.batch:
            return None
        data = os.pread(self._descriptor, _FRONT.size, 0)
        if len(data) < _FRONT.size:
            return _CUT_OFF
        front = _FRONT.unpack(data)
        return None if front[RingHeader.COUNTED] == RingHeader.BY_ITSELF else front

    def finish(self, block: bytes, *, slot: int, tally: Tally) -> bool:
        """
        Read what the lanes lack; after them.

        Args:
            block: The lanes as they were read.

            slot: The slot's file, open.

            tally: That of the node's layout.

        Return whether lanes and tail belong together.  If not, more was counted meanwhile: begin again.

        Raises:
            OSError: if a file cannot be read.
        """
        front, shape = self._front, self._shape
        if front is _CUT_OFF:
            self._block = block
            return True  # Its owner will mend it; what was read of it stays.
        if front is None or shape is None:
            self.changes, self._was = _UNCHANGED, None
            return True
        written, counted, counting = front[RingHeader.WRITTEN], front[RingHeader.COUNTED], front[RingHeader.COUNTING]
        number = front[_NUMBER]
        if written == counted == counting >= number:
            self._take(_UNCHANGED, counted, written, block)
            self._was = None
            return True
        was = (front, len(tally.layout.series), block if counted != counting else b"")
        if was == self._was:
            return True
        changes = {} if counted == counting else self._journal(front, block)
        records = read_tail(self._descriptor, shape, counting, most=shape.batch)
        whole = counting + len(records)
        after = self._read_front()
        if not after or after[RingHeader.COUNTED] != counted or after[RingHeader.COUNTING] != counting or after[_NUMBER] > whole + 1:
            return False
        _add(changes, tally.of(records))
        is_whole = whole == written == after[RingHeader.WRITTEN]
        if after[_NUMBER] == whole + 1:
            record = Record.FORM.unpack(os.pread(slot, Record.FORM.size, _RECORD_AT))
            if read_tail(self._descriptor, shape, whole, most=1):
                return False  # It ended meanwhile.
            if record[Record.PHASE] in Phase.UNCOUNTED:
                _add(changes, tally.of_running(record[Record.STARTED_LANE], after[_WAIT]))
            else:
                is_whole = False
        self._take(changes, counted, whole, block)
        self._was = was if is_whole and after == front else None
        return True

    def _take(self, changes: Mapping[int, int], counted: int, whole: int, block: bytes) -> None:
        """
        Keep what was read.  Records that went, or were passed over, although no lane changed, were cut off: what they said stays true.
        """
        if self.changes and (whole < self._whole or (counted != self._counted and block == self._block)):
            _add(self.lost, self.changes)
        self.changes, self._counted, self._whole, self._block = changes, counted, whole, block

    def _journal(self, front: tuple[int, ...], block: bytes) -> dict[int, int]:
        """
        Return what a journal in force still changes: its owner is at it, or died of it.
        """
        assert self._shape is not None  # noqa: S101 -- asked by the only caller.
        entries = front[RingHeader.ENTRIES]
        if not 0 <= entries <= JOURNAL:
            return {}
        data = os.pread(self._descriptor, 2 * entries * WORD, self._shape.journal_at * WORD)
        words = struct.unpack(f"={len(data) // WORD}q", data[: len(data) // WORD * WORD])
        changes: dict[int, int] = {}
        for lane, value in zip(words[::2], words[1::2], strict=False):
            held = int.from_bytes(block[lane * WORD : (lane + 1) * WORD], "little") if 0 <= lane * WORD < len(block) else value
            if value > held:
                changes[lane] = value - held
        return changes


def _add(changes: dict[int, int], more: Mapping[int, int]) -> None:
    for lane, amount in more.items():
        changes[lane] = changes.get(lane, 0) + amount
