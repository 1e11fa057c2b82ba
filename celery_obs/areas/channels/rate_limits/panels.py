"""
Panels about rate limits on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import Contribution, Panel, Query
from celery_obs.rules.dashboards.queries import chosen, max_of, quantile_of, ratio_of

from . import metrics


__all__ = ["PANELS"]


_HERE: Final = chosen("channel_type")

PANELS: Final = (
    Contribution(
        "channel-manager-platform",
        "Rate limit usage",
        0,
        Panel(
            kind="timeseries",
            title="Calls in the window, and the limit",
            question="How close are calls to the rate limit? The limit may change with the time of day.",
            queries=(
                Query(expr=max_of(metrics.CURRENT, "connection_id", channel_type=_HERE), legend="{{connection_id}}"),
                Query(expr=max_of(metrics.MAX, "channel_type", channel_type=_HERE), legend="Limit of {{channel_type}}"),
            ),
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Rate limit usage",
        1,
        Panel(
            kind="timeseries",
            title="Throttled by the limit",
            question="Which share of calls is throttled?",
            queries=(
                Query(
                    expr=ratio_of(metrics.REQUESTS, "channel_type", of={"result": "denied"}, channel_type=_HERE),
                    legend="{{channel_type}}",
                ),
            ),
            unit="percentunit",
            maximum=1,
            width=6,
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Rate limit usage",
        2,
        Panel(
            kind="timeseries",
            title="Waiting for the limit (p95)",
            question="How long do calls wait for the rate limit?",
            queries=(
                Query(expr=quantile_of(0.95, metrics.WAIT, "channel_type", channel_type=_HERE), legend="{{channel_type}}", exemplars=True),
            ),
            unit="s",
            width=6,
        ),
    ),
)
