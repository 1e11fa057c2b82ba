"""
Recording rules of reconciliation: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import increase, ratio, sum_by
from celery_obs.rules.rules import RecordingRule

from .metrics import DAYS_CHECKED, DAYS_DRIFTED


__all__ = ["GROUP", "RULES"]


GROUP: Final = "channels"


def _rules() -> Iterator[RecordingRule]:
    by = ("channel_type",)
    yield RecordingRule(
        name="channel_type:channel_reconciliation_drift:ratio_increase1d",
        help="How much of the calendar has drifted? Share of the days compared in the last day that differed.",
        expr=ratio(
            sum_by(increase(DAYS_DRIFTED, "1d"), *by),
            sum_by(increase(DAYS_CHECKED, "1d"), *by),
        ),
        by=by,
    )


RULES: Final = tuple(_rules())
