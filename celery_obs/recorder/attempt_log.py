"""
The attempt log: the rings of all nodes of a metrics directory as one list of attempts, the newest first, to search in.

Files are read with ``pread`` in portions of a megabyte, the newest first, those with something that is wanted twice: what is the same in both is whole.
For a writer takes a record's number away before it writes another one, and gives it its number last: a first read that mixes two attempts has the number of
one that was whole before the second read began, and that one shows the attempt as it is, or a later one.
What lies in the files is checked before it is believed; a file that is no ring, or is damaged, is passed over.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import json
import os
import struct
import sys
import time

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

from celery_obs.areas.tasks.metrics import FAILURES, HELD_BACK, RETRIES, STARTED, STATES
from celery_obs.clock import Clock, wall
from celery_obs.exceptions import LayoutError

from .format import WORD, Header, Phase, Record, node_name
from .layout import Layout, feed_from
from .opening import closing, open_file, open_folder, open_metrics_dir
from .ring import (
    HELD_BACK_CAUSE,
    LONGEST_ID,
    RECORD_FORM,
    ROW_FORM,
    Finished,
    RingHeader,
    Shape,
    encode_id,
    read_shape,
    ring_name,
)
from .slots import holder_lives, holder_pid, slot_numbers


__all__ = ["MOST_FOUND", "RUNNING", "Attempt", "AttemptLog", "Found", "Spell", "Wanted", "Work", "shown"]


MOST_FOUND: Final = 200_000
"""
Attempts that one search may return, about half a kilobyte each; for more, it is asked again with `Found.following`.
"""

RUNNING: Final = "running"
"""
The state of an attempt that has not ended.
"""

_HEADER = struct.Struct(f"={Header.WORDS}q")
_COUNTS = struct.Struct(f"={RingHeader.WORDS}q")
_SIZE: Final = RECORD_FORM.size
_ID_AT: Final = Finished.ID * WORD
_STATE_AT: Final = Finished.STATE * WORD + (0 if sys.byteorder == "little" else WORD - 1)  # The lowest byte of its word.
_PORTION: Final = 8192  # Records.
_MOST_NODES: Final = 10_000
_MOST_FILES: Final = 20_000
_MOST_ROWS: Final = 1 << 16
_MOST_AT_ONCE: Final = 1 << 14  # Attempts of one process between two looks: more than any process ends in a second.
_COPIES: Final = 3  # A failure is in the ring, among those kept longer, and there twice if its process died in between.
_FOREVER: Final = float("inf")


class Attempt(NamedTuple):
    """
    One attempt.

    Attributes:
        id: The task's id; of one longer than 40 bytes ``#`` and a digest.

        task: The task's name, as in metrics.

        queue: The queue's name, as in metrics.

        state: How it ended, as in ``celery_task_finished_total``; or ``running``.

        exception: The class of what it raised, or was retried for; empty where there is none, ``HeldBack`` where a limit of our own held it back.

        exhausted: Whether it failed because no retry was left.

        retries: How many attempts were before it.

        started_at: Seconds since the epoch.

        runtime: Seconds; so far, while it is running.

        wait: Seconds from publish (or ETA) to start; None where not known.

        due_at: When the task was first due, in seconds since the epoch; None where not known.

        trace_id: 32 hexadecimal digits; empty where it was not traced.

        node: The node that it ran on.

        process: The number of its pool process there.
    """

    id: str
    task: str
    queue: str
    state: str
    exception: str
    exhausted: bool
    retries: int
    started_at: float
    runtime: float
    wait: float | None
    due_at: float | None
    trace_id: str
    node: str
    process: int

    @property
    def ended_at(self) -> float:
        """
        Seconds since the epoch; now, while it is running.
        """
        return self.started_at + self.runtime


def shown(attempt: Attempt) -> dict[str, object]:
    """
    Return an attempt for JSON, with its times as ISO 8601 in UTC.
    """
    is_running = attempt.state == RUNNING
    return {
        "id": attempt.id,
        "task": attempt.task,
        "queue": attempt.queue,
        "state": attempt.state,
        "exception": attempt.exception or None,
        "exhausted": attempt.exhausted,
        "retries": attempt.retries,
        "due_at": _iso(attempt.due_at),
        "started_at": _iso(attempt.started_at),
        "ended_at": None if is_running else _iso(attempt.ended_at),
        "wait_seconds": attempt.wait,
        "runtime_seconds": attempt.runtime,
        "trace_id": attempt.trace_id or None,
        "node": attempt.node,
        "process": attempt.process,
    }


def _iso(at: float | None) -> str | None:
    try:
        return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat()
    except (ValueError, OverflowError, OSError):  # A clock that was far off.
        return None


class Wanted(NamedTuple):
    """
    What to search for.  Everything given has to be true of an attempt.

    Attributes:
        id: The task's id.

        task, queue, node: Shell patterns of names, such as ``emails.*``.

        state: States; empty for all.

        exception: A shell pattern of the exception's class.

        since, until: Seconds since the epoch between which the attempt ended.

        slower_than: Seconds that its runtime is above; negative for all.

        limit: How many to return, the newest first.

        after: `Found.following` of the search that is gone on with.
    """

    id: str = ""
    task: str = ""
    queue: str = ""
    node: str = ""
    state: Collection[str] = ()
    exception: str = ""
    since: float = 0.0
    until: float = _FOREVER
    slower_than: float = -1.0
    limit: int = 100
    after: str = ""


class Found(NamedTuple):
    """
    What was found.

    Attributes:
        attempts: The newest first; those that are running before all others.

        following: What `Wanted.after` is to be for those that come next; empty where there are no more.

        kept: How many attempts the rings hold, whether wanted or not.

        overwritten: How many they held before, as far as the files know.

        is_complete: Whether everything was looked through in the time given.
    """

    attempts: list[Attempt]
    following: str
    kept: int
    overwritten: int
    is_complete: bool


class Spell(NamedTuple):
    """
    For how long a process was at a task: from when to when, in seconds since the epoch; the end is infinite while it still is.
    """

    task: str
    began_at: float
    ended_at: float


class Work(NamedTuple):
    """
    What a living process did since it was last looked at.

    Attributes:
        node: Its node.

        process: Its number there.

        pid: Its id, as this process sees it.

        written: How many attempts it has ended since its ring was made: where to look next time.

        spells: The attempts that it ended since then, and those that it is at.
    """

    node: str
    process: int
    pid: int
    written: int
    spells: list[Spell]


class _Key(NamedTuple):
    """
    What attempts are ordered by, and known again by.
    """

    ended_at: float
    started_at: float
    node: str
    process: int
    id: bytes


class _Node:
    """
    A node's folder, and what its layout says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = node_name(folder.name) or folder.name
        self.layout = Layout()
        self.causes: dict[int, tuple[str, ...]] = {}
        self.pairs: dict[int, tuple[str, ...]] = {}
        self._inode = -1
        self._known = 0

    def refresh(self, folder: int) -> None:
        """
        Take in what its layout has more by now.

        Raises:
            OSError, LayoutError: if there is none that can be read.
        """
        descriptor = open_file(self.folder / "layout", dir_fd=folder)
        try:
            inode = os.fstat(descriptor).st_ino
            if inode != self._inode:
                self._inode, self.layout, self._known, self.causes, self.pairs = inode, Layout(), 0, {}, {}
            feed_from(descriptor, self.layout, path=self.folder / "layout")
        finally:
            os.close(descriptor)
        if self._known != len(self.layout.series):
            self._known = len(self.layout.series)
            self.pairs = {lane: values for values, lane in self.layout.places(STARTED)}
            self.causes = {lane + 1: values for metric in (FAILURES, RETRIES) for values, lane in self.layout.places(metric)}


class _Test(NamedTuple):
    """
    What is wanted, in the words of one node's files; None where anything is.
    """

    id: bytes | None
    lanes: frozenset[int] | None
    states: frozenset[int] | None
    causes: frozenset[int] | None
    since: float
    until: float
    slower_than: float

    def places(self, data: bytes, floor: float) -> list[int]:
        """
        Return the places of the records in *data* that are wanted, and ended at *floor* or later, in their order: by columns, for most are not.
        """
        size, since = Finished.WORDS, max(self.since, floor)
        words, floats = memoryview(data).cast("q"), array("d", data)  # Slices of an array are several times as fast as a view's.
        started, runtimes = floats[Finished.STARTED_AT :: size], floats[Finished.RUNTIME :: size]
        if max(started, default=0.0) + max(runtimes, default=0.0) < since:
            return []  # All of them ended before.
        found: Iterable[int] = range(len(started))
        if self.id is not None:
            found = [place for place in found if data[place * _SIZE + _ID_AT : place * _SIZE + _ID_AT + LONGEST_ID] == self.id]
        if self.states is not None:
            states, column = self.states, data[_STATE_AT::_SIZE]
            found = [place for place in found if column[place] in states] if any(state in column for state in states) else ()
        if self.causes is not None:
            causes, at = self.causes, Finished.CAUSE
            found = [place for place in found if words[place * size + at] in causes]
        if self.lanes is not None:
            lanes, at = self.lanes, Finished.STARTED_LANE
            found = [place for place in found if words[place * size + at] in lanes]
        if self.slower_than >= 0:
            found = [place for place in found if runtimes[place] > self.slower_than]
        until = self.until
        return [place for place in found if since <= started[place] + runtimes[place] <= until]


class AttemptLog:
    """
    Search the attempts of all nodes.

    Args:
        metrics_dir: The folder that holds all nodes.

        clock: Tells the time.

    Threads: one search at a time.
    """

    def __init__(self, metrics_dir: Path, *, clock: Clock = wall) -> None:
        self._metrics_dir = metrics_dir
        self._clock = clock
        self._nodes: dict[str, _Node] = {}

    def search(self, wanted: Wanted, *, patience: float = _FOREVER) -> Found:
        """
        Return the attempts that are wanted.

        Args:
            wanted: What to search for.

            patience: Seconds after which to return what was found so far.

        Raises:
            ValueError: if a state, the limit or *after* is invalid; the message says what was expected.

            OSError: if the metrics directory cannot be read.
        """
        search = _Search(wanted, before=_checked(wanted), now=self._clock(), deadline=time.monotonic() + patience)
        for node, folder in self._folders(wanted.node):
            search.look_at(node, folder)
        return search.found()

    def work(self, seen: Mapping[tuple[str, int], int]) -> Iterator[Work]:
        """
        Go through the living processes that run attempts, those that can be seen from this PID namespace, each with what it did since it was last looked at.

        Args:
            seen: `Work.written` of then, by node and process; of a process that is new only what it is at is told.

        Raises:
            OSError: if the metrics directory cannot be read.
        """
        for node, folder in self._folders(""):
            with contextlib.suppress(OSError), closing(_lock_of(node, folder)) as lock:
                for number in sorted(slot_numbers(folder, most=_MOST_FILES)):
                    pid = holder_pid(lock, number)
                    if pid:
                        yield from _work_of(node, folder, number, pid, seen)

    def complete_since(self, *, node: str = "") -> float:
        """
        Return the time since which no attempt is missing because a ring wrote over it, in seconds since the epoch; 0 where none did.

        Args:
            node: Shell pattern of the nodes that count.

        Raises:
            OSError: if the metrics directory cannot be read.
        """
        since = 0.0
        for known, folder in self._folders(node):
            for number in slot_numbers(folder, most=_MOST_FILES):
                with contextlib.suppress(OSError), closing(open_file(known.folder / ring_name(number), dir_fd=folder)) as ring:
                    shape = read_shape(ring, known.layout.layout_id or 0)
                    if shape is not None and _written(ring) > shape.records:
                        data = os.pread(ring, shape.records * _SIZE, shape.records_at * WORD)
                        since = max(since, min(_ends(data), default=0.0))
        return since

    def _folders(self, node: str) -> Iterator[tuple[_Node, int]]:
        """
        Go through the nodes whose name fits the pattern *node*, each with its folder, open for as long as it is looked at.
        """
        names: set[str] = set()
        with closing(open_metrics_dir(self._metrics_dir)) as directory, os.scandir(directory) as entries:
            for entry in entries:
                if node_name(entry.name) is not None and len(names) < _MOST_NODES:
                    names.add(entry.name)
        for gone in self._nodes.keys() - names:
            del self._nodes[gone]
        for name in sorted(names):
            known = self._nodes.get(name) or _Node(self._metrics_dir / name)
            if node and not fnmatchcase(known.name, node):
                continue
            with contextlib.suppress(OSError, LayoutError), closing(open_folder(known.folder)) as folder:
                known.refresh(folder)
                self._nodes[name] = known
                yield known, folder


class _Search:
    """
    One search.
    """

    def __init__(self, wanted: Wanted, *, before: _Key | None, now: float, deadline: float) -> None:
        self._wanted = wanted
        self._before = before
        self._now = now
        self._deadline = deadline
        self._room = _COPIES * (wanted.limit + 1)
        self._heap: list[tuple[_Key, int, tuple[Any, ...], _Node]] = []
        self._serial = 0
        self._running: list[Attempt] = []
        self._kept = self._overwritten = 0
        self._is_complete = True

    def look_at(self, node: _Node, folder: int) -> None:
        """
        Look through all that a node keeps.
        """
        test = self._test(node)
        numbers = sorted(slot_numbers(folder, most=_MOST_FILES))
        with closing(_lock_of(node, folder)) as lock:
            for number in numbers:
                with contextlib.suppress(OSError), closing(open_file(node.folder / ring_name(number), dir_fd=folder)) as ring:
                    shape = read_shape(ring, node.layout.layout_id or 0)
                    if shape is None:
                        continue
                    if test is not None:
                        self._look_through(ring, shape, test, node, number)
                    self._count(ring, shape)
                    if self._before is None and holder_lives(lock, number):
                        self._look_at_running(node, folder, ring, shape, number)

    def _test(self, node: _Node) -> _Test | None:
        """
        Put what is wanted into the node's words; None where nothing there can be it.
        """
        wanted, lanes, causes = self._wanted, None, None
        if wanted.task or wanted.queue:
            lanes = frozenset(lane for lane, pair in node.pairs.items() if _fits(wanted.task, pair[0]) and _fits(wanted.queue, pair[1]))
        if wanted.exception:
            held = {HELD_BACK_CAUSE} if fnmatchcase(HELD_BACK, wanted.exception) else set()
            causes = frozenset(held.union(cause for cause, values in node.causes.items() if fnmatchcase(values[2], wanted.exception)))
        states = frozenset(number for number, state in enumerate(STATES) if state in wanted.state) if wanted.state else None
        if (lanes is not None and not lanes) or (causes is not None and not causes) or (states is not None and not states):
            return None
        until = wanted.until if self._before is None else min(wanted.until, self._before.ended_at)
        return _Test(encode_id(wanted.id) if wanted.id else None, lanes, states, causes, wanted.since, until, wanted.slower_than)

    def _count(self, ring: int, shape: Shape) -> None:
        written = _written(ring)
        kept = max(0, min(written, shape.records))
        self._kept += kept
        self._overwritten += max(0, written - kept)

    def _look_through(self, ring: int, shape: Shape, test: _Test, node: _Node, number: int) -> None:
        written, failed = _begun(ring)
        for at, records, begun in ((shape.records_at, shape.records, written), (shape.failures_at, shape.failures, failed)):
            if at == shape.failures_at and test.states == frozenset({0}):
                continue  # None of those succeeded.
            for first, count in _newest_first(records, begun):
                if time.monotonic() > self._deadline:
                    self._is_complete = False
                    return
                self._take(ring, at * WORD + first * _SIZE, count, test, node, number)

    def _take(self, ring: int, at: int, records: int, test: _Test, node: _Node, number: int) -> None:  # noqa: PLR0917 -- a portion.
        data = os.pread(ring, records * _SIZE, at)
        if test.id is not None and data.find(test.id) < 0:
            return
        data = data[: len(data) // _SIZE * _SIZE]
        if not any(data[:WORD]) and not any(data):
            return  # Nothing was written here yet.
        floor = self._heap[0][0].ended_at if len(self._heap) == self._room else -_FOREVER
        places = test.places(data, floor)
        if not places:
            return
        same = os.pread(ring, len(data), at)
        for place in reversed(places):
            whole = data[place * _SIZE : (place + 1) * _SIZE]
            record = RECORD_FORM.unpack(whole)
            if record[Finished.NUMBER] > 0 and whole == same[place * _SIZE : (place + 1) * _SIZE]:
                self._keep(record, node, number)

    def _keep(self, record: tuple[Any, ...], node: _Node, number: int) -> None:
        started_at, runtime = record[Finished.STARTED_AT], record[Finished.RUNTIME]
        if len(self._heap) == self._room and started_at + runtime < self._heap[0][0].ended_at:
            return
        key = _Key(started_at + runtime, started_at, node.name, number, record[Finished.ID])
        if self._before is not None and key >= self._before:
            return
        self._serial += 1
        item = (key, self._serial, record, node)
        if len(self._heap) < self._room:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    def _look_at_running(self, node: _Node, folder: int, ring: int, shape: Shape, number: int) -> None:
        """
        Take in what a living process is at.  A row is believed if its record in the slot is the same before and after.
        """
        if self._wanted.state and RUNNING not in self._wanted.state:
            return
        with closing(open_file(node.folder / f"slot-{number}", dir_fd=folder)) as slot:
            before = _records_of(slot, shape.rows)
            rows = os.pread(ring, shape.rows * ROW_FORM.size, RingHeader.WORDS * WORD)
            after = _records_of(slot, shape.rows)
        for record, same, row in zip(before, after, _whole(rows, ROW_FORM), strict=False):
            if record[Record.PHASE] not in {Phase.ANNOUNCED, Phase.RUNNING, Phase.INTERRUPTED}:
                continue
            facts = (Record.ATTEMPT, Record.STARTED_LANE, Record.STARTED_AT)
            pair = node.pairs.get(record[Record.STARTED_LANE])
            if pair is None or any(record[fact] != same[fact] for fact in facts):
                continue
            self._running_one(node, number, record, row, pair)

    def _running_one(self, node: _Node, number: int, record: tuple[Any, ...], row: tuple[Any, ...], pair: tuple[str, ...]) -> None:
        wanted, (found_id, wait, _) = self._wanted, row
        started_at = record[Record.STARTED_AT]
        runtime = max(0.0, self._now - started_at)
        is_wanted = (
            _fits(wanted.task, pair[0])
            and _fits(wanted.queue, pair[1])
            and not wanted.exception
            and (not wanted.id or encode_id(wanted.id) == found_id)
            and wanted.since <= self._now <= wanted.until
            and runtime > wanted.slower_than
            and len(self._running) < _MOST_ROWS
        )
        if is_wanted:
            retries, due_at = max(0, record[Record.RETRIES]), record[Record.DUE_AT]
            facts = (RUNNING, "", False, retries, started_at, runtime, _or_none(wait), due_at if due_at > 0 else None, "")
            self._running.append(Attempt(_text(found_id), pair[0], pair[1], *facts, node.name, number))

    def found(self) -> Found:
        """
        Return what was found, each attempt once.
        """
        limit = self._wanted.limit
        running = sorted(self._running, key=lambda attempt: attempt.started_at)[:limit]
        attempts: list[Attempt] = []
        keys: list[_Key] = []
        for key, _, record, node in sorted(self._heap, key=lambda item: item[:2], reverse=True):
            attempt = None if keys and keys[-1] == key else _attempt(record, node, key.process)
            if attempt is not None:
                keys.append(key)
                attempts.append(attempt)
        shown = max(0, limit - len(running))
        following = "" if len(attempts) <= shown else _place(keys[shown - 1]) if shown else _place(keys[0]._replace(id=b"\xff" * 41))
        return Found([*running, *attempts[:shown]], following, self._kept, self._overwritten, self._is_complete)


def _work_of(node: _Node, folder: int, number: int, pid: int, seen: Mapping[tuple[str, int], int]) -> Iterator[Work]:
    """
    Tell what one process did; nothing where it keeps no attempts.
    """
    with contextlib.suppress(OSError), closing(open_file(node.folder / ring_name(number), dir_fd=folder)) as ring:
        shape = read_shape(ring, node.layout.layout_id or 0)
        if shape is None:
            return
        written = _written(ring)
        first = max(seen.get((node.name, number), written), written - min(shape.records, _MOST_AT_ONCE), 0)
        spells = [spell for at in range(first, written) if (spell := _spell(node, ring, shape, at)) is not None]
        with closing(open_file(node.folder / f"slot-{number}", dir_fd=folder)) as slot:
            for record in _records_of(slot, shape.rows):
                pair = node.pairs.get(record[Record.STARTED_LANE])
                if pair is not None and record[Record.PHASE] in {Phase.ANNOUNCED, Phase.RUNNING, Phase.INTERRUPTED}:
                    spells.append(Spell(pair[0], record[Record.STARTED_AT], _FOREVER))
        yield Work(node.name, number, pid, written, spells)


def _spell(node: _Node, ring: int, shape: Shape, number: int) -> Spell | None:
    """
    Read attempt *number* of a ring; None where it is not whole, or was written over.
    """
    data = os.pread(ring, _SIZE, shape.records_at * WORD + number % shape.records * _SIZE)
    record = RECORD_FORM.unpack(data) if len(data) == _SIZE else None
    pair = None if record is None else node.pairs.get(record[Finished.STARTED_LANE])
    if record is None or pair is None or record[Finished.NUMBER] != number + 1:
        return None
    started_at, runtime = record[Finished.STARTED_AT], record[Finished.RUNTIME]
    return Spell(pair[0], started_at, started_at + max(0.0, runtime))


def _written(ring: int) -> int:
    """
    Return how many records were ever begun in an open ring.
    """
    return _begun(ring)[0]


def _begun(ring: int) -> tuple[int, int]:
    """
    Return how many records were ever begun in an open ring, and how many of those that are kept longer.
    """
    counts = _COUNTS.unpack(os.pread(ring, _COUNTS.size, 0))
    return counts[RingHeader.WRITTEN], counts[RingHeader.FAILURES_WRITTEN]


def _newest_first(records: int, begun: int) -> Iterator[tuple[int, int]]:
    """
    Go through all places of a ring in portions, from the one that was written last backwards: each portion's first place, and how many it has.
    """
    newest = begun % records if records else 0
    for low, high in ((0, newest), (newest, records)):
        for end in range(high, low, -_PORTION):
            first = max(low, end - _PORTION)
            yield first, end - first


def _ends(data: bytes) -> Iterator[float]:
    """
    Go through the times at which the attempts in *data* ended.
    """
    for record in _whole(data, RECORD_FORM):
        if record[Finished.NUMBER] > 0:
            yield record[Finished.STARTED_AT] + record[Finished.RUNTIME]


def _checked(wanted: Wanted) -> _Key | None:
    """
    Return where to go on, of a search that is valid.
    """
    known = (RUNNING, *STATES)
    for state in wanted.state:
        if state not in known:
            message = f"There is no state {state!r}. Expected one of {', '.join(known)}."
            raise ValueError(message)
    if not 1 <= wanted.limit <= MOST_FOUND:
        message = f"The limit is {wanted.limit}. Expected a whole number from 1 to {MOST_FOUND}."
        raise ValueError(message)
    return _read(wanted.after) if wanted.after else None


def _place(key: _Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([*key[:4], key.id.hex()]).encode()).decode()


def _read(after: str) -> _Key:
    try:
        ended_at, started_at, node, process, task_id = json.loads(base64.urlsafe_b64decode(after.encode()))
        return _Key(float(ended_at), float(started_at), str(node), int(process), bytes.fromhex(task_id))
    except (ValueError, TypeError, RecursionError):
        message = f"The place to go on at is {after[:50]!r}. Expected what the answer before this one named."
        raise ValueError(message) from None


def _attempt(record: tuple[Any, ...], node: _Node, process: int) -> Attempt | None:
    """
    Return the attempt that a record tells of; None where it cannot be one that we wrote.
    """
    _, lane, word, cause, started_at, runtime, wait, due_at, task_id, trace = record
    pair, number, retries = node.pairs.get(lane), word & 255, word >> 8
    if pair is None or number >= len(STATES) or retries < 0 or not 0 <= runtime < _FOREVER:
        return None
    values = node.causes.get(cause, ("", "", HELD_BACK if cause == HELD_BACK_CAUSE else ""))
    return Attempt(
        _text(task_id),
        pair[0],
        pair[1],
        STATES[number],
        values[2],
        values[3:] == ("true",),
        retries,
        started_at,
        runtime,
        _or_none(wait),
        due_at if 0 < due_at < _FOREVER else None,
        trace.hex() if any(trace) else "",
        node.name,
        process,
    )


def _or_none(seconds: float) -> float | None:
    return seconds if 0 <= seconds < _FOREVER else None


def _text(task_id: bytes) -> str:
    return task_id.rstrip(b"\0").decode("utf-8", "replace")


def _fits(pattern: str, name: str) -> bool:
    return not pattern or fnmatchcase(name, pattern)


def _whole(data: bytes, form: struct.Struct) -> Iterator[tuple[Any, ...]]:
    return form.iter_unpack(data[: len(data) // form.size * form.size])


def _records_of(slot: int, rows: int) -> list[tuple[Any, ...]]:
    return list(_whole(os.pread(slot, rows * Record.FORM.size, _HEADER.size), Record.FORM))


def _lock_of(node: _Node, folder: int) -> int:
    return open_file(node.folder / "lock", dir_fd=folder)
