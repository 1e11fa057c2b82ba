"""
What the lines that an attempt writes know about it: bound when it begins, restored when it ends.

It lies in structlog's context variables, so that programs with a structlog of their own have it in their lines, too.
What the task binds itself is gone when it ends: pool processes and threads keep their context from one task to the next.
"""

from __future__ import annotations

import contextvars

from collections.abc import Mapping
from typing import Any, Final

from structlog import contextvars as context

from celery_obs.vocabulary.tasks import TaskStarted


__all__ = ["BOUND", "Attempt", "running"]


BOUND: Final = frozenset({"task_id", "task", "queue", "retries", "correlation_id"})
"""
The names that an attempt binds.
"""

_LONGEST_ID: Final = 256
_running: Final[contextvars.ContextVar[Attempt | None]] = contextvars.ContextVar("celery_obs_log_attempt", default=None)


def running() -> Attempt | None:
    """
    Return the attempt that this thread or greenlet is at.
    """
    return _running.get()


class Attempt:
    """
    An attempt, as far as its lines are concerned; making one binds it.

    Attributes:
        started: The event that opened it.

        correlation: What it belongs to.

        worker: Name of the node that runs it.

        facts: What else was found out about it, for its canonical line.
    """

    __slots__ = ("_before", "_token", "_tokens", "correlation", "facts", "started", "worker")

    def __init__(self, started: TaskStarted, *, correlation: str, worker: str) -> None:
        self.started = started
        self.correlation = correlation
        self.worker = worker
        self.facts: dict[str, Any] = {}
        self._before = context.get_contextvars()
        self._tokens = context.bind_contextvars(
            task_id=started.task_id[:_LONGEST_ID],
            task=started.task,
            queue=started.queue,
            retries=started.retries,
            correlation_id=correlation,
        )
        self._token = _running.set(self)

    def bound(self) -> Mapping[str, Any]:
        """
        Return what the task bound in addition.
        """
        now = context.get_contextvars()
        if len(now) == len(BOUND) and not self._before:
            return {}
        before = self._before
        return {name: value for name, value in now.items() if name not in BOUND and (name not in before or before[name] is not value)}

    def restore(self) -> None:
        """
        Leave the context as it was before.
        """
        try:
            _running.reset(self._token)
            context.reset_contextvars(**self._tokens)
        except ValueError:  # Somebody ran the task's end in another context than its beginning.
            _running.set(None)
        now = context.get_contextvars()
        if now and (now.keys() != self._before.keys() or any(now[name] is not value for name, value in self._before.items())):
            context.clear_contextvars()
            context.bind_contextvars(**self._before)
