"""
Correlation: where an id comes from, what it is stamped on, and that it leaves no trace.
"""

from __future__ import annotations

import contextvars
import sys
import types

from typing import Any

import pytest
import structlog

from asgi_correlation_id.context import correlation_id as of_asgi
from hypothesis import given
from hypothesis import strategies as st

import celery_obs

from celery_obs.areas.tasks.events import AttemptInterrupted, AttemptOpened, PublishStarted, TaskFinished, TaskStarted
from celery_obs.telemetry.correlation import CorrelationObserver
from celery_obs.vocabulary.headers import CORRELATION


def started(task_id: str = "id-1") -> TaskStarted:
    return TaskStarted("shop.sell", "orders", task_id, 0, 1.0, None, False, None)


def stamped(observer: CorrelationObserver, **headers: Any) -> Any:
    observer.publishing(PublishStarted("shop.sell", "orders", headers, headers, False))
    return headers.get(CORRELATION)


def alone(run: Any) -> Any:
    return contextvars.Context().run(run)


def test_a_running_attempt_passes_on_what_it_belongs_to() -> None:
    """
    What a task publishes belongs to the same request, whatever a copied header says.
    """

    def run() -> tuple[Any, ...]:
        observer, event = CorrelationObserver(), started()
        observer.opened(AttemptOpened(event, {CORRELATION: "req-1", "root_id": "root"}))
        inside = celery_obs.correlation_id(), stamped(observer, **{CORRELATION: "old", "root_id": "root"})
        observer.ended(TaskFinished(event, "success", 0.1, None, "", False, ""))
        return *inside, celery_obs.correlation_id()

    assert ("req-1", "req-1", None) == alone(run)


def test_an_interrupted_attempt_leaves_nothing() -> None:
    """
    A thread that goes on to another task takes nothing along.
    """

    def run() -> str | None:
        observer, event = CorrelationObserver(), started()
        observer.opened(AttemptOpened(event, {"id": "id-1"}))
        observer.ended(AttemptInterrupted(event))
        return celery_obs.correlation_id()

    assert alone(run) is None


def test_a_message_of_the_main_process_belongs_to_its_root() -> None:
    """
    Without any context, a copied header says it, else the root of the tree.
    """
    observer = CorrelationObserver()

    assert "req-1" == alone(lambda: stamped(observer, **{CORRELATION: "req-1", "root_id": "root"}))
    assert "root" == alone(lambda: stamped(observer, root_id="root"))
    assert alone(lambda: stamped(observer)) is None


def test_the_id_of_a_web_request_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The known middlewares leave an id in a context variable; the first that has one counts.
    """
    guid: contextvars.ContextVar[Any] = contextvars.ContextVar("guid", default=None)
    monkeypatch.setitem(sys.modules, "django_guid.context", types.SimpleNamespace(guid=guid))
    observer = CorrelationObserver()

    def request(bind: Any) -> Any:
        def run() -> Any:
            bind()
            return stamped(observer, root_id="root"), celery_obs.correlation_id()

        return alone(run)

    assert ("of-asgi", "of-asgi") == request(lambda: of_asgi.set("of-asgi"))
    assert ("of-guid", "of-guid") == request(lambda: guid.set("of-guid"))
    assert ("of-structlog", "of-structlog") == request(lambda: structlog.contextvars.bind_contextvars(correlation_id="of-structlog"))
    assert ("root", None) == request(lambda: of_asgi.set("x" * 10_000))
    assert ("root", None) == request(lambda: guid.set(7))


def test_a_program_can_say_what_its_work_belongs_to() -> None:
    """
    Where there is no middleware that we know, a block says it; what is no short printable text is ignored.
    """

    def run() -> list[str | None]:
        seen = []
        with celery_obs.correlate("req-2"):
            seen.append(celery_obs.correlation_id())
            with celery_obs.correlate("a\nb"):
                seen.append(celery_obs.correlation_id())
        seen.append(celery_obs.correlation_id())
        return seen

    assert ["req-2", "req-2", None] == alone(run)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_threads_in_any_order_see_their_own(order: list[tuple[int, bool]]) -> None:
    """
    Attempts begin and end in any order in their threads or greenlets, some with the same task id: each sees its own request.
    """
    observer = CorrelationObserver()
    contexts = [contextvars.Context() for _ in range(3)]
    running: dict[int, TaskStarted] = {}
    for which, interrupt in order:
        run = contexts[which].run
        if which in running:
            event = running.pop(which)
            assert f"req-{which}" == run(celery_obs.correlation_id)
            run(observer.ended, AttemptInterrupted(event) if interrupt else TaskFinished(event, "success", 0.1, None, "", False, ""))
        else:
            running[which] = started("same id")
            run(observer.opened, AttemptOpened(running[which], {CORRELATION: f"req-{which}"}))
        for other, context in enumerate(contexts):
            assert (f"req-{other}" if other in running else None) == context.run(celery_obs.correlation_id)


def test_an_end_in_another_context_does_no_harm() -> None:
    """
    An attempt that ends where it was not begun leaves nothing there.
    """
    observer, event = CorrelationObserver(), started()
    alone(lambda: observer.opened(AttemptOpened(event, {"id": "id-1"})))

    def run() -> str | None:
        observer.ended(AttemptInterrupted(event))
        return celery_obs.correlation_id()

    assert alone(run) is None
