"""
The message headers that we add: how one process tells another what only it can know.

All are top-level headers of a protocol 2 message, JSON-safe, and may come from any client: check each before use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID


__all__ = ["CHECK_IN", "CORRELATION", "DUE", "ENTRY", "HELD", "PUBLISHED", "correlation_of", "text"]


PUBLISHED: Final = "celery_obs_published"
"""
When this message was published, in seconds since the epoch.  Written anew for each retry.
"""

DUE: Final = "celery_obs_due"
"""
When the task's first attempt was due (published, or its ETA where that is later), in seconds since the epoch.  Kept through retries.
"""

ENTRY: Final = "celery_obs_entry"
"""
Name of the beat schedule's entry that published the task.
"""

CORRELATION: Final = "celery_obs_correlation_id"
"""
What the work belongs to: the web request, or whatever began it.  Inherited by retries, children, chains, chords and errbacks.

Not ``correlation_id``, which Celery overwrites with the message property of that name.
"""

CHECK_IN: Final = "celery_obs_check_in"
"""
The id under which Sentry awaits the end of what a schedule entry began.  Kept through retries.
"""

HELD: Final = "celery_obs_held"
"""
How a sync task was held back so far: since when, how often, and its turn.  Kept through retries, dropped by a pause.
"""

LONGEST: Final = 256


def text(carrier: Mapping[str, Any], name: str) -> str:
    """
    Read a short printable text out of the headers in *carrier*, or nothing.

    Args:
        carrier: Headers of a message, or the attributes of a request that Celery made of them.  What passed through sentry-sdk,
            and protocol 1, nests custom headers under ``headers``.

        name: Of the header.
    """
    value = carrier.get(name)
    if value is None:
        nested = carrier.get("headers")
        value = nested.get(name) if isinstance(nested, Mapping) else None
    return value if type(value) is str and len(value) <= LONGEST and value.isprintable() else ""


def correlation_of(carrier: Mapping[str, Any]) -> str:
    """
    Return what a message's work belongs to: what it says itself; else the task at the root of its tree; else the task.
    """
    return text(carrier, CORRELATION) or _identity(carrier, "root_id") or _identity(carrier, "id")


def _identity(carrier: Mapping[str, Any], name: str) -> str:
    """
    Read a task's id, which may be a number or a UUID.
    """
    value = carrier.get(name)
    return str(value) if isinstance(value, (int, UUID)) else text(carrier, name)
