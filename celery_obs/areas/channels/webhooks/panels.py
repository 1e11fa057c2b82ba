"""
Panels about webhooks on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import Contribution, Panel, Query
from celery_obs.rules.dashboards.parts import coloured
from celery_obs.rules.dashboards.queries import chosen, increase_of, per_minute, quantile_of

from . import metrics


__all__ = ["PANELS"]


_HERE: Final = chosen("channel_type")

PANELS: Final = (
    Contribution(
        "channel-manager-platform",
        "Webhooks and outages",
        0,
        Panel(
            kind="timeseries",
            title="Webhooks per minute by event",
            question="Does the channel still send webhooks?",
            queries=(Query(expr=per_minute(metrics.RECEIVED, "event_type", channel_type=_HERE), legend="{{event_type}}"),),
            unit="opm",
            width=8,
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Webhooks and outages",
        1,
        Panel(
            kind="timeseries",
            title="Webhooks per minute by outcome",
            question="Are webhooks processed?",
            queries=(Query(expr=per_minute(metrics.PROCESSED, "status", channel_type=_HERE), legend="{{status}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(metrics.STATUSES),
            width=8,
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Webhooks and outages",
        2,
        Panel(
            kind="timeseries",
            title="Webhook processing time",
            question="How long does it take to process a webhook?",
            queries=(
                Query(
                    expr=quantile_of(0.95, metrics.PROCESSING, "channel_type", channel_type=_HERE),
                    legend="{{channel_type}} p95",
                    exemplars=True,
                ),
            ),
            unit="s",
            width=8,
        ),
    ),
    Contribution(
        "celery-obs-business",
        "Customers",
        2,
        Panel(
            kind="bargauge",
            title="Events from channels (range)",
            question="What do channels send: bookings, cancellations, changes?",
            queries=(Query(expr=increase_of(metrics.RECEIVED, "event_type"), legend="{{event_type}}"),),
            unit="none",
            decimals=0,
            minimum=0,
            width=8,
        ),
    ),
)
