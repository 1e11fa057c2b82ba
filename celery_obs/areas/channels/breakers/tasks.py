"""
The task around breakers and rate limits: write their state to where the exporter reads it, for all channels at once.
"""

from __future__ import annotations

from typing import Any, Final

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.rate_limits.state import RateLimits
from celery_obs.areas.task_spec import TaskSpec

from .state import Breakers


__all__ = ["PERIOD", "TASKS", "export_breaker_states"]


PERIOD: Final = 15.0
"""
Seconds between two exports.
"""


def export_breaker_states(task: Any) -> dict[str, int]:
    """
    Write the state of all breakers and rate limits; a second export in the same period writes the same again.

    Returns:
        How many of each were written.
    """
    engine = engines.current()
    if engine.redis is None:
        return {}
    breakers = Breakers(engine.redis, clock=engine.clock)
    limits = RateLimits(engine.redis, engine.settings.channels, clock=engine.clock)
    now = engine.clock()
    return {"breakers": breakers.export(now), "rate_limits": limits.export(now)}


TASKS: Final = (TaskSpec(name="export_breaker_states", run=export_breaker_states, time_limit=12.0, options={}, period=PERIOD),)
"""
See `celery_obs.runtime.builtin_tasks.specs`.
"""
