"""
Alerts about newsletters.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import part


__all__ = ["ALERTS"]


ALERTS: Final = (
    Alert(
        name="NewslettersFail",
        severity="warning",
        expr="publishing_newsletter_failure:ratio_rate5m > $threshold",
        threshold=part(0.05),
        for_="15m",
        summary="Newsletters fail",
        description="{{ $value | humanizePercentage }} of the deliveries fail, more than $threshold, for $for.",
        dashboard="celery-obs-business",
    ),
)
