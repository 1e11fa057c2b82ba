"""
Attempts counted around Celery's tracers: each once, in the state that the signals would have told, and others hear them still.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celery import Celery, signals
from celery.app.trace import build_tracer, trace_task
from celery.exceptions import Ignore, Reject, Retry

from celery_obs.areas.tasks.events import AttemptOpened, TaskFinished, TaskStarted
from celery_obs.areas.tasks.metrics import CLOCK_SKEW, FAILURES, QUEUE_WAIT
from celery_obs.recorder.attempt_log import AttemptLog, Wanted
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.format import Phase
from celery_obs.recorder.recorder import Recorder
from celery_obs.runtime.apps import Apps
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.observers import Observers
from celery_obs.runtime.publishing import Publishing
from celery_obs.runtime.recording import MetricsObserver
from celery_obs.runtime.signals import Receivers, connect, disconnect
from celery_obs.runtime.tracer import AroundTracer
from celery_obs.runtime.translate import QueueNames
from celery_obs.vocabulary import headers
from tests.unit.recorder.builders import lane, meter, phase, recorder, states
from tests.unit.runtime.test_signals import Life
from tests.workers import celery_version


class Child:
    """
    What a pool process has: tracers, a slot, and what counts around them.
    """

    def __init__(self, folder: Path, *, attempt_bytes: int = 64 * 128) -> None:
        self.errors: list[Exception] = []
        self.app = Celery("traced", broker="memory://", set_as_current=False)
        self.app.conf.task_ignore_result = True
        self.recorder: Recorder = recorder(folder, attempt_bytes=attempt_bytes)
        self.meter: AttemptMeter = meter(self.recorder)
        self.hub = Hub(on_error=self._fail)
        Observers(self.hub).connect([MetricsObserver(self.recorder, attempts=self.meter)], [])
        queues = QueueNames(list)
        self.receivers = Receivers(self.hub, queues=queues, lifecycle=Life(), publishing=Publishing(self.hub, Apps()))
        connect(self.receivers)
        self.around = AroundTracer(self.receivers, self.meter, hub=self.hub, queues=queues)

    def _fail(self, error: Exception, *, component: str) -> None:
        self.errors.append(error)

    def add(self, run: Callable[..., Any], **options: Any) -> Any:
        """
        Add the task ``t``, which does *run*.
        """

        def body() -> Any:  # Celery makes a function of the same name, which a lambda has none for.
            return run()

        self.app.task(name="t", shared=False, **options)(body)
        self.app.finalize()
        task = self.app.tasks["t"]
        task.__trace__ = build_tracer("t", task, app=self.app)
        assert self.around.put({"t": task})
        return task

    def run(self, task: Any, task_id: str = "id-1", **more: Any) -> Any:
        """
        Run it as a pool process does.
        """
        now = time.time() - 0.5
        delivery = {"exchange": "", "routing_key": "q", "redelivered": False}
        facts = {"id": task_id, "task": "t", "retries": 0, "eta": None, "is_eager": False, "delivery_info": delivery}
        return trace_task(task, task_id, (), {}, {**facts, headers.PUBLISHED: now, headers.DUE: now, "errbacks": None, **more})


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """
    A pool process, whose errors fail the test.
    """
    made = Child(tmp_path)
    try:
        yield made
        assert [] == made.errors
    finally:
        made.around.take_away()
        disconnect()
        made.recorder.close()


def _raise(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


def _nothing() -> None:
    """
    Do nothing.
    """


@pytest.mark.parametrize(
    ("run", "state", "exception"),
    [
        (_nothing, "success", ""),
        (_raise(KeyError("no")), "failure", "KeyError"),
        (_raise(Retry(exc=ValueError("later"))), "retry", "ValueError"),
        (_raise(Ignore()), "ignored", ""),
        (_raise(Reject("no")), "rejected", ""),
    ],
)
def test_an_attempt_is_counted_in_its_state(child: Child, run: Callable[..., Any], state: str, exception: str) -> None:
    """
    Each way to end is one start and one outcome, kept with its id, its wait and its exception.
    """
    child.run(child.add(run))

    assert {"started": 1, state: 1} == states(child.recorder)
    (kept,) = AttemptLog(child.recorder.metrics_dir).search(Wanted()).attempts
    assert ("id-1", "t", "q", state, exception) == (kept.id, kept.task, kept.queue, kept.state, kept.exception)
    assert kept.wait is not None
    assert 0.5 <= kept.wait < 60
    assert phase(child.recorder) == Phase.IDLE


def test_hundreds_of_attempts_are_counted_in_batches_and_a_sidecar_sees_each_at_once(child: Child) -> None:
    """
    After each of them, what the lanes have and what the ring has are together all of them.
    """
    from tests.unit.recorder.test_ring import read_by_sidecar

    task = child.add(_nothing)

    for number in range(1, 201):
        child.run(task, f"id-{number}")
        if number % 7 == 0:
            assert {"started": number, "success": number} == read_by_sidecar(child.recorder.metrics_dir)

    assert {"started": 200, "success": 200} == states(child.recorder)


def test_an_attempt_that_runs_is_a_start_without_an_end(child: Child) -> None:
    """
    While it runs, a sidecar reads a start, and no outcome.
    """
    from tests.unit.recorder.test_ring import read_by_sidecar

    seen: list[dict[str, int]] = []
    child.run(child.add(lambda: seen.append(read_by_sidecar(child.recorder.metrics_dir))))

    assert [{"started": 1}] == seen


def test_a_retry_that_is_refused_is_told_as_exhausted(child: Child) -> None:
    """
    What Celery decided while the task ran reaches the count.
    """

    def run() -> None:
        try:
            raise KeyError("no")
        except KeyError as error:
            raise task.retry(exc=error, max_retries=0) from None

    task = child.add(run)
    child.run(task, called_directly=False)

    assert {"started": 1, "failure": 1} == states(child.recorder)
    assert lane(child.recorder, FAILURES, "t", "q", "KeyError", "true") == 1


def test_others_hear_of_attempts_where_their_requests_are_current(child: Child) -> None:
    """
    An observer that comes when attempts are counted around the tracer hears them by the signals, and none is counted twice.
    """
    heard: list[Any] = []
    task = child.add(_nothing)
    child.run(task, "before")
    assert not signals.task_prerun.receivers

    for event_type in (TaskStarted, AttemptOpened, TaskFinished):
        child.hub.subscribe(event_type, lambda event: heard.append((type(event), task.request.id, event)))
    child.run(task, "while")
    for event_type in (TaskStarted, AttemptOpened, TaskFinished):
        child.hub._observers.pop(event_type)
    child.hub.unsubscribe(TaskStarted, heard.append)
    child.run(task, "after")

    assert [(TaskStarted, "while"), (AttemptOpened, "while"), (TaskFinished, "while")] == [each[:2] for each in heard]
    assert (heard[0][2].task_id, heard[2][2].started.task_id, heard[2][2].state) == ("while", "while", "success")
    assert {"started": 3, "success": 3} == states(child.recorder)
    assert not signals.task_prerun.receivers


def test_an_eager_run_inside_is_the_callers_own_work(child: Child) -> None:
    """
    A task that runs another one, or itself, in place is one attempt, whatever becomes of the one inside.
    """
    inner = child.app.task(name="inner", shared=False)(_raise(KeyError("no")))

    child.run(child.add(lambda: inner.apply(task_id="id-1").state))

    assert {"started": 1, "success": 1} == states(child.recorder)


def test_a_process_that_is_told_to_leave_marks_its_attempt(child: Child) -> None:
    """
    SystemExit goes its way, and who follows tells what became of the attempt.
    """
    task = child.add(_raise(SystemExit(3)))

    with pytest.raises(SystemExit):
        child.run(task)

    assert phase(child.recorder) == Phase.INTERRUPTED


@pytest.mark.skipif(celery_version() < (5, 7), reason="Before Celery 5.7 it does not leave the tracer.")
def test_what_a_hook_of_the_task_rejects_is_rejected(child: Child) -> None:
    """
    `Reject` out of ``after_return`` leaves the tracer, and the message is rejected.
    """
    task = child.add(_nothing)
    task.__class__.after_return = lambda *_: (_ for _ in ()).throw(Reject("no"))
    child.around.take_away()
    task.__trace__ = build_tracer("t", task, app=child.app)
    assert child.around.put({"t": task})

    with pytest.raises(Reject):
        child.run(task)

    assert {"started": 1, "rejected": 1} == states(child.recorder)


@pytest.mark.parametrize(
    ("more", "waits"),
    [
        ({headers.PUBLISHED: None, headers.DUE: None}, 0),
        ({headers.PUBLISHED: "nonsense"}, 0),
        ({"eta": "2020-01-01T00:00:00"}, 1),
        ({"retries": "x"}, 1),
        ({"delivery_info": None}, 1),
        ({headers.PUBLISHED: time.time() + 3600}, 1),
    ],
)
def test_any_message_is_counted(child: Child, more: dict[str, Any], waits: int) -> None:
    """
    One with odd or missing headers is an attempt like any other, and a wait is observed where one is known.
    """
    child.run(child.add(_nothing), **more)

    assert waits == _observed(child.recorder, QUEUE_WAIT.name)
    assert len(AttemptLog(child.recorder.metrics_dir).search(Wanted()).attempts) == 1


def _observed(at: Recorder, name: str) -> int:
    """
    How many values all series of a histogram have taken.
    """
    states(at)  # Counts what is in the ring.
    assert at.node is not None
    assert at.slot is not None
    found = [(at.slot.lanes_at + series.at, len(series.family.buckets) + 1) for series in at.node.layout if series.family.name == name]
    return sum(sum(at.slot.words[first : first + buckets].tolist()) for first, buckets in found)


def test_a_clock_that_is_ahead_is_told(child: Child) -> None:
    """
    A message from the future waited for nothing, and is told as skew.
    """
    ahead: dict[str, Any] = {headers.PUBLISHED: time.time() + 3600}

    child.run(child.add(_nothing), **ahead)

    assert lane(child.recorder, CLOCK_SKEW, "q") == 1


def test_long_ids_and_ids_that_are_no_text_are_found(child: Child) -> None:
    """
    Whatever a client took for an id.
    """
    task = child.add(_nothing)
    for task_id in ("x" * 200, "é" * 30, "\ud800"):
        child.run(task, task_id)

        (kept,) = AttemptLog(child.recorder.metrics_dir).search(Wanted(id=task_id)).attempts
        assert kept.state == "success"


def test_a_process_that_keeps_no_attempts_counts_them_all_the_same(tmp_path: Path) -> None:
    """
    Without a ring each attempt is counted by itself.
    """
    child = Child(tmp_path, attempt_bytes=0)
    task = child.add(_nothing)

    for _ in range(3):
        child.run(task)

    assert {"started": 3, "success": 3} == states(child.recorder)
    assert [] == child.errors
    child.around.take_away()
    disconnect()
    child.recorder.close()


def test_an_error_of_ours_is_kept_from_the_task(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The task runs, and its result is its own.
    """
    ran: list[int] = []
    task = child.add(lambda: ran.append(1))
    monkeypatch.setattr(child.meter, "begin", lambda _: 1 / 0)
    child.run(task)
    monkeypatch.undo()
    monkeypatch.setattr(child.meter, "end", lambda *_: 1 / 0)
    child.run(task)
    child.run(task)

    assert [1, 1, 1] == ran
    assert [ZeroDivisionError] * len(child.errors) == [type(error) for error in child.errors]
    assert child.errors
    child.errors.clear()


def test_tracers_are_left_as_they_were(child: Child) -> None:
    """
    Taken away, attempts are told by the signals again.
    """
    task = child.add(_nothing)
    ours = task.__trace__
    child.around.take_away()
    child.run(task)

    assert task.__trace__ is ours.__wrapped__
    assert {"started": 1, "success": 1} == states(child.recorder)
