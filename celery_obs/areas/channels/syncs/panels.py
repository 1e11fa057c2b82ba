"""
Panels about syncs on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import WIDTH, Column, Contribution, Panel, Query
from celery_obs.rules.dashboards.parts import TO_PLATFORM, coloured, higher_is_better, higher_is_worse
from celery_obs.rules.dashboards.queries import chosen, increase_of, mean, per_minute, quantile_of, ratio_of, sum_of
from celery_obs.rules.promql import one_of

from . import metrics


__all__ = ["COLUMNS", "PANELS"]


_HERE: Final = chosen("channel_type")

_ENDED: Final = one_of("success", "partial", "failure")
"""
The outcomes of a run that count: a retry has not ended, and where there was nothing to do nothing could fail.
"""

PANELS: Final = (
    Contribution(
        "channel-manager-overview",
        "Summary",
        1,
        Panel(
            kind="stat",
            title="Sync success rate (24 h)",
            question="Which share of the runs that ended in the last day succeeded? Runs to be retried are not counted: they have not ended.",
            queries=(Query(expr=ratio_of(metrics.TOTAL, of={"status": "success"}, over="24h", status=_ENDED), legend="Success rate"),),
            unit="percentunit",
            steps=higher_is_better(0.9, 0.99),
            width=4,
            height=4,
        ),
    ),
    Contribution(
        "channel-manager-overview",
        "Summary",
        2,
        Panel(
            kind="stat",
            title="Average sync latency",
            question="How long does a run take, on average?",
            queries=(Query(expr=mean(metrics.DURATION), legend="Average"),),
            unit="s",
            steps=higher_is_worse(5, 10),
            width=4,
            height=4,
        ),
    ),
    Contribution(
        "channel-manager-overview",
        "Sync activity",
        0,
        Panel(
            kind="timeseries",
            title="Syncs per minute by channel",
            question="How many syncs run for each channel, and did one stop?",
            queries=(Query(expr=per_minute(metrics.TOTAL, "channel_type"), legend="{{channel_type}}"),),
            unit="opm",
            links=(TO_PLATFORM,),
        ),
    ),
    Contribution(
        "channel-manager-overview",
        "Sync activity",
        1,
        Panel(
            kind="timeseries",
            title="Syncs per minute by outcome",
            question="Do syncs succeed? Every run is counted once, by its outcome.",
            queries=(Query(expr=per_minute(metrics.TOTAL, "status"), legend="{{status}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(metrics.STATUSES),
        ),
    ),
    Contribution(
        "channel-manager-overview",
        "Sync activity",
        2,
        Panel(
            kind="timeseries",
            title="Sync latency by channel (p95)",
            question="Is a channel slow? 95 of 100 runs take no longer than this; the failed ones count too.",
            queries=(Query(expr=quantile_of(0.95, metrics.DURATION, "channel_type"), legend="{{channel_type}} p95", exemplars=True),),
            unit="s",
            links=(TO_PLATFORM,),
        ),
    ),
    Contribution(
        "channel-manager-overview",
        "Sync activity",
        3,
        Panel(
            kind="timeseries",
            title="Records per minute",
            question="How many records are processed, and with what result?",
            queries=(Query(expr=per_minute(metrics.RECORDS, "result"), legend="{{result}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(metrics.RECORD_RESULTS),
        ),
    ),
    Contribution(
        "channel-manager-overview",
        "Sync activity",
        4,
        Panel(
            kind="timeseries",
            title="Failure share by channel",
            question="Which channel fails? 0 where all went well, no line where nothing ran.",
            queries=(
                Query(expr=ratio_of(metrics.TOTAL, "channel_type", of={"status": "failure"}, status=_ENDED), legend="{{channel_type}}"),
            ),
            unit="percentunit",
            maximum=1,
            links=(TO_PLATFORM,),
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Sync timeline",
        0,
        Panel(
            kind="timeseries",
            title="Syncs per minute",
            question="What is synchronised, and how does it end?",
            queries=(
                Query(
                    expr=per_minute(metrics.TOTAL, "sync_type", "direction", "status", channel_type=_HERE),
                    legend="{{sync_type}} {{direction}}: {{status}}",
                ),
            ),
            unit="opm",
            colours=coloured(metrics.STATUSES),
            stacked=True,
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Sync timeline",
        1,
        Panel(
            kind="timeseries",
            title="Success share by kind of sync",
            question="Which kind of sync fails here?",
            queries=(
                Query(
                    expr=ratio_of(metrics.TOTAL, "sync_type", of={"status": "success"}, status=_ENDED, channel_type=_HERE),
                    legend="{{sync_type}}",
                ),
            ),
            unit="percentunit",
            ascending=True,
            maximum=1,
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Sync timeline",
        2,
        Panel(
            kind="timeseries",
            title="Sync duration",
            question="How long does a sync take, failed ones included?",
            queries=(
                Query(expr=quantile_of(0.5, metrics.DURATION, "sync_type", channel_type=_HERE), legend="{{sync_type}} p50"),
                Query(
                    expr=quantile_of(0.95, metrics.DURATION, "sync_type", channel_type=_HERE), legend="{{sync_type}} p95", exemplars=True
                ),
            ),
            unit="s",
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Sync timeline",
        3,
        Panel(
            kind="timeseries",
            title="Records per minute",
            question="How many records are processed, and with what result?",
            queries=(Query(expr=per_minute(metrics.RECORDS, "result", channel_type=_HERE), legend="{{result}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(metrics.RECORD_RESULTS),
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Sync timeline",
        4,
        Panel(
            kind="timeseries",
            title="Running and held back",
            question="What is running, and what is held back because the channel is paused, its rate limit exhausted or its breaker open?",
            queries=(
                Query(expr=sum_of(metrics.IN_PROGRESS, "sync_type", channel_type=_HERE), legend="{{sync_type}} running"),
                Query(
                    expr=per_minute(metrics.HELD_BACK, "sync_type", "reason", channel_type=_HERE),
                    legend="{{sync_type}} held back per minute, {{reason}}",
                ),
            ),
            unit="short",
            width=WIDTH,
        ),
    ),
    Contribution(
        "celery-obs-business",
        "Summary",
        2,
        Panel(
            kind="stat",
            title="Records moved (24 h)",
            question="How many records were created or updated in the last 24 hours?",
            queries=(Query(expr=increase_of(metrics.RECORDS, over="24h", result=one_of("created", "updated")), legend="Records"),),
            width=6,
            height=4,
        ),
    ),
    Contribution(
        "celery-obs-business",
        "Customers",
        3,
        Panel(
            kind="bargauge",
            title="Records moved (range)",
            question="Which syncs run for which channel?",
            queries=(
                Query(expr=increase_of(metrics.RECORDS, "channel_type", result=one_of("created", "updated")), legend="{{channel_type}}"),
            ),
            unit="none",
            decimals=0,
            minimum=0,
            width=8,
            links=(TO_PLATFORM,),
        ),
    ),
)

COLUMNS: Final = (
    Column(
        "channel-manager-overview",
        "Channel health",
        4,
        Query(
            expr=ratio_of(metrics.TOTAL, "channel_type", of={"status": "success"}, over="1h", status=_ENDED),
            legend="Success (1 h)",
            unit="percentunit",
            steps=higher_is_better(0.9, 0.99),
        ),
    ),
    Column(
        "channel-manager-overview",
        "Channel health",
        5,
        Query(
            expr=quantile_of(0.95, metrics.DURATION, "channel_type", over="1h"),
            legend="Latency p95 (1 h)",
            unit="s",
            steps=higher_is_worse(5, 10),
        ),
    ),
    Column(
        "channel-manager-overview",
        "Channel health",
        6,
        Query(expr=sum_of(metrics.IN_PROGRESS, "channel_type"), legend="Running", unit="none"),
    ),
)
