"""
Gauges of tokens that the sidecar reads out of Redis.
"""

from __future__ import annotations

from collections.abc import Iterator

from celery_obs.areas.channels.series import Family, Series

from .metrics import EXPIRES_AT, LIFETIME


__all__ = ["gauges"]


def gauges(series: Series) -> Iterator[Family]:
    """
    Write when each token expires, and how long it was good for.
    """
    tokens = series.overview.snapshot.tokens.items()
    yield series.by_connection(EXPIRES_AT, {name: each.expires_at for name, each in tokens if each.expires_at is not None}, min)
    yield series.by_connection(LIFETIME, {name: each.lifetime for name, each in tokens if each.lifetime is not None}, min)
