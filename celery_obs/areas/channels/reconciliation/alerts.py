"""
Alerts about reconciliation: calendars differ, or are not compared.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import gauge, max_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import DAY, amount, seconds

from .metrics import DRIFT_DAYS, LAST_RUN


__all__ = ["ALERTS"]


ALERTS: Final = (
    Alert(
        name="ChannelAvailabilityDriftDetected",
        severity="info",
        expr=f"{max_by(gauge(DRIFT_DAYS), 'channel_type', 'connection_id')} > $threshold",
        threshold=amount(5),
        for_="5m",
        by=("channel_type", "connection_id"),
        summary="Availability drift detected for {{ $labels.channel_type }}",
        description="{{ $value }} days of drift detected in the last reconciliation of connection {{ $labels.connection_id }} (threshold: $threshold).",
        dashboard="channel-manager-connections",
    ),
    Alert(
        name="ChannelReconciliationStale",
        severity="warning",
        expr=f"time() - {max_by(gauge(LAST_RUN), 'channel_type')} > $threshold",
        threshold=seconds(2 * DAY),
        for_="15m",
        by=("channel_type",),
        summary="Reconciliation of {{ $labels.channel_type }} is stale",
        description="The last reconciliation of {{ $labels.channel_type }} was {{ $value | humanizeDuration }} ago (threshold: $threshold).",
        dashboard="channel-manager-connections",
    ),
)
