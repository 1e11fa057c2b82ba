"""
Panels about tokens on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import WIDTH, Contribution, Panel, Query, Step
from celery_obs.rules.dashboards.parts import TO_PLATFORM, coloured, higher_is_better
from celery_obs.rules.dashboards.queries import chosen, max_of, per_minute, ratio_of

from . import metrics


__all__ = ["PANELS"]


_HERE: Final = chosen("channel_type")
_EXPIRES_IN: Final = f"{max_of(metrics.EXPIRES_AT, 'channel_type', 'connection_id', channel_type=_HERE)} - time()"
_ACCOUNT: Final = (("channel_type", "Channel"), ("connection_id", "Connection"))

PANELS: Final = (
    Contribution(
        "channel-manager-platform",
        "Token status",
        0,
        Panel(
            kind="table",
            title="Tokens by expiry",
            question="Which token expires, and when? Negative: it has expired.",
            keys=(("connection_id", "Connection"),),
            queries=(
                Query(
                    expr=f"{max_of(metrics.EXPIRES_AT, 'connection_id', channel_type=_HERE)} - time()",
                    legend="Expires in",
                    unit="dtdurations",
                    steps=(Step(None, "red"), Step(0, "yellow"), Step(86400, "green")),
                ),
                Query(expr=max_of(metrics.LIFETIME, "connection_id", channel_type=_HERE), legend="Good for", unit="dtdurations"),
            ),
            sort_by="Expires in",
            ascending=True,
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Token status",
        1,
        Panel(
            kind="timeseries",
            title="Token refreshes per minute by outcome",
            question="Do token refreshes succeed? Refused: the customer has to authorise again.",
            queries=(Query(expr=per_minute(metrics.REFRESH_TOTAL, "status", channel_type=_HERE), legend="{{status}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(metrics.REFRESH_STATUSES),
        ),
    ),
    Contribution(
        "channel-manager-connections",
        "Tokens",
        0,
        Panel(
            kind="stat",
            title="Expired",
            question="How many tokens have expired?",
            queries=(Query(expr=f"sum (({_EXPIRES_IN}) <= bool 0)", legend="Expired"),),
            unit="none",
            steps=(Step(None, "green"), Step(1, "red")),
            width=4,
        ),
    ),
    Contribution(
        "channel-manager-connections",
        "Tokens",
        1,
        Panel(
            kind="stat",
            title="Tokens due for a refresh",
            question="How many tokens have less than a tenth of their lifetime left? They are refreshed earlier than that.",
            queries=(
                Query(
                    expr=(
                        f"sum (({_EXPIRES_IN}) / "
                        f"({max_of(metrics.LIFETIME, 'channel_type', 'connection_id', channel_type=_HERE)} > 0) < bool 0.1)"
                    ),
                    legend="Late",
                ),
            ),
            unit="none",
            steps=(Step(None, "green"), Step(1, "yellow")),
            width=4,
        ),
    ),
    Contribution(
        "channel-manager-connections",
        "Tokens",
        2,
        Panel(
            kind="stat",
            title="Refresh success (24 h)",
            question="Which share of the refreshes of the last day succeeded?",
            queries=(
                Query(expr=ratio_of(metrics.REFRESH_TOTAL, of={"status": "success"}, over="24h", channel_type=_HERE), legend="Success"),
            ),
            unit="percentunit",
            steps=higher_is_better(0.9, 0.99),
            width=4,
        ),
    ),
    Contribution(
        "channel-manager-connections",
        "Tokens",
        3,
        Panel(
            kind="timeseries",
            title="Refreshes per minute by outcome",
            question="Do token refreshes succeed? Refused: the customer has to authorise again.",
            queries=(
                Query(
                    expr=per_minute(metrics.REFRESH_TOTAL, "status", channel_type=_HERE),
                    legend="{{status}}",
                ),
            ),
            unit="opm",
            stacked=True,
            colours=coloured(metrics.REFRESH_STATUSES),
        ),
    ),
    Contribution(
        "channel-manager-connections",
        "Tokens",
        4,
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
                    expr=max_of(metrics.LIFETIME, "channel_type", "connection_id", channel_type=_HERE),
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
    Contribution(
        "celery-beat",
        "What the schedule is for",
        0,
        Panel(
            kind="timeseries",
            title="Token refreshes per minute",
            question="Does the schedule keep the tokens fresh?",
            queries=(Query(expr=per_minute(metrics.REFRESH_TOTAL, "status"), legend="{{status}}"),),
            unit="opm",
            stacked=True,
            colours=coloured(metrics.REFRESH_STATUSES),
        ),
    ),
)
