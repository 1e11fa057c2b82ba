"""
Correlation: what a piece of work belongs to, from the web request that began it to the last task that came of it.

An id is taken from the web request (``asgi-correlation-id``, ``django-guid``, what is bound to structlog's context as ``correlation_id``,
or the request's own header where `celery_obs.django` is installed), travels in a header of each message, and is inherited by retries, children, chains, chords and errbacks.  Work that was not requested by a
request belongs to the task at the root of its tree.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from celery_obs.areas.tasks.events import AttemptInterrupted, AttemptOpened, PublishStarted, TaskFinished, TaskStarted
from celery_obs.vocabulary.headers import CORRELATION, correlation_of, text


__all__ = ["CorrelationObserver", "correlate", "correlation_id", "in_request"]


_current: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("celery_obs_correlation", default="")
_request: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("celery_obs_request", default="")


def correlation_id() -> str | None:
    """
    Return the correlation id of the current task, web request or block of `correlate`; else None.

    Since 0.1.
    """
    return _current.get() or _of_request() or None


@contextlib.contextmanager
def correlate(correlation_id: str) -> Iterator[None]:
    """
    Let what is published in this block belong to *correlation_id*; a value that is not a short printable text is ignored.

    For programs without a supported middleware::

        with celery_obs.correlate(request.headers.get("X-Correlation-ID", "")):
            import_calendar.delay(7)

    Since 0.1.
    """
    token = _current.set(text({CORRELATION: correlation_id}, CORRELATION) or _current.get())
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def in_request(correlation_id: str) -> Iterator[None]:
    """
    Let what is published in this block belong to *correlation_id*, unless a middleware that we know has another id for the request.
    """
    token = _request.set(_clean(correlation_id))
    try:
        yield
    finally:
        _request.reset(token)


class CorrelationObserver:
    """
    Knows what the attempt of this thread or greenlet belongs to, and says so in what it publishes.

    Threads and forks: as context variables.
    """

    def __init__(self) -> None:
        self._tokens: dict[int, tuple[TaskStarted, contextvars.Token[str]]] = {}

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return what begins and ends an attempt, and what begins a publish.
        """
        return (
            (AttemptOpened, self.opened),
            (TaskFinished, self.ended),
            (AttemptInterrupted, self.ended),
            (PublishStarted, self.publishing),
        )

    def opened(self, event: AttemptOpened) -> None:
        """
        Take up what the message belongs to.
        """
        self._tokens[id(event.started)] = event.started, _current.set(correlation_of(event.carrier))

    def ended(self, event: TaskFinished | AttemptInterrupted) -> None:
        """
        Put back what was there before: threads and processes go on to another task.
        """
        opened = self._tokens.pop(id(event.started), None)
        if opened is not None:
            try:
                _current.reset(opened[1])
            except ValueError:  # The task's end ran in another context, and this one has nothing of it.
                _current.set("")

    def publishing(self, event: PublishStarted) -> None:
        """
        Stamp the message.

        A message that a retry copied has its own stamp, and the main process, which publishes for the lost, has nothing but that.
        """
        headers = event.headers
        found = _current.get() or _of_request() or text(headers, CORRELATION) or text(event.message, "root_id")
        if found:
            headers[CORRELATION] = found


def _of_request() -> str:
    """
    Return the id that one of the known middlewares gave to the web request of this context, or nothing.

    They are looked for among what the program has loaded, and never loaded.
    """
    modules = sys.modules
    if (module := modules.get("asgi_correlation_id.context")) is not None and (found := _clean(module.correlation_id.get(None))):
        return found
    if (module := modules.get("django_guid.context")) is not None and (found := _clean(module.guid.get(None))):
        return found
    if (module := modules.get("structlog.contextvars")) is not None and (found := _clean(module.get_contextvars().get("correlation_id"))):
        return found
    return _request.get()


def _clean(found: object) -> str:
    return text({CORRELATION: found}, CORRELATION)
