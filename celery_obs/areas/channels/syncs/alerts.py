"""
Alerts about syncs: they fail, take too long, or do not happen.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.connections.metrics import LAST_SYNC, PAUSED
from celery_obs.areas.channels.connections.metrics import TOTAL as CONNECTIONS
from celery_obs.rules.promql import among, count_of, gauge, increase, most, quantile, share, total
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import part, seconds

from .metrics import DURATION, TOTAL


__all__ = ["ALERTS"]


_BY = ("channel_type",)
_OVER = among("success", "partial", "failure")
"""
Runs that will be tried again say nothing yet, and those that had nothing to do would hide the others.
"""


def _failing(window: str) -> str:
    runs = total(increase(TOTAL, window, status=_OVER), *_BY)
    return f"{share(total(increase(TOTAL, window, status='failure'), *_BY), runs)}\n> $threshold\nand\n{runs} >= $least_events"


ALERTS: Final = (
    Alert(
        name="ChannelSyncHighFailureRate",
        severity="critical",
        when=_failing("5m"),
        threshold=part(0.1),
        least_events=5,
        lasts="5m",
        by=_BY,
        summary="High sync failure rate for {{ $labels.channel_type }}",
        description="Sync failure rate of {{ $labels.channel_type }} is {{ $value | humanizePercentage }} (threshold: $threshold).",
        shows="channel-manager-platform",
    ),
    Alert(
        name="ChannelSyncFailureRateElevated",
        severity="warning",
        when=_failing("30m"),
        threshold=part(0.05),
        least_events=20,
        lasts="5m",
        by=_BY,
        summary="Elevated sync failure rate for {{ $labels.channel_type }}",
        description="Sync failure rate of {{ $labels.channel_type }} is {{ $value | humanizePercentage }} over 30 minutes (threshold: $threshold).",
        shows="channel-manager-platform",
    ),
    Alert(
        name="ChannelSyncLatencyHigh",
        severity="warning",
        when=f"{quantile(0.95, DURATION, '15m', *_BY)} > $threshold\nand\n900 * {total(count_of(DURATION, '15m'), *_BY)} >= $least_events",
        threshold=seconds(10, below=DURATION.buckets[-1]),
        least_events=10,
        lasts="10m",
        by=_BY,
        summary="Sync latency P95 > $threshold for {{ $labels.channel_type }}",
        description="One sync in twenty of {{ $labels.channel_type }} takes longer than {{ $value | humanizeDuration }} (threshold: $threshold).",
        shows="channel-manager-platform",
    ),
    Alert(
        name="ChannelSyncStalled",
        severity="critical",
        when=(
            f"time() - {most(gauge(LAST_SYNC), *_BY)} > $threshold\nand\n{most(gauge(CONNECTIONS, status='active'), *_BY)} > 0\n"
            f"unless\n{most(gauge(PAUSED), *_BY)} == 1"
        ),
        threshold=seconds(7200),
        lasts="5m",
        by=_BY,
        summary="Syncs with {{ $labels.channel_type }} have stalled",
        description="No connection of {{ $labels.channel_type }} has had a successful sync for {{ $value | humanizeDuration }} (threshold: $threshold), though some are active and it is not paused.",
        shows="channel-manager-platform",
    ),
)
