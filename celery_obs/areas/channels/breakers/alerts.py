"""
Alerts about circuit breakers: one is open, all are, or one flaps.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import gauge, max_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import part

from .metrics import STATE


__all__ = ["ALERTS"]


_STATE = max_by(gauge(STATE), "channel_type")

ALERTS: Final = (
    Alert(
        name="ChannelCircuitBreakerOpen",
        severity="critical",
        # Not "== 1": a breaker that probes in between is no better, and would begin the five minutes anew each time.
        expr=f"max by (channel_type) (min_over_time({gauge(STATE)}[2m])) > 0",
        for_="5m",
        by=("channel_type",),
        summary="Circuit breaker OPEN for {{ $labels.channel_type }}",
        description="The breaker of {{ $labels.channel_type }} has not been closed for more than $for. No sync with it goes through.",
        dashboard="channel-manager-platform",
    ),
    Alert(
        name="AllChannelsSyncFailing",
        severity="critical",
        expr=f"count({_STATE} > 0) == count({_STATE})\nand\ncount({_STATE}) > 1",
        for_="5m",
        summary="The circuit breakers of all channels are open",
        description="The breakers of all {{ $value }} channels have been open for $for. Look for the cause on our side.",
        dashboard="channel-manager-overview",
    ),
    Alert(
        name="ChannelSyncDegraded",
        severity="warning",
        expr=f"avg_over_time(({_STATE} > bool 0)[30m:1m]) > $threshold",
        threshold=part(0.25),
        for_="10m",
        by=("channel_type",),
        summary="The circuit breaker of {{ $labels.channel_type }} flaps",
        description="The breaker of {{ $labels.channel_type }} was not closed for {{ $value | humanizePercentage }} of the last 30 minutes (threshold: $threshold).",
        dashboard="channel-manager-platform",
    ),
)
