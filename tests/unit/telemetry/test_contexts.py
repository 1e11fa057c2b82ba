"""
Contexts: what an attempt knows of itself is its own, and gone when it ends, however attempts take turns in threads and greenlets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, context, trace
from structlog import contextvars as structlogs

from celery_obs.areas.tasks.events import (
    AttemptInterrupted,
    AttemptOpened,
    AttemptRaised,
    PublishEnded,
    PublishStarted,
    TaskFinished,
    TaskStarted,
)
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.observers import Observers
from celery_obs.telemetry.correlation import CorrelationObserver, correlation_id
from celery_obs.telemetry.logs.observer import TaskLogObserver
from celery_obs.telemetry.redaction import Redactor
from celery_obs.telemetry.traces.observer import TraceObserver
from celery_obs.telemetry.traces.pipeline import Pipeline
from celery_obs.telemetry.traces.start import trace_observer
from celery_obs.testing import RaisingErrors
from celery_obs.vocabulary.headers import CORRELATION


greenlet = pytest.importorskip("greenlet").greenlet


class Lane(Protocol):
    """
    Where attempts run one after the other: it keeps its context between two steps, as a pool's threads do.
    """

    def run(self, step: Callable[[], None]) -> None:
        """
        Make one step there.
        """

    def close(self) -> None:
        """
        End it.
        """


class ThreadLane:
    """
    A thread of a pool.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)

    def run(self, step: Callable[[], None]) -> None:
        self._pool.submit(step).result()

    def close(self) -> None:
        self._pool.shutdown()


class GreenletLane:
    """
    A greenlet; a pool has a new one for each task, so this is harder.
    """

    def __init__(self) -> None:
        self._greenlet = greenlet(self._loop)
        self._greenlet.switch()

    def _loop(self) -> None:
        home = greenlet.getcurrent().parent
        answer: BaseException | None = None
        while (step := home.switch(answer)) is not None:
            try:
                step()
                answer = None
            except BaseException as exc:  # noqa: BLE001 -- raised again on the test's side.
                answer = exc

    def run(self, step: Callable[[], None]) -> None:
        answer = self._greenlet.switch(step)
        if answer is not None:
            raise answer

    def close(self) -> None:
        self._greenlet.switch(None)


class Worker:
    """
    What runs in one lane, and what it must see.
    """

    def __init__(self, hub: Hub, traces: TraceObserver, name: str) -> None:
        self._emit = hub.emit
        self._traces = traces
        self._name = name
        self._count = 0
        self._started: TaskStarted | None = None
        self._message: dict[str, Any] | None = None
        self._span = 0
        self._bound: dict[str, Any] = {}

    def do(self, action: str, task_id: str) -> None:
        """
        Make one step; one that makes no sense now only looks around.
        """
        if self._started is None:
            if action == "begin":
                self._begin(task_id)
        elif action == "publish" and self._message is None:
            self._message = {"id": "child", CORRELATION: "copied from somewhere else"}
            self._emit(PublishStarted("child", "q", self._message, self._message, True))
            assert self._correlation == self._message[CORRELATION]
        elif action == "published" and self._message is not None:
            self._emit(PublishEnded(self._message, None))
            self._message = None
        elif action == "pollute":
            self._bound["polluted"] = self._name
            structlogs.bind_contextvars(polluted=self._name)
            context.attach(baggage.set_baggage("polluted", self._name))
        elif action == "raise":
            self._emit(AttemptRaised(self._started, "failure", ValueError("no"), False))
        elif action in {"end", "interrupt"}:
            self._end(interrupted=action == "interrupt")
        self.look()

    def _begin(self, task_id: str) -> None:
        self._count += 1
        self._correlation = f"{self._name}-{self._count}"
        self._started = TaskStarted("t", "q", task_id, 0, 100.0, None, False, None)
        self._emit(self._started)
        self._emit(AttemptOpened(self._started, {CORRELATION: self._correlation, "id": task_id}))
        self._span = trace.get_current_span().get_span_context().span_id
        self._bound = {"task": "t", "task_id": task_id, "queue": "q", "retries": 0, "correlation_id": self._correlation}

    def _end(self, *, interrupted: bool) -> None:
        assert self._started is not None
        if self._message is not None:
            self._emit(PublishEnded(self._message, OSError("no broker")))
            self._message = None
        self._emit(AttemptInterrupted(self._started) if interrupted else TaskFinished(self._started, "success", 0.5, None, "", False, ""))
        self._started = None

    def look(self) -> None:
        """
        See what there is to see, and that it is this lane's.
        """
        seen = trace.get_current_span().get_span_context()
        if self._started is None:
            assert (None, {}, 0, 0, {}) == (
                correlation_id(),
                structlogs.get_contextvars(),
                seen.span_id,
                self._traces.exemplar(),
                dict(baggage.get_all()),
            )
        else:
            assert (self._correlation, self._bound) == (correlation_id(), structlogs.get_contextvars())
            assert self._message is not None or self._span == seen.span_id != 0
            assert baggage.get_baggage("polluted") in {None, self._name}

    def finish(self) -> None:
        """
        End what still runs.
        """
        if self._started is not None:
            self._end(interrupted=False)
        self.look()


@pytest.fixture(scope="module")
def traces() -> Iterator[TraceObserver]:
    """
    An observer whose provider stays this test's own.
    """
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "set_tracer_provider", lambda provider: None)
        # Nothing is sent: the exporter draws from the random numbers that Hypothesis watches over.
        patch.setattr(Pipeline, "_start", lambda self: True)
        observer = trace_observer(environ, lambda event: None, broker_url="redis://localhost", service="tested", leave=lambda *_: None)
        assert observer is not None
        yield observer
        for pipeline in observer._tracing._pipelines:
            pipeline._queue.clear()  # Nor at the end.


ACTIONS = ("begin", "publish", "published", "pollute", "raise", "end", "interrupt")
steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ACTIONS), st.sampled_from(["id-1", "id-2"])), max_size=60)


@pytest.mark.parametrize("lane", [ThreadLane, GreenletLane])
@given(plan=steps)
@settings(max_examples=40, deadline=None)
def test_no_attempt_sees_what_is_anothers(traces: TraceObserver, lane: Callable[[], Lane], plan: list[tuple[int, str, str]]) -> None:
    """
    Attempts that overlap, some of one task id, some that leave things behind, each see their own context, and the next none.
    """
    hub = Hub(on_error=RaisingErrors())
    Observers(hub).connect([], [CorrelationObserver(), traces, TaskLogObserver(Redactor(), {})])
    lanes = [lane() for _ in range(3)]
    workers = [Worker(hub, traces, f"lane {number}") for number in range(3)]
    try:
        for number, action, task_id in plan:
            lanes[number].run(lambda worker=workers[number], action=action, task_id=task_id: worker.do(action, task_id))  # type: ignore[misc]  # a lambda with defaults has no type.
            for other, worker in zip(lanes, workers, strict=True):
                other.run(worker.look)
        for other, worker in zip(lanes, workers, strict=True):
            other.run(worker.finish)
    finally:
        for each in lanes:
            each.close()
