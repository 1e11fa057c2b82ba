"""
Sync runs inside attempts: counted once each, through a death at any store.
"""

from __future__ import annotations

import contextlib
import itertools
import threading

from pathlib import Path
from typing import NamedTuple

import pytest

from celery_obs.areas.channels.syncs.events import SyncFinished, SyncLost, SyncStarted
from celery_obs.areas.channels.syncs.metrics import IN_PROGRESS, STATUSES, TOTAL, SyncStatus
from celery_obs.areas.channels.syncs.recording import Recording
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.vocabulary.spec import Metric
from tests.unit.recorder.builders import finished, lane, meter, recorder, started, states
from tests.unit.recorder.test_attempts import KilledError, Tripwire, wire


OPEN = Metric(kind="gauge", name="open", help="How many now?", labels=("who",))


def run(sync: str = "export") -> SyncStarted:
    return SyncStarted("airbnb", sync, "outbound", "", 100.0)


def ended(opened: SyncStarted, status: SyncStatus = "success") -> SyncFinished:
    return SyncFinished(opened, status, 0.5, 0, 1, 0, 0, "", "")


def syncs(at: Recorder, sync: str = "export") -> dict[str, int]:
    found: dict[str, int] = {status: lane(at, TOTAL, "airbnb", sync, "outbound", status) for status in STATUSES}
    return {status: count for status, count in found.items() if count}


class Life(NamedTuple):
    """
    What a process did before it was killed, or not.

    Attributes:
        begun: Runs that had surely begun.

        beginning: Whether it was killed while one began, which then counts or does not.

        survived: Whether it was not killed.
    """

    begun: int
    beginning: bool
    survived: bool

    def explains(self, counted: int) -> bool:
        return counted == self.begun or (self.beginning and counted == self.begun + 1)


def live_until_killed(folder: Path, stores: int) -> Life:
    """
    Run two attempts with a sync each in a process that is killed before its next store once it has made *stores*.
    """
    victim = recorder(folder)
    counting = meter(victim)
    observer = Recording(victim, counting)
    victim.declare([(TOTAL, ("airbnb", "export", "outbound", status)) for status in STATUSES])
    wire(victim, [stores])
    begun, beginning = 0, False
    try:
        for number in range(2):
            opened, sync = started(task_id=f"id-{number}"), run()
            counting.started(opened)
            beginning = True
            observer.sync_started(sync)
            begun, beginning = begun + 1, False
            observer.sync_finished(ended(sync))
            counting.finished(finished(opened))
    except KilledError:
        return Life(begun, beginning, survived=False)
    return Life(begun, beginning, survived=True)


def heir_of(folder: Path) -> Recorder:
    heir = recorder(folder)
    meter(heir)
    return heir


def test_whoever_follows_a_killed_process_counts_its_run_once(tmp_path: Path) -> None:
    """
    Wherever SIGKILL falls between two stores, each run that had begun has one outcome afterwards: its own, or failure.
    """
    seen: dict[str, int] = {}
    for stores in itertools.count():
        folder = tmp_path / str(stores)
        life = live_until_killed(folder, stores)

        seen = syncs(heir_of(folder))

        assert life.explains(sum(seen.values())), f"killed before store {stores}"
        assert seen.get("failure", 0) <= 1
        if life.survived:
            break
    assert {"success": 2} == seen
    assert stores > 30


def test_settling_a_run_may_itself_be_killed_at_any_store(tmp_path: Path) -> None:
    """
    A successor that dies while it counts for its predecessor leaves the same sums to the next one.
    """
    for first, second in itertools.product(range(0, 60, 4), range(12)):
        folder = tmp_path / f"{first}-{second}"
        life = live_until_killed(folder, first)
        heir = recorder(folder)
        AttemptMeter(heir)
        fuse = [second]

        def cut(_: object, slot: object, fuse: list[int] = fuse) -> None:
            slot.words, slot.floats = Tripwire(slot.words, fuse), Tripwire(slot.floats, fuse)  # type: ignore[attr-defined]  # a slot.

        heir.on_claim.insert(0, cut)
        with contextlib.suppress(KilledError):
            heir.open()

        assert life.explains(sum(syncs(heir_of(folder)).values())), f"killed before store {first}, heir before store {second}"


def test_a_lost_run_is_told_after_it_was_counted(tmp_path: Path) -> None:
    """
    Who follows in the slot says which run was lost, when it begins to work; the gauge of what runs begins at 0 again.
    """
    victim = recorder(tmp_path)
    counting = meter(victim)
    counting.started(started())
    Recording(victim, counting).sync_started(run())

    heir = recorder(tmp_path)
    following = meter(heir)
    Recording(heir, following)
    told: list[object] = []
    following.tell = told.append
    following.started(started(task_id="id-2"))

    assert [SyncLost("airbnb", "export", "outbound")] == told
    assert {"failure": 1} == syncs(heir)
    assert heir.slot is not None
    word = heir.word(IN_PROGRESS, ("airbnb", "export"))
    assert word is not None
    assert 0 == heir.slot.words[word + 1]


def test_a_sweep_finds_the_run_of_a_killed_child(tmp_path: Path) -> None:
    """
    The main process counts the run at once, without waiting for a successor.
    """
    child = recorder(tmp_path, number=1)
    counting = meter(child)
    counting.started(started())
    Recording(child, counting).sync_started(run())
    main = recorder(tmp_path, number=0, attempts=0)
    sweeping = meter(main)
    Recording(main, sweeping)
    told: list[object] = []
    sweeping.tell = told.append

    child.close()
    sweeping.sweep()

    assert 1 == len(told)
    assert {"failure": 1} == syncs(heir_of(tmp_path))


def test_of_nested_runs_the_outer_one_is_counted_when_lost(tmp_path: Path) -> None:
    """
    A record has room for one run: the one that was begun first.  Those that end are counted, all of them.
    """
    victim = recorder(tmp_path)
    counting = meter(victim)
    observer = Recording(victim, counting)
    counting.started(started())
    observer.sync_started(run("all"))
    inner = run("prices")
    observer.sync_started(inner)
    observer.sync_finished(ended(inner))
    observer.sync_started(run("photos"))

    heir = heir_of(tmp_path)

    assert ({"failure": 1}, {"success": 1}, {}) == (syncs(heir, "all"), syncs(heir, "prices"), syncs(heir, "photos"))


def test_a_run_that_ends_in_a_forked_child_does_not_write_into_foreign_lanes(tmp_path: Path) -> None:
    """
    A child that inherits an open run has a slot of its own, where the place of the parent's record holds something else.
    """
    at = recorder(tmp_path)
    counting = meter(at)
    observer = Recording(at, counting)
    counting.started(started())
    sync = run()
    observer.sync_started(sync)

    at.forget_parent()
    at.identify = recorder(tmp_path, number=None, attempts=0).identify
    for number in range(8):
        at.set(OPEN, (str(number),), 7.0, at=1.0)
    assert at.slot is not None
    others = slice(34, 48)  # The first gauge is that of what runs.
    before = list(at.slot.words[others])
    observer.sync_finished(ended(sync))

    assert before == list(at.slot.words[others])
    assert ({"success": 1}, {}) == (syncs(at), states(at))


@pytest.mark.parametrize("lane_number", [1 << 40, -(1 << 40)])
def test_a_damaged_record_counts_nothing(tmp_path: Path, lane_number: int) -> None:
    """
    A number that is no lane is cleared.
    """
    victim = recorder(tmp_path)
    counting = meter(victim)
    counting.started(started())
    assert victim.slot is not None
    victim.slot.words[32 + 11] = lane_number

    heir = heir_of(tmp_path)

    assert heir.slot is not None
    assert (0, {}) == (heir.slot.words[32 + 11], syncs(heir))


def test_threads_have_a_run_each(tmp_path: Path) -> None:
    """
    In a pool of threads each attempt has a record, and a run that is lost there is counted for each.
    """
    victim = recorder(tmp_path, number=0, attempts=2)
    counting = meter(victim)
    observer = Recording(victim, counting)

    def work(number: int) -> None:
        counting.started(started(task_id=f"id-{number}"))
        observer.sync_started(run(f"sync-{number}"))

    for number in (1, 2):
        thread = threading.Thread(target=work, args=(number,))
        thread.start()
        thread.join()

    heir = recorder(tmp_path, number=0, attempts=2)
    meter(heir)
    assert ({"failure": 1}, {"failure": 1}) == (syncs(heir, "sync-1"), syncs(heir, "sync-2"))
