"""
Alerts about rate limits: ours is nearly exhausted, or the channel's own was hit.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.api_calls.metrics import ERRORS
from celery_obs.rules.promql import gauge, happened, max_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, part

from .metrics import CURRENT, MAX


__all__ = ["ALERTS"]


ALERTS: Final = (
    Alert(
        name="ChannelRateLimitApproaching",
        severity="warning",
        expr=(
            f"{max_by(gauge(CURRENT), 'channel_type', 'connection_id')}\n/ on (channel_type) group_left ()\n"
            f"({max_by(gauge(MAX), 'channel_type')} > 0)\n> $threshold"
        ),
        threshold=part(0.8),
        for_="5m",
        by=("channel_type", "connection_id"),
        summary="Rate limit usage > $threshold for {{ $labels.channel_type }}",
        description="Connection {{ $labels.connection_id }} of {{ $labels.channel_type }} has used {{ $value | humanizePercentage }} of its rate limit for $for.",
        dashboard="channel-manager-platform",
    ),
    Alert(
        name="ChannelRateLimitHit",
        severity="warning",
        expr=f"{happened(ERRORS, '1h', 'channel_type', error_type='rate_limit')} > $threshold",
        threshold=amount(10),
        for_="5m",
        by=("channel_type",),
        summary="Calls to {{ $labels.channel_type }} hit its rate limit",
        description='{{ $value | printf "%.0f" }} calls to {{ $labels.channel_type }} hit its rate limit in the last hour (threshold: $threshold).',
        dashboard="channel-manager-platform",
    ),
)
