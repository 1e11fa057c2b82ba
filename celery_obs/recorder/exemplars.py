"""
Exemplars: for a bucket of a histogram, one observation of late that was traced, as bytes in a slot file and back.

The region is a table of places.  A bucket's place follows from its lane, so that nothing has to be searched or laid out; of two buckets with one place,
the one that was written last is there.  So a slot's exemplars never take more room than the table, however many series there are.

Nothing is locked: an exemplar carries a checksum, and one that was read while it was written, or while two threads wrote it, is none.
"""

from __future__ import annotations

import struct

from collections.abc import Callable, Iterator
from math import isfinite
from typing import Final, NamedTuple
from zlib import crc32

from .format import WORD, Exemplar, Header
from .slots import Slot


__all__ = ["PLACES", "Exemplars", "Noted", "decode", "encode"]


PLACES: Final = 1024
"""
Exemplars that a slot has room for: 64 KiB.  The buckets of one histogram never share a place.
"""

_FACTS = struct.Struct("=q16sdq")
_ENTRY = struct.Struct(f"=q16sdqq{(Exemplar.WORDS - Exemplar.CHECK - 1) * WORD}x")
_CHECK = struct.Struct("=q")
_WRITTEN: Final = _FACTS.size + _CHECK.size
_SIZE: Final = Exemplar.WORDS * WORD
_PAUSE: Final = 1.0  # Seconds: a scrape sees the last one only, so that more of them would be work for nothing.

assert (_FACTS.size, _ENTRY.size) == (Exemplar.CHECK * WORD, _SIZE)  # noqa: S101 -- the bytes stand where the format says.


class Noted(NamedTuple):
    """
    An exemplar.

    Attributes:
        at: When it was observed, in microseconds since the epoch.  First, so that of several the newest is the greatest.

        value: What was observed, in the metric's unit.

        trace: The trace's id, 32 hexadecimal digits.
    """

    at: int
    value: float
    trace: str


def encode(lane: int, trace: int, value: float, at: int) -> bytes:
    """
    Return the bytes of an exemplar, without the words that are reserved.

    Args:
        lane: The bucket's.

        trace: The trace's id.

        value: What was observed.

        at: When, in microseconds since the epoch.

    Raises:
        OverflowError, struct.error: if a number does not fit.
    """
    facts = _FACTS.pack(lane + 1, trace.to_bytes(16, "big"), value, at)
    return facts + _CHECK.pack(crc32(facts))


def decode(data: bytes) -> Iterator[tuple[int, Noted]]:
    """
    Go through the exemplars of a region, each with its lane; what is not whole is passed over.
    """
    for number, (lane, trace, value, at, check) in enumerate(_ENTRY.iter_unpack(data)):
        if lane > 0 and at > 0 and isfinite(value) and crc32(data[number * _SIZE : number * _SIZE + _FACTS.size]) == check:
            yield lane - 1, Noted(at, value, trace.hex())


class Exemplars:
    """
    Write the exemplars of one slot.

    Args:
        slot: A slot that has room for them.

        source: Returns the id of the trace that the calling thread is in, if that is recorded; else 0.

    Of each bucket at most one a second is written.  Threads: safe, what two of them tear is not read.  Forks: a child has a slot of its own.
    """

    def __init__(self, slot: Slot, source: Callable[[], int]) -> None:
        self._memory = slot.memory
        self._words = slot.words
        self._first, self._places = slot.exemplars_at * WORD, slot.exemplars
        self._lanes_at = slot.lanes_at
        self._source = source
        self._last: dict[int, float] = {}

    def note(self, word: int, value: float, at: float) -> None:
        """
        Keep an observation as its bucket's exemplar, if it was traced and no other one was kept in this second.

        Args:
            word: The bucket's.

            value: What was observed.

            at: When, in seconds since the epoch.
        """
        if -_PAUSE < at - self._last.get(word, 0.0) < _PAUSE:
            return
        trace = self._source()
        if trace:
            self._last[word] = at
            lane = word - self._lanes_at
            start = self._first + lane % self._places * _SIZE
            self._memory[start : start + _WRITTEN] = encode(lane, trace, value, int(at * 1e6))
            self._words[Header.EXEMPLARS_WRITTEN] += 1
