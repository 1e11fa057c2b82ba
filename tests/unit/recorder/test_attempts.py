"""
Counting attempts: once each, through a death at any store.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal

from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.areas.sidecar.metrics import DROPPED
from celery_obs.areas.tasks.events import AttemptInterrupted, AttemptKillDecided
from celery_obs.areas.tasks.metrics import ATTEMPTS, FAILURES, LATENCY, QUEUE_WAIT, RUNTIME, TaskState
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.format import Phase
from celery_obs.recorder.recorder import Recorder
from celery_obs.vocabulary.spec import Metric

from .builders import finished, lane, meter, phase, recorder, started, states


class KilledError(BaseException):
    """
    Stands for SIGKILL: nothing after it is done.
    """


class Tripwire:
    """
    Words of memory that kill a process that stores into them once too often.
    """

    def __init__(self, words: Any, fuse: list[int]) -> None:
        self._words = words
        self._fuse = fuse

    def __getitem__(self, index: int) -> Any:
        return self._words[index]

    def __setitem__(self, index: int, value: float) -> None:
        if not self._fuse[0]:
            raise KilledError
        self._fuse[0] -= 1
        self._words[index] = value

    def __len__(self) -> int:
        return len(self._words)


def wire(at: Recorder, fuse: list[int]) -> None:
    """
    Let every store into the recorder's slot burn down *fuse*.
    """
    assert at.slot is not None
    _wire_slot(at.slot, fuse)
    at.epoch = object()


def live_until_killed(folder: Path, stores: int, *, state: TaskState = "success") -> bool:
    """
    Run attempts in a process that is killed before its next store once it has made *stores*; return whether it survived all of them.
    """
    victim = recorder(folder)
    counting = meter(victim)
    wire(victim, [stores])
    try:
        for number in range(2):
            opened = started(task_id=f"id-{number}")
            counting.started(opened)
            counting.finished(finished(opened, state, exception="KeyError" if state == "failure" else ""))
    except KilledError:
        return False
    return True


@pytest.mark.parametrize("state", ["success", "failure", "retry"])
def test_whoever_follows_a_process_killed_at_any_store_counts_its_attempt_once(tmp_path: Path, state: TaskState) -> None:
    """
    Wherever SIGKILL falls between two stores, afterwards every start has exactly one outcome.
    """
    for stores in itertools.count():
        folder = tmp_path / str(stores)
        survived = live_until_killed(folder, stores, state=state)

        heir = recorder(folder)
        meter(heir)

        seen = states(heir)
        begun = seen.pop("started", 0)
        assert begun == sum(seen.values()), f"killed before store {stores}"
        assert begun <= 2
        assert seen.get("lost", 0) <= 1
        assert phase(heir) == Phase.IDLE
        if survived:
            break
    assert {state: 2} == seen
    assert stores > 30


def test_settling_may_itself_be_killed_at_any_store(tmp_path: Path) -> None:
    """
    A successor that dies while it counts for its predecessor leaves the same sums to the next one.
    """
    for first, second in itertools.product(range(0, 45, 3), range(12)):
        folder = tmp_path / f"{first}-{second}"
        live_until_killed(folder, first)
        heir = recorder(folder)
        AttemptMeter(heir)
        heir.on_claim.insert(0, lambda _, slot: _wire_slot(slot, [second]))  # noqa: B023 -- called in this round.
        with contextlib.suppress(KilledError):
            heir.open()

        last = recorder(folder)
        meter(last)

        seen = states(last)
        begun = seen.pop("started", 0)
        assert begun == sum(seen.values()), f"killed before store {first}, heir before store {second}"


def _wire_slot(slot: Any, fuse: list[int]) -> None:
    slot.words = Tripwire(slot.words, fuse)
    slot.floats = Tripwire(slot.floats, fuse)


@given(outcomes=st.lists(st.sampled_from(["success", "failure", "retry", "ignored", "rejected"]), max_size=20))
@settings(max_examples=25, deadline=None)
def test_states_add_up_to_starts(tmp_path_factory: pytest.TempPathFactory, outcomes: list[TaskState]) -> None:
    """
    Any sequence of outcomes is counted as it is, and each has a runtime.
    """
    at = recorder(tmp_path_factory.mktemp("node"))
    counting = meter(at)

    for outcome in outcomes:
        opened = started()
        counting.started(opened)
        counting.finished(finished(opened, outcome, latency=None))

    seen = states(at)
    assert len(outcomes) == seen.pop("started", 0) == sum(seen.values())
    assert {outcome: outcomes.count(outcome) for outcome in set(outcomes)} == seen
    assert len(outcomes) == sum(observed(at, RUNTIME, "t", "q", outcome) for outcome in set(outcomes))


def observed(at: Recorder, metric: Metric, *values: str) -> int:
    """
    Return how many values a histogram took in.
    """
    assert at.node is not None
    assert at.slot is not None
    place = at.node.layout.place(metric, values)
    if place is None:
        return 0
    first = at.slot.lanes_at + place
    return int(sum(at.slot.words[first : first + len(metric.buckets) + 1]))


def test_values_land_in_their_buckets_and_sums_are_exact(tmp_path: Path) -> None:
    """
    A value on an edge belongs to that bucket (le is "less or equal"), and sums are kept in whole steps.
    """
    at = recorder(tmp_path)
    counting = meter(at)

    opened = started(wait=0.25)
    counting.started(opened)
    counting.finished(finished(opened, runtime=0.005, latency=7.0))

    assert at.node is not None
    assert at.slot is not None
    runtime = at.slot.lanes_at + at.node.layout.place(RUNTIME, ("t", "q", "success"))  # type: ignore[operator]  # it is declared.
    wait = at.slot.lanes_at + at.node.layout.place(QUEUE_WAIT, ("t", "q"))  # type: ignore[operator]  # it is declared.
    assert (1, 5_000_000) == (at.slot.words[runtime], at.slot.words[runtime + len(RUNTIME.buckets) + 1])
    assert (1, 250_000) == (at.slot.words[wait + QUEUE_WAIT.buckets.index(0.25)], at.slot.words[wait + len(QUEUE_WAIT.buckets) + 1])
    assert 1 == observed(at, LATENCY, "t", "q")


def test_attempts_are_counted_at_the_final_outcome_only(tmp_path: Path) -> None:
    """
    A task with two retries needed three attempts, once.
    """
    at = recorder(tmp_path)
    counting = meter(at)

    for number, outcome in enumerate(["retry", "retry", "success"]):
        opened = started(retries=number)
        counting.started(opened)
        counting.finished(finished(opened, outcome))  # type: ignore[arg-type]  # literals.

    assert 1 == observed(at, ATTEMPTS, "t", "q")


@pytest.mark.parametrize("verdict", ["timeout", "terminated"])
def test_the_main_processs_verdict_is_what_a_killed_attempt_is_counted_as(tmp_path: Path, verdict: TaskState) -> None:
    """
    A child killed by its hard limit or by a revoke is counted as that, not as lost.
    """
    child = recorder(tmp_path, number=1)
    meter(child).started(started(task_id="killed"))
    main = recorder(tmp_path, number=0, attempts=0)
    judging = meter(main)

    judging.kill_decided(AttemptKillDecided("killed", verdict))  # type: ignore[arg-type]  # literals.

    heir = recorder(tmp_path, number=1)
    meter(heir)
    assert {"started": 1, verdict: 1} == states(heir)
    assert (1 if verdict == "timeout" else 0) == lane(heir, FAILURES, "t", "q", "TimeLimitExceeded", "false")


def test_a_verdict_on_an_attempt_that_is_over_changes_nothing(tmp_path: Path) -> None:
    """
    A verdict that comes late does not fall on the next attempt of the same process.
    """
    child = recorder(tmp_path, number=1)
    running = meter(child)
    first, second = started(task_id="first"), started(task_id="second")
    running.started(first)
    main = recorder(tmp_path, number=0, attempts=0)
    judging = meter(main)
    judging.kill_decided(AttemptKillDecided("first", "timeout"))

    running.finished(finished(first))
    running.started(second)

    heir = recorder(tmp_path, number=1)
    meter(heir)
    assert {"started": 2, "success": 1, "lost": 1} == states(heir)


def test_attempts_side_by_side_do_not_disturb_one_another(tmp_path: Path) -> None:
    """
    Threads and greenlets of one process have a record each, also when attempts of one task id overlap.
    """
    at = recorder(tmp_path, attempts=3)
    counting = meter(at)
    one, two, three = started(task_id="same"), started(task_id="same"), started(task_id="other")

    for opened in (one, two, three):
        counting.started(opened)
    counting.finished(finished(two))
    counting.finished(finished(one, "failure", exception="ValueError"))
    counting.finished(finished(three))

    assert {"started": 3, "success": 2, "failure": 1} == states(at)
    assert [Phase.IDLE] * 3 == [phase(at, number) for number in range(3)]


def test_more_attempts_than_records_are_told_not_guessed(tmp_path: Path) -> None:
    """
    An attempt that finds no record is left out and counted as dropped.
    """
    at = recorder(tmp_path, attempts=2)
    counting = meter(at)

    for number in range(3):
        counting.started(started(task_id=str(number)))

    assert {"started": 2} == states(at)
    assert 1 == lane(at, DROPPED, "too_many_attempts")


def test_a_greenlet_killed_by_revoke_is_counted_as_terminated_whichever_word_comes_first(tmp_path: Path) -> None:
    """
    In a process that lives on, the verdict and the interruption may come in either order.
    """
    at = recorder(tmp_path, attempts=4)
    counting = meter(at)
    early, late = started(task_id="early"), started(task_id="late")
    counting.started(early)
    counting.started(late)

    counting.kill_decided(AttemptKillDecided("early", "terminated"))
    counting.interrupted(AttemptInterrupted(early))
    counting.interrupted(AttemptInterrupted(late))
    counting.kill_decided(AttemptKillDecided("late", "terminated"))

    assert {"started": 2, "terminated": 2} == states(at)


def test_an_interrupted_attempt_nobody_explains_is_lost_in_the_end(tmp_path: Path) -> None:
    """
    A thread that was unwound by SystemExit leaves no attempt that runs for ever.
    """
    at = recorder(tmp_path, attempts=2)
    counting = meter(at)
    opened = started()
    counting.started(opened)
    counting.interrupted(AttemptInterrupted(opened))

    counting.settle_interrupted(older_than=0)

    assert {"started": 1, "lost": 1} == states(at)


def test_a_soft_time_limit_inside_our_own_counting_loses_nothing(tmp_path: Path) -> None:
    """
    An exception that a signal handler raises in the middle of counting is made good at the next attempt.
    """
    at = recorder(tmp_path)
    counting = meter(at)
    fuse = [10**6]
    wire(at, fuse)
    first, second = started(task_id="first"), started(task_id="second")
    counting.started(first)
    fuse[0] = 4
    with pytest.raises(KilledError):
        counting.finished(finished(first))
    fuse[0] = 10**6

    counting.started(second)
    counting.finished(finished(second))

    assert {"started": 2, "success": 2} == states(at)


def test_tasks_beyond_the_label_limit_are_folded(tmp_path: Path) -> None:
    """
    Names beyond the limit are counted together under ``_other``, so that nothing grows without bound.
    """
    at = recorder(tmp_path, label_limit=3)
    counting = meter(at)

    for number in range(10):
        opened = started(task=f"generated-{number}")
        counting.started(opened)
        counting.finished(finished(opened))

    assert {"started": 8, "success": 8} == states(at, task="_other")
    assert {"started": 1, "success": 1} == states(at, task="generated-1")


def test_the_sweep_settles_dead_slots_and_leaves_living_ones_alone(tmp_path: Path) -> None:
    """
    The main process counts what a dead child was at; it does not touch a slot whose owner lives.
    """
    child_lives, release = os.pipe()
    main = recorder(tmp_path, number=0, attempts=0)
    judging = meter(main)
    pids = []
    for number in (1, 2):
        pid = os.fork()
        if pid == 0:
            main.forget_parent()
            child = recorder(tmp_path, number=number)
            meter(child).started(started(task_id=str(number)))
            os.write(release, b"x")
            signal.pause()
        pids.append(pid)
    os.read(child_lives, 1), os.read(child_lives, 1)
    os.kill(pids[0], signal.SIGKILL)
    os.waitpid(pids[0], 0)

    settled = [judging.sweep(), judging.sweep()]

    os.kill(pids[1], signal.SIGKILL)
    os.waitpid(pids[1], 0)
    os.close(child_lives)
    os.close(release)
    assert [1, 0] == settled
    assert 1 == judging.sweep()


def test_an_attempt_that_died_with_its_node_did_not_run_while_the_node_was_away(tmp_path: Path) -> None:
    """
    A worker that comes back after a night does not say that its lost task ran all night.
    """
    victim = recorder(tmp_path)
    meter(victim).started(started())
    heartbeat = tmp_path / "w@h.v1" / "heartbeat"
    heartbeat.write_text("")
    os.utime(heartbeat, (130.0, 130.0))

    heir = recorder(tmp_path)
    meter(heir)

    assert heir.node is not None
    assert heir.slot is not None
    first = heir.slot.lanes_at + heir.node.layout.place(RUNTIME, ("t", "q", "lost"))  # type: ignore[operator]  # it is declared.
    assert 30_000_000_000 == heir.slot.words[first + len(RUNTIME.buckets) + 1]


def test_a_verdict_that_came_too_late_is_not_passed_on_to_a_redelivery(tmp_path: Path) -> None:
    """
    An attempt that ended just before its process was killed leaves no verdict for the next attempt of the same task id.
    """
    child = recorder(tmp_path, number=1)
    running = meter(child)
    opened = started(task_id="same")
    running.started(opened)
    meter(recorder(tmp_path, number=0, attempts=0)).kill_decided(AttemptKillDecided("same", "timeout"))
    running.finished(finished(opened))

    successor = recorder(tmp_path, number=1)
    meter(successor).started(started(task_id="same"))
    heir = recorder(tmp_path, number=1)
    meter(heir)

    assert {"started": 2, "success": 1, "lost": 1} == states(heir)
