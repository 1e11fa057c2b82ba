"""
Trying again: the presets, and the keyword arguments that Celery's own retrying takes.

::

    @app.task(base=celery_obs.SyncTask, channel_type="airbnb", **celery_obs.retry_policy("critical"))
    def export_availability(connection_id): ...

Celery knows whole seconds that double each time.  A `celery_obs.SyncTask` computes its delays itself, from the schedule that comes along,
so that there every preset is kept, what cannot succeed is not tried again, and ``Retry-After`` is honoured.
On any other task Celery reads the nearest that it knows.
"""

from __future__ import annotations

import math

from types import EllipsisType
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from celery_obs.clock import between

from .errors import AuthError, ChannelError, ValidationError


__all__ = ["PRESETS", "Preset", "RetrySchedule", "retry_policy"]


Preset: TypeAlias = Literal["critical", "quick"]
"""
*critical*: what must get through.  *quick*: what a user waits for.

Since 0.1.
"""

_LONGEST: Final = 3600.0


class RetrySchedule(NamedTuple):
    """
    How often, and after how long, a failed attempt is tried again.

    Attributes:
        max_retries: Attempts after the first; None for as many as it takes.

        base_delay: Seconds before the first of them.

        max_delay: Seconds that no delay of ours exceeds.

        backoff_factor: What each delay is times the one before.

        jitter: Whether a delay is anything between half and all of that, so that tasks that failed together do not come back together.

    Since 0.1.
    """

    max_retries: int | None
    base_delay: float
    max_delay: float
    backoff_factor: float
    jitter: bool = True

    def delay(self, retries: int, *, after: float | None = None) -> float:
        """
        Return the seconds before the attempt that follows *retries* earlier retries.

        Args:
            retries: How many there were.

            after: What the channel asked for: no delay is shorter, up to an hour, for brokers deliver a message that waits for longer again.
        """
        power = min(max(retries, 0), 1000)
        try:
            delay = min(self.base_delay * self.backoff_factor**power, self.max_delay)
        except OverflowError:
            delay = self.max_delay
        if self.jitter:
            delay *= between(0.5, 1.0)
        return delay if after is None else min(max(delay, after), _LONGEST)


PRESETS: Final[dict[str, RetrySchedule]] = {
    "critical": RetrySchedule(max_retries=5, base_delay=2.0, max_delay=60.0, backoff_factor=2.0),
    "quick": RetrySchedule(max_retries=2, base_delay=0.5, max_delay=5.0, backoff_factor=1.5),
}
"""
The schedules by their names, for `retry_policy`; read only.

Since 0.1.
"""

_DEFAULT: Final = RetrySchedule(max_retries=3, base_delay=1.0, max_delay=60.0, backoff_factor=2.0)


def retry_policy(
    preset: Preset | None = None,
    *,
    max_retries: int | EllipsisType | None = ...,
    base_delay: float | None = None,
    max_delay: float | None = None,
    backoff_factor: float | None = None,
    jitter: bool | None = None,
) -> dict[str, Any]:
    """
    Return keyword arguments for ``@app.task`` that have a task retried when a channel failed.

    Args:
        preset: ``critical`` (5 times, from 2 to 60 seconds, doubling) or ``quick`` (twice, from 0.5 to 5 seconds, times 1.5); by default 3 times from 1 second.

        max_retries: What differs from the preset; None for as many as it takes.

        base_delay, max_delay, backoff_factor, jitter: What differs from the preset, see `RetrySchedule`.

    Raises:
        ValueError: for an unknown preset, and for numbers that make no schedule.

    Since 0.1.
    """
    if preset is not None and preset not in PRESETS:
        message = f"There is no retry preset {preset!r}. Expected one of: {', '.join(PRESETS)}; or None."
        raise ValueError(message)
    given: dict[str, Any] = {
        "base_delay": base_delay,
        "max_delay": max_delay,
        "backoff_factor": backoff_factor,
        "jitter": jitter,
    }
    chosen = _DEFAULT if preset is None else PRESETS[preset]
    schedule = chosen._replace(**{name: value for name, value in given.items() if value is not None})
    if not isinstance(max_retries, EllipsisType):
        schedule = schedule._replace(max_retries=max_retries)
    _check(schedule)
    return {
        "autoretry_for": (ChannelError, ConnectionError, TimeoutError),
        "dont_autoretry_for": (AuthError, ValidationError),
        "max_retries": schedule.max_retries,
        "retry_backoff": max(1, round(schedule.base_delay)),
        "retry_backoff_max": math.ceil(schedule.max_delay),
        "retry_jitter": schedule.jitter,
        "retry_schedule": schedule,
    }


def _check(schedule: RetrySchedule) -> None:
    retries, base, most, factor, _ = schedule
    if not ((retries is None or retries >= 0) and 0 < base <= most < math.inf and 1 <= factor < math.inf):
        message = (
            f"{schedule} is no schedule of retries. "
            "Expected max_retries from 0 on or None, 0 < base_delay <= max_delay in seconds, and a backoff_factor from 1 on."
        )
        raise ValueError(message)
