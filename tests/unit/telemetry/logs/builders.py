"""
Events for tests of lines, with only the facts that a test is about.
"""

from __future__ import annotations

from typing import Any, Literal

from celery_obs.areas.tasks.events import AttemptLost, AttemptOpened, AttemptRaised, TaskFinished, TaskStarted
from celery_obs.areas.tasks.metrics import TaskState
from celery_obs.vocabulary.headers import CORRELATION


__all__ = ["carrier", "finished", "lost", "opened", "raised", "started"]


def started(task: str = "shop.sell", *, task_id: str = "5c6e2f0a", retries: int = 0, wait: float | None = 0.25) -> TaskStarted:
    return TaskStarted(task, "orders", task_id, retries, 1_800_000_000.0, wait, False, None)


def carrier(**headers: object) -> dict[str, Any]:
    return {"hostname": "w1@test", CORRELATION: "req-1", **headers}


def opened(event: TaskStarted, **headers: object) -> AttemptOpened:
    return AttemptOpened(event, carrier(**headers))


def raised(
    event: TaskStarted, error: BaseException | None, *, state: Literal["failure", "retry"] = "failure", expected: bool = False
) -> AttemptRaised:
    return AttemptRaised(event, state, error, expected)


def finished(
    event: TaskStarted,
    state: TaskState = "success",
    *,
    latency: float | None = None,
    exception: str = "",
    exhausted: bool = False,
    entry: str = "",
) -> TaskFinished:
    return TaskFinished(event, state, 0.0125, latency, exception, exhausted, entry)


def lost(state: Literal["timeout", "terminated", "lost"], message: str = "gone", **headers: object) -> AttemptLost:
    return AttemptLost("shop.sell", "orders", "5c6e2f0a", 2, state, "WorkerLostError", message, None, carrier(**headers))
