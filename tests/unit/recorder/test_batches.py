"""
Counting in batches: a model of owners that are killed at any store, heirs that are killed at theirs, and a sidecar that reads between any two.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile

from pathlib import Path
from typing import Any, ClassVar

import pytest

from hypothesis import Phase as Steps
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from celery_obs.areas.tasks.events import TaskStarted
from celery_obs.areas.tasks.metrics import ATTEMPTS, FINISHED, LATENCY, QUEUE_WAIT, RUNTIME, STARTED
from celery_obs.recorder import batches
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.format import folder_name
from celery_obs.recorder.layout import Layout
from celery_obs.recorder.reader import NodeReader
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.ring import AttemptRing, RingHeader
from celery_obs.recorder.slots import Slot

from .builders import finished, meter, recorder, started
from .test_attempts import KilledError
from .test_ring import SMALL, wire, wire_heir


NEVER = 1 << 60


class Ledger:
    """
    What the tasks themselves know: how many began, how many ended, and at how many ends their process was killed, when it is not known which it was.
    """

    def __init__(self) -> None:
        self.begun = self.ended = self.unsure = 0


class Batches(RuleBasedStateMachine):
    """
    One slot through any number of owners.
    """

    finish: ClassVar[Any] = staticmethod(batches._finish)

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.wires = pytest.MonkeyPatch(), pytest.MonkeyPatch()
        self.patch.setattr(batches, "_finish", type(self).finish)
        self.folder = Path(tempfile.mkdtemp(prefix="celery_obs-batches-"))
        self.ledger = Ledger()
        self.fuse = [NEVER]
        self.owner: Recorder | None = None
        self.counting: AttemptMeter | None = None
        self.running: TaskStarted | None = None
        self.reader: NodeReader | None = None
        self.read: tuple[int, ...] = ()
        self.number = 0
        self.succeed(NEVER)

    # -- what happens -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.owner is None)
    @rule(stores=st.integers(0, 120) | st.just(NEVER))
    def succeed(self, stores: int) -> None:
        """
        A new process takes the slot, and may be killed while it counts for the one before.
        """
        self.running = None
        heir = recorder(self.folder, attempt_bytes=SMALL)
        claimed: list[Slot] = []
        heir.on_claim.append(lambda _, slot: claimed.append(slot))
        with pytest.MonkeyPatch.context() as patch:
            counting = AttemptMeter(heir)
            wire_heir(heir, [stores], patch)
            try:
                heir.open()
            except KilledError:
                heir.slot = claimed[0]
                self.let_go(heir)
                return
        counting.prepare([("t", "q")])
        self.owner, self.counting, self.fuse = heir, counting, [NEVER]
        wire(heir, self.fuse, self.wires)

    @precondition(lambda self: self.owner is not None)
    @rule(stores=st.integers(0, 150))
    def doom(self, stores: int) -> None:
        """
        The owner will be killed after so many stores more.
        """
        self.fuse[0] = stores

    @precondition(lambda self: self.owner is not None and self.running is None)
    @rule()
    def begin(self) -> None:
        """
        An attempt begins.
        """
        self.number += 1
        opened = started(task_id=f"id-{self.number}")
        with self.mortal():
            self.counting.started(opened)  # type: ignore[union-attr]
            self.running = opened
            self.ledger.begun += 1

    @precondition(lambda self: self.owner is not None and self.running is not None)
    @rule(state=st.sampled_from(["success", "failure"]))
    def end(self, state: Any) -> None:
        """
        It ends.
        """
        assert self.running is not None
        opened, self.running = self.running, None
        self.ledger.unsure += 1
        with self.mortal():
            self.counting.finished(finished(opened, state, exception="KeyError" if state == "failure" else ""))  # type: ignore[union-attr]
            self.ledger.unsure -= 1
            self.ledger.ended += 1

    @precondition(lambda self: self.owner is not None and self.running is None)
    @rule(attempts=st.integers(1, 70))
    def work(self, attempts: int) -> None:
        """
        Many attempts are made.
        """
        for _ in range(attempts):
            if self.owner is not None:
                self.begin()
            if self.owner is not None:
                self.end("success")

    @precondition(lambda self: self.owner is not None)
    @rule()
    def count(self) -> None:
        """
        What the ring has is counted.
        """
        with self.mortal():
            self.counting.count_tail()  # type: ignore[union-attr]

    @rule()
    def restart_reader(self) -> None:
        """
        The sidecar is started anew.
        """
        if self.reader is not None:
            self.reader.close()
        self.reader = None
        self.read = ()

    # -- what holds -------------------------------------------------------------------------------------------------

    @invariant()
    def what_is_read_is_what_the_tasks_know(self) -> None:
        """
        Between any two steps, whichever process is dead: each start once, each end once, and no number ever falls.
        """
        if self.reader is None:
            self.reader = NodeReader(self.folder / folder_name("w@h"))
        lanes = self.reader.read().lanes
        assert all(now >= before for before, now in zip(self.read, lanes, strict=False))
        self.read = lanes
        begun, ends, observed = sums(self.reader.layout, lanes)
        assert begun == self.ledger.begun
        assert self.ledger.ended <= ends <= begun
        assert ends >= begun - 1
        assert {"wait": begun, "runtime": ends} == {name: observed[name] for name in ("wait", "runtime")}

    def teardown(self) -> None:
        """
        In the end, all that the tasks know is counted, and what is not known of them as lost.
        """
        try:
            if self.owner is not None:
                self.let_go(self.owner)
            last = recorder(self.folder, attempt_bytes=SMALL)
            meter(last)
            reader = NodeReader(self.folder / folder_name("w@h"))
            begun, ends, observed = sums(reader.layout, reader.read().lanes)
            known = sum(count for state, count in by_state(reader).items() if state != "lost")
            reader.close()
            last.close()
            assert (self.ledger.begun, self.ledger.begun) == (begun, ends)
            assert self.ledger.ended <= known <= self.ledger.ended + self.ledger.unsure
            assert {"wait": begun, "runtime": begun, "latency": known, "attempts": known} == observed
        finally:
            if self.reader is not None:
                self.reader.close()
            self.wires.undo()
            self.patch.undo()
            shutil.rmtree(self.folder)

    # -- how --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def mortal(self) -> Any:
        """
        Do what may be the owner's last.
        """
        try:
            yield
        except KilledError:
            assert self.owner is not None
            self.let_go(self.owner)
            self.owner = self.counting = None

    def let_go(self, dead: Recorder) -> None:
        """
        Do what the kernel does for a process that is gone: its locks and its files are free.
        """
        self.wires.undo()
        if dead.slot is not None:
            dead.slot.close()
            dead.slot = None
        if dead.ring is not None:
            dead.ring.close()
            dead.ring = None
        if dead.node is not None:
            dead.node.close()
            dead.node = None


def by_state(reader: NodeReader) -> dict[str, int]:
    """
    Return how the attempts that a reader has read ended.
    """
    lanes = reader.read().lanes
    return {series.values[2]: lanes[series.at] for series in reader.layout if series.family.name == FINISHED.name}


def sums(layout: Layout, lanes: tuple[int, ...]) -> tuple[int, int, dict[str, int]]:
    """
    Return starts, ends, and how many values each histogram took.
    """
    names = {QUEUE_WAIT.name: "wait", RUNTIME.name: "runtime", LATENCY.name: "latency", ATTEMPTS.name: "attempts"}
    observed = dict.fromkeys(names.values(), 0)
    begun = ends = 0
    for family, _, at in layout:
        if family.name in names:
            observed[names[family.name]] += sum(lanes[at : at + len(family.buckets) + 1])
        elif family.name in {STARTED.name, FINISHED.name}:
            begun += lanes[at] * (family.name == STARTED.name)
            ends += lanes[at] * (family.name == FINISHED.name)
    return begun, ends, observed


def test_no_attempt_is_lost_or_doubled_which_process_is_ever_killed() -> None:
    """
    Owners, heirs and sidecars in any order, each killed at any of its stores.
    """
    run_state_machine_as_test(Batches, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))


def _counted_too_early(ring: AttemptRing, slot: Slot) -> None:
    """
    Say that the batch is counted before it is.
    """
    counted, counting = ring.words[RingHeader.COUNTED], ring.words[RingHeader.COUNTING]
    ring.words[RingHeader.COUNTED] = counting
    if counted != counting:
        _apply(ring, slot)


def _never_finished(ring: AttemptRing, slot: Slot) -> None:
    """
    Set the lanes from where they are, not to what the journal says.
    """
    if ring.words[RingHeader.COUNTED] != ring.words[RingHeader.COUNTING]:
        for at in range(ring.shape.journal_at, ring.shape.journal_at + 2 * ring.words[RingHeader.ENTRIES], 2):
            slot.words[slot.lanes_at + ring.words[at]] += 1
        ring.words[RingHeader.COUNTED] = ring.words[RingHeader.COUNTING]


def _apply(ring: AttemptRing, slot: Slot) -> None:
    for at in range(ring.shape.journal_at, ring.shape.journal_at + 2 * ring.words[RingHeader.ENTRIES], 2):
        slot.words[slot.lanes_at + ring.words[at]] = ring.words[at + 1]


@pytest.mark.parametrize("broken", [_counted_too_early, _never_finished], ids=["counted too early", "counted from where it was"])
def test_the_model_catches_a_protocol_that_is_broken(broken: Any) -> None:
    """
    A twin with its last two steps exchanged, and one without absolute numbers, lose or double attempts, and the model says so.
    """

    class Twin(Batches):
        finish = staticmethod(broken)

    without_shrinking = settings(
        max_examples=200, stateful_step_count=25, deadline=None, database=None, phases=[Steps.generate], derandomize=True, print_blob=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Twin, settings=without_shrinking)


@pytest.mark.parametrize("cut", ["slot-1", "attempts-1", "both"])
def test_no_total_falls_when_another_program_cuts_off_a_file_with_attempts_that_are_not_counted_yet(tmp_path: Path, cut: str) -> None:
    """
    What was read stays, whichever of both files it came from, and what follows is added once.
    """
    at = recorder(tmp_path, attempt_bytes=SMALL)
    counting = meter(at)
    assert at.node is not None
    reader = NodeReader(at.node.folder)

    def work(attempts: int) -> tuple[int, int]:
        for number in range(attempts):
            opened = started(task_id=str(number))
            counting.started(opened)
            counting.finished(finished(opened))
        lanes = reader.read().lanes
        return sums(reader.layout, lanes)[:2]

    assert (40, 40) == work(40)
    for name in ("slot-1", "attempts-1"):
        if cut in {name, "both"}:
            os.truncate(at.node.folder / name, 0)
            assert (40, 40) == sums(reader.layout, reader.read().lanes)[:2]
            at.mend()

    assert (40, 40) == work(0)
    assert (45, 45) == work(5)
    assert (145, 145) == work(100)
    reader.close()
    at.close()
