"""
Attempts: counting every start and every outcome once, through any death.

Each process keeps, in the table of its slot, what it is doing.  Counting goes through four phases, and before a lane is counted up,
the record says which lane and what it held.  So whoever finds a dead process's record can finish the counting, and can do so again after dying itself:
``lane = max(lane, before + 1)`` counts once however often it is done.  Only the histograms of the one attempt in hand may lack an observation.

A pool child runs one attempt at a time and has one record.  Pools of threads and greenlets share a process and have a record for each.
"""

from __future__ import annotations

import time
import zlib

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final, NamedTuple

from celery_obs.vocabulary.ourselves import DROPPED
from celery_obs.vocabulary.spec import Metric
from celery_obs.vocabulary.tasks import (
    ATTEMPTS,
    CLOCK_SKEW,
    FAILURES,
    FINAL_STATES,
    FINISHED,
    LATENCY,
    QUEUE_WAIT,
    RETRIES,
    RUNTIME,
    STARTED,
    STATES,
    SUCCEEDED_ENTRY,
    AttemptDoomed,
    AttemptInterrupted,
    TaskFinished,
    TaskStarted,
    TaskState,
)

from .format import Header, Layout, Phase, Record
from .recorder import Recorder
from .slots import Node, Slot


__all__ = ["AttemptMeter", "attempt_key"]


_KNOWN_RUNTIMES: Final = ("success", "failure", "retry")
_KEY_SHIFT: Final = 8
_MICRO: Final = 1_000_000
_NANO: Final = 1_000_000_000
_LONGEST_RUNTIME: Final = 366 * 86400.0
_PHASE, _ATTEMPT, _CELL, _STARTED_AT, _RETRIES, _DUE_AT = (
    Record.PHASE,
    Record.ATTEMPT,
    Record.CELL,
    Record.STARTED_AT,
    Record.RETRIES,
    Record.DUE_AT,
)
_STARTED_BEFORE, _OUTCOME_LANE, _OUTCOME_BEFORE, _VERDICT = (
    Record.STARTED_BEFORE,
    Record.OUTCOME_LANE,
    Record.OUTCOME_BEFORE,
    Record.VERDICT,
)
_ATTEMPTS_EDGES, _ATTEMPTS_SUM = ATTEMPTS.buckets, len(ATTEMPTS.buckets) + 1
_FIRST_RECORD: Final = Header.WORDS
_CAUSES: Final[dict[TaskState, str]] = {"lost": "WorkerLostError", "timeout": "TimeLimitExceeded"}


def attempt_key(task_id: str) -> int:
    """
    Return the number that stands for an attempt in a record: the same in every process, never 0.
    """
    return zlib.crc32(task_id.encode("utf-8", "surrogatepass")) | 1 << 32


class _Metrics(NamedTuple):
    """
    The timed metrics, whose buckets a user may have changed.
    """

    runtime: Metric
    wait: Metric
    latency: Metric

    def of_cell(self, task: str, queue: str) -> list[tuple[Metric, tuple[str, ...]]]:
        """
        Return the series that exist from the start for a task on a queue.
        """
        pair = (task, queue)
        return [
            (STARTED, pair),
            *((FINISHED, (*pair, state)) for state in STATES),
            *((self.runtime, (*pair, state)) for state in _KNOWN_RUNTIMES),
            (self.wait, pair),
            (ATTEMPTS, pair),
            (self.latency, pair),
        ]


class _Cell:
    """
    The words of one task on one queue, as indices into the slot that they were looked up for.
    """

    __slots__ = ("attempts", "finished", "latency", "lane", "pair", "runtime", "started", "wait", "words")

    def __init__(self, slot: Slot, pair: tuple[str, str], metrics: _Metrics, word: Callable[[Metric, tuple[str, ...]], int]) -> None:
        self.pair = pair
        self.started = word(STARTED, pair)
        self.finished = {state: word(FINISHED, (*pair, state)) for state in STATES}
        self.runtime = {state: word(metrics.runtime, (*pair, state)) for state in _KNOWN_RUNTIMES}
        self.wait = word(metrics.wait, pair)
        self.attempts = word(ATTEMPTS, pair)
        self.latency = word(metrics.latency, pair)
        self.lane = self.started - slot.lanes_at
        self.words = slot.words


class _NoRoomError(Exception):
    """
    A series has no place.
    """


class AttemptMeter:
    """
    Observe attempts: keep the table of what runs, count starts and outcomes, time them.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, *, runtime: Metric = RUNTIME, wait: Metric = QUEUE_WAIT, latency: Metric = LATENCY) -> None:
        self._recorder = recorder
        self._metrics = _Metrics(runtime, wait, latency)
        self._runtime_edges, self._runtime_sum = runtime.buckets, len(runtime.buckets) + 1
        self._wait_edges, self._wait_sum = wait.buckets, len(wait.buckets) + 1
        self._latency_edges, self._latency_sum = latency.buckets, len(latency.buckets) + 1
        self._epoch: object = None
        self._cells: dict[tuple[str, str], _Cell] = {}
        self._running: dict[int, tuple[int, _Cell, TaskStarted]] = {}
        self._free: list[int] = []
        self._single = False
        self._lanes_at = 0
        recorder.on_claim.append(self._inherit)

    # -- the hot path -----------------------------------------------------------------------------------------------

    def started(self, event: TaskStarted) -> None:
        """
        Take down that an attempt runs, and count its start.
        """
        if self._epoch is not self._recorder.epoch:
            self._renew()
        cell = self._cells.get((event[0], event[1]))
        if cell is None:
            cell = self._cell(event.task, event.queue)
            if cell is None:
                return
        words = cell.words
        if self._single:
            at = _FIRST_RECORD
            if words[at]:
                self._settle_leftover(at)
        elif self._free:
            at = self._free.pop()
        else:
            self._recorder.count(DROPPED, ("too_many_attempts",))
            words[cell.started] += 1
            self._running[id(event)] = (0, cell, event)
            return
        words[at + _ATTEMPT] = zlib.crc32(event[2].encode("utf-8", "surrogatepass")) | 1 << 32
        words[at + _CELL] = cell.lane
        words[at + _STARTED_AT] = int(event[4] * _MICRO)
        words[at + _RETRIES] = event[3]
        words[at + _DUE_AT] = 0 if event[7] is None else int(event[7] * _MICRO)
        counted = cell.started
        words[at + _STARTED_BEFORE] = words[counted]
        words[at] = 1  # Phase.ANNOUNCED
        words[counted] += 1
        words[at] = 2  # Phase.RUNNING
        self._running[id(event)] = (at, cell, event)
        wait = event[5]
        if wait is not None:
            word = cell.wait
            words[word + bisect_left(self._wait_edges, wait)] += 1
            words[word + self._wait_sum] += int(wait * _MICRO)
            if event[6]:
                self._recorder.count(CLOCK_SKEW, (event.queue,))

    def finished(self, event: TaskFinished) -> None:
        """
        Count an outcome, and time it.
        """
        started, state, runtime, latency = event[0], event[1], event[2], event[3]
        at, cell, _ = self._running.pop(id(started), (0, None, None))
        if cell is None:
            return
        words = cell.words
        outcome = cell.finished[state]
        if at:
            words[at + _OUTCOME_LANE] = outcome - self._lanes_at
            words[at + _OUTCOME_BEFORE] = words[outcome]
            words[at] = 3  # Phase.FINISHING
        words[outcome] += 1
        word = cell.runtime.get(state) or self._runtime(cell, state)
        if word is not None:
            words[word + bisect_left(self._runtime_edges, runtime)] += 1
            words[word + self._runtime_sum] += int(runtime * _NANO)
        if latency is not None:
            word = cell.latency
            words[word + bisect_left(self._latency_edges, latency)] += 1
            words[word + self._latency_sum] += int(latency * _MICRO)
        if state in FINAL_STATES:
            tries = started[3] + 1
            word = cell.attempts
            words[word + bisect_left(_ATTEMPTS_EDGES, tries)] += 1
            words[word + _ATTEMPTS_SUM] += tries
        if event[4] or event[6]:
            self._explain(event, cell)
        if at:
            words[at] = 0  # Phase.IDLE
            if not self._single:
                self._free.append(at)

    # -- the rare paths ---------------------------------------------------------------------------------------------

    def interrupted(self, event: AttemptInterrupted) -> None:
        """
        Mark an attempt whose end the main process, or whoever follows in this slot, has to tell.
        """
        at, cell, _ = self._running.get(id(event.started), (0, None, None))
        if cell is not None and at:
            cell.words[at] = Phase.INTERRUPTED

    def doomed(self, event: AttemptDoomed) -> None:
        """
        Write the main process's verdict into the record of the attempt, wherever it runs, before its process is killed.

        An attempt of this very process that was interrupted already is settled at once.
        """
        recorder = self._recorder
        if not recorder.ready() or recorder.node is None or recorder.slot is None:
            return
        key = attempt_key(event.task_id)
        verdict = key << _KEY_SHIFT | STATES.index(event.state) + 1
        for slot in chain([recorder.slot], recorder.node.others(recorder.slot)):
            for at in _records(slot):
                if slot.words[at + _ATTEMPT] == key and slot.words[at + _PHASE] != Phase.IDLE:
                    slot.words[at + _VERDICT] = verdict
                    if slot is recorder.slot and slot.words[at + _PHASE] == Phase.INTERRUPTED:
                        self._settle_own(at)

    def sweep(self) -> int:
        """
        Settle what dead processes of this node left running; return how many attempts that were.

        A slot is touched only while its lock is held.
        """
        recorder = self._recorder
        if not recorder.ready() or recorder.node is None or recorder.slot is None:
            return 0
        settled = 0
        for slot in recorder.node.others(recorder.slot):
            if any(slot.words[at] for at in _records(slot)) and recorder.node.try_lock(slot.number):
                try:
                    settled += self._settle_all(recorder.node, slot)
                finally:
                    recorder.node.unlock(slot.number)
        return settled

    def settle_interrupted(self, *, older_than: float) -> None:
        """
        Count as lost what was interrupted in this living process and of which nobody said why.

        Args:
            older_than: Seconds that an attempt has to have run, so that a verdict under way is waited for.
        """
        slot = self._recorder.slot
        if slot is None or self._single:
            return
        limit = int((time.time() - older_than) * _MICRO)
        for at in _records(slot):
            if slot.words[at] == Phase.INTERRUPTED and slot.words[at + _STARTED_AT] < limit:
                self._settle_own(at)

    def _settle_own(self, at: int) -> None:
        recorder = self._recorder
        if recorder.node is None or recorder.slot is None:
            return
        self._settle(recorder.node, recorder.slot, at)
        for key, (record, _, _) in list(self._running.items()):
            if record == at:
                self._running.pop(key, None)
        if not self._single:
            self._free.append(at)

    def _settle_leftover(self, at: int) -> None:
        """
        Finish what an exception in the middle of our own counting left, such as a soft time limit that struck there.
        """
        recorder = self._recorder
        if recorder.node is not None and recorder.slot is not None:
            self._settle(recorder.node, recorder.slot, at)
        self._running.clear()

    def _inherit(self, node: Node, slot: Slot) -> None:
        self._settle_all(node, slot)

    def _settle_all(self, node: Node, slot: Slot) -> int:
        return sum(self._settle(node, slot, at) for at in _records(slot))

    def _settle(self, node: Node, slot: Slot, at: int) -> bool:
        """
        Count what a record says that was not counted yet, and clear it; every step may be the last one, and may be done again.
        """
        words, base, phase = slot.words, slot.lanes_at, slot.words[at]
        if phase == Phase.IDLE:
            return False
        if phase == Phase.ANNOUNCED:
            _raise_to(words, base + words[at + _CELL], words[at + _STARTED_BEFORE] + 1)
        if phase == Phase.FINISHING:
            _raise_to(words, base + words[at + _OUTCOME_LANE], words[at + _OUTCOME_BEFORE] + 1)
        else:
            self._count_dead(node, slot, at)
        words[at + _VERDICT] = 0
        words[at] = Phase.IDLE
        return True

    def _count_dead(self, node: Node, slot: Slot, at: int) -> None:
        words, base = slot.words, slot.lanes_at
        pair = _pair_of(node.layout, words[at + _CELL])
        state = _verdict(words[at + _VERDICT], words[at + _ATTEMPT])
        outcome = None if pair is None else node.layout.place(FINISHED, (*pair, state))
        if pair is None or outcome is None:
            return
        words[at + _OUTCOME_LANE] = outcome
        words[at + _OUTCOME_BEFORE] = words[base + outcome]
        words[at] = Phase.FINISHING
        _raise_to(words, base + outcome, words[at + _OUTCOME_BEFORE] + 1)
        runtime = min(max(0.0, time.time() - words[at + _STARTED_AT] / _MICRO), _LONGEST_RUNTIME)
        self._observe(node, slot, self._metrics.runtime, (*pair, state), runtime)
        if state in FINAL_STATES:
            self._observe(node, slot, ATTEMPTS, pair, words[at + _RETRIES] + 1)
        if state in FINAL_STATES and words[at + _DUE_AT]:
            latency = min(max(0.0, time.time() - words[at + _DUE_AT] / _MICRO), _LONGEST_RUNTIME)
            self._observe(node, slot, self._metrics.latency, pair, latency)
        if state in _CAUSES:
            self._observe(node, slot, FAILURES, (*pair, _CAUSES[state], "false"), 1)

    def _observe(self, node: Node, slot: Slot, metric: Metric, values: tuple[str, ...], value: float) -> None:
        """
        Record a value in any slot whose lock we hold; without room for the series, the outcome alone is counted.
        """
        try:
            node.file.declare([(metric, values)])
            slot.reserve(node.layout.lanes)
        except OSError as exc:
            self._recorder.complain(exc)
            return
        place = node.layout.place(metric, values)
        if place is None:
            return
        word = slot.lanes_at + place
        if metric.kind == "counter":
            slot.words[word] += 1
        else:
            slot.words[word + bisect_left(metric.buckets, value)] += 1
            slot.words[word + len(metric.buckets) + 1] += round(value / metric.resolution)

    def _explain(self, event: TaskFinished, cell: _Cell) -> None:
        """
        Count why an attempt failed or is tried again, and when a schedule entry last did its work.
        """
        if event.state == "retry":
            self._recorder.count(RETRIES, (*cell.pair, event.exception))
        elif event.exception:
            self._recorder.count(FAILURES, (*cell.pair, event.exception, "true" if event.exhausted else "false"))
        elif event.entry and event.state == "success":
            self._recorder.set(SUCCEEDED_ENTRY, (event.entry,), time.time(), at=time.time())

    def _runtime(self, cell: _Cell, state: TaskState) -> int | None:
        word = self._recorder.word(self._metrics.runtime, (*cell.pair, state))
        if word is not None:
            cell.runtime[state] = word
            self._renew_views(cell)
        return word

    def _renew_views(self, cell: _Cell) -> None:
        slot = self._recorder.slot
        if slot is not None:
            cell.words = slot.words

    # -- looking up -------------------------------------------------------------------------------------------------

    def prepare(self, pairs: Iterable[tuple[str, str]]) -> None:
        """
        Give places to all series of the tasks on the queues in *pairs*, before the pool forks.
        """
        self._recorder.declare([wanted for pair in pairs for wanted in self._metrics.of_cell(*pair)])

    def _renew(self) -> None:
        recorder = self._recorder
        if not recorder.ready() or recorder.slot is None:
            self._cells, self._epoch = {}, recorder.epoch
            return
        slot = recorder.slot
        self._cells = {}
        self._running = {}
        self._lanes_at = slot.lanes_at
        self._single = slot.records == 1
        self._free = [] if self._single else list(_records(slot))[::-1]
        self._epoch = recorder.epoch

    def _cell(self, task: str, queue: str) -> _Cell | None:
        recorder = self._recorder
        if not recorder.ready() or recorder.slot is None:
            return None
        pair = (task, queue)
        word = recorder.word(STARTED, pair)
        if word is not None and not recorder.is_known(STARTED, pair):
            pair = self._pair_at(word) or pair
        recorder.declare(self._metrics.of_cell(*pair))
        try:
            cell = _Cell(recorder.slot, pair, self._metrics, self._word)
        except _NoRoomError:
            return None
        cell.words = recorder.slot.words
        if pair == (task, queue):
            self._cells[pair] = cell
        return cell

    def _pair_at(self, word: int) -> tuple[str, str] | None:
        recorder = self._recorder
        return None if recorder.node is None or recorder.slot is None else _pair_of(recorder.node.layout, word - recorder.slot.lanes_at)

    def _word(self, metric: Metric, values: tuple[str, ...]) -> int:
        word = self._recorder.word(metric, values)
        if word is None:
            raise _NoRoomError
        return word


def _records(slot: Slot) -> range:
    return range(Header.WORDS, Header.WORDS + slot.records * Record.WORDS, Record.WORDS)


def _raise_to(words: memoryview, word: int, value: int) -> None:
    words[word] = max(words[word], value)


def _verdict(word: int, attempt: int) -> TaskState:
    number = word & (1 << _KEY_SHIFT) - 1
    return STATES[number - 1] if word >> _KEY_SHIFT == attempt and 0 < number <= len(STATES) else "lost"


def _pair_of(layout: Layout, lane: int) -> tuple[str, str] | None:
    for (task, queue), place in layout.places(STARTED):
        if place == lane:
            return task, queue
    return None
