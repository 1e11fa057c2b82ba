"""
Gauges of circuit breakers that the sidecar reads out of Redis.
"""

from __future__ import annotations

from collections.abc import Iterator

from celery_obs.areas.channels.series import Family, Series

from .metrics import STATE, STATES


__all__ = ["gauges"]


def gauges(series: Series) -> Iterator[Family]:
    """
    Write the state of each breaker.
    """
    states = {channel: float(STATES.index(state)) for channel, state in series.overview.breakers.items()}
    yield series.by_name(STATE, states, _worse_state)


def _worse_state(one: float, other: float) -> float:
    """
    Of two breakers that share a series, show the one that lets less through: open, then half-open, then closed.
    """
    return max(one, other, key=lambda state: (state == 1, state))
