"""
Panels about calls of channels on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import Contribution, Panel, Query
from celery_obs.rules.dashboards.parts import TO_PLATFORM, higher_is_worse
from celery_obs.rules.dashboards.queries import chosen, increase_of, per_minute, per_second, quantile_of, ratio_of
from celery_obs.rules.promql import Match

from . import metrics


__all__ = ["PANELS"]


_HERE: Final = chosen("channel_type")

PANELS: Final = (
    Contribution(
        "channel-manager-overview",
        "Sync activity",
        5,
        Panel(
            kind="timeseries",
            title="API errors per minute",
            question="Why do calls fail? Those that an open breaker did not let through are errors of the kind circuit_breaker.",
            queries=(Query(expr=per_minute(metrics.ERRORS, "channel_type", "error_type"), legend="{{channel_type}}: {{error_type}}"),),
            unit="opm",
            links=(TO_PLATFORM,),
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Error breakdown",
        0,
        Panel(
            kind="timeseries",
            title="API errors per minute by kind",
            question="Why do calls fail?",
            queries=(Query(expr=per_minute(metrics.ERRORS, "error_type", channel_type=_HERE), legend="{{error_type}}"),),
            unit="opm",
            stacked=True,
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Error breakdown",
        1,
        Panel(
            kind="timeseries",
            title="API answers per second by status code",
            question="What does the channel answer? The code none stands for no answer at all.",
            queries=(Query(expr=per_second(metrics.REQUESTS, "status_code", channel_type=_HERE), legend="{{status_code}}"),),
            unit="reqps",
            stacked=True,
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Error breakdown",
        2,
        Panel(
            kind="timeseries",
            title="API latency by endpoint (p95)",
            question="Which endpoint is slow?",
            queries=(
                Query(expr=quantile_of(0.95, metrics.LATENCY, "endpoint", channel_type=_HERE), legend="{{endpoint}}", exemplars=True),
            ),
            unit="s",
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Error breakdown",
        3,
        Panel(
            kind="table",
            title="API calls by endpoint",
            question="Which endpoints are called most, and how long do they take?",
            keys=(("endpoint", "Endpoint"),),
            queries=(
                Query(expr=increase_of(metrics.REQUESTS, "endpoint", channel_type=_HERE), legend="Calls", unit="none", decimals=0),
                Query(
                    expr=quantile_of(0.95, metrics.LATENCY, "endpoint", over="$__range", channel_type=_HERE),
                    legend="p95",
                    unit="s",
                    steps=higher_is_worse(1, 5),
                ),
            ),
            sort_by="Calls",
        ),
    ),
    Contribution(
        "celery-obs-infrastructure",
        "Services that we call",
        0,
        Panel(
            kind="timeseries",
            title="Latency by service (p95)",
            question="Is a service slow?",
            queries=(Query(expr=quantile_of(0.95, metrics.LATENCY, "channel_type"), legend="{{channel_type}}", exemplars=True),),
            unit="s",
            links=(TO_PLATFORM,),
        ),
    ),
    Contribution(
        "celery-obs-infrastructure",
        "Services that we call",
        1,
        Panel(
            kind="timeseries",
            title="Share of server errors",
            question="Which share of calls ends with a 5xx, or without an answer?",
            queries=(
                Query(
                    expr=ratio_of(metrics.REQUESTS, "channel_type", of={"status_code": Match("=~", "5..|none")}),
                    legend="{{channel_type}}",
                ),
            ),
            unit="percentunit",
            maximum=1,
            links=(TO_PLATFORM,),
        ),
    ),
)
