"""
Which tasks of our own there are: those of all areas.
"""

from __future__ import annotations

from collections.abc import Iterator

from celery_obs.areas import parts
from celery_obs.areas.task_spec import TaskSpec


__all__ = ["specs"]


def specs() -> Iterator[TaskSpec]:
    """
    Go through the tasks of all areas.
    """
    for _, part in parts("tasks"):
        yield from part.TASKS
