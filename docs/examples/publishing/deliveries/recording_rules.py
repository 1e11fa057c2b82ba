"""
Recording rules of deliveries.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import count_of, rate, ratio, sum_by, within
from celery_obs.rules.rules import RecordingRule

from .metrics import DELIVERIES, LATENCY, PROMISED


__all__ = ["RULES"]


RULES: Final = (
    RecordingRule(
        name="channel:publishing_delivery_failure:ratio_rate5m",
        help="Which share of each channel's deliveries fails?",
        expr=ratio(sum_by(rate(DELIVERIES, "5m", status="failure"), "channel"), sum_by(rate(DELIVERIES, "5m"), "channel")),
        by=("channel",),
    ),
    RecordingRule(
        name="publishing_alert_in_time:ratio_rate5m",
        help="Which share of the alerts is delivered in time?",
        expr=ratio(sum_by(within(LATENCY, PROMISED, "5m")), sum_by(count_of(LATENCY, "5m"))),
    ),
)
