"""
Alerts about deliveries.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import part


__all__ = ["ALERTS"]


ALERTS: Final = (
    Alert(
        name="DeliveriesFail",
        severity="warning",
        expr="channel:publishing_delivery_failure:ratio_rate5m > $threshold",
        threshold=part(0.05),
        for_="5m",
        by=("channel",),
        summary="Deliveries by {{ $labels.channel }} fail",
        description="{{ $value | humanizePercentage }} of the deliveries by {{ $labels.channel }} fail, more than $threshold, for $for.",
        dashboard="publishing-deliveries",
    ),
    Alert(
        name="AlertsDeliveredLate",
        severity="critical",
        expr="1 - publishing_alert_in_time:ratio_rate5m > $threshold",
        threshold=part(0.1),
        for_="5m",
        summary="Alerts are delivered late",
        description="{{ $value | humanizePercentage }} of the alerts take longer than 30 seconds, more than $threshold, for $for.",
        dashboard="publishing-deliveries",
    ),
)
