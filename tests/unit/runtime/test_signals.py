"""
Signals: what each of Celery's tells us, and that none of ours reaches Celery.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from time import time
from types import SimpleNamespace
from typing import Any

import pytest

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery, Task
from celery.exceptions import Retry

from celery_obs.areas.tasks.events import (
    AttemptInterrupted,
    AttemptKillDecided,
    AttemptLost,
    AttemptOpened,
    AttemptRaised,
    PublishStarted,
    TaskDiscarded,
    TaskFinished,
    TaskPublished,
    TaskReceived,
    TaskRetried,
    TaskStarted,
)
from celery_obs.areas.tasks.metrics import MALFORMED, UNREGISTERED
from celery_obs.runtime.apps import Apps
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.publishing import Publishing
from celery_obs.runtime.signals import TABLE, Receivers, connect, disconnect
from celery_obs.runtime.translate import Binding, QueueNames
from celery_obs.vocabulary import headers as stamps


HEARD = (
    AttemptInterrupted,
    AttemptKillDecided,
    AttemptLost,
    AttemptRaised,
    PublishStarted,
    TaskDiscarded,
    TaskFinished,
    TaskPublished,
    TaskReceived,
    TaskRetried,
    TaskStarted,
)
INFO = {"exchange": "", "routing_key": "work"}


class Life:
    """
    Is told of processes that come and go, and writes it down.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.is_settled = True

    def publisher_started(self) -> bool:
        self.told.append(("publisher", None))
        return self.is_settled

    def child_started(self, node: str | None) -> None:
        self.told.append(("child", node))

    def child_stopping(self, exitcode: int) -> None:
        self.told.append(("leaving", exitcode))

    def program_started(self, sender: Any) -> None:
        self.told.append(("program", sender))

    def beat_started(self, service: Any) -> None:
        self.told.append(("beat", service))


class Rig:
    """
    The receivers of a process, and what they say.
    """

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.events: list[Any] = []
        self.life = Life()
        self.hub = Hub(on_error=self._fail)
        for event_type in HEARD:
            self.hub.subscribe(event_type, self.events.append)
        queues = QueueNames(lambda: [Binding("work", "", "direct", "work", "")])
        self.receivers = Receivers(self.hub, queues=queues, lifecycle=self.life, publishing=Publishing(self.hub, Apps()))

    def _fail(self, error: Exception, *, component: str) -> None:
        self.errors.append(error)

    def of(self, event_type: type) -> list[Any]:
        """
        Return what was heard of one type.
        """
        return [event for event in self.events if type(event) is event_type]

    def received(self, **more: Any) -> Any:
        """
        Have a message come that waits in the pool; return Celery's request.
        """
        request = Request(**more)
        self.receivers.task_received(request=request)
        return request


class Request:
    """
    What Celery's main process knows of a message: the part that we read.
    """

    def __init__(self, name: str = "shop.order", task_id: str = "id-1") -> None:
        self.id = task_id
        self.name = name
        self.delivery_info = INFO
        self.time_start = 1_800_000_000.0
        self.request_dict: dict[str, Any] = {"id": task_id, "retries": 1}

    def on_failure(self, exc_info: object, **_: object) -> None:
        """
        As the pool calls it.
        """

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """
        As the pool calls it.
        """


@pytest.fixture
def rig() -> Rig:
    """
    The receivers of a process.
    """
    return Rig()


@pytest.fixture
def task() -> Iterator[Task]:
    """
    A task that runs: its request is this thread's.
    """
    app = Celery("shop", set_as_current=False)

    @app.task(name="shop.order", shared=False, throws=(KeyError,))  # type: ignore[untyped-decorator]  # Celery has no types.
    def order() -> None:
        pass

    order.push_request(id="id-1", delivery_info=INFO, retries=0, headers=None, **{stamps.PUBLISHED: time() - 2.0})
    yield order
    order.pop_request()


# -- an attempt -------------------------------------------------------------------------------------------------------


def test_an_attempt_is_told_from_its_beginning_to_its_end(rig: Rig, task: Task) -> None:
    """
    The end names its beginning, the same object.
    """
    rig.receivers.task_prerun(task, "id-1")
    rig.receivers.task_postrun(task, "SUCCESS", None, "id-1")

    started, finished = rig.events
    assert ("shop.order", "work", "id-1") == (started.task, started.queue, started.task_id)
    assert finished.started is started
    assert ("success", []) == (finished.state, rig.errors)


def test_who_opens_something_for_an_attempt_gets_what_its_message_carries(rig: Rig, task: Task) -> None:
    """
    A span or a log context goes on from there.
    """
    opened: list[AttemptOpened] = []
    rig.hub.subscribe(AttemptOpened, opened.append)

    rig.receivers.task_prerun(task, 17)  # type: ignore[arg-type]  # As Celery hands it on.

    assert "17" == opened[0].started.task_id
    assert stamps.PUBLISHED in opened[0].carrier


def test_an_attempt_without_a_state_was_interrupted(rig: Rig, task: Task) -> None:
    """
    It is being unwound, as by a revocation in the middle.
    """
    rig.receivers.task_prerun(task, "id-1")
    rig.receivers.task_postrun(task, None)

    assert [TaskStarted, AttemptInterrupted] == [type(event) for event in rig.events]


def test_an_attempt_that_we_did_not_see_begin_does_not_end(rig: Rig, task: Task) -> None:
    """
    It began before we were there.
    """
    rig.receivers.task_postrun(task, "SUCCESS")

    assert ([], []) == (rig.events, rig.errors)


def test_an_eager_run_is_its_callers(rig: Rig, task: Task) -> None:
    """
    ``apply()`` is a call, not an attempt.
    """
    task.push_request(id="eager", is_eager=True)
    rig.receivers.task_prerun(task, "eager")
    task.pop_request()

    assert [] == rig.events


def test_what_is_ignored_is_told_nowhere(rig: Rig, task: Task) -> None:
    """
    From its publish to its end, whatever becomes of it.
    """
    rig.receivers.ignore(("shop.*",))

    rig.receivers.before_task_publish({"task": "shop.order"}, sender="shop.order")
    rig.receivers.after_task_publish("shop.order", "", "work")
    rig.received()
    rig.receivers.task_revoked(task, Request())
    rig.receivers.task_prerun(task, "id-1")
    rig.receivers.task_postrun(task, "SUCCESS")

    assert ([], []) == (rig.events, rig.errors)


@pytest.mark.parametrize(("error", "expected"), [(ValueError("wrong"), False), (KeyError("known"), True)])
def test_what_a_body_raises_is_told_with_whether_it_says_so(rig: Rig, task: Task, error: Exception, expected: bool) -> None:
    """
    Errors that a task lists under ``throws`` are expected.
    """
    rig.receivers.task_prerun(task, "id-1")
    rig.receivers.task_failure(task, "id-1", error)

    [raised] = rig.of(AttemptRaised)
    assert ("failure", error, expected) == (raised.state, raised.error, raised.expected)


def test_a_retry_is_told_with_its_cause(rig: Rig, task: Task) -> None:
    """
    The reason is Celery's, the cause is the task's.
    """
    cause = ValueError("not yet")
    rig.receivers.task_prerun(task, "id-1")

    rig.receivers.task_retry(task, SimpleNamespace(id="id-1"), Retry("again", exc=cause))
    rig.receivers.task_retry(task, SimpleNamespace(id="id-1"), Retry("again"))

    assert [("retry", cause, True), ("retry", None, True)] == [(each.state, each.error, each.expected) for each in rig.of(AttemptRaised)]


# -- what the main process knows --------------------------------------------------------------------------------------


def test_a_message_that_comes_is_told(rig: Rig) -> None:
    """
    By its task and its queue.
    """
    rig.received()

    assert [TaskReceived("shop.order", "work")] == rig.events


def test_messages_that_never_run_are_told(rig: Rig, task: Task) -> None:
    """
    Revoked, malformed or of a task that is not registered here.
    """
    message = SimpleNamespace(delivery_info=INFO)

    rig.receivers.task_revoked(task, Request(), terminated=False)
    rig.receivers.task_rejected(message)
    rig.receivers.task_unknown(message)

    names = ("shop.order", "revoked"), (MALFORMED, "rejected"), (UNREGISTERED, "rejected")
    assert [(name, "work", state) for name, state in names] == rig.of(TaskDiscarded)


def test_an_attempt_that_is_killed_for_its_revocation_is_told_once(rig: Rig, task: Task) -> None:
    """
    Celery may say so twice.
    """
    request = rig.received()

    for _ in range(2):
        rig.receivers.task_revoked(task, request, terminated=True)

    [lost] = rig.of(AttemptLost)
    assert ("id-1", "terminated") == (lost.task_id, lost.state)
    assert [AttemptKillDecided("id-1", "terminated")] == rig.of(AttemptKillDecided)


@pytest.mark.parametrize(
    ("error", "state", "decided"),
    [
        (TimeLimitExceeded(30), "timeout", [AttemptKillDecided("id-1", "timeout")]),
        (WorkerLostError("signal 9"), "lost", []),
        (ValueError("of its own"), None, []),
    ],
)
def test_the_main_process_tells_of_attempts_that_come_to_no_end(rig: Rig, error: Exception, state: str | None, decided: list[Any]) -> None:
    """
    A hard time limit and a process that died; what a body raised is told by its own process.
    """
    request = rig.received()

    rig.receivers.task_failure(SimpleNamespace(name="shop.order"), request.id, error)

    assert ([] if state is None else [state], decided) == ([each.state for each in rig.of(AttemptLost)], rig.of(AttemptKillDecided))
    assert [] == rig.errors


def test_a_retry_of_a_lost_attempt_is_a_retry_and_a_loss(rig: Rig) -> None:
    """
    The main process published it, because the attempt's own could not.
    """
    request = rig.received()

    rig.receivers.task_retry(SimpleNamespace(name="shop.order"), request, Retry("again", exc=WorkerLostError("signal 9")))

    assert [TaskRetried("shop.order", "work", "WorkerLostError")] == rig.of(TaskRetried)
    assert ["lost"] == [each.state for each in rig.of(AttemptLost)]


@pytest.mark.parametrize(("acks_late", "states"), [(True, ["lost"]), (False, [])])
def test_a_cancelled_attempt_is_lost_where_its_message_comes_again(rig: Rig, acks_late: bool, states: list[str]) -> None:
    """
    The connection to the broker went, and Celery cancels what would be delivered twice.
    """
    request = rig.received()

    rig.receivers.task_retry(SimpleNamespace(name="shop.order", acks_late=acks_late), request, None)

    assert states == [each.state for each in rig.of(AttemptLost)]


# -- publishing -------------------------------------------------------------------------------------------------------


def test_a_message_is_stamped_and_told(rig: Rig) -> None:
    """
    When it was published, and when it is due; and to what queue it went.
    """
    headers: dict[str, Any] = {"task": "shop.order", "id": "id-1"}

    rig.receivers.before_task_publish(headers, exchange="", routing_key="work", sender="shop.order")
    rig.receivers.after_task_publish("shop.order", "", "work")

    assert headers[stamps.PUBLISHED] == headers[stamps.DUE] == pytest.approx(time(), abs=60)
    started, published = rig.events
    assert ("shop.order", "work") == (started.task, started.queue) == (published.task, published.queue)


def test_a_message_with_an_eta_is_due_then_and_a_retry_stays_due(rig: Rig) -> None:
    """
    The time of the first publish counts for its latency, and not that of the last.
    """
    eta = time() + 600.0
    later: dict[str, Any] = {"task": "t", "eta": datetime.fromtimestamp(eta, tz=timezone.utc).isoformat()}
    again: dict[str, Any] = {"task": "t", "retries": 1, stamps.DUE: 5.0, stamps.PUBLISHED: 5.0}
    unknown: dict[str, Any] = {"task": "t", "retries": 1}

    for headers in (later, again, unknown):
        rig.receivers.before_task_publish(headers, sender="t")

    assert later[stamps.DUE] == pytest.approx(eta, abs=1)
    assert (5.0, True) == (again[stamps.DUE], again[stamps.PUBLISHED] > 5.0)
    assert unknown[stamps.DUE] == unknown[stamps.PUBLISHED]


def test_our_tasks_are_told_by_their_full_names(rig: Rig) -> None:
    """
    Programs publish them under the bare ones, too.
    """
    rig.receivers.rename({"take_census": "channel_manager.take_census"})

    rig.receivers.before_task_publish({"task": "take_census"}, sender="take_census")
    rig.receivers.after_task_publish("take_census", "elsewhere", "work")

    assert {"channel_manager.take_census"} == {event.task for event in rig.events}


def test_the_process_is_asked_until_it_has_settled_what_it_is(rig: Rig) -> None:
    """
    Before the first message is stamped, and no more once that is settled.
    """
    rig.life.is_settled = False
    rig.receivers.before_task_publish({"task": "t"}, sender="t")
    rig.life.is_settled = True
    for _ in range(3):
        rig.receivers.before_task_publish({"task": "t"}, sender="t")

    assert [("publisher", None)] * 2 == rig.life.told


def test_in_beat_a_message_says_which_entry_it_is_of(rig: Rig) -> None:
    """
    Beat writes it on before all else.
    """
    rig.receivers.firing = lambda headers: headers.update({stamps.ENTRY: "nightly"})
    headers: dict[str, Any] = {"task": "t"}

    rig.receivers.before_task_publish(headers, sender="t")

    assert "nightly" == headers[stamps.ENTRY]


# -- processes --------------------------------------------------------------------------------------------------------


def test_processes_that_come_and_go_are_told(rig: Rig) -> None:
    """
    With what Celery says of them.
    """
    rig.receivers.worker_process_init("w@host")
    rig.receivers.worker_process_init(None)
    rig.receivers.worker_process_shutdown(exitcode=155)
    rig.receivers.import_modules("app")
    rig.receivers.beat_init("service")

    assert [("child", "w@host"), ("child", None), ("leaving", 155), ("program", "app"), ("beat", "service")] == rig.life.told


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({method.__name__ for _, method in TABLE} - {"beat_init"}))
def test_no_error_of_ours_reaches_celery(rig: Rig, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each receiver guards itself, whatever it is given, and the error is told.
    """

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("ours")

    for method in ("publisher_started", "child_started", "child_stopping", "program_started"):
        monkeypatch.setattr(rig.life, method, fail)
    junk = Junk()
    arguments = {"task_prerun": (junk, "id"), "task_postrun": (junk, "SUCCESS"), "task_revoked": (junk,), "task_failure": (junk, Junk())}

    getattr(rig.receivers, name)(*arguments.get(name, (junk,)))

    assert 1 == len(rig.errors)


class Junk:
    """
    Whatever one asks it, it raises.
    """

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)

    def __str__(self) -> str:
        raise LookupError

    __hash__ = None  # type: ignore[assignment]  # Nor can it be looked up.


def test_wrong_settings_end_beat_where_it_starts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is the one receiver that may: a person is watching.
    """

    def refuse(service: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(rig.life, "beat_started", refuse)

    with pytest.raises(SystemExit):
        rig.receivers.beat_init("service")


def test_receivers_are_connected_once_and_taken_off(rig: Rig) -> None:
    """
    By their names, so that the next ones find none of them.
    """

    def ours() -> int:
        return sum(1 for signal, method in TABLE for (uid, _), _ in signal.receivers if uid == f"celery_obs.{method.__name__}")

    disconnect()
    connect(rig.receivers)
    connect(rig.receivers)
    connected = ours()
    disconnect()

    assert (len(TABLE), 0) == (connected, ours())
