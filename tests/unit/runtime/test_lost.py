"""
Attempts that came to no end: whatever Celery says, and however often, each is told of once.
"""

from __future__ import annotations

import gc

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from billiard.pool import MaybeEncodingError
from celery.exceptions import Reject
from celery.worker import state as worker_state
from kombu.exceptions import DecodeError

from celery_obs.areas.tasks.events import AttemptKillDecided, AttemptLost, AttemptNotBegun
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.lost import LostAttempts
from celery_obs.runtime.translate import QueueNames
from celery_obs.testing import RaisingErrors


class Request:
    """
    What Celery's main process knows of an attempt: the part that we read.
    """

    def __init__(self, task_id: str = "id", pid: int | None = None) -> None:
        self.id = task_id
        self.name = "t"
        self.worker_pid = pid
        self.delivery_info = {"exchange": "", "routing_key": "work"}
        self.time_start = 1_800_000_000.0
        self.request_dict: dict[str, Any] = {"id": task_id, "retries": 2}
        self.failures: list[object] = []

    def on_failure(self, exc_info: object, *, send_failed_event: bool = True, return_ok: bool = False) -> None:
        self.failures.append((exc_info, send_failed_event))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        self.failures.append(timeout)


@pytest.fixture
def told() -> list[AttemptLost]:
    return []


@pytest.fixture
def lost(told: list[AttemptLost]) -> LostAttempts:
    hub = Hub(on_error=RaisingErrors())
    hub.subscribe(AttemptLost, told.append)
    return LostAttempts(hub, queues=QueueNames(tuple))


def test_what_celery_says_twice_is_told_once(lost: LostAttempts, told: list[AttemptLost]) -> None:
    """
    Of a hard limit Celery 5.7 tells twice.
    """
    request = Request()
    lost.watch(request, queue="q")

    for _ in range(2):
        lost.found("id", "timeout", "TimeLimitExceeded", "too long")

    expected = AttemptLost("t", "q", "id", 2, "timeout", "TimeLimitExceeded", "too long", 1_800_000_000.0, request.request_dict)
    assert [expected] == told


def test_a_process_that_is_gone_is_told_of_at_the_second_look(lost: LostAttempts, told: list[AttemptLost]) -> None:
    """
    With reject_on_worker_lost there is no signal at all; but a result may be on its way for one look.
    """
    request = Request(pid=17)
    lost.watch(request, queue="q")

    lost.look([request], {17, 18})
    lost.look([request], {18})
    after_one_look = list(told)
    lost.look([request], {18})
    lost.look([request], {18})
    lost.found("id", "lost", "WorkerLostError", "late")

    assert ([], ["lost"]) == (after_one_look, [event.state for event in told])


def test_what_celery_hears_and_keeps_to_itself_is_told_once(lost: LostAttempts, told: list[AttemptLost]) -> None:
    """
    With reject_on_worker_lost the message is put back as soon as its process is gone, without a signal and before we look.
    """
    request = Request(pid=17)
    lost.watch(request, queue="q")
    info = SimpleNamespace(exception=WorkerLostError("signal 9"))

    request.on_failure(info, send_failed_event=False)
    lost.found("id", "lost", "WorkerLostError", "late")

    assert ([("lost", "signal 9")], [(info, False)]) == ([(event.state, event.message) for event in told], request.failures)


def by_name(request: Request, soft: bool, timeout: float) -> None:
    """
    Tell of a limit as billiard's pool does.
    """
    request.on_timeout(soft=soft, timeout=timeout)


def by_place(request: Request, soft: bool, timeout: float) -> None:
    """
    Tell of a limit as the pools of greenlets do.
    """
    request.on_timeout(soft, timeout)


@pytest.mark.parametrize("times_out", [by_name, by_place])
def test_a_hard_limit_is_told_of_and_a_soft_one_is_not(
    lost: LostAttempts, told: list[AttemptLost], times_out: Callable[[Request, bool, float], None]
) -> None:
    """
    A pool of greenlets does not tell of a hard limit before Celery 5.7, and every pool tells of it after.
    """
    request = Request()
    lost.watch(request, queue="q")

    times_out(request, True, 1.0)
    times_out(request, False, 2.0)
    lost.found("id", "timeout", "TimeLimitExceeded", "late")

    assert ([("timeout", "It ran for more than its hard time limit, 2.0 s.")], [1.0, 2.0]) == (
        [(event.state, event.message) for event in told],
        request.failures,
    )


def test_a_hard_limit_is_a_verdict_where_celery_fails_to_say_so() -> None:
    """
    A result backend that is away at that moment keeps Celery from sending its signal; the counters need the verdict without traces, logs or errors, too.
    """
    decided: list[AttemptKillDecided] = []
    hub = Hub(on_error=RaisingErrors())
    hub.subscribe(AttemptKillDecided, decided.append)
    request = Request()
    LostAttempts(hub, queues=QueueNames(tuple)).watch(request, queue="q")

    request.on_timeout(soft=True, timeout=1.0)
    request.on_timeout(soft=False, timeout=2.0)

    assert ([AttemptKillDecided("id", "timeout")], [1.0, 2.0]) == (decided, request.failures)


@pytest.mark.parametrize(
    ("error", "options", "told"),
    [
        (ValueError("too many values to unpack"), {}, ["ValueError"]),
        (ExceptionWithTraceback(DecodeError("no JSON"), None), {}, ["DecodeError"]),
        (ValueError("raised by the task"), {"return_ok": True}, []),
        (Reject("no"), {}, []),
        (TimeLimitExceeded(1.0), {}, []),
        (MemoryError("of the task"), {}, []),  # The one that Celery does not return.
        (MaybeEncodingError("the result", "cannot be sent"), {}, []),
    ],
)
def test_an_attempt_that_the_pool_could_not_begin_is_a_failure(error: object, options: dict[str, Any], told: list[str]) -> None:
    """
    A message that cannot be read there, as one that is signed and not well, is told by no signal in the process that got it; what a task raises is.
    """
    events: list[AttemptNotBegun] = []
    hub = Hub(on_error=RaisingErrors())
    hub.subscribe(AttemptNotBegun, events.append)
    request = Request()
    LostAttempts(hub, queues=QueueNames(tuple)).watch(request, queue="work")

    request.on_failure(SimpleNamespace(exception=error), **options)

    assert [AttemptNotBegun("t", "work", each) for each in told] == events
    assert 1 == len(request.failures)


def test_what_a_body_raised_is_no_loss(lost: LostAttempts, told: list[AttemptLost]) -> None:
    """
    Celery hears of every exception in the same way.
    """
    request = Request()
    lost.watch(request, queue="q")

    request.on_failure(SimpleNamespace(exception=ValueError("on purpose")))

    assert [] == told


def test_a_new_attempt_of_the_same_task_is_another_attempt(lost: LostAttempts, told: list[AttemptLost]) -> None:
    """
    A redelivered message has the same id and the same number of retries, and may be lost, too.
    """
    for _ in range(2):
        request = Request()
        lost.watch(request, queue="q")
        lost.found("id", "lost", "WorkerLostError", "gone")

    assert ["id", "id"] == [event.task_id for event in told]


def test_a_request_that_celery_forgot_is_forgotten(lost: LostAttempts, told: list[AttemptLost]) -> None:
    """
    Nothing is kept of attempts that ended.
    """
    lost.watch(Request(), queue="q")
    gc.collect()

    lost.found("id", "lost", "WorkerLostError", "gone")

    assert [] == told


def test_nothing_is_watched_where_nobody_listens() -> None:
    """
    With metrics alone, a message costs no more than before.
    """
    request = Request()

    LostAttempts(Hub(on_error=RaisingErrors()), queues=QueueNames(tuple)).watch(request, queue="q")

    assert "celery_obs_queue" not in vars(request)


@pytest.mark.parametrize("code", [0, 1])
def test_a_cold_shutdown_loses_nothing(lost: LostAttempts, told: list[AttemptLost], monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """
    It takes all attempts with it by order; what it was told to kill for another reason is told of all the same.
    """
    requests = [Request("cut off"), Request("too long")]
    for request in requests:
        lost.watch(request, queue="q")
    monkeypatch.setattr(worker_state, "should_terminate", code)

    lost.found("cut off", "lost", "WorkerLostError", "gone")
    lost.found("too long", "timeout", "TimeLimitExceeded", "too long")

    assert ["too long"] == [event.task_id for event in told]
