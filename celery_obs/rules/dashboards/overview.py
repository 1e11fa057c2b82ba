"""
All channels at a glance: which are in sync, and which are not?
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.api_calls import metrics as api_calls
from celery_obs.areas.channels.breakers import metrics as circuit_breaker
from celery_obs.areas.channels.connections import metrics as connections
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.rules.promql import Match

from . import third_party as outside
from .model import WIDTH, Dashboard, Panel, Query, Row, Step
from .parts import (
    BREAKER_STATES,
    ENDED,
    JOB,
    NO,
    TO_PLATFORM,
    breaker_state,
    breaker_timeline,
    coloured,
    higher_is_better,
    higher_is_worse,
    oldest_message,
)
from .queries import age, max_of, mean, per_minute, quantile_of, ratio_of, selector, sum_of


__all__ = ["OVERVIEW"]


_SUMMARY = Row(
    "Summary",
    (
        Panel(
            kind="stat",
            title="Active connections",
            question="How many connections are there?",
            queries=(Query(expr=f"sum ({max_of(connections.TOTAL, 'channel_type', status='active')})", legend="Active"),),
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Sync success rate (24 h)",
            question="Which share of the runs that ended in the last day succeeded? Runs to be retried are not counted: they have not ended.",
            queries=(Query(expr=ratio_of(syncs.TOTAL, of={"status": "success"}, over="24h", status=ENDED), legend="Success rate"),),
            unit="percentunit",
            steps=higher_is_better(0.9, 0.99),
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Average sync latency",
            question="How long does a run take, on average?",
            queries=(Query(expr=mean(syncs.DURATION), legend="Average"),),
            unit="s",
            steps=higher_is_worse(5, 10),
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Circuit breakers open",
            question="How many channels have an open circuit breaker? Counted by channel, however many exporters show it.",
            queries=(
                Query(
                    expr=f"sum (max by (channel_type) ({selector(circuit_breaker.STATE)} == bool {circuit_breaker.STATES.index('open')}))",
                    legend="Open",
                ),
            ),
            unit="none",
            steps=(Step(None, "green"), Step(1, "red")),
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Open alerts",
            question="How many alerts fire now? 0 also where Prometheus has no rules, so make sure that the Watchdog arrives.",
            queries=(
                Query(
                    expr=f"count ({selector(outside.ALERTS, alertstate='firing', severity=Match('=~', 'critical|warning'))}) or vector(0)",
                    legend="Firing",
                ),
            ),
            unit="none",
            steps=(Step(None, "green"), Step(1, "red")),
            width=4,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Oldest message",
            question="How old is the oldest message of all queues? 0 where all queues are empty.",
            queries=(Query(expr=oldest_message(), legend="Oldest"),),
            unit="s",
            steps=higher_is_worse(60, 600),
            width=4,
            height=4,
        ),
    ),
)

_ACTIVITY = Row(
    "Sync activity",
    (
        Panel(
            kind="timeseries",
            title="Syncs per minute by channel",
            question="How many syncs run for each channel, and did one stop?",
            queries=(Query(expr=per_minute(syncs.TOTAL, "channel_type"), legend="{{channel_type}}"),),
            unit="opm",
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="timeseries",
            title="Syncs per minute by outcome",
            question="Do syncs succeed? Every run is counted once, by its outcome.",
            queries=(Query(expr=per_minute(syncs.TOTAL, "status"), legend="{{status}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(syncs.STATUSES),
        ),
        Panel(
            kind="timeseries",
            title="Sync latency by channel (p95)",
            question="Is a channel slow? 95 of 100 runs take no longer than this; the failed ones count too.",
            queries=(Query(expr=quantile_of(0.95, syncs.DURATION, "channel_type"), legend="{{channel_type}} p95", exemplars=True),),
            unit="s",
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="timeseries",
            title="Records per minute",
            question="How many records are processed, and with what result?",
            queries=(Query(expr=per_minute(syncs.RECORDS, "result"), legend="{{result}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(syncs.RECORD_RESULTS),
        ),
        Panel(
            kind="timeseries",
            title="Failure share by channel",
            question="Which channel fails? 0 where all went well, no line where nothing ran.",
            queries=(Query(expr=ratio_of(syncs.TOTAL, "channel_type", of={"status": "failure"}, status=ENDED), legend="{{channel_type}}"),),
            unit="percentunit",
            maximum=1,
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="timeseries",
            title="API errors per minute",
            question="Why do calls fail? Those that an open breaker did not let through are errors of the kind circuit_breaker.",
            queries=(Query(expr=per_minute(api_calls.ERRORS, "channel_type", "error_type"), legend="{{channel_type}}: {{error_type}}"),),
            unit="opm",
            links=(TO_PLATFORM,),
        ),
    ),
)

_HEALTH = Row(
    "Channels",
    (
        Panel(
            kind="table",
            title="Channel health",
            question="Which channel needs attention? Its breaker, its last success, its failures, its speed.",
            keys=(("channel_type", "Channel"),),
            queries=(
                Query(expr=breaker_state(), legend="Status", unit="none", mappings=BREAKER_STATES),
                Query(expr=max_of(connections.PAUSED, "channel_type"), legend="Paused", unit="none", mappings=NO),
                Query(
                    expr=age(connections.LAST_SYNC, "channel_type"),
                    legend="Last sync",
                    unit="s",
                    steps=higher_is_worse(3600, 86400),
                ),
                Query(
                    expr=f"sum by (channel_type) ({max_of(connections.ERROR_COUNT, 'channel_type', 'connection_id')})",
                    legend="Errors in a row",
                    unit="none",
                    steps=higher_is_worse(1, 10),
                ),
                Query(
                    expr=ratio_of(syncs.TOTAL, "channel_type", of={"status": "success"}, over="1h", status=ENDED),
                    legend="Success (1 h)",
                    unit="percentunit",
                    steps=higher_is_better(0.9, 0.99),
                ),
                Query(
                    expr=quantile_of(0.95, syncs.DURATION, "channel_type", over="1h"),
                    legend="Latency p95 (1 h)",
                    unit="s",
                    steps=higher_is_worse(5, 10),
                ),
                Query(expr=sum_of(syncs.IN_PROGRESS, "channel_type"), legend="Running", unit="none"),
            ),
            sort_by="Errors in a row",
            width=WIDTH,
            links=(TO_PLATFORM,),
        ),
        breaker_timeline(),
    ),
)

OVERVIEW: Final = Dashboard(
    uid="channel-manager-overview",
    title="Channel Manager Overview",
    question="Which channels are in sync, and which are not?",
    rows=(_SUMMARY, _ACTIVITY, _HEALTH),
    variables=(JOB,),
    tags=("channel-manager", "pms"),
)
