"""
The metric files, as bytes: where they lie, and what the words of a slot file mean.

A *node* (one Celery worker, one beat, the publishers of a host) has a folder ``<metrics_dir>/<node>.v1`` with

``layout``
    Which series exist and where each one's numbers lie.  Lines of JSON, only ever appended to, shared by all processes of the node.
``slot-<n>``
    The numbers of one process at a time.  Words of eight bytes in the machine's byte order.
``attempts-<n>``
    The latest attempts of the owner of slot *n*; see `celery_obs.recorder.ring`.
``lock``
    Never read or written: the process that owns slot *n* holds a POSIX record lock on its byte *n*.
``heartbeat``
    One line for probes; its modification time is the last beat.
``shortage``
    There when room ended: which limit is too low, and how much is needed.
``about``
    What the node said of itself when it started, as JSON, for the doctor; see `celery_obs.recorder.about`.

A slot file is a header, then the table of running attempts, then gauges, then exemplars, then lanes::

    word 0..31   header, see `Header`
    ...          `Header.RECORDS` x `Record.WORDS`: what the process is doing
    ...          `Header.GAUGES` x `Gauge.WORDS`: float64 value, int64 time of setting in microseconds (0: never set)
    ...          `Header.EXEMPLARS` x `Exemplar.WORDS`: traces to look at; none where nothing traces, or the writer knew of none; readers may skip them
    ...          lanes to the end of the file: int64, never negative, never decreasing

Nothing is locked while numbers are written.  What each lane and each gauge is says the layout, see `celery_obs.recorder.layout`.
"""

from __future__ import annotations

import re
import struct

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote


__all__ = [
    "FORGET_AFTER",
    "MAGIC",
    "MOST_GAUGES",
    "SHORTAGE",
    "VERSION",
    "WORD",
    "Exemplar",
    "Exit",
    "Gauge",
    "Header",
    "Phase",
    "Record",
    "exemplar_region",
    "folder_name",
    "node_name",
    "slot_number",
]


_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~@+-]+")
_SLOT: Final = re.compile(r"slot-(0|[1-9][0-9]{0,8})", re.ASCII)

WORD: Final = 8
VERSION: Final = 1
MAGIC: Final = int.from_bytes(b"clryobs\x00", "little")

MOST_GAUGES: Final = (1 << 16) - 1
"""
Gauges that a slot file has room for: a hole in the file, but for those that are set.
"""

FORGET_AFTER: Final = 3600.0
"""
Seconds without a sign of life after which a node is forgotten, unless set otherwise: what it counted stays.
"""

SHORTAGE: Final = "shortage"
"""
The file in a node's folder that says which setting is too low for it: a line of JSON, there only when room ended.
"""


class Header:
    """
    The words at the front of a slot file.

    *MAGIC* to *SLOT_ID* never change once written.  *EXIT* is 0 while the owner has not said how it leaves.
    *LANES_USED* is how many lanes the owner knew of: a layout that describes fewer has lost its end.
    *EXEMPLARS_WRITTEN* counts the exemplars that were ever written: while it stays, they need not be read again.
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
    EXEMPLARS_WRITTEN: Final = 17
    WORDS: Final = 32


class Exit:
    """
    What the owner of a slot says of how it leaves, in `Header.EXIT`.

    *UNKNOWN*: it lives, or had no time to speak.  *RECYCLED*: it had done its number of tasks.  *MEMORY*: it was above its limit of memory.
    *SIGNAL*: it was told to go.  *LEFT*: it went by itself.  *TIMEOUT*: its task was over the hard limit; written by who settles the slot.
    *REMOVED*: its pool was made smaller; written by the main process.
    """

    UNKNOWN: Final = 0
    RECYCLED: Final = 1
    MEMORY: Final = 2
    SIGNAL: Final = 3
    LEFT: Final = 4
    TIMEOUT: Final = 5
    REMOVED: Final = 6


class Record:
    """
    The words that say what one attempt is, relative to the start of its record.

    *STARTED_LANE* is the lane of the attempt's *started* counter, which stands for its task and queue.
    *STARTED_BEFORE* and *OUTCOME_BEFORE* are what a lane held before it was counted up: with them, counting can be done again without counting twice.
    *ATTEMPT* and *VERDICT_ON* are keys of task ids, see `celery_obs.recorder.attempts.attempt_keys`.
    *STARTED_AT* and *DUE_AT* are float64, in seconds since the epoch.
    *VERDICT* and *VERDICT_ON* are written by the main process: what to count an attempt as, then which attempt.
    *SYNC* is about the sync run inside the attempt: 0 while there is none; the number of the lane after the one that it counts in if its process dies;
    and while an outcome is counted, the number of the lane after the outcome's, negative, which held *SYNC_BEFORE* before.
    """

    PHASE: Final = 0
    ATTEMPT: Final = 1
    STARTED_LANE: Final = 2
    STARTED_AT: Final = 3
    RETRIES: Final = 4
    DUE_AT: Final = 5
    STARTED_BEFORE: Final = 6
    OUTCOME_LANE: Final = 7
    OUTCOME_BEFORE: Final = 8
    VERDICT: Final = 9
    VERDICT_ON: Final = 10
    SYNC: Final = 11
    SYNC_BEFORE: Final = 12
    WORDS: Final = 16
    FORM: Final = struct.Struct("=3qdqd10q")


assert Record.FORM.size == Record.WORDS * WORD  # noqa: S101 -- the record's floats stand where the words say.


class Phase:
    """
    How far an attempt has come.

    *ANNOUNCED*: not counted as started yet; where attempts are counted in batches, until it ends.  *RUNNING*: counted, and in the task's body.  *FINISHING*: about to be counted as finished.
    *INTERRUPTED*: unwound by a BaseException, outcome not yet known.
    """

    IDLE: Final = 0
    ANNOUNCED: Final = 1
    RUNNING: Final = 2
    FINISHING: Final = 3
    INTERRUPTED: Final = 4

    UNCOUNTED: Final = frozenset({ANNOUNCED, INTERRUPTED})
    """
    Those of an attempt that runs, or was unwound, where attempts are counted in batches.
    """


class Gauge:
    """
    The words of one gauge.
    """

    VALUE: Final = 0
    SET_AT: Final = 1
    WORDS: Final = 2


class Exemplar:
    """
    The words of one exemplar.

    *LANE* is the number of the lane after its bucket's; 0 where there is none.  *TRACE* is sixteen bytes, the first one first.  *VALUE* is float64.
    *AT* is in microseconds since the epoch.  *CHECK* is the CRC-32 of all before it.
    """

    LANE: Final = 0
    TRACE: Final = 1
    VALUE: Final = 3
    AT: Final = 4
    CHECK: Final = 5
    WORDS: Final = 8


def exemplar_region(header: Sequence[int]) -> tuple[int, int]:
    """
    Return the word at which a slot file's exemplars begin, and how many places there are.

    Both are 0 where the header tells of none, as older writers' do, or of a region that reaches into its neighbours.
    """
    at, places = header[Header.EXEMPLARS_AT], header[Header.EXEMPLARS]
    free_from = header[Header.GAUGES_AT] + header[Header.GAUGES] * Gauge.WORDS
    return (at, places) if places > 0 and free_from <= at <= header[Header.LANES_AT] - places * Exemplar.WORDS else (0, 0)


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
    if not dot or not stem or version != str(VERSION):
        return None
    if _PLAIN.fullmatch(stem):
        return stem
    if not stem.isascii():
        return None
    name = unquote(stem)
    return name if folder_name(name) == folder else None  # Another spelling of a node's name, or no text at all.


def slot_number(file: str) -> int | None:
    """
    Return the number of the slot file that is called *file*, or None if that is none.
    """
    found = _SLOT.fullmatch(file)
    return None if found is None else int(found.group(1))
