"""
Many tasks, queues, entries and pool processes: what an app declares is counted under its own name, whatever the number.
"""

from __future__ import annotations

import json

from pathlib import Path
from types import SimpleNamespace

import pytest

from celery import Celery
from kombu import Queue

from celery_obs.areas.schedules.events import EntryFired, EntryScheduled
from celery_obs.areas.schedules.metrics import ENTRY_DUE, ENTRY_LAST_FIRED, SUCCEEDED_ENTRY
from celery_obs.areas.schedules.recording import Recording
from celery_obs.areas.sidecar.metrics import DROPPED, LABELS_FOLDED
from celery_obs.areas.tasks.events import TaskPublished
from celery_obs.areas.tasks.metrics import FAILURES, FINISHED, PUBLISHED, RECEIVED, RUNTIME, STARTED
from celery_obs.areas.workers.metrics import CPU_SECONDS, RESIDENT_MEMORY
from celery_obs.recorder.format import MOST_GAUGES, SHORTAGE
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.runtime.declarations import Declarations
from celery_obs.runtime.processes import Usage
from celery_obs.runtime.recording import MetricsObserver
from celery_obs.runtime.state import WorkerState
from celery_obs.vocabulary.spec import OTHER, Metric

from .builders import finished, lane, meter, recorder, started


QUEUES = tuple(f"q{number}" for number in range(5))


def nothing() -> None:
    """
    The body of every task.
    """


def shop(tasks: int) -> Celery:
    """
    An app with many tasks and five queues.
    """
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_queues = [Queue(name) for name in QUEUES]
    for number in range(tasks):
        app.task(name=f"shop.task_{number}")(nothing)
    app.finalize()
    return app


def main_process(folder: Path, app: Celery, *, label_limit: int = 200, lane_limit: int | None = None) -> Recorder:
    """
    The recorder of a worker's main process that runs the tasks of *app* itself.
    """
    made = Recorder(
        folder,
        identify=lambda: Identity(node="w@h", role="worker", number=0, attempts=1),
        label_limit=label_limit,
        lane_limit=lane_limit,
    )
    made.declares = Declarations([app]).include
    return made


def values_of(recorder: Recorder, metric: Metric) -> set[tuple[str, ...]]:
    """
    The label values of all series of *metric*.
    """
    assert recorder.node is not None
    return {values for values, _ in recorder.node.layout.places(metric)}


def run_all(folder: Path, tasks: int) -> Recorder:
    """
    Publish, run and fail every task once on every queue.
    """
    at = main_process(folder, shop(tasks))
    counting = meter(at)
    observer = MetricsObserver(at, attempts=counting)
    publish = dict(observer.subscriptions())[TaskPublished]
    for number in range(tasks):
        for queue in QUEUES:
            publish(TaskPublished(f"shop.task_{number}", queue))
            opened = started(f"shop.task_{number}", queue)
            counting.started(opened)
            counting.finished(finished(opened, "failure", exception="ValueError"))
    return at


def check_whole(at: Recorder, tasks: int) -> None:
    """
    Every pair has its own published count, failures and runtimes of 1, and nothing is folded or dropped.
    """
    pairs = [(f"shop.task_{number}", queue) for number in range(tasks) for queue in QUEUES]
    for metric, rest in ((PUBLISHED, ()), (FAILURES, ("ValueError", "false")), (FINISHED, ("failure",))):
        assert {1} == {lane(at, metric, *pair, *rest) for pair in pairs}
        assert not any(OTHER in values for values in values_of(at, metric))
    assert {(*pair, "failure") for pair in pairs} <= values_of(at, RUNTIME)
    assert 0 == lane(at, LABELS_FOLDED, PUBLISHED.name) == lane(at, DROPPED, "no_room")


def test_every_registered_task_has_its_own_numbers_on_every_queue(tmp_path: Path) -> None:
    """
    More tasks than the limit of labels, each from five queues: published, failed and timed under their own names.
    """
    check_whole(run_all(tmp_path, 250), 250)


@pytest.mark.faults
def test_2400_tasks_on_five_queues_are_whole(tmp_path: Path) -> None:
    """
    The size that was measured before: nothing of it goes to ``_other``.
    """
    check_whole(run_all(tmp_path, 2400), 2400)


def test_5000_tasks_are_laid_out_whole_and_take_disk_space_only_for_what_runs(tmp_path: Path) -> None:
    """
    A worker of 5,000 tasks has every series at its start; its file is a hole, but for the tasks that ran.
    """
    at = main_process(tmp_path, shop(0))
    at.declares = lambda label, value: label in {"task", "queue"}
    counting = meter(at)

    counting.prepare([(f"shop.task_{number}", "q0") for number in range(5000)])
    opened = started("shop.task_4999", "q0")
    counting.started(opened)
    counting.finished(finished(opened))

    assert 5001 == len(values_of(at, STARTED)) == len(values_of(at, RECEIVED))
    assert 1 == lane(at, FINISHED, "shop.task_4999", "q0", "success")
    slot = (tmp_path / "w@h.v1" / "slot-0").stat()
    assert slot.st_size > 4_000_000
    assert slot.st_blocks * 512 < 100_000


def test_undeclared_names_crowd_out_nothing_that_is_declared(tmp_path: Path) -> None:
    """
    Names from messages fill the limit first; the app's own tasks and queues are counted apart all the same.
    """
    at = main_process(tmp_path, shop(20), label_limit=3)
    at.open()

    for number in range(10):
        at.count(PUBLISHED, (f"stranger-{number}", "q0"))
    for number in range(20):
        at.count(PUBLISHED, (f"shop.task_{number}", "q1"))

    assert {1} == {lane(at, PUBLISHED, f"shop.task_{number}", "q1") for number in range(20)}
    assert [1, 7] == [lane(at, PUBLISHED, "stranger-2", "q0"), lane(at, PUBLISHED, OTHER, "q0")]
    assert 7 == lane(at, LABELS_FOLDED, PUBLISHED.name)


def test_declared_names_leave_the_limit_to_the_undeclared_ones(tmp_path: Path) -> None:
    """
    A limit of three is one of three strangers, however many tasks were counted before.
    """
    at = main_process(tmp_path, shop(20), label_limit=3)
    at.open()

    for number in range(20):
        at.count(PUBLISHED, (f"shop.task_{number}", "q1"))
    for number in range(5):
        at.count(PUBLISHED, (f"stranger-{number}", "q0"))

    assert [1, 1, 1] == [lane(at, PUBLISHED, f"stranger-{number}", "q0") for number in range(3)]
    assert 2 == lane(at, PUBLISHED, OTHER, "q0")


@pytest.mark.parametrize("limit", [1000, 1200])
def test_what_has_room_is_laid_out_and_the_number_that_is_needed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    """
    A limit that the user set too low cuts no task in half: some are whole, and the log and a file say which setting, and what it takes.
    """
    at = main_process(tmp_path, shop(0), lane_limit=limit)
    counting = meter(at)

    counting.prepare([(f"shop.task_{number}", "q0") for number in range(50)])

    assert at.node is not None
    whole = values_of(at, STARTED) & {(f"shop.task_{number}", "q0") for number in range(50)}
    assert 7 <= len(whole) < 50
    assert whole == values_of(at, RECEIVED) - {("t", "q")}
    assert at.node.layout.lanes <= limit
    told = json.loads((tmp_path / "w@h.v1" / SHORTAGE).read_text())
    assert ("lane_limit", limit, 51 * 116) == (told["setting"], told["given"], told["needed"])
    assert 1 == sum("lane_limit" in line and str(51 * 116) in line for line in caplog.messages)


def test_a_shortage_ends_with_the_worker_that_had_it(tmp_path: Path) -> None:
    """
    A worker that starts with room enough leaves no word of its predecessor's lack.
    """
    at = main_process(tmp_path, shop(0), lane_limit=10)
    at.open()
    at.lay_out([[(STARTED, (f"t{number}", "q"))] for number in range(20)])
    assert (tmp_path / "w@h.v1" / SHORTAGE).exists()
    at.close()

    main_process(tmp_path, shop(0)).open()

    assert not (tmp_path / "w@h.v1" / SHORTAGE).exists()


def test_all_entries_of_a_long_schedule_are_told(tmp_path: Path) -> None:
    """
    5,000 entries: when each is due, was fired, and last did its work.
    """
    at = main_process(tmp_path, shop(0))
    counting = meter(at)
    observer = Recording(at, counting)

    for number in range(5000):
        observer.entry_scheduled(EntryScheduled(f"entry-{number}", 200.0, 100.0))
        observer.entry_fired(EntryFired(f"entry-{number}", 100.0))
        at.set(SUCCEEDED_ENTRY, (f"entry-{number}",), 100.0, at=100.0)

    for metric in (ENTRY_DUE, ENTRY_LAST_FIRED, SUCCEEDED_ENTRY):
        assert {(f"entry-{number}",) for number in range(5000)} == values_of(at, metric)
    assert at.slot is not None
    assert at.node is not None
    assert 15_000 == len(list(at.slot.set_gauges(at.node.layout.gauges)))


def pool(size: int) -> SimpleNamespace:
    """
    A worker with a pool of *size* processes, as far as its state is looked at.
    """
    processes = [SimpleNamespace(index=number, pid=1000 + number) for number in range(size)]
    inner = SimpleNamespace(_pool=processes)
    pool = SimpleNamespace(_pool=inner, num_processes=size)
    return SimpleNamespace(hostname="w@h", pool=pool, pool_cls=SimpleNamespace(__module__="celery.concurrency.prefork"), concurrency=size)


def test_every_process_of_a_pool_of_300_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No place in a large pool goes to ``_other``, for memory and for processor time.
    """
    monkeypatch.setattr("celery_obs.runtime.state.usage", lambda pid: Usage(pid * 1000, pid / 10))
    at = main_process(tmp_path, shop(0))
    at.open()

    WorkerState(pool(300), at).record()

    slots = {"main", *map(str, range(300))}
    assert slots == {slot for _, slot in values_of(at, RESIDENT_MEMORY)} == {slot for _, slot in values_of(at, CPU_SECONDS)}
    assert 129_900 == lane(at, CPU_SECONDS, "w@h", "299")


def test_a_child_that_is_gone_takes_its_gauges_along_and_leaves_its_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A pool that shrinks from six processes to one shows the memory of one; processor time that was used stays counted.
    """
    monkeypatch.setattr("celery_obs.runtime.state.usage", lambda pid: Usage(pid * 1000, 1.0))
    at = main_process(tmp_path, shop(0))
    at.open()
    worker = pool(6)
    looking = WorkerState(worker, at)
    looking.record()

    del worker.pool._pool._pool[1:]
    looking.record()

    assert at.node is not None
    assert at.slot is not None
    shown = set(at.slot.set_gauges(at.node.layout.gauges))
    slots = {slot for (_, slot), place in at.node.layout.places(RESIDENT_MEMORY) if place in shown}
    assert {"main", "0"} == slots
    assert 1000 == lane(at, CPU_SECONDS, "w@h", "5")


def test_a_file_of_the_release_before_is_read_on_with_room_for_more(tmp_path: Path) -> None:
    """
    A slot with a small table of gauges is made anew with a larger one; what it counted, and what it set for good, stays.
    """
    old = Recorder(tmp_path, identify=lambda: Identity(node="w@h", role="child", number=1, attempts=1), gauge_limit=1024)
    old.open()
    old.count(PUBLISHED, ("t", "q"), 7)
    old.set(SUCCEEDED_ENTRY, ("nightly",), 5.0, at=5.0)
    old.close()

    at = recorder(tmp_path)
    at.open()

    assert 7 == lane(at, PUBLISHED, "t", "q")
    assert at.slot is not None
    assert at.node is not None
    assert (MOST_GAUGES, 1) == (at.slot.gauges, len(list(at.slot.set_gauges(at.node.layout.gauges))))


def test_queues_are_declared_by_the_configuration_and_not_by_being_sent_to() -> None:
    """
    Queues of the app's list, its default one and those of its routes are declared; a name that was only sent to is not.
    """
    app = shop(1)
    app.conf.task_routes = {"a.*": {"queue": "routed"}, "b.*": "by-name"}
    names = Declarations([app])
    _ = app.amqp.queues["made-up"]

    declared = [name for name in ("q3", "celery", "routed", "by-name", "made-up", "w-only") if names.include("queue", name)]
    names.consume(["w-only"])

    assert ["q3", "celery", "routed", "by-name"] == declared
    assert names.include("queue", "w-only")


def test_asking_what_an_app_declares_does_not_finalize_it() -> None:
    """
    An app that is not finished declares nothing yet, and is left as it is.
    """
    app = Celery("unfinished", set_as_current=False)
    app.task(name="shop.later")(nothing)

    assert not Declarations([app]).include("task", "shop.later")
    assert not app.finalized
