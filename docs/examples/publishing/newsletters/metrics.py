"""
Newsletters: are they delivered?
"""

from __future__ import annotations

from celery_obs.vocabulary.spec import Metric


__all__ = ["DELIVERIES"]


DELIVERIES = Metric(
    kind="counter",
    name="publishing_newsletter_deliveries_total",
    help="Are newsletters delivered? Deliveries by outcome.",
    labels=("status",),
)
