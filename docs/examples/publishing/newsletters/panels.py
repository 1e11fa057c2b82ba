"""
Newsletters on the dashboard of the business.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import Contribution, Panel, Query
from celery_obs.rules.dashboards.queries import per_minute, ratio_of

from .metrics import DELIVERIES


__all__ = ["PANELS"]


PANELS: Final = (
    Contribution(
        "celery-obs-business",
        "Delivery",
        2,
        Panel(
            kind="timeseries",
            title="Newsletters per minute by outcome",
            question="Do newsletters arrive?",
            queries=(Query(expr=per_minute(DELIVERIES, "status"), legend="{{status}}"),),
            unit="opm",
            stacked=True,
        ),
    ),
    Contribution(
        "celery-obs-business",
        "Delivery",
        3,
        Panel(
            kind="timeseries",
            title="Share of newsletters that fail",
            question="Do newsletters reach their subscribers?",
            queries=(Query(expr=ratio_of(DELIVERIES, of={"status": "failure"}), legend="Failed"),),
            unit="percentunit",
            maximum=1,
        ),
    ),
)
