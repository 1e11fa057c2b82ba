"""
Recording rules of newsletters.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import rate, ratio, sum_by
from celery_obs.rules.rules import RecordingRule

from .metrics import DELIVERIES


__all__ = ["RULES"]


RULES: Final = (
    RecordingRule(
        name="publishing_newsletter_failure:ratio_rate5m",
        help="Which share of the deliveries fails?",
        expr=ratio(sum_by(rate(DELIVERIES, "5m", status="failure")), sum_by(rate(DELIVERIES, "5m"))),
    ),
)
