"""
Alerts about circuit breakers: one is open, all are, or one flaps.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import gauge, most
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import part

from .metrics import STATE


__all__ = ["ALERTS"]


_STATE = most(gauge(STATE), "channel_type")

ALERTS: Final = (
    Alert(
        name="ChannelCircuitBreakerOpen",
        severity="critical",
        # Not "== 1": a breaker that probes in between is no better, and would begin the five minutes anew each time.
        when=f"max by (channel_type) (min_over_time({gauge(STATE)}[2m])) > 0",
        lasts="5m",
        by=("channel_type",),
        summary="Circuit breaker OPEN for {{ $labels.channel_type }}",
        description="The breaker of {{ $labels.channel_type }} has not been closed for more than $for. No sync with it goes through.",
        shows="channel-manager-platform",
    ),
    Alert(
        name="AllChannelsSyncFailing",
        severity="critical",
        when=f"count({_STATE} > 0) == count({_STATE})\nand\ncount({_STATE}) > 1",
        lasts="5m",
        summary="The circuit breakers of all channels are open",
        description="The breakers of all {{ $value }} channels have been open for $for. Look for the cause on our side.",
        shows="channel-manager-overview",
    ),
    Alert(
        name="ChannelSyncDegraded",
        severity="warning",
        when=f"avg_over_time(({_STATE} > bool 0)[30m:1m]) > $threshold",
        threshold=part(0.25),
        lasts="10m",
        by=("channel_type",),
        summary="The circuit breaker of {{ $labels.channel_type }} flaps",
        description="The breaker of {{ $labels.channel_type }} was not closed for {{ $value | humanizePercentage }} of the last 30 minutes (threshold: $threshold).",
        shows="channel-manager-platform",
    ),
)
