"""
Tokens and connections: whose account is about to stop, and whose calendar is wrong?
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.conflicts import metrics as conflicts
from celery_obs.areas.channels.reconciliation import metrics as reconciliation
from celery_obs.areas.channels.tokens import metrics as tokens
from celery_obs.rules.dashboards.model import WIDTH, Dashboard, Panel, Query, Row, Step, Variable
from celery_obs.rules.dashboards.parts import JOB, TO_PLATFORM, coloured, higher_is_better, higher_is_worse
from celery_obs.rules.dashboards.queries import age, chosen, increase_of, max_of, per_minute, ratio_of

from . import metrics as connections


__all__ = ["CONNECTIONS", "DASHBOARDS"]


_CHANNEL = chosen("channel_type")
_EXPIRES_IN = f"{max_of(tokens.EXPIRES_AT, 'channel_type', 'connection_id', channel_type=_CHANNEL)} - time()"
_FOUND = per_minute(conflicts.DETECTED, "conflict_type", channel_type=_CHANNEL)
_ACCOUNT = (("channel_type", "Channel"), ("connection_id", "Connection"))

_TOKENS = Row(
    "Tokens",
    (
        Panel(
            kind="stat",
            title="Expired",
            question="How many tokens have expired?",
            queries=(Query(expr=f"sum (({_EXPIRES_IN}) <= bool 0)", legend="Expired"),),
            unit="none",
            steps=(Step(None, "green"), Step(1, "red")),
            width=4,
        ),
        Panel(
            kind="stat",
            title="Tokens due for a refresh",
            question="How many tokens have less than a tenth of their lifetime left? They are refreshed earlier than that.",
            queries=(
                Query(
                    expr=(
                        f"sum (({_EXPIRES_IN}) / "
                        f"({max_of(tokens.LIFETIME, 'channel_type', 'connection_id', channel_type=_CHANNEL)} > 0) < bool 0.1)"
                    ),
                    legend="Late",
                ),
            ),
            unit="none",
            steps=(Step(None, "green"), Step(1, "yellow")),
            width=4,
        ),
        Panel(
            kind="stat",
            title="Refresh success (24 h)",
            question="Which share of the refreshes of the last day succeeded?",
            queries=(
                Query(expr=ratio_of(tokens.REFRESH_TOTAL, of={"status": "success"}, over="24h", channel_type=_CHANNEL), legend="Success"),
            ),
            unit="percentunit",
            steps=higher_is_better(0.9, 0.99),
            width=4,
        ),
        Panel(
            kind="timeseries",
            title="Refreshes per minute by outcome",
            question="Do token refreshes succeed? Refused: the customer has to authorise again.",
            queries=(
                Query(
                    expr=per_minute(tokens.REFRESH_TOTAL, "status", channel_type=_CHANNEL),
                    legend="{{status}}",
                ),
            ),
            unit="opm",
            stacked=True,
            colours=coloured(tokens.REFRESH_STATUSES),
        ),
        Panel(
            kind="table",
            title="Tokens by expiry",
            question="Which token expires next? Negative: it has expired.",
            keys=_ACCOUNT,
            queries=(
                Query(
                    expr=_EXPIRES_IN,
                    legend="Expires in",
                    unit="dtdurations",
                    steps=(Step(None, "red"), Step(0, "yellow"), Step(86400, "green")),
                ),
                Query(
                    expr=max_of(tokens.LIFETIME, "channel_type", "connection_id", channel_type=_CHANNEL),
                    legend="Good for",
                    unit="dtdurations",
                ),
            ),
            sort_by="Expires in",
            ascending=True,
            width=WIDTH,
            links=(TO_PLATFORM,),
        ),
    ),
)

_CONNECTIONS = Row(
    "Connections",
    (
        Panel(
            kind="timeseries",
            title="Connections by status",
            question="How many connections are there, and how many are broken?",
            queries=(
                Query(
                    expr=f"sum by (status) ({max_of(connections.TOTAL, 'channel_type', 'status', channel_type=_CHANNEL)})",
                    legend="{{status}}",
                ),
            ),
            unit="none",
            stacked=True,
            colours=coloured(connections.STATUSES),
        ),
        Panel(
            kind="timeseries",
            title="Failures of connections per minute",
            question="Do connections fail more often than before?",
            queries=(
                Query(
                    expr=per_minute(connections.ERRORS, "channel_type", channel_type=_CHANNEL),
                    legend="{{channel_type}}",
                ),
            ),
            unit="opm",
            stacked=True,
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="table",
            title="Connections that fail",
            question="Which connection keeps failing, and which has stale data?",
            keys=_ACCOUNT,
            queries=(
                Query(
                    expr=max_of(connections.ERROR_COUNT, "channel_type", "connection_id", channel_type=_CHANNEL),
                    legend="Errors in a row",
                    unit="none",
                    steps=higher_is_worse(1, 5),
                ),
                Query(
                    expr=age(connections.LAST_SYNC, "channel_type", "connection_id", channel_type=_CHANNEL),
                    legend="Last sync",
                    unit="s",
                    steps=higher_is_worse(3600, 86400),
                ),
                Query(
                    expr=age(connections.CREATED_AT, "channel_type", "connection_id", channel_type=_CHANNEL),
                    legend="Age",
                    unit="dtdurations",
                ),
            ),
            sort_by="Errors in a row",
            width=WIDTH,
            links=(TO_PLATFORM,),
        ),
    ),
)

_DRIFT = Row(
    "Drift and conflicts",
    (
        Panel(
            kind="table",
            title="Days of drift",
            question="Which connection's calendar has drifted?",
            keys=_ACCOUNT,
            queries=(
                Query(
                    expr=max_of(reconciliation.DRIFT_DAYS, "channel_type", "connection_id", channel_type=_CHANNEL),
                    legend="Days of drift",
                    unit="none",
                    steps=higher_is_worse(1, 5),
                ),
            ),
            sort_by="Days of drift",
            width=8,
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="timeseries",
            title="Share of days that drifted",
            question="How much of the calendar has drifted, of the days compared?",
            queries=(
                Query(
                    expr=(
                        f"{increase_of(reconciliation.DAYS_DRIFTED, 'channel_type', over='1h', channel_type=_CHANNEL)} / "
                        f"({increase_of(reconciliation.DAYS_CHECKED, 'channel_type', over='1h', channel_type=_CHANNEL)} > 0)"
                    ),
                    legend="{{channel_type}}",
                ),
            ),
            unit="percentunit",
            width=8,
            links=(TO_PLATFORM,),
        ),
        Panel(
            kind="timeseries",
            title="Conflicts",
            question="Do the two sides disagree, and how many conflicts await review?",
            queries=(
                Query(expr=_FOUND, legend="{{conflict_type}} found per minute"),
                Query(expr=f"{max_of(conflicts.REVIEW, 'conflict_type')} or 0 * {_FOUND}", legend="{{conflict_type}} waiting"),
            ),
            unit="short",
            width=8,
        ),
    ),
)

CONNECTIONS: Final = Dashboard(
    uid="channel-manager-connections",
    title="Tokens and Connections",
    question="Which connection is about to stop, and which calendar has drifted?",
    rows=(_TOKENS, _CONNECTIONS, _DRIFT),
    variables=(JOB, Variable("channel_type", "Channel", connections.TOTAL.name)),
    tags=("channel-manager",),
    since="now-24h",
)

DASHBOARDS: Final = (CONNECTIONS,)
