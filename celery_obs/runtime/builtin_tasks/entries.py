"""
What beat is to publish for us, and when: entries of Celery's ``beat_schedule``.
"""

from __future__ import annotations

import difflib

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from celery_obs.areas.task_spec import TaskSpec
from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime.builtin_tasks.specs import specs
from celery_obs.settings import Settings


__all__ = ["PERIODS", "PREFIX", "entries", "merged", "schedule"]


PREFIX: Final = "celery_obs."
"""
What the names of our entries begin with.
"""

_PERIODIC: Final[Mapping[str, TaskSpec]] = MappingProxyType({spec.name: spec for spec in specs() if spec.period is not None})

PERIODS: Final[Mapping[str, float]] = MappingProxyType({name: spec.period for name, spec in _PERIODIC.items() if spec.period is not None})
"""
The periodic tasks, and the seconds between two runs of each.
"""

_EXPIRES_AFTER: Final = 0.9
"""
The part of its period after which a message that no worker has taken is stale: the next one does its work.
"""


class _Plan(NamedTuple):
    """
    Where entries lead.
    """

    namespace: str
    queue: str | None


def schedule(*, task_namespace: str = "channel_manager", queue: str | None = None, **periods: float | None) -> dict[str, dict[str, Any]]:
    """
    Return our entries for Celery's ``beat_schedule``, for those who write the whole schedule themselves.

    ::

        app.conf.beat_schedule = {**celery_obs.beat.schedule(check_drift=3600, sweep_state=None), "mine": {...}}

    Args:
        task_namespace: As the setting of that name.

        queue: Where the messages go; by default where the app's routes send them.

        periods: Seconds between two runs of a task, by its name; None or 0 leaves it out.

    Raises:
        ConfigurationError: for a task that is not one of ours, or an invalid period.

    Since 0.1.
    """
    return _made(_Plan(task_namespace, queue), _chosen(periods, "argument of celery_obs.beat.schedule()"))


def entries(settings: Settings) -> dict[str, dict[str, Any]]:
    """
    Return the entries that the settings ask for: none without Redis, and no check for drift without a source of calendars.

    Raises:
        ConfigurationError: if the setting ``beat_periods`` names a task that is not one of ours.
    """
    chosen = _chosen(settings.beat_periods or {}, "setting beat_periods")
    if not settings.beat_schedule or settings.redis is None:
        return {}
    wanted = {name: seconds for name, seconds in chosen.items() if _PERIODIC[name].is_wanted(settings)}
    return _made(_Plan(settings.task_namespace, settings.task_queue), wanted)


def merged(theirs: Mapping[str, Any], settings: Settings) -> dict[str, Any] | None:
    """
    Return the schedule *theirs* with our entries, where one that has a name of ours already stays as it is; None if none of ours is missing.
    """
    ours = entries(settings)
    return {**ours, **theirs} if ours.keys() - theirs.keys() else None


def _chosen(periods: Mapping[str, Any], source: str) -> dict[str, float]:
    for name, seconds in periods.items():
        if name not in PERIODS:
            close = difflib.get_close_matches(name, PERIODS, n=1)
            advice = f"Did you mean {close[0]}?" if close else f"Expected one of: {', '.join(PERIODS)}."
            message = f"There is no periodic task {name!r} ({source}). {advice}"
            raise ConfigurationError(message)
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf")):
            message = f"The period of {name} is {seconds!r} ({source}). Expected a number of seconds, or None or 0 for never."
            raise ConfigurationError(message)
    return {**PERIODS, **{name: float(seconds or 0.0) for name, seconds in periods.items()}}


def _made(plan: _Plan, periods: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    return {f"{PREFIX}{name}": _entry(plan, name, seconds) for name, seconds in periods.items() if seconds}


def _entry(plan: _Plan, name: str, seconds: float) -> dict[str, Any]:
    options: dict[str, Any] = {"expires": _EXPIRES_AFTER * seconds}
    if plan.queue:
        options["queue"] = plan.queue
    arguments = {"kwargs": {"period": seconds}} if _PERIODIC[name].wants_period else {}
    return {"task": f"{plan.namespace}.{name}", "schedule": seconds, "options": options, **arguments}
