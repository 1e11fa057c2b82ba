"""
Gauges of pauses that the sidecar reads out of Redis.
"""

from __future__ import annotations

from collections.abc import Iterator

from celery_obs.areas.channels.connections.metrics import PAUSED
from celery_obs.areas.channels.series import Family, Series


__all__ = ["gauges"]


def gauges(series: Series) -> Iterator[Family]:
    """
    Write which channels are paused.
    """
    overview = series.overview
    yield series.by_name(PAUSED, {channel: float(channel in overview.pauses) for channel in overview.channels}, max)
