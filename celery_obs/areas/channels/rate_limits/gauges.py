"""
Gauges of rate limits that the sidecar reads out of Redis.
"""

from __future__ import annotations

from collections.abc import Iterator

from celery_obs.areas.channels.series import Family, Series

from .metrics import CURRENT, MAX


__all__ = ["gauges"]


def gauges(series: Series) -> Iterator[Family]:
    """
    Write how much of each limit is used, and what it is.
    """
    counts = series.overview.rate_limits
    yield series.by_account(CURRENT, {account: each.used for account, each in counts.items()}, max)
    limits: dict[str, float] = {}
    for (channel, _), each in counts.items():
        if each.most is not None:
            limits[channel] = max(limits.get(channel, 0.0), each.most)
    yield series.by_name(MAX, limits, max)
