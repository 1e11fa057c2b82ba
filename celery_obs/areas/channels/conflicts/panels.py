"""
Panels about conflicts on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.rules.dashboards.model import WIDTH, Contribution, Panel, Query, Step
from celery_obs.rules.dashboards.parts import TO_PLATFORM
from celery_obs.rules.dashboards.queries import chosen, increase_of, max_of, per_minute, sum_of

from . import metrics


__all__ = ["PANELS"]


_FOUND: Final = per_minute(metrics.DETECTED, "conflict_type", channel_type=chosen("channel_type"))

PANELS: Final = (
    Contribution(
        "channel-manager-connections",
        "Drift and conflicts",
        2,
        Panel(
            kind="timeseries",
            title="Conflicts",
            question="Do the two sides disagree, and how many conflicts await review?",
            queries=(
                Query(expr=_FOUND, legend="{{conflict_type}} found per minute"),
                Query(expr=f"{max_of(metrics.REVIEW, 'conflict_type')} or 0 * {_FOUND}", legend="{{conflict_type}} waiting"),
            ),
            unit="short",
            width=8,
        ),
    ),
    Contribution(
        "celery-obs-business",
        "Summary",
        3,
        Panel(
            kind="stat",
            title="Double bookings (24 h)",
            question="How many double bookings were there? Rooms sold twice in the last 24 hours.",
            queries=(
                Query(
                    expr=f"{increase_of(metrics.DOUBLE_BOOKINGS, over='24h')} or 0 * {sum_of(ourselves.BUILD_INFO)}",
                    legend="Double bookings",
                ),
            ),
            unit="none",
            decimals=0,
            steps=(Step(None, "green"), Step(1, "red")),
            width=6,
            height=4,
        ),
    ),
    Contribution(
        "celery-obs-business",
        "Customers",
        4,
        Panel(
            kind="bargauge",
            title="Conflicts resolved (range)",
            question="Who was right?",
            queries=(Query(expr=increase_of(metrics.RESOLVED, "conflict_type", "resolution"), legend="{{conflict_type}}: {{resolution}}"),),
            unit="none",
            decimals=0,
            minimum=0,
            width=8,
        ),
    ),
    Contribution(
        "celery-obs-business",
        "Customers",
        5,
        Panel(
            kind="timeseries",
            title="Double bookings in the last hour, by channel",
            question="Which channel sells rooms twice?",
            queries=(Query(expr=increase_of(metrics.DOUBLE_BOOKINGS, "channel_type", over="1h"), legend="{{channel_type}}"),),
            unit="none",
            decimals=0,
            width=WIDTH,
            height=6,
            links=(TO_PLATFORM,),
        ),
    ),
)
