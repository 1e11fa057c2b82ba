"""
Panels about reconciliation on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import Column, Contribution, Panel, Query
from celery_obs.rules.dashboards.parts import TO_PLATFORM, higher_is_worse
from celery_obs.rules.dashboards.queries import age, chosen, increase_of, max_of

from . import metrics


__all__ = ["COLUMNS", "PANELS"]


_HERE: Final = chosen("channel_type")
_ACCOUNT: Final = (("channel_type", "Channel"), ("connection_id", "Connection"))

PANELS: Final = (
    Contribution(
        "channel-manager-connections",
        "Drift and conflicts",
        0,
        Panel(
            kind="table",
            title="Days of drift",
            question="Which connection's calendar has drifted?",
            keys=_ACCOUNT,
            queries=(
                Query(
                    expr=max_of(metrics.DRIFT_DAYS, "channel_type", "connection_id", channel_type=_HERE),
                    legend="Days of drift",
                    unit="none",
                    steps=higher_is_worse(1, 5),
                ),
            ),
            sort_by="Days of drift",
            width=8,
            links=(TO_PLATFORM,),
        ),
    ),
    Contribution(
        "channel-manager-connections",
        "Drift and conflicts",
        1,
        Panel(
            kind="timeseries",
            title="Share of days that drifted",
            question="How much of the calendar has drifted, of the days compared?",
            queries=(
                Query(
                    expr=(
                        f"{increase_of(metrics.DAYS_DRIFTED, 'channel_type', over='1h', channel_type=_HERE)} / "
                        f"({increase_of(metrics.DAYS_CHECKED, 'channel_type', over='1h', channel_type=_HERE)} > 0)"
                    ),
                    legend="{{channel_type}}",
                ),
            ),
            unit="percentunit",
            width=8,
            links=(TO_PLATFORM,),
        ),
    ),
    Contribution(
        "celery-beat",
        "What the schedule is for",
        1,
        Panel(
            kind="timeseries",
            title="Since the last reconciliation",
            question="Is reconciliation up to date?",
            queries=(Query(expr=age(metrics.LAST_RUN, "channel_type"), legend="{{channel_type}}"),),
            unit="s",
        ),
    ),
)

COLUMNS: Final = (
    Column(
        "channel-manager-platform",
        "Connections",
        2,
        Query(
            expr=max_of(metrics.DRIFT_DAYS, "connection_id", channel_type=_HERE),
            legend="Days of drift",
            unit="none",
            steps=higher_is_worse(1, 5),
        ),
    ),
)
