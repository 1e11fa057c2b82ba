"""
Beside the schedule: what beat is to publish for us, the tasks themselves, and how fresh each entry is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .entries import schedule


__all__ = ["schedule"]


def __getattr__(name: str) -> Any:
    """
    Import the schedule when it is asked for: ``import celery_obs.beat`` does nothing.
    """
    if name == "schedule":
        return import_module("celery_obs.beat.entries").schedule
    message = f"module 'celery_obs.beat' has no attribute {name!r}"
    raise AttributeError(message)
