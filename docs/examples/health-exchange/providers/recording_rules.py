"""
Recording rules of providers.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import rate, ratio, sum_by
from celery_obs.rules.rules import RecordingRule

from .metrics import DATA_POINTS


__all__ = ["RULES"]


RULES: Final = (
    RecordingRule(
        name="provider:exchange_data_points_refused:ratio_rate15m",
        help="Which share of each provider's measurements can we not take?",
        expr=ratio(sum_by(rate(DATA_POINTS, "15m", status="refused"), "provider"), sum_by(rate(DATA_POINTS, "15m"), "provider")),
        by=("provider",),
    ),
)
