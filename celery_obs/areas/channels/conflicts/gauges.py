"""
Gauges of conflicts that the sidecar reads out of Redis.
"""

from __future__ import annotations

import operator

from collections.abc import Iterator

from celery_obs.areas.channels.series import Family, Series

from .metrics import REVIEW


__all__ = ["gauges"]


def gauges(series: Series) -> Iterator[Family]:
    """
    Write how many conflicts wait for a person.
    """
    yield series.by_name(REVIEW, series.overview.snapshot.reviews, operator.add)
