"""
Alerts about reconciliation: calendars differ, or are not compared.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import gauge, most
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import DAY, amount, seconds

from .metrics import DRIFT_DAYS, LAST_RUN


__all__ = ["ALERTS"]


ALERTS: Final = (
    Alert(
        name="ChannelAvailabilityDriftDetected",
        severity="info",
        when=f"{most(gauge(DRIFT_DAYS), 'channel_type', 'connection_id')} > $threshold",
        threshold=amount(5),
        lasts="5m",
        by=("channel_type", "connection_id"),
        summary="Availability drift detected for {{ $labels.channel_type }}",
        description="{{ $value }} days of drift detected in the last reconciliation of connection {{ $labels.connection_id }} (threshold: $threshold).",
        shows="channel-manager-connections",
    ),
    Alert(
        name="ChannelReconciliationStale",
        severity="warning",
        when=f"time() - {most(gauge(LAST_RUN), 'channel_type')} > $threshold",
        threshold=seconds(2 * DAY),
        lasts="15m",
        by=("channel_type",),
        summary="Reconciliation of {{ $labels.channel_type }} is stale",
        description="The last reconciliation of {{ $labels.channel_type }} was {{ $value | humanizeDuration }} ago (threshold: $threshold).",
        shows="channel-manager-connections",
    ),
)
