"""
Alerts about syncs: they fail, take too long, or do not happen.
"""

from __future__ import annotations

from typing import Final

from celery_obs.generate.promql import among, count_of, gauge, increase, most, quantile, share, total
from celery_obs.generate.rules import Alert
from celery_obs.vocabulary.connections import LAST_SYNC, PAUSED
from celery_obs.vocabulary.connections import TOTAL as CONNECTIONS
from celery_obs.vocabulary.syncs import DURATION, TOTAL


__all__ = ["ALERTS"]


_BY = ("channel_type",)
_OVER = among("success", "partial", "failure")
"""
Runs that will be tried again say nothing yet, and those that had nothing to do would hide the others.
"""


def _failing(window: str, above: float, *, least_runs: int) -> str:
    runs = total(increase(TOTAL, window, status=_OVER), *_BY)
    return f"{share(total(increase(TOTAL, window, status='failure'), *_BY), runs)}\n> {above:g}\nand\n{runs} >= {least_runs}"


ALERTS: Final = (
    Alert(
        name="ChannelSyncHighFailureRate",
        severity="critical",
        expr=_failing("5m", 0.1, least_runs=5),
        lasts="5m",
        by=_BY,
        summary="High sync failure rate for {{ $labels.channel_type }}",
        description="Sync failure rate of {{ $labels.channel_type }} is {{ $value | humanizePercentage }} (threshold: 10%).",
        shows="channel-manager-platform",
        seeds=("000 §4.1",),
    ),
    Alert(
        name="ChannelSyncFailureRateElevated",
        severity="warning",
        expr=_failing("30m", 0.05, least_runs=20),
        lasts="5m",
        by=_BY,
        summary="Elevated sync failure rate for {{ $labels.channel_type }}",
        description="Sync failure rate of {{ $labels.channel_type }} is {{ $value | humanizePercentage }} over 30 minutes (threshold: 5%).",
        shows="channel-manager-platform",
        seeds=("001 HighErrorRate", "004 Channel Delivery Failures"),
    ),
    Alert(
        name="ChannelSyncLatencyHigh",
        severity="warning",
        expr=f"{quantile(0.95, DURATION, '15m', *_BY)} > 10\nand\n900 * {total(count_of(DURATION, '15m'), *_BY)} >= 10",
        lasts="10m",
        by=_BY,
        summary="Sync latency P95 > 10s for {{ $labels.channel_type }}",
        description="One sync in twenty of {{ $labels.channel_type }} takes longer than {{ $value | humanizeDuration }} (threshold: 10s).",
        shows="channel-manager-platform",
        seeds=("000 §4.2", "001 SyncLatencyHigh", "003 SlowSyncOperations"),
    ),
    Alert(
        name="ChannelSyncStalled",
        severity="critical",
        expr=(
            f"time() - {most(gauge(LAST_SYNC), *_BY)} > 7200\nand\n{most(gauge(CONNECTIONS, status='active'), *_BY)} > 0\n"
            f"unless\n{most(gauge(PAUSED), *_BY)} == 1"
        ),
        lasts="5m",
        by=_BY,
        summary="Nothing is synchronised with {{ $labels.channel_type }} any more",
        description="No connection of {{ $labels.channel_type }} has had a successful sync for {{ $value | humanizeDuration }}, though some are active and nobody paused it.",
        shows="channel-manager-platform",
    ),
)
