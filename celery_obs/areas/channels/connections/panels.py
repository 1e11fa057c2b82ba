"""
Panels about connections on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import WIDTH, Contribution, Panel, Query
from celery_obs.rules.dashboards.parts import TO_PLATFORM, coloured, higher_is_worse
from celery_obs.rules.dashboards.queries import age, chosen, max_of

from . import metrics


__all__ = ["PANELS"]


_HERE: Final = chosen("channel_type")

PANELS: Final = (
    Contribution(
        "channel-manager-overview",
        "Summary",
        0,
        Panel(
            kind="stat",
            title="Active connections",
            question="How many connections are there?",
            queries=(Query(expr=f"sum ({max_of(metrics.TOTAL, 'channel_type', status='active')})", legend="Active"),),
            width=4,
            height=4,
        ),
    ),
    Contribution(
        "channel-manager-overview",
        "Channels",
        0,
        Panel(
            kind="table",
            title="Channel health",
            question="Which channel needs attention? Its breaker, its last success, its failures, its speed.",
            keys=(("channel_type", "Channel"),),
            queries=(
                Query(
                    expr=age(metrics.LAST_SYNC, "channel_type"),
                    legend="Last sync",
                    unit="s",
                    steps=higher_is_worse(3600, 86400),
                ),
                Query(
                    expr=f"sum by (channel_type) ({max_of(metrics.ERROR_COUNT, 'channel_type', 'connection_id')})",
                    legend="Errors in a row",
                    unit="none",
                    steps=higher_is_worse(1, 10),
                ),
            ),
            sort_by="Errors in a row",
            width=WIDTH,
            links=(TO_PLATFORM,),
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Connection status",
        0,
        Panel(
            kind="bargauge",
            title="Connections by status",
            question="How many connections are there, and how many are broken?",
            queries=(Query(expr=max_of(metrics.TOTAL, "status", channel_type=_HERE), legend="{{status}}"),),
            minimum=0,
            colours=coloured(metrics.STATUSES),
            width=6,
        ),
    ),
    Contribution(
        "channel-manager-platform",
        "Connection status",
        3,
        Panel(
            kind="table",
            title="Connections",
            question="Which connection needs attention? The most errors in a row are at the top.",
            keys=(("connection_id", "Connection"),),
            queries=(
                Query(
                    expr=max_of(metrics.ERROR_COUNT, "connection_id", channel_type=_HERE),
                    legend="Errors in a row",
                    unit="none",
                    steps=higher_is_worse(1, 5),
                ),
                Query(
                    expr=age(metrics.LAST_SYNC, "connection_id", channel_type=_HERE),
                    legend="Last sync",
                    unit="s",
                    steps=higher_is_worse(3600, 86400),
                ),
                Query(expr=age(metrics.CREATED_AT, "connection_id", channel_type=_HERE), legend="Age", unit="dtdurations"),
            ),
            sort_by="Errors in a row",
            width=12,
        ),
    ),
    Contribution(
        "celery-obs-business",
        "Customers",
        0,
        Panel(
            kind="timeseries",
            title="Active connections by channel",
            question="How many connections are active on each channel?",
            queries=(Query(expr=max_of(metrics.TOTAL, "channel_type", status="active"), legend="{{channel_type}}"),),
            unit="none",
            stacked=True,
            links=(TO_PLATFORM,),
        ),
    ),
    Contribution(
        "celery-obs-business",
        "Customers",
        1,
        Panel(
            kind="timeseries",
            title="Customers that left",
            question="How many connections have left each channel?",
            queries=(Query(expr=max_of(metrics.TOTAL, "channel_type", status="disconnected"), legend="{{channel_type}}"),),
            unit="none",
            links=(TO_PLATFORM,),
        ),
    ),
)
