"""
The dashboard of deliveries.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import Dashboard, Panel, Query, Row
from celery_obs.rules.dashboards.parts import JOB, coloured, higher_is_better
from celery_obs.rules.dashboards.queries import per_minute, quantile_of, ratio_of, ratio_within

from .metrics import DELIVERIES, LATENCY, PROMISED


__all__ = ["DASHBOARDS"]


DASHBOARDS: Final = (
    Dashboard(
        uid="publishing-deliveries",
        title="Deliveries",
        question="Do publications and alerts reach their readers, and in time?",
        rows=(
            Row(
                "Alerts",
                (
                    Panel(
                        kind="stat",
                        title="Alerts delivered in time",
                        question="Which share of the alerts came within 30 seconds? 95 % is promised.",
                        queries=(Query(expr=ratio_within(LATENCY, PROMISED, over="$__range"), legend="Within 30 s"),),
                        unit="percentunit",
                        steps=higher_is_better(0.9, 0.95),
                        width=6,
                    ),
                    Panel(
                        kind="timeseries",
                        title="Time to delivery, p95",
                        question="By which channel do alerts come late?",
                        queries=(Query(expr=quantile_of(0.95, LATENCY, "channel"), legend="{{channel}}"),),
                        unit="s",
                        width=18,
                    ),
                ),
            ),
            Row(
                "Publications",
                (
                    Panel(
                        kind="timeseries",
                        title="Deliveries per minute by outcome",
                        question="How much is delivered, and how much is refused?",
                        queries=(Query(expr=per_minute(DELIVERIES, "status"), legend="{{status}}"),),
                        unit="opm",
                        colours=coloured(("success", "failure")),
                        stacked=True,
                    ),
                    Panel(
                        kind="timeseries",
                        title="Share of deliveries that fail",
                        question="Which channel refuses?",
                        queries=(Query(expr=ratio_of(DELIVERIES, "channel", of={"status": "failure"}), legend="{{channel}}"),),
                        unit="percentunit",
                        maximum=1,
                    ),
                ),
            ),
        ),
        variables=(JOB,),
        tags=("publishing",),
    ),
)
