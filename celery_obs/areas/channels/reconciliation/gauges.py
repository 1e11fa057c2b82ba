"""
Gauges of reconciliation that the sidecar reads out of Redis.
"""

from __future__ import annotations

from collections.abc import Iterator

from celery_obs.areas.channels.series import Family, Series

from .metrics import DRIFT_DAYS, LAST_RUN


__all__ = ["gauges"]


def gauges(series: Series) -> Iterator[Family]:
    """
    Write how far each calendar has drifted, and when each channel was last checked.
    """
    snapshot = series.overview.snapshot
    yield series.by_connection(DRIFT_DAYS, {name: each.days for name, each in snapshot.drift.items()}, max)
    yield series.by_name(LAST_RUN, snapshot.last_runs, min)
