"""
Attempts: counting every start and every outcome once, through any death.

Each process keeps, in the table of its slot, what it is doing.

A pool child runs one attempt at a time.  It has one record, and a ring for the attempts that ended, out of which they are counted in batches
(`celery_obs.recorder.batches`): an attempt is *announced* until its record in the ring is whole, which is one store.

Pools of threads and greenlets share a process and have a record for each attempt; they, and processes that keep no ring, count each attempt by itself.
That goes through four phases, and before a lane is counted up, the record says which lane and what it held.
So any process that finds a dead one's record can finish the counting, and can do so again after dying itself:
``lane = max(lane, before + 1)`` counts once however often it is done.  Only the histograms of the one attempt in hand may lack an observation.
"""

from __future__ import annotations

import struct
import threading
import time
import zlib

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import chain
from math import floor
from typing import Any, Final, NamedTuple, TypeAlias

from celery_obs.areas.sidecar.metrics import DROPPED
from celery_obs.areas.tasks.events import AttemptInterrupted, AttemptKillDecided, TaskFinished, TaskStarted
from celery_obs.areas.tasks.metrics import (
    ATTEMPTS,
    CLOCK_SKEW,
    FAILURES,
    FINAL_STATES,
    FINISHED,
    HELD_BACK,
    LATENCY,
    QUEUE_WAIT,
    RECEIVED,
    RETRIES,
    RUNTIME,
    STARTED,
    STATES,
    SUCCEEDED_ENTRY,
    TaskState,
)
from celery_obs.vocabulary.spec import Metric

from .batches import count_tail
from .exemplars import Exemplars
from .format import Exit, Header, Phase, Record
from .layout import Layout, Series, width
from .recorder import Recorder
from .ring import FACTS_FORM, HELD_BACK_CAUSE, LONGEST_ID, ROW_FORM, AttemptRing, RingHeader, Row, encode_id
from .series import SeriesWriter
from .slots import Node, Slot
from .tally import Tally


__all__ = ["AttemptMeter", "attempt_keys"]


_USUAL_STATES: Final[tuple[TaskState, ...]] = ("success", "failure", "retry")
_SILENCE: Final = 60.0  # Seconds without a heartbeat after which a node counts as having been dead.
_LONGEST_RUNTIME: Final = 366 * 86400.0
_MOST_RETRIES: Final = 1 << 32
_PHASE, _ATTEMPT, _STARTED_LANE, _STARTED_AT, _RETRIES, _DUE_AT = (
    Record.PHASE,
    Record.ATTEMPT,
    Record.STARTED_LANE,
    Record.STARTED_AT,
    Record.RETRIES,
    Record.DUE_AT,
)
_STARTED_BEFORE, _OUTCOME_LANE, _OUTCOME_BEFORE, _VERDICT, _VERDICT_ON = (
    Record.STARTED_BEFORE,
    Record.OUTCOME_LANE,
    Record.OUTCOME_BEFORE,
    Record.VERDICT,
    Record.VERDICT_ON,
)
_BEGUN: Final = struct.Struct("=2qdqdq")  # A record from ATTEMPT to STARTED_BEFORE.
_SYNC, _SYNC_BEFORE = Record.SYNC, Record.SYNC_BEFORE
_STATE_NUMBERS: Final[dict[TaskState, int]] = {state: number for number, state in enumerate(STATES)}
_ATTEMPTS_EDGES: Final = ATTEMPTS.buckets
_CAUSES: Final[dict[str, str]] = {"lost": "WorkerLostError", "timeout": "TimeLimitExceeded"}


def attempt_keys(task_id: str) -> tuple[int, int]:
    """
    Return the numbers that may stand for an attempt in a record.

    Its hash where the writer shares this process's hash seed, which costs nothing; a checksum where it does not (a spawned child).
    """
    return hash(task_id), _checksum(task_id)


def _checksum(task_id: str) -> int:
    return zlib.crc32(task_id.encode("utf-8", "surrogatepass"))


class _Metrics(NamedTuple):
    """
    The timed metrics, whose buckets a user may have changed.
    """

    runtime: Metric
    wait: Metric
    latency: Metric

    def of_pair(self, task: str, queue: str) -> list[tuple[Metric, tuple[str, ...]]]:
        """
        Return the series that exist from the start for a task on a queue: counters for all outcomes, runtimes for the usual ones.
        """
        pair = (task, queue)
        return [
            (STARTED, pair),
            *((FINISHED, (*pair, state)) for state in STATES),
            *((self.runtime, (*pair, state)) for state in _USUAL_STATES),
            (self.wait, pair),
            (ATTEMPTS, pair),
            (self.latency, pair),
        ]


class _OutcomeWords(NamedTuple):
    """
    The words that one outcome of one task on one queue is counted in.
    """

    finished: int
    runtime: int
    runtime_sum: int
    is_final: bool


def _outcome(pair: tuple[str, str], state: TaskState, metrics: _Metrics, word: Callable[[Metric, tuple[str, ...]], int]) -> _OutcomeWords:
    series = (*pair, state)
    runtime = word(metrics.runtime, series)
    return _OutcomeWords(word(FINISHED, series), runtime, runtime + _sum_of(metrics.runtime), state in FINAL_STATES)


def _sum_of(histogram: Metric) -> int:
    """
    Return where a histogram's sum stands behind its first bucket.
    """
    return len(histogram.buckets) + 1


class _PairWords:
    """
    The words of one task on one queue, as indices into the slot that they were looked up for.
    """

    __slots__ = (
        "attempts",
        "attempts_sum",
        "floats",
        "lane",
        "latency",
        "latency_sum",
        "outcomes",
        "pair",
        "started",
        "wait",
        "wait_sum",
        "words",
    )

    def __init__(self, slot: Slot, pair: tuple[str, str], metrics: _Metrics, word: Callable[[Metric, tuple[str, ...]], int]) -> None:
        self.pair = pair
        self.started = word(STARTED, pair)
        self.outcomes = {state: _outcome(pair, state, metrics, word) for state in _USUAL_STATES}
        self.wait = word(metrics.wait, pair)
        self.wait_sum = self.wait + _sum_of(metrics.wait)
        self.attempts = word(ATTEMPTS, pair)
        self.attempts_sum = self.attempts + _sum_of(ATTEMPTS)
        self.latency = word(metrics.latency, pair)
        self.latency_sum = self.latency + _sum_of(metrics.latency)
        self.lane = self.started - slot.lanes_at
        self.words = slot.words
        self.floats = slot.floats


# The hot path spells the words of a record as numbers; these lines hold them to the format.
assert (Header.WORDS, Record.ATTEMPT, Record.STARTED_LANE, Record.STARTED_AT, Record.RETRIES, Record.DUE_AT) == (32, 1, 2, 3, 4, 5)  # noqa: S101
assert (Record.STARTED_BEFORE, Record.OUTCOME_LANE, Record.OUTCOME_BEFORE) == (6, 7, 8)  # noqa: S101
assert (Phase.ANNOUNCED, Phase.RUNNING, Phase.FINISHING) == (1, 2, 3)  # noqa: S101

_Running: TypeAlias = "tuple[TaskStarted | None, _PairWords | None, int]"
_NOTHING: Final[_Running] = (None, None, 0)


_Opened: TypeAlias = tuple[_PairWords, bytes]
_Begin: TypeAlias = Callable[[Any], "_Opened | None"]
_End: TypeAlias = Callable[[_Opened, Any, float], None]


def _never(opened: _Opened, event: Any, runtime: float) -> None:
    """
    What `AttemptMeter.end` is where `AttemptMeter.begin` never returns anything.
    """


class _NoRoomError(Exception):
    """
    A series has no place.
    """


class _Mine(threading.local):
    """
    The record of the attempt that this thread, or greenlet, runs; 0 for none.
    """

    at = 0


class AttemptMeter:
    """
    Observe attempts: keep the table of what runs, count starts and outcomes, time them.

    Attributes:
        lost_work: Makes, by the name of a counter, the event of work that its process died with, from the label values that it was counted under.

        tell: Is told of those events, once their work was counted.

        begin: Does what `started` does, for an attempt of a process that runs one at a time; its event may be a plain tuple.
            Returns what `end` takes; None where `finished` is to be told instead.

        end: Does what `finished` does, for an attempt that succeeded and that no schedule published: takes what `begin` returned, the event and seconds.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, *, runtime: Metric = RUNTIME, wait: Metric = QUEUE_WAIT, latency: Metric = LATENCY) -> None:
        self._recorder = recorder
        self._metrics = _Metrics(runtime, wait, latency)
        self._runtime_edges, self._wait_edges, self._latency_edges = runtime.buckets, wait.buckets, latency.buckets
        self._epoch: object = None
        self._pair_words: dict[tuple[str, str], _PairWords] = {}
        self._running: dict[int, _Running] = {}
        self._current: _Running = _NOTHING
        self._free: list[int] = []
        self._is_single = False
        self._lanes_at = 0
        self._key: Callable[[str], int] = hash
        self._mine = _Mine()
        self._lost: list[Series] = []
        self._retries, self._failures = SeriesWriter(recorder, RETRIES), SeriesWriter(recorder, FAILURES)
        self._exemplars: Exemplars | None = None
        self._exemplar: Callable[[], int] | None = None
        self._ring: AttemptRing | None = None
        self._batch = 0
        self._until = 0
        self.begin: _Begin = self._begin_first
        self.end: _End = _never
        self._memory = memoryview(b"")
        self._tally = Tally(Layout())
        self.lost_work: dict[str, Callable[[tuple[str, ...]], object]] = {}
        self.tell: Callable[[object], object] | None = None
        recorder.on_claim.append(self._inherit)

    # -- the hot path -----------------------------------------------------------------------------------------------

    def started(self, event: TaskStarted) -> None:
        """
        Take down that an attempt runs, and count its start.
        """
        if self._epoch is not self._recorder.epoch:
            self._renew()
        task, queue, task_id, retries, started_at, wait, skewed, due_at = event
        pair_words = self._pair_words.get((task, queue)) or self._words_of(task, queue)
        if pair_words is None:
            return
        if self._batch:
            self._begin(event, pair_words)
            return
        words, floats, counted = pair_words.words, pair_words.floats, pair_words.started
        if self._is_single:
            at = 32
            if words[32]:
                self._settle_own(32)
            self._current = (event, pair_words, 32)
        else:
            at = self._take_record()
            if at == 0:
                return
            self._running[id(event)] = (event, pair_words, at)
            self._mine.at = at
        words[at + 1] = self._key(task_id)
        words[at + 2] = pair_words.lane
        floats[at + 3] = started_at
        words[at + 4] = retries
        floats[at + 5] = due_at or 0.0
        words[at + 6] = words[counted]
        ring = self._ring
        if ring is not None:
            ring.begin((at - 32) >> 4, task_id, wait)
        words[at] = 1
        words[counted] += 1
        words[at] = 2
        if wait is not None:
            words[pair_words.wait + bisect_left(self._wait_edges, wait)] += 1
            words[pair_words.wait_sum] += floor(wait * 1e6)
            if skewed:
                self._recorder.count(CLOCK_SKEW, (queue,))

    def _begin(self, event: TaskStarted, pair_words: _PairWords) -> None:
        """
        Take down that an attempt runs, where attempts are counted out of the ring.
        """
        _, _, task_id, retries, started_at, wait, skewed, due_at = event
        words, ring = pair_words.words, self._ring
        if words[32]:
            self._settle_own(32)
        try:
            number = ring.make_room()  # type: ignore[union-attr]  # There is one where attempts are counted in batches.
        except OSError as exc:
            self._ring_failed(exc)
            self.started(event)
            return
        self._current = (event, pair_words, 32)
        _BEGUN.pack_into(self._memory, 264, self._key(task_id), pair_words.lane, started_at, retries, due_at or 0.0, -1)
        ring.begin(0, task_id, wait, number)  # type: ignore[union-attr]
        words[32] = 1
        if skewed:
            self._recorder.count(CLOCK_SKEW, (event[1],))

    def finished(self, event: TaskFinished) -> None:
        """
        Count an outcome, and time it.
        """
        started = event[0]
        if self._is_single:
            opened, pair_words, at = self._current
            self._current = _NOTHING
            if opened is not started:
                return
        else:
            _, pair_words, at = self._running.pop(id(started), _NOTHING)
        if pair_words is None:
            return
        if self._batch:
            self._end(event, pair_words)
        else:
            self._count(event, pair_words, at)

    def _count(self, event: TaskFinished, pair_words: _PairWords, at: int) -> None:
        """
        Count an outcome, where each is counted by itself.
        """
        started, state, runtime, latency, exception, _, entry = event
        outcome, timing, timing_sum, is_final = pair_words.outcomes.get(state) or self._outcome(pair_words, state)
        words = pair_words.words
        words[at + 7] = outcome - self._lanes_at
        words[at + 8] = words[outcome]
        words[at] = 3
        words[outcome] += 1
        words[timing + bisect_left(self._runtime_edges, runtime)] += 1
        words[timing_sum] += floor(runtime * 1e9)
        if latency is not None:
            words[pair_words.latency + bisect_left(self._latency_edges, latency)] += 1
            words[pair_words.latency_sum] += floor(latency * 1e6)
        if is_final and exception != HELD_BACK:
            retries = started[3]
            words[pair_words.attempts + (bisect_left(_ATTEMPTS_EDGES, retries + 1) if retries else 0)] += 1
            words[pair_words.attempts_sum] += retries + 1
        cause = self._explain(event, pair_words) if exception or entry else 0
        ring = self._ring
        if ring is not None:
            _, _, _, retries, started_at, wait, _, due_at = started
            trace = 0 if self._exemplar is None else self._exemplar()
            kept_state = _STATE_NUMBERS[state] | retries << 8
            try:
                ring.end((at - 32) >> 4, pair_words.lane, kept_state, cause, started_at, runtime, wait, due_at, trace)
            except OSError as exc:
                self._ring_failed(exc)
        words[at] = 0
        if not self._is_single:
            words[at + _VERDICT_ON] = 0  # In a process of its own, a verdict ends with the process that it was passed on.
            self._mine.at = 0
            self._free.append(at)
        if self._exemplars is not None:
            self._illustrate(self._exemplars, event, pair_words)

    def _end(self, event: TaskFinished, pair_words: _PairWords) -> None:
        """
        Put an attempt into the ring, where attempts are counted out of it.
        """
        (_, _, _, retries, started_at, wait, _, due_at), state, runtime, _, exception, _, entry = event
        if state not in pair_words.outcomes:
            self._outcome(pair_words, state)
        cause = self._explain(event, pair_words) if exception or entry else 0
        trace = 0 if self._exemplar is None else self._exemplar()
        ring = self._ring
        assert ring is not None  # noqa: S101 -- there is one where attempts are counted in batches.
        try:
            ring.end(0, pair_words.lane, _STATE_NUMBERS[state] | retries << 8, cause, started_at, runtime, wait, due_at, trace)
        except OSError as exc:  # There was no room among the failures; it is in the ring.
            self._recorder.complain(exc)
        pair_words.words[32] = 0
        if self._exemplars is not None:
            self._illustrate(self._exemplars, event, pair_words)
        if ring.written > self._until:
            self.count_tail()

    def count_tail(self) -> None:
        """
        Count the attempts that this process has put into its ring since it last did.
        """
        recorder, ring, slot = self._recorder, self._ring, self._recorder.slot
        if ring is None or slot is None or not self._batch:
            return
        try:
            count_tail(ring, slot, self._tally)
        except OSError as exc:
            recorder.complain(exc)
        if ring.words[RingHeader.COUNTED] != ring.written:  # Another program cut the file off, and what was in it is gone.
            ring.count_from_here()
        self._until = ring.written + self._batch - 1

    def _ring_failed(self, error: OSError) -> None:
        ring = self._ring
        self.count_tail()
        if ring is not None:
            ring.give_up()
        self._batch = 0
        self.begin, self.end = self._begin_first, _never
        self._ring = self._recorder.ring = None
        self._recorder.complain(error)

    def _outcome(self, pair_words: _PairWords, state: TaskState) -> _OutcomeWords:
        pair = pair_words.pair
        self._recorder.declare([(self._metrics.runtime, (*pair, state))])
        outcome = pair_words.outcomes[state] = _outcome(pair, state, self._metrics, self._word)
        if self._recorder.slot is not None:
            pair_words.words = self._recorder.slot.words
        return outcome

    def _illustrate(self, exemplars: Exemplars, event: TaskFinished, pair_words: _PairWords) -> None:
        """
        Keep the attempt as an example of each time that was observed of it.  At its end, for when it begins its trace is not known yet.
        """
        started, state, runtime, latency = event[:4]
        started_at, wait = started[4], started[5]
        ended_at = started_at + runtime
        exemplars.note(pair_words.outcomes[state].runtime + bisect_left(self._runtime_edges, runtime), runtime, ended_at)
        if wait is not None:
            exemplars.note(pair_words.wait + bisect_left(self._wait_edges, wait), wait, started_at)
        if latency is not None:
            exemplars.note(pair_words.latency + bisect_left(self._latency_edges, latency), latency, ended_at)

    def _begin_first(self, event: Any) -> _Opened | None:
        """
        What `begin` is where attempts are not counted out of the ring, or are not yet.
        """
        if self._epoch is not self._recorder.epoch:
            self._renew()
            if self._batch:
                return self.begin(event)
        self.started(event)
        return None

    def _beginning_and_end(self, slot: Slot, ring: AttemptRing) -> tuple[_Begin, _End]:
        """
        Make `begin` and `end` for a slot and its ring: what `_begin` and `_end` do for most attempts, in two functions, for each call costs.
        """
        recorder, epoch, pairs, key = self._recorder, self._recorder.epoch, self._pair_words, self._key
        record, memory, ring_words, ring_memory = slot.words, slot.memory, ring.words, ring.memory
        take_down, take_down_row, put = _BEGUN.pack_into, ROW_FORM.pack_into, FACTS_FORM.pack_into
        first, records, step, backed, ids = ring.shape.records_at, ring.shape.records, ring.step, ring.backed, ring.ids

        def begin(event: Any) -> _Opened | None:
            if recorder.epoch is not epoch:
                return self._begin_first(event)
            task, queue, task_id, retries, started_at, wait, skewed, due_at = event
            pair_words = pairs.get((task, queue)) or self._words_of(task, queue)
            if pair_words is None:
                return None
            number = ring.written
            at = first + number % records * 16
            data = task_id.encode("utf-8", "surrogatepass")
            if record[32] or skewed or at // step not in backed or len(data) > LONGEST_ID:
                self._begin(event, pair_words)
                return (pair_words, encode_id(task_id)) if self._batch else None
            self._current = (event, pair_words, 32)
            lane = pair_words.lane
            take_down(memory, 264, key(task_id), lane, started_at, retries, due_at or 0.0, -1)
            take_down_row(ring_memory, 128, data, -1.0 if wait is None else wait, number + 1)
            record[32] = 1
            ids[0] = data
            return pair_words, data

        def end(opened: _Opened, event: Any, runtime: float) -> None:
            self._current = _NOTHING
            number = ring.written
            at = first + number % records * 16
            wait, due_at = event[5], event[7]
            ring_words[6] = number + 1
            ring_words[at] = 0
            put(
                ring_memory,
                at * 8 + 8,
                opened[0].lane,
                event[3] << 8,
                0,
                event[4],
                runtime,
                -1.0 if wait is None else wait,
                due_at or 0.0,
                opened[1],
            )
            ring_words[at] = ring.written = number + 1
            record[32] = 0
            if number >= self._until:
                self.count_tail()

        return begin, end

    def _take_record(self) -> int:
        if self._free:
            return self._free.pop()
        self._recorder.count(DROPPED, ("too_many_attempts",))
        return 0

    # -- a sync run inside an attempt -------------------------------------------------------------------------------

    def track_sync(self, word: int) -> int:
        """
        Have the death of this process count up *word*, for the sync run that begins in the attempt of this thread.

        Return what `settle_sync` needs; 0 where nothing was noted, because no attempt runs here, or because a run around this one was noted already.
        """
        at = self._current[2] if self._is_single else self._mine.at
        slot = self._recorder.slot
        if at == 0 or slot is None or slot.words[at + _SYNC]:
            return 0
        slot.words[at + _SYNC] = word - slot.lanes_at + 1
        return at

    def settle_sync(self, at: int, word: int) -> None:
        """
        Count up *word* for the run that was noted at *at*, so that it is counted once wherever this process dies.
        """
        slot = self._recorder.slot
        if slot is None:
            return
        words = slot.words
        if at >= slot.gauges_at or words[at + _SYNC] <= 0:  # Noted in a slot that this process has no more, such as its parent's.
            words[word] += 1
            return
        words[at + _SYNC_BEFORE] = words[word]
        words[at + _SYNC] = slot.lanes_at - word - 1
        words[word] += 1
        words[at + _SYNC] = 0

    # -- the rare paths ---------------------------------------------------------------------------------------------

    def interrupted(self, event: AttemptInterrupted) -> None:
        """
        Mark an attempt whose end the main process, or the next owner of this slot, has to tell; settle it if the verdict is there already.
        """
        opened, pair_words, at = self._current if self._is_single else self._running.get(id(event.started), _NOTHING)
        if pair_words is not None and opened is event.started:
            pair_words.words[at] = Phase.INTERRUPTED
            if not self._is_single and pair_words.words[at + _VERDICT_ON] == pair_words.words[at + _ATTEMPT]:
                self._settle_own(at)

    def kill_decided(self, event: AttemptKillDecided) -> None:
        """
        Write the main process's verdict into the record of the attempt, wherever it runs, before its process is killed.

        An attempt of this very process that was interrupted already is settled at once.
        """
        recorder = self._recorder
        if not recorder.ready() or recorder.node is None or recorder.slot is None:
            return
        keys = attempt_keys(event.task_id)
        for slot in chain([recorder.slot], recorder.node.others(recorder.slot)):
            for at in _records(slot):
                if slot.words[at + _ATTEMPT] in keys and slot.words[at + _PHASE] != Phase.IDLE:
                    slot.words[at + _VERDICT] = STATES.index(event.state)
                    slot.words[at + _VERDICT_ON] = slot.words[at + _ATTEMPT]
                    if slot is recorder.slot and slot.words[at + _PHASE] == Phase.INTERRUPTED:
                        self._settle_own(at)

    def sweep(self) -> int:
        """
        Settle what dead processes of this node left running; return how many attempts that were.

        A slot is touched only while its lock is held.
        """
        recorder = self._recorder
        if recorder.is_off or recorder.node is None or recorder.slot is None:
            return 0  # One that gave its slot back does not claim it again for this, at the end of the process.
        settled = 0
        for slot in recorder.node.others(recorder.slot):
            if any(slot.words[at] for at in _records(slot)) and recorder.node.try_lock(slot.number):
                try:
                    settled += self._settle_other(recorder.node, slot)
                finally:
                    recorder.node.unlock(slot.number)
        self._tell_lost()
        return settled

    def settle(self, node: Node, slot: Slot) -> None:
        """
        Settle what the dead owner of *slot* left running, in any node; the caller holds the slot.

        Raises:
            OSError: when the disk is full; it may be done again.
        """
        self._settle_other(node, slot)

    def settle_interrupted(self, *, older_than: float) -> None:
        """
        Count as lost what was interrupted in this living process for no known reason.

        Args:
            older_than: Seconds that an attempt has to have run, so that a verdict under way is waited for.
        """
        slot = self._recorder.slot
        if slot is None or self._is_single:
            return
        limit = time.time() - older_than
        for at in _records(slot):
            if slot.words[at] == Phase.INTERRUPTED and slot.floats[at + _STARTED_AT] < limit:
                self._settle_own(at)

    def _settle_own(self, at: int) -> None:
        """
        Settle a record of this living process: an attempt that was interrupted, or counting that was, by a soft time limit that struck there.
        """
        recorder = self._recorder
        if recorder.node is None or recorder.slot is None:
            return
        self._settle(recorder.node, recorder.slot, at, recorder.ring)
        for key, (_, _, record) in list(self._running.items()):
            if record == at:
                del self._running[key]
                self._free.append(at)

    def _inherit(self, node: Node, slot: Slot) -> None:
        self._settle_other(node, slot)
        for at in _records(slot):
            slot.words[at + _VERDICT_ON] = 0  # On an attempt that ended by itself just before its process was killed.

    def _settle_other(self, node: Node, slot: Slot) -> int:
        """
        Settle what the dead owner of a slot left running or uncounted.
        """
        ring = AttemptRing.of_another(node.folder, slot.number, layout_id=node.layout.layout_id or 0)
        try:
            return self._settle_all(node, slot, ring)
        finally:
            if ring is not None:
                ring.close()

    def _settle_all(self, node: Node, slot: Slot, ring: AttemptRing | None) -> int:
        settled = sum(self._settle(node, slot, at, ring) for at in _records(slot))
        if ring is not None:
            try:
                count_tail(ring, slot, Tally(node.layout))
            except OSError as exc:
                self._recorder.complain(exc)
        return settled

    def _settle(self, node: Node, slot: Slot, at: int, ring: AttemptRing | None) -> bool:
        """
        Count what a record says that was not counted yet, and clear it; every step may be the last one, and may be done again.
        """
        words, base, phase = slot.words, slot.lanes_at, slot.words[at]
        if words[at + _SYNC]:
            self._settle_sync(node, slot, at)
        if phase == Phase.IDLE:
            return False
        if not _is_sound(slot, at):  # Another program wrote into the file: what it says cannot be counted.
            words[at + _VERDICT_ON] = words[at] = 0
            return False
        if ring is not None and ring.words[RingHeader.COUNTED] != RingHeader.BY_ITSELF and phase in Phase.UNCOUNTED:
            self._settle_uncounted(node, slot, at, ring)
            words[at + _VERDICT_ON] = 0
            words[at] = Phase.IDLE
            return True
        if phase == Phase.ANNOUNCED:
            if words[at + _STARTED_BEFORE] < 0:  # It was to be counted out of a ring that is gone.
                words[at + _STARTED_BEFORE] = words[base + words[at + _STARTED_LANE]]
            _raise_to(slot, base + words[at + _STARTED_LANE], words[at + _STARTED_BEFORE] + 1)
        if phase == Phase.FINISHING:
            _raise_to(slot, base + words[at + _OUTCOME_LANE], words[at + _OUTCOME_BEFORE] + 1)
        else:
            self._count_dead(node, slot, at)
        if ring is not None and words[at] == Phase.FINISHING:
            self._keep_dead(ring, node, slot, at)
        words[at + _VERDICT_ON] = 0
        words[at] = Phase.IDLE
        return True

    def _settle_uncounted(self, node: Node, slot: Slot, at: int, ring: AttemptRing) -> None:
        """
        Put an attempt that was to be counted out of the ring into it, unless its process had; it is counted with the rest.
        """
        words, floats = slot.words, slot.floats
        pair = _pair_of(node.layout, words[at + _STARTED_LANE])
        if pair is None or ring.has(ring.words[RingHeader.WORDS + Row.NUMBER]):
            return
        state = _verdict(words, at)
        if state == "timeout":
            words[Header.EXIT] = Exit.TIMEOUT
        wanted: list[tuple[Metric, tuple[str, ...]]] = [(self._metrics.runtime, (*pair, state))]
        explained = (*pair, _CAUSES.get(state, ""), "false")
        if state in _CAUSES:
            wanted.append((FAILURES, explained))
        try:
            node.file.declare(wanted)
            cause = node.layout.place(FAILURES, explained)
            runtime = min(max(0.0, _last_sign_of_life(node) - floats[at + _STARTED_AT]), _LONGEST_RUNTIME)
            word = STATES.index(state) | words[at + _RETRIES] << 8
            facts = (
                words[at + _STARTED_LANE],
                word,
                0 if cause is None else cause + 1,
                floats[at + _STARTED_AT],
                runtime,
                floats[at + _DUE_AT],
            )
            ring.settle((at - Header.WORDS) // Record.WORDS, facts)
        except OSError as exc:
            self._recorder.complain(exc)

    def _settle_sync(self, node: Node, slot: Slot, at: int) -> None:
        """
        Count the sync run that a record names, in the same way: as what it was being counted as, or as lost.
        """
        words, base, lane = slot.words, slot.lanes_at, slot.words[at + _SYNC]
        if abs(lane) <= slot.lanes:
            if lane > 0:
                place = lane - 1
                lost = next((series for series in node.layout if series.at == place and series.family.kind == "counter"), None)
                slot.back(base + lane - 1)
                words[at + _SYNC_BEFORE] = words[base + lane - 1]
                words[at + _SYNC] = lane = -lane
                if lost is not None:
                    self._lost.append(lost)
            _raise_to(slot, base - lane - 1, words[at + _SYNC_BEFORE] + 1)
        words[at + _SYNC] = 0

    def _tell_lost(self) -> None:
        """
        Say which work was lost; not while a slot is being claimed, for who hears it may want to record something.
        """
        while self._lost:
            series = self._lost.pop(0)
            make = self.lost_work.get(series.family.name)
            if make is not None and self.tell is not None:
                self.tell(make(series.values))

    def _count_dead(self, node: Node, slot: Slot, at: int) -> None:
        words, base = slot.words, slot.lanes_at
        pair = _pair_of(node.layout, words[at + _STARTED_LANE])
        state = _verdict(words, at)
        outcome = None if pair is None else node.layout.place(FINISHED, (*pair, state))
        if pair is None or outcome is None:
            return
        slot.back(base + outcome)
        words[at + _OUTCOME_LANE] = outcome
        words[at + _OUTCOME_BEFORE] = words[base + outcome]
        words[at] = Phase.FINISHING
        _raise_to(slot, base + outcome, words[at + _OUTCOME_BEFORE] + 1)
        if state == "timeout":
            words[Header.EXIT] = Exit.TIMEOUT
        died_at = _last_sign_of_life(node)
        runtime = min(max(0.0, died_at - slot.floats[at + _STARTED_AT]), _LONGEST_RUNTIME)
        self._observe(node, slot, self._metrics.runtime, (*pair, state), runtime)
        if state in FINAL_STATES:
            self._observe(node, slot, ATTEMPTS, pair, words[at + _RETRIES] + 1)
        if state in FINAL_STATES and words[at + _DUE_AT]:
            latency = min(max(0.0, died_at - slot.floats[at + _DUE_AT]), _LONGEST_RUNTIME)
            self._observe(node, slot, self._metrics.latency, pair, latency)
        if state in _CAUSES:
            self._observe(node, slot, FAILURES, (*pair, _CAUSES[state], "false"), 1)

    def _keep_dead(self, ring: AttemptRing, node: Node, slot: Slot, at: int) -> None:
        """
        Put the attempt of a dead process into its ring, as it was counted.
        """
        words, floats = slot.words, slot.floats
        series = _series_at(node.layout, FINISHED, words[at + _OUTCOME_LANE])
        row = (at - Header.WORDS) // Record.WORDS
        if series is None or row >= ring.shape.rows:
            return
        task, queue, state = series
        cause = node.layout.place(FAILURES, (task, queue, _CAUSES.get(state, ""), "false"))
        runtime = _last_sign_of_life(node) - floats[at + _STARTED_AT]
        try:
            ring.settle(
                row,
                (
                    words[at + _STARTED_LANE],
                    STATES.index(state) | words[at + _RETRIES] << 8,
                    0 if cause is None else cause + 1,
                    floats[at + _STARTED_AT],
                    min(max(0.0, runtime), _LONGEST_RUNTIME),
                    floats[at + _DUE_AT],
                ),
            )
        except OSError as exc:
            self._recorder.complain(exc)

    def _observe(self, node: Node, slot: Slot, metric: Metric, values: tuple[str, ...], value: float) -> None:
        """
        Record a value in any slot whose lock we hold; without room for the series, the outcome alone is counted.
        """
        try:
            node.file.declare([(metric, values)])
            slot.reserve(node.layout.lanes)
            place = node.layout.place(metric, values)
            if place is None:
                return
            word = slot.lanes_at + place
            slot.back(word, width(metric))
        except OSError as exc:
            self._recorder.complain(exc)
            return
        if metric.kind == "counter":
            slot.words[word] += 1
        else:
            slot.words[word + bisect_left(metric.buckets, value)] += 1
            slot.words[word + len(metric.buckets) + 1] += round(value / metric.resolution)

    def _explain(self, event: TaskFinished, pair_words: _PairWords) -> int:
        """
        Count why an attempt failed or is tried again, and when a schedule entry last did its work.  Return what a ring says of the cause.
        """
        if event.state == "retry":
            return self._counted_as(self._retries, (*pair_words.pair, event.exception))
        if event.exception and event.state != "ignored":
            return self._counted_as(self._failures, (*pair_words.pair, event.exception, "true" if event.exhausted else "false"))
        if event.entry and event.state == "success":
            now = time.time()
            self._recorder.set(SUCCEEDED_ENTRY, (event.entry,), now, at=now)
        return HELD_BACK_CAUSE if event.exception == HELD_BACK else 0

    def _counted_as(self, series: SeriesWriter, values: tuple[str, ...]) -> int:
        word = series.word(values) if self._batch else series.count(values)
        return 0 if word is None else word - self._lanes_at + 1

    # -- looking up -------------------------------------------------------------------------------------------------

    def prepare(self, pairs: Iterable[tuple[str, str]]) -> None:
        """
        Give places to all series of the tasks on the queues in *pairs*, before the pool forks.
        """
        self._recorder.lay_out([[*self._metrics.of_pair(*pair), (RECEIVED, pair)] for pair in pairs])

    def _renew(self) -> None:
        recorder = self._recorder
        if not recorder.ready() or recorder.slot is None:
            self._pair_words, self._epoch = {}, recorder.epoch
            return
        slot = recorder.slot
        self._exemplars = recorder.exemplars
        self._ring = ring = recorder.ring
        self._batch = 0 if ring is None else ring.batch
        self._until = self._batch - 1 + (0 if ring is None else ring.words[RingHeader.COUNTED])
        self._memory = slot.memory
        if recorder.node is not None and self._tally.layout is not recorder.node.layout:
            self._tally = Tally(recorder.node.layout)
        self._exemplar = recorder.exemplar
        self._pair_words = {}
        self._running = {}
        self._current = _NOTHING
        self._lanes_at = slot.lanes_at
        self._is_single = slot.records == 1
        self._free = [] if self._is_single else list(_records(slot))[::-1]
        self._key = hash if recorder.shares_hash_seed else _checksum
        self._epoch = recorder.epoch
        self.begin, self.end = self._begin_first, _never
        if ring is not None and self._batch and self._exemplar is None:
            self.begin, self.end = self._beginning_and_end(slot, ring)
        self._tell_lost()

    def _words_of(self, task: str, queue: str) -> _PairWords | None:
        recorder = self._recorder
        if not recorder.ready() or recorder.slot is None:
            return None
        pair = (task, queue)
        word = recorder.word(STARTED, pair)
        if word is not None and not recorder.is_known(STARTED, pair):
            pair = self._pair_at(word) or pair
        if not recorder.is_known(self._metrics.latency, pair):  # The last of the pair: with it, all are there.
            recorder.lay_out([self._metrics.of_pair(*pair)])
        try:
            pair_words = _PairWords(recorder.slot, pair, self._metrics, self._word)
        except _NoRoomError:
            return None
        if pair == (task, queue):
            self._pair_words[pair] = pair_words
        return pair_words

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


def _last_sign_of_life(node: Node) -> float:
    """
    Return when an attempt that is found dead may have died: now, or with the whole node, when that last gave a beat.
    """
    now = time.time()
    try:
        beat = (node.folder / "heartbeat").lstat().st_mtime
    except OSError:
        return now
    return now if now - beat < _SILENCE else beat


def _is_sound(slot: Slot, at: int) -> bool:
    """
    Tell whether a record that is not idle can be one that we wrote.
    """
    words, lanes = slot.words, slot.lanes
    counts_outcome = words[at] == Phase.FINISHING
    return (
        Phase.ANNOUNCED <= words[at] <= Phase.INTERRUPTED
        and 0 <= words[at + _STARTED_LANE] < lanes
        and 0 <= words[at + _RETRIES] < _MOST_RETRIES
        and (not counts_outcome or 0 <= words[at + _OUTCOME_LANE] < lanes)
    )


def _raise_to(slot: Slot, word: int, value: int) -> None:
    """
    Count up a lane to *value*, unless that was done.
    """
    slot.back(word)
    if slot.words[word] == value - 1:
        slot.words[word] = value


def _verdict(words: memoryview, at: int) -> TaskState:
    number = words[at + _VERDICT]
    judged = words[at + _VERDICT_ON] == words[at + _ATTEMPT] and 0 <= number < len(STATES)
    return STATES[number] if judged else "lost"


def _pair_of(layout: Layout, lane: int) -> tuple[str, str] | None:
    found = _series_at(layout, STARTED, lane)
    return None if found is None else (found[0], found[1])


def _series_at(layout: Layout, metric: Metric, lane: int) -> tuple[str, ...] | None:
    return next((values for values, place in layout.places(metric) if place == lane), None)
