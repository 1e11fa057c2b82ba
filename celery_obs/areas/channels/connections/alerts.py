"""
Alerts about connections: one keeps failing, was never synchronised, is stale, or its channel was left paused.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import gauge, max_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import DAY, amount, seconds

from .metrics import CREATED_AT, ERROR_COUNT, LAST_SYNC, PAUSED


__all__ = ["ALERTS"]


_BY = ("channel_type", "connection_id")
_PAUSED = f"{max_by(gauge(PAUSED), 'channel_type')} == 1"

ALERTS: Final = (
    Alert(
        name="ChannelConnectionErrorsIncreasing",
        severity="warning",
        # Not increase(), which would take every fall of the gauge for a restart of a counter.
        expr=f"{max_by(gauge(ERROR_COUNT), *_BY)}\n- min by ({', '.join(_BY)}) (min_over_time({gauge(ERROR_COUNT)}[1h]))\n> $threshold",
        threshold=amount(5),
        for_="5m",
        by=_BY,
        summary="Connection errors increasing for {{ $labels.connection_id }}",
        description="{{ $value }} syncs in a row of connection {{ $labels.connection_id }} of {{ $labels.channel_type }} failed within the last hour (threshold: $threshold).",
        dashboard="channel-manager-connections",
    ),
    Alert(
        name="ChannelConnectionStale",
        severity="warning",
        # After a week it is taken for one that left: nothing says so of a single connection.
        expr=f"time() - {max_by(gauge(LAST_SYNC), *_BY)} > $threshold < {7 * DAY}\nunless on (channel_type)\n{_PAUSED}",
        threshold=seconds(DAY, below=7 * DAY),
        for_="15m",
        by=_BY,
        summary="Data of connection {{ $labels.connection_id }} is stale",
        description="The last successful sync of connection {{ $labels.connection_id }} of {{ $labels.channel_type }} was {{ $value | humanizeDuration }} ago (threshold: $threshold).",
        dashboard="channel-manager-connections",
    ),
    Alert(
        name="ChannelNewConnectionInactive",
        severity="info",
        # A connection that was never synchronised has no time of its last sync, not 0.
        # It is new for two weeks.
        expr=f"time() - {max_by(gauge(CREATED_AT), *_BY)} > $threshold < {14 * DAY}\nunless\n{max_by(gauge(LAST_SYNC), *_BY)} > 0",
        threshold=seconds(DAY, below=14 * DAY),
        for_="15m",
        by=_BY,
        summary="New connection inactive for $threshold",
        description="Connection {{ $labels.connection_id }} of {{ $labels.channel_type }} was created {{ $value | humanizeDuration }} ago and has never been synchronised.",
        dashboard="channel-manager-connections",
    ),
    Alert(
        name="ChannelLeftPaused",
        severity="info",
        expr=_PAUSED,
        for_="4h",
        by=("channel_type",),
        summary="{{ $labels.channel_type }} is still paused",
        description="{{ $labels.channel_type }} has been paused for more than $for. Its syncs are held back until it is resumed.",
        dashboard="channel-manager-platform",
    ),
)
