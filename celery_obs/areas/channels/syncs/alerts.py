"""
Alerts about syncs: they fail, take too long, or do not happen.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.connections.metrics import LAST_SYNC, PAUSED
from celery_obs.areas.channels.connections.metrics import TOTAL as CONNECTIONS
from celery_obs.rules.promql import count_of, gauge, increase, max_by, one_of, quantile, ratio, sum_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import part, seconds

from .metrics import DURATION, TOTAL


__all__ = ["ALERTS"]


_BY = ("channel_type",)
_OVER = one_of("success", "partial", "failure")
"""
Runs that will be tried again say nothing yet, and those that had nothing to do would hide the others.
"""


def _failing(window: str) -> str:
    runs = sum_by(increase(TOTAL, window, status=_OVER), *_BY)
    return f"{ratio(sum_by(increase(TOTAL, window, status='failure'), *_BY), runs)}\n> $threshold\nand\n{runs} >= $min_events"


ALERTS: Final = (
    Alert(
        name="ChannelSyncHighFailureRate",
        severity="critical",
        expr=_failing("5m"),
        threshold=part(0.1),
        min_events=5,
        for_="5m",
        by=_BY,
        summary="High sync failure rate for {{ $labels.channel_type }}",
        description="Sync failure rate of {{ $labels.channel_type }} is {{ $value | humanizePercentage }} (threshold: $threshold).",
        dashboard="channel-manager-platform",
    ),
    Alert(
        name="ChannelSyncFailureRateElevated",
        severity="warning",
        expr=_failing("30m"),
        threshold=part(0.05),
        min_events=20,
        for_="5m",
        by=_BY,
        summary="Elevated sync failure rate for {{ $labels.channel_type }}",
        description="Sync failure rate of {{ $labels.channel_type }} is {{ $value | humanizePercentage }} over 30 minutes (threshold: $threshold).",
        dashboard="channel-manager-platform",
    ),
    Alert(
        name="ChannelSyncLatencyHigh",
        severity="warning",
        expr=f"{quantile(0.95, DURATION, '15m', *_BY)} > $threshold\nand\n900 * {sum_by(count_of(DURATION, '15m'), *_BY)} >= $min_events",
        threshold=seconds(10, below=DURATION.buckets[-1]),
        min_events=10,
        for_="10m",
        by=_BY,
        summary="Sync latency P95 > $threshold for {{ $labels.channel_type }}",
        description="One sync in twenty of {{ $labels.channel_type }} takes longer than {{ $value | humanizeDuration }} (threshold: $threshold).",
        dashboard="channel-manager-platform",
    ),
    Alert(
        name="ChannelSyncStalled",
        severity="critical",
        expr=(
            f"time() - {max_by(gauge(LAST_SYNC), *_BY)} > $threshold\nand\n{max_by(gauge(CONNECTIONS, status='active'), *_BY)} > 0\n"
            f"unless\n{max_by(gauge(PAUSED), *_BY)} == 1"
        ),
        threshold=seconds(7200),
        for_="5m",
        by=_BY,
        summary="Syncs with {{ $labels.channel_type }} have stalled",
        description="No connection of {{ $labels.channel_type }} has had a successful sync for {{ $value | humanizeDuration }} (threshold: $threshold), though some are active and it is not paused.",
        dashboard="channel-manager-platform",
    ),
)
