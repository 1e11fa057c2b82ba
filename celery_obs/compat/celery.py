"""
Celery: its apps, requests and schedulers from within.
"""

from __future__ import annotations

import sys

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final

from celery import Task
from celery.utils.dispatch import Signal


__all__ = [
    "CONNECT",
    "REQUEST_METHODS",
    "SCHEDULER_METHODS",
    "SEND",
    "START",
    "amqp_of",
    "call_in_place",
    "crontab_fields",
    "current_app_if_any",
    "is_class_of_an_app",
    "is_refused_retry",
    "is_taken_back",
    "object_of",
    "on_app_finalize",
    "patch_consumer_tracer",
    "put_around_tracers",
    "queues_of",
    "registry_of",
    "remember_receivers",
    "request_facts",
    "run_without_autoretry",
    "scheduled_requests",
    "send_of",
]


# -- apps ---------------------------------------------------------------------------------------------------------------


def object_of(app: Any) -> Any:
    """
    Return the app that a proxy such as ``celery.current_app`` stands for.

    Assumes: ``celery.local.Proxy`` has ``_get_current_object``.
    Seen on: Celery 5.4 to 5.7.
    Lost: nothing, as long as an app's loader names its app: that is asked instead.
    """
    current = getattr(app, "_get_current_object", None)
    return app.loader.app if current is None else current()


def current_app_if_any() -> Any | None:
    """
    Return the app that is current in this thread; None where there is none yet, for asking Celery makes one.

    Assumes: ``celery._state`` has ``_tls.current_app`` and ``default_app``, each None before there is one.
    Seen on: Celery 5.4 to 5.7.
    Lost: Django projects that do not name their app in ``CELERY_OBS_APP`` are not observed, and say so in the log.
    """
    from celery import _state  # If it is gone, that is an error here, and not for all that import this file.

    return _state._tls.current_app or _state.default_app


def on_app_finalize(hear: Callable[[Any], object]) -> None:
    """
    Have *hear* called with each app that is finalised from now on.

    Assumes: ``celery._state.connect_on_app_finalize``.
    Seen on: Celery 5.4 to 5.7.
    Lost: Django projects whose app is made after Django's start, and is not named in ``CELERY_OBS_APP``, are not observed.
    """
    from celery import _state

    _state.connect_on_app_finalize(hear)


def amqp_of(app: Any) -> Any | None:
    """
    Return what *app* sends its messages with, if it has made that already.

    Assumes: ``Celery.amqp`` is a cached property, whose value lies in the app's ``__dict__`` under the same name.
    Seen on: Celery 5.4 to 5.7.
    Lost: publishes that fail are not told, and queues are known only from the configuration.
    """
    return app.__dict__.get("amqp")


def queues_of(app: Any) -> Mapping[str, Any]:
    """
    Return the queues that *app* knows, by name; none before it has asked for them itself.

    Assumes: ``AMQP.queues`` is a cached property, whose value lies in its ``__dict__`` under the same name.
    Seen on: Celery 5.4 to 5.7.
    Lost: a task's queue is shown as its routing key, and queues are known to the sidecar only from the configuration.
    """
    amqp = amqp_of(app)
    found: Mapping[str, Any] = {} if amqp is None else amqp.__dict__.get("queues") or {}
    return found


def registry_of(app: Any) -> Mapping[str, Any]:
    """
    Return the tasks that *app* has made so far, by name.  Its public registry would make all others, too.

    Assumes: ``Celery._tasks`` is the registry that ``Celery.tasks`` returns after it has finalised the app.
    Seen on: Celery 5.4 to 5.7.
    Lost: the tasks of an app that is not finalised yet are not seen; of one that is, the public registry is read instead.
    """
    tasks: Mapping[str, Any] | None = getattr(app, "_tasks", None)
    if tasks is None:
        tasks = app.tasks if app.finalized else {}
    return tasks


# -- publishing ---------------------------------------------------------------------------------------------------------


SEND: Final = "send_task_message"
"""
The name of the method that sends every task message.

Assumes: ``AMQP.send_task_message(producer, name, message, …)`` is a cached property, is called for each task message, and has its headers at ``message[0]``.
Seen on: Celery 5.4 to 5.7.
Lost: publishes that fail are not told: their spans end with the next one, and nothing counts them.
"""


def send_of(amqp: Any) -> Any:
    """
    Have *amqp* make its own method, which keeps serializer, compression and queues from then on: so not before the first message.

    Assumes: as `SEND`; and a cached property is made when nothing lies in ``__dict__``.
    Seen on: Celery 5.4 to 5.7.
    Lost: as for `SEND`.
    """
    ours = amqp.__dict__.pop(SEND)
    try:
        return getattr(amqp, SEND)
    finally:
        amqp.__dict__[SEND] = ours


# -- signals ------------------------------------------------------------------------------------------------------------


def call_in_place(signal: Signal, hear: Callable[..., object]) -> Callable[[], None] | None:
    """
    Have the tracer call *hear*, a receiver of *signal*, itself while it is the only one: dispatching to it costs more than all that it does.

    While there are others, Celery's own dispatch calls all of them in their order.

    Args:
        signal: ``task_prerun`` or ``task_postrun``.

        hear: Connected to it strongly; takes the task and its id, or the task, the state and what the task returned or raised.

    Returns:
        What undoes it; None where the tracer is not as expected, and dispatches as ever.

    Assumes: ``celery.app.trace`` looks up its globals ``send_prerun`` and ``send_postrun`` at each call; ``Signal.receivers`` stays one list of pairs.
    Seen on: Celery 5.4 to 5.7.
    Lost: 3 to 5 microseconds a task.
    """
    from celery.app import trace

    name, make = ("send_prerun", _prerun_in_place) if signal.name == "task_prerun" else ("send_postrun", _postrun_in_place)
    send = signal.send
    if getattr(trace, name, None) != send or not isinstance(signal.receivers, list):
        return None
    in_place = make(send, signal.receivers, hear)
    setattr(trace, name, in_place)

    def undo() -> None:
        if getattr(trace, name) is in_place:
            setattr(trace, name, send)

    return undo


# Both name what the tracer passes, for a dictionary of it would cost as much again; and take whatever else a later one may pass.


def _prerun_in_place(send: Callable[..., Any], receivers: list[Any], hear: Callable[..., object]) -> Callable[..., Any]:
    def send_prerun(sender: Any, task: Any = None, task_id: Any = None, args: Any = None, kwargs: Any = None, **more: Any) -> Any:
        try:
            (only,) = receivers
        except ValueError:
            only = _NONE
        if only[-1] is hear:
            return hear(task, task_id)
        return send(sender=sender, task=task, task_id=task_id, args=args, kwargs=kwargs, **more)

    return send_prerun


def _postrun_in_place(send: Callable[..., Any], receivers: list[Any], hear: Callable[..., object]) -> Callable[..., Any]:
    def send_postrun(  # noqa: PLR0917 -- Celery's keywords.
        sender: Any,
        task: Any = None,
        task_id: Any = None,
        args: Any = None,
        kwargs: Any = None,
        retval: Any = None,
        state: Any = None,
        **more: Any,
    ) -> Any:
        try:
            (only,) = receivers
        except ValueError:
            only = _NONE
        if only[-1] is hear:
            return hear(task, state, retval)
        return send(sender=sender, task=task, task_id=task_id, args=args, kwargs=kwargs, retval=retval, state=state, **more)

    return send_postrun


_NONE: Final = (None,)


def put_around_tracers(
    tasks: Mapping[str, Any], around: Callable[[str, Callable[..., Any]], Callable[..., Any]]
) -> Callable[[], None] | None:
    """
    Put a function around the tracer of each task, in a process whose tracers are all there, such as a pool's.

    Args:
        tasks: By name.

        around: Takes the name of a task and its tracer, and returns what is called instead.

    Returns:
        What undoes it; None where a tracer is not as expected, and nothing was done.

    A tracer's answer has as its second field None where the task succeeded, else an object with ``state`` and ``retval``.

    Assumes: a pool process calls ``task.__trace__(uuid, args, kwargs, request)`` for each attempt, and builds them before it sends ``worker_process_init``.
    Seen on: Celery 5.4 to 5.7.
    Lost: 15 microseconds a task: the tracer's signals are heard instead.
    """
    found: list[tuple[Any, Any, str]] = [(task, getattr(task, "__trace__", None), name) for name, task in tasks.items()]
    for _, trace, _ in found:
        code = getattr(trace, "__code__", None)
        if code is None or code.co_varnames[: code.co_argcount] != _TRACED:
            return None
    for task, trace, name in found:
        task.__trace__ = around(name, trace)

    def undo() -> None:
        for task, trace, _ in found:
            task.__trace__ = trace

    return undo


_TRACED: Final = ("uuid", "args", "kwargs", "request")


class _Receivers(dict[Any, Any]):
    """
    Receivers by sender; forgotten when there are many, for senders of published messages are names, and a program may make up any number of them.
    """

    def __setitem__(self, sender: Any, receivers: Any) -> None:
        if len(self) >= _MOST_SENDERS:
            self.clear()
        super().__setitem__(sender, receivers)


_MOST_SENDERS: Final = 10_000


def remember_receivers(signals: Iterable[Signal]) -> None:
    """
    Have Celery remember which receivers a sender has, as Django's signals can, instead of working it out under a lock at each message.

    For pool processes, which end with their app: what is remembered keeps tasks alive.

    Assumes: ``Signal.use_caching`` is asked at each send, and ``Signal.sender_receivers_cache`` is a mapping, emptied when receivers come and go.
    Seen on: Celery 5.4 to 5.7.
    Lost: a microsecond a signal.
    """
    for signal in signals:
        if signal.use_caching is False and type(signal.sender_receivers_cache) is dict:
            signal.sender_receivers_cache = _Receivers()
            signal.use_caching = True


# -- requests -----------------------------------------------------------------------------------------------------------


def request_facts(task: Any) -> dict[str, Any]:
    """
    Return the attributes of the request that this thread is at.

    The property ``request_stack.top`` says the same, at four times the cost: it goes through a ``__getattr__`` of Celery's own thread-locals,
    whose two fields (celery/utils/threads.py) are read here directly where they are there.  Called three times a task.

    Assumes: ``request_stack._local`` has ``__storage__`` and ``__ident_func__``, and holds the thread's requests as a list under ``stack``.
    Seen on: Celery 5.4 to 5.7.
    Lost: nothing but a microsecond a task: ``request_stack.top`` is read instead.
    """
    stack = task.request_stack
    try:
        local = stack._local
        facts: dict[str, Any] = local.__storage__[local.__ident_func__()]["stack"][-1].__dict__
    except (AttributeError, LookupError):
        facts = stack.top.__dict__
    return facts


REQUEST_METHODS: Final = ("on_failure", "on_timeout")
"""
The names of the methods by which the pool tells a request in the main process that its attempt failed, and that it ran for too long.

Assumes: ``on_failure(self, exc_info, …, return_ok=False)`` and ``on_timeout(self, soft, timeout)`` of ``celery.worker.request.Request``.
Seen on: Celery 5.4 to 5.7.
Lost: attempts that end with their process are told late, after two looks at the pool, and messages that cannot be read are not counted.
"""


def is_taken_back(request: Any) -> bool:
    """
    Tell whether the attempt of *request* was cancelled or revoked, so that its process exits by order.

    Assumes: ``Request`` has ``_already_cancelled`` and ``_already_revoked``.
    Seen on: Celery 5.4 to 5.7.
    Lost: an attempt whose process exits by ``sys.exit`` is told as lost late, after two looks at the pool.
    """
    return bool(request._already_cancelled or request._already_revoked)


_RETRY: Final = getattr(Task.retry, "__code__", None)


def is_refused_retry(trace: TracebackType | None, facts: Mapping[str, Any]) -> bool:
    """
    Tell whether the errors' *trace* passes through a ``Task.retry`` that refused another retry to the attempt whose request has the attributes *facts*.

    Not that of a task that this one called as a function, or ran eagerly: those have requests of their own.

    Assumes: the frame of ``Task.retry`` has the locals ``request``, ``max_retries`` and ``retries``.
    Seen on: Celery 5.4 to 5.7.
    Lost: a retry that is refused by raising the original error counts as a failure, but not as *retries exhausted*.
    """
    while trace is not None:
        if trace.tb_frame.f_code is _RETRY:
            known = trace.tb_frame.f_locals
            limit = known.get("max_retries")
            if getattr(known.get("request"), "__dict__", None) is facts and limit is not None and known["retries"] > limit:
                return True
        trace = trace.tb_next
    return False


def scheduled_requests(worker: Any) -> int:
    """
    Count the requests that *worker* holds until they are due.

    Assumes: ``worker.consumer.timer.schedule.queue`` lists what waits, each with ``entry.args``, whose first is the request.
    Seen on: Celery 5.4 to 5.7.
    Lost: ``celery_worker_scheduled`` is 0.
    """
    from celery.worker.request import Request

    timer = getattr(getattr(worker, "consumer", None), "timer", None)
    entries = list(getattr(getattr(timer, "schedule", None), "queue", ()))
    return sum(1 for waiting in entries if waiting.entry.args and isinstance(waiting.entry.args[0], Request))


# -- tasks --------------------------------------------------------------------------------------------------------------


def run_without_autoretry(task: Any) -> Any:
    """
    Return the user's function, without the wrapper that ``autoretry_for`` puts around it.

    Assumes: ``celery.app.autoretry`` keeps it as ``_orig_run``.
    Seen on: Celery 5.4 to 5.7.
    Lost: a sync task with both a schedule of ours and ``autoretry_for`` is retried by Celery's rules.
    """
    return getattr(task, "_orig_run", task.run)


def is_class_of_an_app(kind: type) -> bool:
    """
    Tell whether *kind* is the task class that Celery derived from its own for one app.

    Assumes: such a class, and no other, has ``_app`` in its own ``__dict__``.
    Seen on: Celery 5.4 to 5.7.
    Lost: sync tasks derive from the app's task class although that adds nothing.
    """
    return "_app" in kind.__dict__


def patch_consumer_tracer() -> None:
    """
    Give the consumer, which tasks of pools without processes get their tracer from, what ``celery.app.trace`` has now, such as sentry-sdk's.

    Assumes: ``celery.worker.consumer.consumer`` has imported ``build_tracer`` by name.
    Seen on: Celery 5.4 to 5.7.
    Lost: Sentry sees no tasks in pools of threads and greenlets where it was loaded after the consumer.
    """
    consumer, trace = sys.modules.get("celery.worker.consumer.consumer"), sys.modules.get("celery.app.trace")
    if consumer is not None and trace is not None:
        consumer.build_tracer = trace.build_tracer  # type: ignore[attr-defined]  # The module's own import.


# -- schedules ----------------------------------------------------------------------------------------------------------


_CRONTAB: Final = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


def crontab_fields(schedule: Any) -> tuple[Any, ...] | None:
    """
    Return the five fields of a crontab as they were written, in the order of cron; None for another kind of schedule.

    Assumes: ``celery.schedules.crontab`` keeps them as ``_orig_minute`` and so on.
    Seen on: Celery 5.4 to 5.7.
    Lost: crontab entries have no monitor in Sentry.
    """
    fields = tuple(getattr(schedule, f"_orig_{name}", None) for name in _CRONTAB)
    return None if None in fields else fields


SCHEDULER_METHODS: Final = ("tick", "is_due", "reserve", "populate_heap")
"""
The names of the methods of a scheduler that decide what is fired and remember it.

Assumes: no other method of ``celery.beat.Scheduler`` does, and its entries are in ``schedule``, each with ``last_run_at``.
Seen on: Celery 5.4 to 5.7.
Lost: due times of Celery's own schedulers may be wrong; that entries fired is still told.
"""

START: Final = "start"
"""
The name of the method by which beat starts, which makes its scheduler.

Assumes: ``celery.beat.Service.start``, called by ``celery beat`` and by ``celery worker --beat``, and the scheduler made at its first use.
Seen on: Celery 5.4 to 5.7.
Lost: beat is not observed.
"""

CONNECT: Final = "_ensure_connected"
"""
The name of the method by which a scheduler waits for its broker.

Assumes: ``celery.beat.Scheduler._ensure_connected()``.
Seen on: Celery 5.4 to 5.7.
Lost: a beat that waits for its broker is taken for one that hangs.
"""
