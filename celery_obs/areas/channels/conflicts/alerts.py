"""
Alerts about conflicts: a room was sold twice, or a person has to decide.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import gauge, happened, max_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount

from .metrics import DOUBLE_BOOKINGS, REVIEW


__all__ = ["ALERTS"]


ALERTS: Final = (
    Alert(
        name="DoubleBookingDetected",
        severity="critical",
        expr=f"{happened(DOUBLE_BOOKINGS, '5m', 'channel_type')} > $threshold",
        threshold=amount(0),
        by=("channel_type",),
        summary="Double booking detected",
        description='{{ $value | printf "%.0f" }} double bookings with {{ $labels.channel_type }} were detected. Immediate action required.',
        dashboard="channel-manager-overview",
        keep_firing_for="1h",
    ),
    Alert(
        name="ChannelConflictsAwaitReview",
        severity="info",
        expr=f"{max_by(gauge(REVIEW), 'conflict_type')} > $threshold",
        threshold=amount(0),
        for_="1d",
        by=("conflict_type",),
        summary="Conflicts await review",
        description="{{ $value }} conflicts of type {{ $labels.conflict_type }} await a decision. Some have been waiting for $for.",
        dashboard="channel-manager-overview",
    ),
)
