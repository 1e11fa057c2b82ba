"""
The tracer: attempts heard where Celery runs them, around the function that a pool process calls for each, instead of by two signals.

A pool process builds the tracers of all tasks before it says that it is there, so that one can be put around each.  Two sends of a signal are spared,
and what is counted is written in one place: it costs a third of what it does by signals.

Observers besides that of metrics want to hear of attempts where their requests are the current ones.  They still do: by the signals, and only if there are any.

Forks: for a pool process, once it has its slot.  Threads: a pool process runs one attempt at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter, time
from typing import Any, Final

from celery.exceptions import Reject

from celery_obs.areas.tasks.events import AttemptInterrupted, TaskFinished, TaskStarted
from celery_obs.compat.celery import put_around_tracers
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.vocabulary import headers as stamps

from . import translate
from .hub import Hub, guarded
from .signals import Receivers
from .translate import LONGEST_WAIT, MOST_RETRIES, QueueNames


__all__ = ["AroundTracer"]


_PUBLISHED, _DUE, _ENTRY = stamps.PUBLISHED, stamps.DUE, stamps.ENTRY
_COMPONENT: Final = "worker.tracer"
_Traced = Callable[..., Any]


class AroundTracer:
    """
    Count the attempts of a pool process around its tracers.

    Args:
        receivers: Hear the signals; of attempts they go on telling observers besides that of metrics.

        meter: Counts attempts.

        hub: Hears of our errors.

        queues: Finds the names of queues.
    """

    def __init__(self, receivers: Receivers, meter: AttemptMeter, *, hub: Hub, queues: QueueNames) -> None:
        self._receivers = receivers
        self._meter = meter
        self._hub = hub
        self._queues = queues
        self._undo: Callable[[], None] | None = None

    def put(self, tasks: Mapping[str, Any]) -> bool:
        """
        Put ourselves around the tracers of *tasks*; return whether that was done: they have to be as we know them.
        """
        observed = {name: task for name, task in tasks.items() if not self._receivers.ignores(name)}
        self._undo = put_around_tracers(observed, self.around)
        if self._undo is None:
            return False
        for event_type, hear in self._ours():
            self._hub.unsubscribe(event_type, hear)
        self._receivers.counted_by_tracer()
        return True

    def take_away(self) -> None:
        """
        Leave the tracers as they were.
        """
        if self._undo is not None:
            self._undo()
            self._undo = None
            self._receivers.counted_by_signals()
            for event_type, hear in self._ours():
                self._hub.subscribe(event_type, hear)

    def _ours(self) -> Iterator[tuple[type, Callable[[Any], None]]]:
        meter = self._meter
        yield from ((TaskStarted, meter.started), (TaskFinished, meter.finished), (AttemptInterrupted, meter.interrupted))

    def around(self, name: str, trace: _Traced) -> _Traced:
        """
        Return what is to be called instead of *trace*, the tracer of the task *name*.
        """
        receivers, routes, meter = self._receivers, self._queues.known, self._meter

        def traced(uuid: Any, args: Any, kwargs: Any, request: Any = None) -> Any:
            event: Any
            try:
                try:  # First for the message that we stamped and that was not changed: one in a hundred is another.
                    info = request["delivery_info"]
                    queue = routes[info["exchange"], info["routing_key"]]
                    published, due, retries, now = request[_PUBLISHED], request[_DUE], request["retries"], time()
                    wait = now - published
                    if (
                        request["eta"] is None
                        and type(uuid) is str
                        and type(published) is type(due) is float
                        and 0.0 <= wait < LONGEST_WAIT
                        and -LONGEST_WAIT < now - due < LONGEST_WAIT
                        and type(retries) is int
                        and 0 <= retries < MOST_RETRIES
                    ):
                        event = (name, queue, uuid, retries, now, wait, False, due)
                    else:
                        event = self._carefully(name, uuid, request)
                except (KeyError, TypeError):
                    event = self._carefully(name, uuid, request)
                opened = meter.begin(event)
                began = perf_counter()
                receivers.attempt = attempt = [event, began]
            except Exception as exc:  # noqa: BLE001 -- never fail the observed.
                self._fail(exc)
                return trace(uuid, args, kwargs, request)
            try:
                answer = trace(uuid, args, kwargs, request)
            except BaseException as exc:
                with guarded(self._hub.on_error, _COMPONENT):
                    self._unwound(event, exc, perf_counter() - began)
                raise
            took = perf_counter() - began
            try:
                receivers.attempt = None
                if answer[1] is None and _ENTRY not in request and opened is not None:
                    meter.end(opened, event, took)
                else:
                    self._ended(event, answer[1], took, attempt, request)
            except Exception as exc:  # noqa: BLE001 -- never fail the observed.
                self._fail(exc)
            return answer

        traced.__wrapped__ = trace  # type: ignore[attr-defined]  # As functools.wraps says it, which would copy more.
        return traced

    def _carefully(self, name: str, task_id: object, request: Any) -> TaskStarted:
        facts: Mapping[str, Any] = request or {}
        queue = self._queues.of(facts.get("delivery_info"))
        return translate.started(facts, name, translate.identity(task_id), queue, time(), self._receivers.complain)

    def _ended(self, event: Any, info: Any, took: float, attempt: list[Any], request: Mapping[str, Any]) -> None:
        """
        Count an attempt that ended in another way than most do.
        """
        state, retval = ("SUCCESS", None) if info is None else (info.state, info.retval)
        entry = translate.entry_of(request) if _ENTRY in request or _PUBLISHED not in request else ""
        facts: Mapping[str, Any] = {translate.GAVE_UP: True} if translate.GAVE_UP in attempt else {}
        self._meter.finished(translate.finished(TaskStarted(*event), state, retval, took, facts, entry)._replace(started=event))

    def _unwound(self, event: Any, error: BaseException, took: float) -> None:
        """
        Take note of an attempt that the tracer raised out of: one that its own hooks rejected, or whose process is about to end.
        """
        self._receivers.attempt = None
        if isinstance(error, Reject):
            self._meter.finished(translate.finished(TaskStarted(*event), "REJECTED", error, took, {}, "")._replace(started=event))
        else:
            self._meter.interrupted(AttemptInterrupted(event))

    def _fail(self, error: Exception) -> None:
        self._hub.on_error(error, component=_COMPONENT)
