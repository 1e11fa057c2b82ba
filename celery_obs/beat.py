"""
Our entries of Celery's ``beat_schedule``, for those who write the whole schedule themselves.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from celery_obs.runtime.builtin_tasks.entries import schedule


__all__ = ["schedule"]


def __getattr__(name: str) -> Any:
    """
    Import the schedule when it is asked for: ``import celery_obs.beat`` does nothing.
    """
    if name == "schedule":
        return import_module("celery_obs.runtime.builtin_tasks.entries").schedule
    message = f"module 'celery_obs.beat' has no attribute {name!r}"
    raise AttributeError(message)
