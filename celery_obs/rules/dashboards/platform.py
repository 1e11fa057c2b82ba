"""
One channel in full: its connections, syncs, errors, limits, tokens and webhooks.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.api_calls import metrics as api_calls
from celery_obs.areas.channels.breakers import metrics as circuit_breaker
from celery_obs.areas.channels.connections import metrics as connections
from celery_obs.areas.channels.rate_limits import metrics as rate_limiter
from celery_obs.areas.channels.reconciliation import metrics as reconciliation
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.tokens import metrics as tokens
from celery_obs.areas.channels.webhooks import metrics as webhooks

from .model import WIDTH, Dashboard, Panel, Query, Row, Step
from .parts import BREAKER_STATES, CHANNEL, ENDED, JOB, NO, breaker_state, breaker_timeline, coloured, higher_is_worse
from .queries import age, chosen, increase_of, max_of, per_minute, per_second, quantile_of, ratio_of, sum_of


__all__ = ["PLATFORM"]


_HERE = chosen("channel_type")

_CONNECTIONS = Row(
    "Connection status",
    (
        Panel(
            kind="bargauge",
            title="Connections by status",
            question="How many connections are there, and how many are broken?",
            queries=(Query(expr=max_of(connections.TOTAL, "status", channel_type=_HERE), legend="{{status}}"),),
            minimum=0,
            colours=coloured(connections.STATUSES),
            width=6,
        ),
        Panel(
            kind="stat",
            title="Circuit breaker",
            question="Is the channel called at all?",
            queries=(Query(expr=breaker_state(channel_type=_HERE), legend="{{channel_type}}"),),
            mappings=BREAKER_STATES,
            unit="none",
            width=3,
        ),
        Panel(
            kind="stat",
            title="Paused",
            question="Is this channel paused?",
            queries=(Query(expr=max_of(connections.PAUSED, channel_type=_HERE), legend="Paused"),),
            mappings=NO,
            unit="none",
            width=3,
        ),
        Panel(
            kind="table",
            title="Connections",
            question="Which connection needs attention? The most errors in a row are at the top.",
            keys=(("connection_id", "Connection"),),
            queries=(
                Query(
                    expr=max_of(connections.ERROR_COUNT, "connection_id", channel_type=_HERE),
                    legend="Errors in a row",
                    unit="none",
                    steps=higher_is_worse(1, 5),
                ),
                Query(
                    expr=age(connections.LAST_SYNC, "connection_id", channel_type=_HERE),
                    legend="Last sync",
                    unit="s",
                    steps=higher_is_worse(3600, 86400),
                ),
                Query(
                    expr=max_of(reconciliation.DRIFT_DAYS, "connection_id", channel_type=_HERE),
                    legend="Days of drift",
                    unit="none",
                    steps=higher_is_worse(1, 5),
                ),
                Query(expr=age(connections.CREATED_AT, "connection_id", channel_type=_HERE), legend="Age", unit="dtdurations"),
            ),
            sort_by="Errors in a row",
            width=12,
        ),
        breaker_timeline(height=4, channel_type=_HERE),
    ),
)

_SYNCS = Row(
    "Sync timeline",
    (
        Panel(
            kind="timeseries",
            title="Syncs per minute",
            question="What is synchronised, and how does it end?",
            queries=(
                Query(
                    expr=per_minute(syncs.TOTAL, "sync_type", "direction", "status", channel_type=_HERE),
                    legend="{{sync_type}} {{direction}}: {{status}}",
                ),
            ),
            unit="opm",
            colours=coloured(syncs.STATUSES),
            stacked=True,
        ),
        Panel(
            kind="timeseries",
            title="Success share by kind of sync",
            question="Which kind of sync fails here?",
            queries=(
                Query(
                    expr=ratio_of(syncs.TOTAL, "sync_type", of={"status": "success"}, status=ENDED, channel_type=_HERE),
                    legend="{{sync_type}}",
                ),
            ),
            unit="percentunit",
            ascending=True,
            maximum=1,
        ),
        Panel(
            kind="timeseries",
            title="Sync duration",
            question="How long does a sync take, failed ones included?",
            queries=(
                Query(expr=quantile_of(0.5, syncs.DURATION, "sync_type", channel_type=_HERE), legend="{{sync_type}} p50"),
                Query(expr=quantile_of(0.95, syncs.DURATION, "sync_type", channel_type=_HERE), legend="{{sync_type}} p95", exemplars=True),
            ),
            unit="s",
        ),
        Panel(
            kind="timeseries",
            title="Records per minute",
            question="How many records are processed, and with what result?",
            queries=(Query(expr=per_minute(syncs.RECORDS, "result", channel_type=_HERE), legend="{{result}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(syncs.RECORD_RESULTS),
        ),
        Panel(
            kind="timeseries",
            title="Running and held back",
            question="What is running, and what is held back because the channel is paused, its rate limit exhausted or its breaker open?",
            queries=(
                Query(expr=sum_of(syncs.IN_PROGRESS, "sync_type", channel_type=_HERE), legend="{{sync_type}} running"),
                Query(
                    expr=per_minute(syncs.HELD_BACK, "sync_type", "reason", channel_type=_HERE),
                    legend="{{sync_type}} held back per minute, {{reason}}",
                ),
            ),
            unit="short",
            width=WIDTH,
        ),
    ),
)

_CALLS = Row(
    "Error breakdown",
    (
        Panel(
            kind="timeseries",
            title="API errors per minute by kind",
            question="Why do calls fail?",
            queries=(Query(expr=per_minute(api_calls.ERRORS, "error_type", channel_type=_HERE), legend="{{error_type}}"),),
            unit="opm",
            stacked=True,
        ),
        Panel(
            kind="timeseries",
            title="API answers per second by status code",
            question="What does the channel answer? The code none stands for no answer at all.",
            queries=(Query(expr=per_second(api_calls.REQUESTS, "status_code", channel_type=_HERE), legend="{{status_code}}"),),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            kind="timeseries",
            title="API latency by endpoint (p95)",
            question="Which endpoint is slow?",
            queries=(
                Query(expr=quantile_of(0.95, api_calls.LATENCY, "endpoint", channel_type=_HERE), legend="{{endpoint}}", exemplars=True),
            ),
            unit="s",
        ),
        Panel(
            kind="table",
            title="API calls by endpoint",
            question="Which endpoints are called most, and how long do they take?",
            keys=(("endpoint", "Endpoint"),),
            queries=(
                Query(expr=increase_of(api_calls.REQUESTS, "endpoint", channel_type=_HERE), legend="Calls", unit="none", decimals=0),
                Query(
                    expr=quantile_of(0.95, api_calls.LATENCY, "endpoint", over="$__range", channel_type=_HERE),
                    legend="p95",
                    unit="s",
                    steps=higher_is_worse(1, 5),
                ),
            ),
            sort_by="Calls",
        ),
    ),
)

_LIMITS = Row(
    "Rate limit usage",
    (
        Panel(
            kind="timeseries",
            title="Calls in the window, and the limit",
            question="How close are calls to the rate limit? The limit may change with the time of day.",
            queries=(
                Query(expr=max_of(rate_limiter.CURRENT, "connection_id", channel_type=_HERE), legend="{{connection_id}}"),
                Query(expr=max_of(rate_limiter.MAX, "channel_type", channel_type=_HERE), legend="Limit of {{channel_type}}"),
            ),
        ),
        Panel(
            kind="timeseries",
            title="Throttled by the limit",
            question="Which share of calls is throttled?",
            queries=(
                Query(
                    expr=ratio_of(rate_limiter.REQUESTS, "channel_type", of={"result": "denied"}, channel_type=_HERE),
                    legend="{{channel_type}}",
                ),
            ),
            unit="percentunit",
            maximum=1,
            width=6,
        ),
        Panel(
            kind="timeseries",
            title="Waiting for the limit (p95)",
            question="How long do calls wait for the rate limit?",
            queries=(
                Query(
                    expr=quantile_of(0.95, rate_limiter.WAIT, "channel_type", channel_type=_HERE), legend="{{channel_type}}", exemplars=True
                ),
            ),
            unit="s",
            width=6,
        ),
    ),
)

_TOKENS = Row(
    "Token status",
    (
        Panel(
            kind="table",
            title="Tokens by expiry",
            question="Which token expires, and when? Negative: it has expired.",
            keys=(("connection_id", "Connection"),),
            queries=(
                Query(
                    expr=f"{max_of(tokens.EXPIRES_AT, 'connection_id', channel_type=_HERE)} - time()",
                    legend="Expires in",
                    unit="dtdurations",
                    steps=(Step(None, "red"), Step(0, "yellow"), Step(86400, "green")),
                ),
                Query(expr=max_of(tokens.LIFETIME, "connection_id", channel_type=_HERE), legend="Good for", unit="dtdurations"),
            ),
            sort_by="Expires in",
            ascending=True,
        ),
        Panel(
            kind="timeseries",
            title="Token refreshes per minute by outcome",
            question="Do token refreshes succeed? Refused: the customer has to authorise again.",
            queries=(Query(expr=per_minute(tokens.REFRESH_TOTAL, "status", channel_type=_HERE), legend="{{status}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(tokens.REFRESH_STATUSES),
        ),
    ),
)

_WEBHOOKS = Row(
    "Webhooks and outages",
    (
        Panel(
            kind="timeseries",
            title="Webhooks per minute by event",
            question="Does the channel still send webhooks?",
            queries=(Query(expr=per_minute(webhooks.RECEIVED, "event_type", channel_type=_HERE), legend="{{event_type}}"),),
            unit="opm",
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Webhooks per minute by outcome",
            question="Are webhooks processed?",
            queries=(Query(expr=per_minute(webhooks.PROCESSED, "status", channel_type=_HERE), legend="{{status}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(webhooks.STATUSES),
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Webhook processing time",
            question="How long does it take to process a webhook?",
            queries=(
                Query(
                    expr=quantile_of(0.95, webhooks.PROCESSING, "channel_type", channel_type=_HERE),
                    legend="{{channel_type}} p95",
                    exemplars=True,
                ),
            ),
            unit="s",
            width=8,
        ),
        Panel(
            kind="timeseries",
            title="Calls that the breaker rejected",
            question="How many calls does the circuit breaker reject?",
            queries=(
                Query(expr=per_minute(circuit_breaker.REJECTIONS, "channel_type", channel_type=_HERE), legend="{{channel_type}}"),
                Query(
                    expr=per_minute(circuit_breaker.TRANSITIONS, "from_state", "to_state", channel_type=_HERE),
                    legend="{{from_state}} to {{to_state}}",
                ),
            ),
            unit="opm",
        ),
        Panel(
            kind="timeseries",
            title="How long outages last (p95)",
            question="How long is the circuit breaker open?",
            queries=(
                Query(
                    expr=quantile_of(0.95, circuit_breaker.OPEN_DURATION, "channel_type", over="$__range", channel_type=_HERE),
                    legend="{{channel_type}}",
                ),
            ),
            unit="s",
            nothing="no outage ended in the time shown",
        ),
    ),
)

PLATFORM: Final = Dashboard(
    uid="channel-manager-platform",
    title="Channel Manager: One Channel",
    question="What is the state of this channel and its connections?",
    rows=(_CONNECTIONS, _SYNCS, _CALLS, _LIMITS, _TOKENS, _WEBHOOKS),
    variables=(JOB, CHANNEL),
    tags=("channel-manager",),
)
