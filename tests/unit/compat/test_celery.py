"""
What we assume of Celery holds on the version that is installed.
"""

from __future__ import annotations

import inspect
import sys

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from celery import Celery, Task, _state, current_app, signals
from celery.app import trace
from celery.app.amqp import AMQP
from celery.beat import PersistentScheduler, Scheduler, Service
from celery.exceptions import Retry
from celery.schedules import crontab, schedule
from celery.utils.dispatch import Signal
from celery.utils.timer2 import Timer
from celery.worker.request import Request
from kombu.utils.objects import cached_property

from celery_obs.compat import celery as compat


def _nothing(*_: object) -> None:
    """
    Do nothing.
    """


@pytest.fixture
def app() -> Celery:
    """
    An app that has done nothing yet.
    """
    return Celery("compat", broker="memory://", set_as_current=False)


def test_a_proxy_stands_for_its_app(app: Celery) -> None:
    """
    The object behind `current_app` is the app itself, and an app's loader names it where the proxy cannot say.
    """
    assert compat.object_of(current_app) is _state.get_current_app()
    assert app.loader.app is app
    assert compat.object_of(SimpleNamespace(loader=app.loader)) is app


def test_asking_for_the_current_app_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where no app is current there is none, and the one that becomes current is found.
    """
    monkeypatch.setattr(_state, "default_app", None)
    monkeypatch.setattr(_state, "_tls", type(_state._tls)())
    assert compat.current_app_if_any() is None

    made = Celery("current", set_as_current=True)

    assert compat.current_app_if_any() is made


def test_an_app_that_is_finalised_is_heard(monkeypatch: pytest.MonkeyPatch, app: Celery) -> None:
    """
    What is connected is called with each app that is finalised.
    """
    monkeypatch.setattr(_state, "_on_app_finalizers", set())
    heard: list[Any] = []
    compat.on_app_finalize(heard.append)

    app.finalize()

    assert heard == [app]


def test_what_an_app_has_made_is_seen_and_never_made(app: Celery) -> None:
    """
    What an app sends with, and the queues, are there after the app has asked for them, and not before.
    """
    assert compat.amqp_of(app) is None
    assert compat.queues_of(app) == {}
    amqp: Any = app.amqp
    assert compat.amqp_of(app) is amqp
    assert compat.queues_of(app) == {}
    queues = app.amqp.queues
    assert compat.queues_of(app) is queues


def test_the_registry_is_seen_before_the_app_is_finalised(app: Celery) -> None:
    """
    Looking for tasks finalises no app, and finds the very table that the app uses.
    """
    found = compat.registry_of(app)
    assert not app.finalized
    assert found is app.tasks
    assert app.finalized


def test_without_the_private_registry_the_public_one_is_read_once_it_is_whole() -> None:
    """
    A Celery that keeps its registry elsewhere loses tasks of apps that are not finalised, and no more.
    """
    assert compat.registry_of(SimpleNamespace(finalized=False, tasks={"a": 1})) == {}
    assert compat.registry_of(SimpleNamespace(finalized=True, tasks={"a": 1})) == {"a": 1}


def test_one_method_sends_every_task_message(app: Celery) -> None:
    """
    It is made once and kept under its name, and what is put in its place is what a publish calls.
    """
    assert isinstance(inspect.getattr_static(AMQP, compat.SEND), cached_property)
    seen: list[Any] = []
    setattr(app.amqp, compat.SEND, lambda producer, name, message, **_: seen.append((name, message[0]["task"])))

    app.send_task("compat.task")
    theirs = compat.send_of(app.amqp)

    assert seen == [("compat.task", "compat.task")]
    assert theirs is not getattr(app.amqp, compat.SEND)
    assert list(inspect.signature(theirs).parameters)[:3] == ["producer", "name", "message"]


def test_a_threads_request_is_found_without_asking_for_it(app: Celery) -> None:
    """
    The fast way is there, and says the same as the property.
    """
    task = app.task(name="compat.asked")(_nothing)
    task.push_request(id="1")
    try:
        local = task.request_stack._local
        assert local.__storage__[local.__ident_func__()]["stack"][-1] is task.request_stack.top
        assert compat.request_facts(task) is task.request_stack.top.__dict__
    finally:
        task.pop_request()


def test_a_request_without_that_storage_is_found_all_the_same() -> None:
    """
    The property is read where Celery keeps requests otherwise.
    """
    top = SimpleNamespace(id="1")
    assert compat.request_facts(SimpleNamespace(request_stack=SimpleNamespace(top=top))) is top.__dict__


def test_the_pool_tells_a_request_by_these_methods() -> None:
    """
    Both take what we read of them.
    """
    failure, timeout = (inspect.signature(getattr(Request, name)).parameters for name in compat.REQUEST_METHODS)
    assert list(failure)[1] == "exc_info"
    assert failure["return_ok"].default is False
    assert list(timeout) == ["self", "soft", "timeout"]


def test_a_request_knows_whether_it_was_taken_back() -> None:
    """
    Neither mark is set on a request that nothing was done to, and each of them counts.
    """
    request = Request.__new__(Request)
    assert not compat.is_taken_back(request)
    request._already_cancelled = True
    assert compat.is_taken_back(request)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_refused_retry_is_seen_in_its_frame(app: Celery, retries: int) -> None:
    """
    A retry beyond the maximum is refused, and one within it is not.
    """
    task: Task = app.task(name=f"compat.retried.{retries}", bind=True, max_retries=3)(_nothing)
    task.push_request(id="1", retries=retries, called_directly=False, is_eager=True, args=(), kwargs={})
    try:
        with pytest.raises((ZeroDivisionError, Retry)) as caught:
            task.retry(exc=ZeroDivisionError(), throw=True, countdown=60) if retries else _retried(task)
        assert compat.is_refused_retry(caught.value.__traceback__, compat.request_facts(task)) is bool(retries)
        assert not compat.is_refused_retry(caught.value.__traceback__, {})
    finally:
        task.pop_request()


def _retried(task: Task) -> None:
    """
    Have Celery raise of the retry that it grants, without sending it anywhere.
    """
    task.request.is_eager = False
    task.signature_from_request = lambda *_, **__: SimpleNamespace(apply_async=lambda: None)
    task.retry(exc=ZeroDivisionError(), countdown=60)


def test_tasks_that_wait_for_their_time_are_counted() -> None:
    """
    The timer's queue lists what waits, each with the request that it will be given.
    """
    timer = Timer()
    request = Request.__new__(Request)
    timer.schedule.enter_after(60, timer.schedule.Entry(print, (request,), {}))
    timer.schedule.enter_after(60, timer.schedule.Entry(print, (), {}))

    assert compat.scheduled_requests(SimpleNamespace(consumer=SimpleNamespace(timer=timer))) == 1
    assert compat.scheduled_requests(SimpleNamespace()) == 0


def test_the_function_behind_autoretry_is_kept(app: Celery) -> None:
    """
    Celery keeps the user's function beside the wrapper.
    """

    def run() -> None:
        """
        Do nothing.
        """

    wrapped = app.task(name="compat.wrapped", autoretry_for=(KeyError,), lazy=False)(run)
    bare = app.task(name="compat.bare", lazy=False)(run)
    assert wrapped.run is not run
    assert compat.run_without_autoretry(wrapped) is run
    assert compat.run_without_autoretry(bare) == bare.run


def test_the_class_that_celery_makes_for_an_app_is_told_from_others(app: Celery) -> None:
    """
    Only the class that Celery derives for an app has the app in itself.
    """
    assert compat.is_class_of_an_app(app.Task)
    assert not compat.is_class_of_an_app(type("Mine", (Task,), {}))


def test_the_consumer_takes_the_tracer_that_is_there_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The consumer has the tracer's maker by name, and gets what is there now.
    """
    import celery.app.trace

    from celery.worker.consumer import consumer

    theirs = consumer.build_tracer
    assert theirs is celery.app.trace.build_tracer
    monkeypatch.setattr(consumer, "build_tracer", theirs)
    monkeypatch.setattr(celery.app.trace, "build_tracer", print)
    compat.patch_consumer_tracer()
    assert consumer.build_tracer is print
    assert sys.modules["celery.worker.consumer.consumer"] is consumer


def test_a_crontab_keeps_what_was_written() -> None:
    """
    The fields are as they were written, in cron's order; another schedule has none.
    """
    assert compat.crontab_fields(crontab(minute="*/5", hour=3, day_of_month="1,15", month_of_year="2", day_of_week="mon")) == (
        "*/5",
        3,
        "1,15",
        "2",
        "mon",
    )
    assert compat.crontab_fields(schedule(60)) is None


@pytest.mark.parametrize("kind", [Scheduler, PersistentScheduler])
def test_these_methods_of_a_scheduler_decide(kind: type) -> None:
    """
    Celery's own schedulers have them in common, so that one of them which is replaced shows.
    """
    for name in compat.SCHEDULER_METHODS:
        assert getattr(kind, name) is getattr(Scheduler, name)


def test_a_scheduler_waits_for_its_broker_in_one_method() -> None:
    """
    It takes no arguments, and what asks for a connection goes through it.
    """
    assert list(inspect.signature(getattr(Scheduler, compat.CONNECT)).parameters) == ["self"]
    assert f"self.{compat.CONNECT}()" in inspect.getsource(Scheduler)


def test_beat_starts_in_one_method() -> None:
    """
    It is the method in which the service goes through its schedule.
    """
    assert "self.scheduler" in inspect.getsource(getattr(Service, compat.START))


def _answer() -> int:
    return 42


@pytest.fixture
def traced(app: Celery) -> Iterator[Callable[[], Any]]:
    """
    Run a task as a pool does; with no receivers but those of the test.
    """
    held = [(signal, list(signal.receivers or ())) for signal in (signals.task_prerun, signals.task_postrun)]
    for signal, _ in held:
        signal.receivers[:] = []
    app.task(name="traced")(_answer)
    app.finalize()
    run = trace.build_tracer("traced", app.tasks["traced"], app=app)
    yield lambda: run("id-1", (), {}, {"id": "id-1", "delivery_info": {}})
    for signal, receivers in held:
        signal.receivers[:] = receivers


class _Heard(list[Any]):
    """
    A receiver that takes down what it hears.
    """

    def __call__(self, task: Any = None, state: Any = None, retval: Any = None, **_: object) -> None:
        self.append((task.name, state, retval))

    def __hash__(self) -> int:  # type: ignore[override]  # Celery keeps receivers by their identity.
        return id(self)


def test_a_lone_receiver_is_called_by_the_tracer_itself(traced: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It hears what Celery's dispatch would tell it, without the dispatch; undone, the dispatch calls it again.
    """
    hear, dispatched = _Heard(), list[object]()
    signal = signals.task_postrun
    signal.connect(hear, weak=False)
    find = signal._live_receivers

    def noted(sender: object) -> Any:
        dispatched.append(sender)
        return find(sender)

    monkeypatch.setattr(signal, "_live_receivers", noted)
    undo = compat.call_in_place(signal, hear)
    assert undo is not None

    traced()
    assert ([("traced", "SUCCESS", 42)], 0) == (hear, len(dispatched))

    undo()
    traced()
    assert ([("traced", "SUCCESS", 42)] * 2, 1) == (hear, len(dispatched))


def test_several_receivers_are_called_by_celery_in_their_order(traced: Callable[[], Any]) -> None:
    """
    When others connect and leave, each hears each attempt once while it listens.
    """
    first, hear, last = _Heard(), _Heard(), _Heard()
    signal = signals.task_postrun
    signal.connect(hear, weak=False)
    undo = compat.call_in_place(signal, hear)
    assert undo is not None

    traced()
    signal.connect(last, weak=False)
    traced()
    signal.disconnect(hear)
    traced()
    signal.disconnect(last)
    signal.connect(first, weak=False)
    traced()
    undo()

    assert (1, 2, 2) == (len(first), len(hear), len(last))


def test_a_tracer_that_another_has_changed_is_left_alone(traced: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the tracer does not send as expected, nothing is changed, and the dispatch goes on.
    """
    other = _Heard()
    monkeypatch.setattr(trace, "send_postrun", lambda task, **_: other(task))

    assert compat.call_in_place(signals.task_postrun, _Heard()) is None
    signals.task_postrun.connect(_Heard(), weak=False)
    traced()
    assert len(other) == 1


def test_receivers_are_remembered_until_they_change_and_for_so_many_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A receiver that comes or goes is heard of at the next send, and names without end take no memory without end.
    """
    monkeypatch.setattr(compat, "_MOST_SENDERS", 10)
    signal, heard = Signal(name="ours"), list[object]()

    def hear(sender: object, **_: object) -> None:
        heard.append(sender)

    compat.remember_receivers([signal])
    signal.connect(hear, weak=False)
    for number in range(25):
        signal.send(sender=f"sender {number}")
    signal.send(sender="sender 1")
    assert (26, True) == (len(heard), len(signal.sender_receivers_cache) <= 10)

    signal.disconnect(hear)
    signal.send(sender="sender 1")
    assert len(heard) == 26
    assert signal.use_caching


def test_a_tracer_answers_with_what_became_of_the_task_to_what_is_put_around_it(app: Celery) -> None:
    """
    It is called with a task's id, arguments and request; None says success, else there is Celery's state; and it can be taken away.
    """

    def end(how: str) -> str:
        if how == "fail":
            raise KeyError(how)
        if how == "retry":
            raise Retry("again")
        return how

    task = app.task(name="end", shared=False)(end)
    app.finalize()
    task = app.tasks["end"]
    task.__trace__ = trace.build_tracer("end", task, app=app)
    seen: list[Any] = []

    def around(name: str, traced: Callable[..., Any]) -> Callable[..., Any]:
        def call(uuid: Any, args: Any, kwargs: Any, request: Any = None) -> Any:
            answer = traced(uuid, args, kwargs, request)
            seen.append((name, uuid, args, request["id"], answer[1] and answer[1].state, type(answer[1] and answer[1].retval)))
            return answer

        return call

    undo = compat.put_around_tracers({"end": task}, around)
    assert undo is not None
    for how in ("well", "fail", "retry"):
        trace.trace_task(task, how, (how,), {}, {"id": how, "delivery_info": {}})
    undo()
    trace.trace_task(task, "again", ("well",), {}, {"id": "again", "delivery_info": {}})

    assert [
        ("end", "well", ("well",), "well", None, type(None)),
        ("end", "fail", ("fail",), "fail", "FAILURE", KeyError),
        ("end", "retry", ("retry",), "retry", "RETRY", Retry),
    ] == seen


@pytest.mark.parametrize("tracer", [None, lambda *args: None, lambda uuid, args, kwargs: None], ids=["none", "any", "fewer"])
def test_nothing_is_put_around_tracers_that_are_not_as_expected(tracer: Any) -> None:
    """
    One that takes other arguments, or is not there, leaves all as they are.
    """

    def expected(uuid: Any, args: Any, kwargs: Any, request: Any = None) -> None:
        """
        Take what Celery's own takes.
        """

    tasks = {"one": SimpleNamespace(__trace__=expected), "two": SimpleNamespace(__trace__=tracer)}

    assert compat.put_around_tracers(tasks, lambda _, traced: traced) is None
    assert tasks["one"].__trace__ is expected
    assert tasks["two"].__trace__ is tracer
