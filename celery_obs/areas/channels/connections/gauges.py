"""
Gauges of connections that the sidecar reads out of Redis.
"""

from __future__ import annotations

import operator

from collections.abc import Iterator

from celery_obs.areas.channels.series import Family, Series

from .metrics import CREATED_AT, ERROR_COUNT, LAST_SYNC, STATUSES, TOTAL


__all__ = ["gauges"]


def gauges(series: Series) -> Iterator[Family]:
    """
    Write how each connection is, and how many of each channel are in which status.
    """
    overview = series.overview
    snapshot = overview.snapshot
    known = snapshot.connections
    yield series.by_connection(LAST_SYNC, snapshot.last_syncs, min)
    yield series.by_connection(ERROR_COUNT, {name: snapshot.errors.get(name, 0) for name in known}, max)
    yield series.by_connection(CREATED_AT, {name: each.created_at for name, each in known.items() if each.created_at is not None}, max)
    totals: dict[tuple[str, str], float] = {(channel, status): 0 for channel in overview.channels for status in STATUSES}
    for connection in known.values():
        named = (connection.channel_type, connection.status)
        totals[named] = totals.get(named, 0) + 1
    yield series.by_channel_and(TOTAL, totals, operator.add)
