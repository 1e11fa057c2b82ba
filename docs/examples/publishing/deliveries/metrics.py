"""
Deliveries: do publications and alerts reach their readers, and in time?
"""

from __future__ import annotations

from celery_obs.vocabulary.spec import Metric


__all__ = ["DELIVERIES", "LATENCY", "PROMISED"]


PROMISED = 30.0
"""
Seconds from an alert's creation to its delivery that readers are promised.
"""

DELIVERIES = Metric(
    kind="counter",
    name="publishing_deliveries_total",
    help="Which channel takes no publications? Deliveries by channel and outcome.",
    labels=("channel", "status"),
)
LATENCY = Metric(
    kind="histogram",
    name="publishing_alert_delivery_seconds",
    help="Are alerts late? Seconds from an alert's creation to its delivery.",
    labels=("channel",),
    buckets=(1.0, 5.0, 10.0, PROMISED, 60.0, 300.0),
    resolution=1e-6,
)
