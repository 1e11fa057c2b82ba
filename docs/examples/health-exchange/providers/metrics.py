"""
Providers: do their measurements arrive?
"""

from __future__ import annotations

from celery_obs.vocabulary.spec import Metric


__all__ = ["DATA_POINTS"]


DATA_POINTS = Metric(
    kind="counter",
    name="exchange_data_points_total",
    help="Which provider sends nothing, or what we cannot take? Measurements by provider, kind and outcome.",
    labels=("provider", "kind", "status"),
)
