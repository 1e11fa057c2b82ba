"""
Celery's signals, and what each tells us: one table, one receiver a signal.

Order: Celery calls receivers in the order of their connection for prerun and postrun alike, so one receiver does everything of one signal.
State of an attempt lies on its request, never in a table by task id: ids come back with retries, replacements and redeliveries, and attempts overlap.
"""

from __future__ import annotations

import sys

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from time import perf_counter, time
from typing import Any, Final, Protocol

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals
from celery.utils.dispatch import Signal

from celery_obs.areas.sidecar.events import ObservationDropped
from celery_obs.areas.tasks.events import (
    AttemptInterrupted,
    AttemptKillDecided,
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
from celery_obs.compat.celery import call_in_place, remember_receivers, request_facts
from celery_obs.runtime.hub import guarded
from celery_obs.vocabulary import headers as stamps

from . import translate
from .hub import Hub
from .lost import LostAttempts
from .publishing import Publishing
from .translate import QueueNames


__all__ = ["Lifecycle", "Receivers", "connect", "disconnect", "hear_in_tracer"]


_ATTEMPT: Final = "celery_obs_attempt"
_PUBLISHED, _DUE, _ENTRY = stamps.PUBLISHED, stamps.DUE, stamps.ENTRY
_new = tuple.__new__  # Half the cost of a named tuple's own constructor, which is a Python function.


class Lifecycle(Protocol):
    """
    What has to be done when a process of Celery's comes or goes.
    """

    def publisher_started(self) -> bool:
        """
        A process is about to publish a task.  Tell whether that is settled, so that the next one need not be told.
        """

    def child_started(self, node: str | None) -> None:
        """
        A pool process was started and is ready to work.
        """

    def child_stopping(self, exitcode: int) -> None:
        """
        A pool process is about to leave, with *exitcode*.
        """

    def program_started(self, sender: Any) -> None:
        """
        A worker or beat has the configuration of the app *sender*, and is about to import its modules.  Its logging is not set up yet.
        """

    def beat_started(self, service: Any) -> None:
        """
        Beat, alone or embedded in a worker, is about to go through its schedule.
        """


class Receivers:
    """
    The receivers, one method a signal; each guards itself, for what a receiver raises Celery logs on every task.

    Args:
        hub: Hears what happened.

        queues: Finds the names of queues.

        lifecycle: Is told of processes that come and go.

        publishing: Follows publishes to their end.

    Attributes:
        lost: Finds the attempts that came to no end of their own.

        attempt: The event that opened the attempt that the tracer is at, as a tuple, and when it began, where it is counted around the tracer; else None.
            Who hears that it was refused another retry adds `translate.GAVE_UP`.

        firing: In beat, writes on a message which schedule entry it belongs to; None in all other processes.
    """

    def __init__(self, hub: Hub, *, queues: QueueNames, lifecycle: Lifecycle, publishing: Publishing) -> None:
        self._hub = hub
        self._queues = queues
        self._routes = queues.known
        self._lifecycle = lifecycle
        self._ignored: tuple[str, ...] = ()
        self._names: Mapping[str, str] = {}
        self._publishes = False
        self.attempt: list[Any] | None = None
        self.firing: Callable[[Any], object] | None = None
        self.lost = LostAttempts(hub, queues=queues)
        self._publishing = publishing

    def ignore(self, patterns: tuple[str, ...]) -> None:
        """
        Record nothing of tasks whose name matches one of *patterns*.
        """
        self._ignored = patterns

    def counted_by_tracer(self) -> None:
        """
        Attempts are counted around the tracer from now on: hear their signals for others only, and while there are any.
        """
        self._hub.changed = self._listen_for_others
        self._listen_for_others()

    def counted_by_signals(self) -> None:
        """
        Attempts are counted by their signals again.
        """
        self._hub.changed = None
        _listen(self)

    def _listen_for_others(self) -> None:
        if any(self._hub.wants(each) for each in (TaskStarted, AttemptOpened, TaskFinished, AttemptInterrupted)):
            _listen(self)
        else:
            _stop_listening()

    def rename(self, names: Mapping[str, str]) -> None:
        """
        Call tasks that are published under one of *names* by what it stands for.
        """
        self._names = names

    def ignores(self, task: str) -> bool:
        """
        Tell whether nothing is recorded of *task*.
        """
        return any(fnmatchcase(task, pattern) for pattern in self._ignored)

    def _fail(self, error: Exception) -> None:
        self._hub.on_error(error, component="worker.signals")

    def _guarded(self) -> AbstractContextManager[None]:
        return guarded(self._hub.on_error, "worker.signals")

    def complain(self, reason: str) -> None:
        """
        Count that a value made no sense.
        """
        self._hub.emit(ObservationDropped(reason))

    # -- an attempt, in the process that runs it --------------------------------------------------------------------

    # Both name every argument that Celery passes: what is left over would be put into a dictionary, each time.

    def task_prerun(
        self, task: Any, task_id: str, args: object = (), kwargs: object = None, signal: object = None, sender: object = None, **_: object
    ) -> None:
        """
        An attempt begins.  Eager and nested runs are the caller's own work, not the worker's.
        """
        try:
            facts = request_facts(task)
            name = task.name
            if facts.get("is_eager") or (self._ignored and self.ignores(name)):
                return
            if self.attempt is not None:
                self._opened_in_tracer(facts)
                return
            try:
                info = facts["delivery_info"]
                queue = self._routes[info["exchange"], info["routing_key"]]
            except (KeyError, TypeError):
                queue = self._queues.of(facts.get("delivery_info"))
            if type(task_id) is not str:
                task_id = translate.identity(task_id)
            event = translate.started(facts, name, task_id, queue, time(), self.complain)
            facts[_ATTEMPT] = (event, perf_counter())
            self._hub.emit(event)
            if self._hub.wants(AttemptOpened):
                self._hub.emit(_new(AttemptOpened, (event, facts)))
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._fail(exc)

    def task_postrun(
        self,
        task: Any,
        state: str | None = None,
        retval: object = None,
        task_id: str = "",
        args: object = (),
        kwargs: object = None,
        signal: object = None,
        sender: object = None,
        **_: object,
    ) -> None:
        """
        An attempt ended; without a state it is being unwound, and others have to tell the outcome.
        """
        try:
            facts = request_facts(task)
            if _ATTEMPT in facts:
                event, began = facts.pop(_ATTEMPT)
            elif self.attempt is not None and (opened := self._opened(facts)) is not None:
                event, began = opened, self.attempt[1]
            else:
                return
            if state is None:
                self._hub.emit(AttemptInterrupted(event))
                return
            entry = translate.entry_of(facts) if _ENTRY in facts or _PUBLISHED not in facts else ""
            self._hub.emit(translate.finished(event, state, retval, perf_counter() - began, facts, entry))
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._fail(exc)

    def _opened_in_tracer(self, facts: dict[str, Any]) -> None:
        """
        Tell others of an attempt that is counted around the tracer.
        """
        event = self._opened(facts)
        if event is not None:
            self._hub.emit(event)
            if self._hub.wants(AttemptOpened):
                self._hub.emit(_new(AttemptOpened, (event, facts)))

    def _opened(self, facts: Mapping[str, Any]) -> TaskStarted | None:
        """
        Return the event that opened the attempt whose request has the attributes *facts*; None where it is not an attempt that is observed.
        """
        found = facts.get(_ATTEMPT)
        if found is not None:
            event: TaskStarted = found[0]
            return event
        attempt = self.attempt
        if attempt is None or facts.get("is_eager") or translate.identity(facts.get("id")) != attempt[0][2]:
            return None
        return _new(TaskStarted, attempt[0])

    def _opened_by(self, task: Any) -> TaskStarted | None:
        """
        Return the event that opened the attempt of *task* that this thread runs; None where none runs.
        """
        try:
            return self._opened(request_facts(task))
        except AttributeError:  # No request at all.
            return None

    # -- what only the main process knows ---------------------------------------------------------------------------

    def task_received(self, request: Any = None, **_: object) -> None:
        """
        A message came from the broker.
        """
        try:
            if not (self._ignored and self.ignores(request.name)):
                queue = self._queues.of(request.delivery_info)
                self._hub.emit(TaskReceived(request.name, queue))
                self.lost.watch(request, queue=queue)
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._fail(exc)

    def task_revoked(self, sender: Any, request: Any = None, terminated: bool | None = None, **_: object) -> None:  # noqa: FBT001 -- Celery's signature.
        """
        A task was revoked before it began, or expired, or is being killed for it.
        """
        with self._guarded():
            if terminated and self.lost.is_reported(request):
                return  # It was cancelled, and is being killed for that.
            if terminated:
                self._hub.emit(AttemptKillDecided(translate.identity(request.id), "terminated"))
                self.lost.found(request.id, "terminated", "Terminated", "It was revoked and its process killed.")
            elif not (self._ignored and self.ignores(sender.name)):
                self._hub.emit(TaskDiscarded(sender.name, self._queues.of(request.delivery_info), "revoked"))

    def task_rejected(self, message: Any = None, **_: object) -> None:
        """
        A message is malformed.
        """
        with self._guarded():
            self._hub.emit(TaskDiscarded(MALFORMED, self._queues.of(message.delivery_info), "rejected"))

    def task_unknown(self, message: Any = None, **_: object) -> None:
        """
        A message names a task that is not registered here.
        """
        with self._guarded():
            self._hub.emit(TaskDiscarded(UNREGISTERED, self._queues.of(message.delivery_info), "rejected"))

    def task_failure(self, sender: Any = None, task_id: str = "", exception: Any = None, **_: object) -> None:
        """
        The body of an attempt raised; or the main process says that an attempt will come to no end.

        Of a hard time limit Celery says so before it kills the process, once or twice, depending on its version.
        """
        try:
            task_id = translate.identity(task_id)
            opened = self._opened_by(sender)
            if opened is not None and opened.task_id == task_id:
                facts = request_facts(sender)
                # The one that is being handled is what the body raised; Celery's may be what it made of it so that it can be pickled.
                if translate.gave_up(sys.exc_info()[1] or exception, facts):
                    facts[translate.GAVE_UP] = True
                    if self.attempt is not None:
                        self.attempt.append(translate.GAVE_UP)
                if self._hub.wants(AttemptRaised):
                    self._hub.emit(
                        AttemptRaised(opened, "failure", exception, isinstance(exception, getattr(sender, "throws", None) or ()))
                    )
            elif isinstance(exception, TimeLimitExceeded):
                self._hub.emit(AttemptKillDecided(task_id, "timeout"))
                self.lost.found(
                    task_id,
                    "timeout",
                    "TimeLimitExceeded",
                    f"It ran for more than its hard time limit, {exception.args[0] if exception.args else 0} s.",
                )
            elif isinstance(exception, WorkerLostError):
                self.lost.found(task_id, "lost", "WorkerLostError", str(exception))
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._fail(exc)

    def task_retry(self, sender: Any, request: Any = None, reason: Any = None, **_: object) -> None:
        """
        The body of an attempt asked for another one; or the main process published one for a lost attempt.

        Without a *reason* nothing was published: the main process kills the attempt, whose message the broker will deliver again, with its connection
        (``worker_cancel_long_running_tasks_on_connection_loss``) or at a cold shutdown.
        """
        try:
            error = getattr(reason, "exc", None)
            opened = self._opened_by(sender)
            if opened is not None:
                if self._hub.wants(AttemptRaised):
                    self._hub.emit(AttemptRaised(opened, "retry", error if isinstance(error, BaseException) else None, expected=True))
            elif isinstance(error, WorkerLostError):
                self._hub.emit(TaskRetried(sender.name, self._queues.of(request.delivery_info), type(error).__name__))
                self.lost.found(request.id, "lost", "WorkerLostError", str(error))
            elif reason is None and getattr(sender, "acks_late", False):
                self.lost.found(
                    request.id, "lost", "WorkerLostError", "Its worker cancelled it when the connection to the broker was lost."
                )
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._fail(exc)

    # -- publishing, anywhere ---------------------------------------------------------------------------------------

    # Both name every argument that Celery passes, as above.

    def before_task_publish(
        self,
        headers: Any = None,
        body: object = None,
        exchange: object = None,
        routing_key: object = None,
        declare: object = None,
        properties: object = None,
        retry_policy: object = None,
        signal: object = None,
        sender: object = None,
        **_: object,
    ) -> None:
        """
        Stamp the message.  A retry carries the headers of the attempt before: the publish time is overwritten, the first due time kept.
        """
        try:
            if not self._publishes:  # Before the first message is stamped: it is to say as much as all others.
                self._publishes = self._lifecycle.publisher_started()
            if self.firing is not None:
                self.firing(headers)
            now = time()
            headers[_PUBLISHED] = now
            message = headers if "task" in headers else translate.message_of(headers, body)
            if _DUE not in headers:
                headers[_DUE] = self._first_due(message, now) if message.get("eta") or message.get("retries") else now
            if self._hub.wants(PublishStarted) and not (self._ignored and self.ignores(str(sender))):
                name, queue = self._names.get(str(sender), str(sender)), self._queues.find(exchange, routing_key)
                origin = self.lost.carrier_of(message.get("parent_id"))
                self._hub.emit(PublishStarted(name, queue, headers, message, self._publishing.follows(headers), origin))
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._fail(exc)

    def _first_due(self, message: Mapping[str, Any], now: float) -> float:
        if message.get("retries"):  # With sentry-sdk a retry loses its headers; the running attempt still has them.
            from celery import current_task  # noqa: PLC0415 -- the proxy looks at the thread that publishes.

            opened = self._opened(current_task.request.__dict__) if current_task else None
            if opened is not None and opened.task_id == translate.identity(message.get("id")) and opened.due_at is not None:
                return float(opened.due_at)
        return max(now, translate.due_time(message.get("eta"), self.complain) or now)

    def after_task_publish(
        self,
        sender: Any = None,
        exchange: Any = "",
        routing_key: Any = "",
        body: object = None,
        headers: object = None,
        signal: object = None,
        **_: object,
    ) -> None:
        """
        The broker took the message.
        """
        try:
            if sender in self._names:
                sender = self._names[sender]
            if self._ignored and self.ignores(sender):
                return
            try:
                queue = self._routes[exchange, routing_key]
            except (KeyError, TypeError):
                queue = self._queues.find(exchange, routing_key)
            self._hub.emit(_new(TaskPublished, (sender, queue)))
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._fail(exc)

    # -- processes that come and go ---------------------------------------------------------------------------------

    def worker_process_init(self, sender: object = None, **_: object) -> None:
        """
        A pool process is ready to work.
        """
        with self._guarded():
            self._lifecycle.child_started(sender if isinstance(sender, str) else None)

    def worker_process_shutdown(self, exitcode: int = 0, **_: object) -> None:
        """
        A pool process leaves in an orderly way.
        """
        with self._guarded():
            self._lifecycle.child_stopping(exitcode)

    def import_modules(self, sender: Any = None, **_: object) -> None:
        """
        A worker or beat loads the app.
        """
        with self._guarded():
            self._lifecycle.program_started(sender)

    def beat_init(self, sender: Any = None, **_: object) -> None:
        """
        Beat starts.  This is start-up: wrong settings end it.
        """
        self._lifecycle.beat_started(sender)


TABLE: Final[tuple[tuple[Signal, Callable[..., None]], ...]] = (
    (signals.task_prerun, Receivers.task_prerun),
    (signals.task_postrun, Receivers.task_postrun),
    (signals.task_received, Receivers.task_received),
    (signals.task_revoked, Receivers.task_revoked),
    (signals.task_rejected, Receivers.task_rejected),
    (signals.task_unknown, Receivers.task_unknown),
    (signals.task_failure, Receivers.task_failure),
    (signals.task_retry, Receivers.task_retry),
    (signals.before_task_publish, Receivers.before_task_publish),
    (signals.after_task_publish, Receivers.after_task_publish),
    (signals.worker_process_init, Receivers.worker_process_init),
    (signals.worker_process_shutdown, Receivers.worker_process_shutdown),
    (signals.import_modules, Receivers.import_modules),
    (signals.beat_init, Receivers.beat_init),
)
"""
Every signal that we listen to, and the method that hears it.
"""


_IN_PLACE: Final = (signals.task_prerun, signals.task_postrun)
"""
The signals that every attempt sends.
"""

_undo: list[Callable[[], None]] = []


def connect(receivers: Receivers) -> None:
    """
    Connect each receiver to its signal; a second call changes nothing.
    """
    for signal, method in TABLE:
        signal.connect(method.__get__(receivers), weak=False, dispatch_uid=_uid(method))


def _listen(receivers: Receivers) -> None:
    """
    Hear the signals of attempts.
    """
    for signal, method in TABLE:
        if signal in _IN_PLACE:
            signal.connect(method.__get__(receivers), weak=False, dispatch_uid=_uid(method))


def _stop_listening() -> None:
    """
    Hear them no more.
    """
    for signal, method in TABLE:
        if signal in _IN_PLACE:
            signal.disconnect(dispatch_uid=_uid(method))


def hear_in_tracer() -> bool:
    """
    Have the tracer call what we connected to the signals of attempts, without Celery's dispatch, wherever we are the only ones who listen.

    Return whether it does: it has to be as we know it.  A second call changes nothing.
    """
    if not _undo:
        for signal in _IN_PLACE:
            hear = next((receiver for (uid, _), receiver in signal.receivers if uid == f"celery_obs.{signal.name}"), None)
            undo = None if hear is None else call_in_place(signal, hear)
            if undo is None:
                hear_by_signals()
                return False
            _undo.append(undo)
    return True


def remember() -> None:
    """
    Have Celery remember who listens to the signals that we listen to, in a process that ends with its app.
    """
    remember_receivers(signal for signal, _ in TABLE)


def hear_by_signals() -> None:
    """
    Leave the calling to Celery's dispatch again.
    """
    while _undo:
        _undo.pop()()


def disconnect() -> None:
    """
    Take our receivers off all signals.
    """
    hear_by_signals()
    for signal, method in TABLE:
        signal.disconnect(dispatch_uid=_uid(method))


def _uid(method: Callable[..., None]) -> str:
    return f"celery_obs.{method.__name__}"
