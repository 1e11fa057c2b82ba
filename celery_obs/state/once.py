"""
Once a period: of two beats that run by accident, and of two messages, one does the work.
"""

from __future__ import annotations

from typing import Any, Final

from celery_obs.state.scripts import text

from . import keys


__all__ = ["is_first"]


_PART: Final = 0.8
"""
The part of a period for which a run keeps others from running: beats drift, and the next run in turn must not find the mark of the last.
"""


def is_first(redis: Any, task: Any, period: float) -> bool:
    """
    Tell whether no other message ran this task in this period, and mark it as run; a message that comes back after its worker died may run again.

    Args:
        redis: A client; what it raises is raised.

        task: The Celery task.

        period: Seconds between two runs.
    """
    me = str(task.request.id or "")
    key = keys.once("run", task.name)
    if redis.set(key, me, nx=True, px=max(1, int(_PART * period * 1000))):
        return True
    found = redis.get(key)
    return bool(me) and found is not None and text(found) == me
