"""
What the lines that an attempt writes know about it: bound when it begins, restored when it ends.

It lies in structlog's context variables, so that programs with a structlog of their own have it in their lines, too.
What the task binds itself is gone when it ends: pool processes and threads keep their context from one task to the next.
"""

from __future__ import annotations

import contextvars

from collections.abc import Mapping
from typing import Any, Final

from celery_obs.areas.tasks.events import TaskStarted
from celery_obs.compat.structlog import PREFIX, variables_of


__all__ = ["BOUND", "AttemptContext", "running"]


BOUND: Final = ("task", "task_id", "queue", "retries", "correlation_id")
"""
The names that an attempt binds.
"""

_LONGEST_ID: Final = 256
_running: Final[contextvars.ContextVar[AttemptContext | None]] = contextvars.ContextVar("celery_obs_log_attempt", default=None)
_NOTHING: Final[Mapping[str, Any]] = {}
_variables: list[contextvars.ContextVar[Any]] = []


def running() -> AttemptContext | None:
    """
    Return the attempt that this thread or greenlet is at.
    """
    return _running.get()


class AttemptContext:
    """
    An attempt, as far as its lines are concerned; making one binds it.

    Attributes:
        started: The event that opened it.

        correlation: What it belongs to.

        worker: Name of the node that runs it.

        facts: What else was found out about it, for its canonical line.
    """

    __slots__ = ("_before", "_tokens", "correlation", "facts", "started", "worker")

    def __init__(self, started: TaskStarted, *, correlation: str, worker: str) -> None:
        self.started = started
        self.correlation = correlation
        self.worker = worker
        self.facts: dict[str, Any] = {}
        self._before = contextvars.copy_context()
        if not _variables:
            _variables[:] = variables_of(BOUND)
        of_task, of_id, of_queue, of_retries, of_correlation = _variables
        task, queue, task_id, retries, *_ = started
        self._tokens = (
            of_task.set(task),
            of_id.set(task_id if len(task_id) <= _LONGEST_ID else task_id[:_LONGEST_ID]),
            of_queue.set(queue),
            of_retries.set(retries),
            of_correlation.set(correlation),
            _running.set(self),
        )

    def leave(self) -> Mapping[str, Any]:
        """
        Put the context back as it was before, and return what the task had bound in addition.
        """
        try:
            for token in self._tokens:
                token.var.reset(token)
            now = contextvars.copy_context()
            if now == self._before:  # As almost always; a comparison of what is in both, most of it the same objects.
                return _NOTHING
        except Exception:  # noqa: BLE001 -- the task's end was run in another context, or it bound what cannot be compared.
            now = contextvars.copy_context()
        return self._restore(now)

    def _restore(self, now: contextvars.Context) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for variable, value in now.items():
            if variable.name.startswith(PREFIX):
                before = self._before.get(variable, ...)
                if before is not value:
                    found[variable.name.removeprefix(PREFIX)] = value
                    variable.set(before)
        return {name: value for name, value in found.items() if value is not ...}
