"""
Tokens and connections: whose account is about to stop, and whose calendar is wrong?
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import WIDTH, Dashboard, Panel, Query, Row, Variable
from celery_obs.rules.dashboards.parts import JOB, TO_PLATFORM, coloured, higher_is_worse
from celery_obs.rules.dashboards.queries import age, chosen, max_of, per_minute

from . import metrics as connections


__all__ = ["CONNECTIONS", "DASHBOARDS"]


_CHANNEL = chosen("channel_type")
_ACCOUNT = (("channel_type", "Channel"), ("connection_id", "Connection"))

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

CONNECTIONS: Final = Dashboard(
    uid="channel-manager-connections",
    title="Tokens and Connections",
    question="Which connection is about to stop, and which calendar has drifted?",
    rows=(Row("Tokens", ()), _CONNECTIONS, Row("Drift and conflicts", ())),
    variables=(JOB, Variable("channel_type", "Channel", connections.TOTAL.name)),
    tags=("channel-manager",),
    since="now-24h",
)

DASHBOARDS: Final = (CONNECTIONS,)
