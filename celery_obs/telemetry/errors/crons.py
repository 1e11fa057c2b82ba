"""
Crons: what Sentry has to know of a schedule entry to watch it.

Sentry counts in whole minutes, so an entry that fires more often cannot be watched, and neither can one that follows the sun.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Mapping
from typing import Any, Final

from celery_obs.compat.celery import crontab_fields


__all__ = ["monitor_of", "slug_of"]


_MINUTE: Final = 60
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (_MINUTE, "minute"))
_LONGEST: Final = 50


def slug_of(entry: str) -> str:
    """
    Return the name of an entry as Sentry takes it for a monitor's: lower-case letters, digits, dashes and underscores, not digits alone.
    """
    slug = re.sub(r"[^a-z0-9_-]+", "-", entry.lower()).strip("-")[:_LONGEST].rstrip("-") or "entry"
    return f"entry-{slug}"[:_LONGEST] if slug.isdigit() else slug


def monitor_of(schedule: Any) -> Mapping[str, Any] | None:
    """
    Return what Sentry needs to know of *schedule*, one of Celery's; None for what it cannot watch.
    """
    when = _crontab(schedule) or _interval(schedule)
    if when is None:
        return None
    zone = getattr(schedule, "tz", None) or getattr(getattr(schedule, "app", None), "timezone", None)
    return {"schedule": when, "timezone": str(zone or "UTC")}


def _crontab(schedule: Any) -> dict[str, Any] | None:
    fields = crontab_fields(schedule)
    return None if fields is None else {"type": "crontab", "value": " ".join(_field(field) for field in fields)}


def _field(value: object) -> str:
    """
    Write a field as cron does; Celery takes numbers and lists of them, too.
    """
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(str(item) for item in sorted(value, key=str))
    return re.sub(r"\s+", "", str(value))


def _interval(schedule: Any) -> dict[str, Any] | None:
    seconds = getattr(getattr(schedule, "run_every", None), "total_seconds", lambda: 0.0)()
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return {"type": "interval", "value": int(seconds // size), "unit": unit}
    return None
