"""
django-celery-beat: the rows and the schedule of its ``DatabaseScheduler``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


__all__ = ["enabled_rows", "loaded_entries"]


def loaded_entries(scheduler: Any) -> Mapping[str, Any]:
    """
    Return what *scheduler* has loaded, by name; its public property reads the database, and may load all anew.

    Assumes: ``DatabaseScheduler._schedule`` is that table, None before the first, and another one whenever the scheduler has noticed a change.
    Seen on: django-celery-beat 2.7 to 2.9.
    Lost: changes of the schedule are seen after a minute, and not at once.
    """
    loaded: Mapping[str, Any] = getattr(scheduler, "_schedule", None) or {}
    return loaded


def enabled_rows(scheduler: Any) -> Any:
    """
    Return the query for the enabled rows of *scheduler*'s model.

    Assumes: ``DatabaseScheduler.Model`` is a Django model, whose ``_default_manager`` (documented by Django) finds its rows.
    Seen on: django-celery-beat 2.7 to 2.9.
    Lost: entries that the scheduler has not loaded have no due time; the log says so once.
    """
    return scheduler.Model._default_manager.filter(enabled=True)
