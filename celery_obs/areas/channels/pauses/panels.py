"""
Panels about pauses on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.connections.metrics import PAUSED
from celery_obs.rules.dashboards.model import Column, Contribution, Panel, Query
from celery_obs.rules.dashboards.parts import NO
from celery_obs.rules.dashboards.queries import chosen, max_of


__all__ = ["COLUMNS", "PANELS"]


_HERE: Final = chosen("channel_type")

PANELS: Final = (
    Contribution(
        "channel-manager-platform",
        "Connection status",
        2,
        Panel(
            kind="stat",
            title="Paused",
            question="Is this channel paused?",
            queries=(Query(expr=max_of(PAUSED, channel_type=_HERE), legend="Paused"),),
            mappings=NO,
            unit="none",
            width=3,
        ),
    ),
)

COLUMNS: Final = (
    Column(
        "channel-manager-overview",
        "Channel health",
        1,
        Query(expr=max_of(PAUSED, "channel_type"), legend="Paused", unit="none", mappings=NO),
    ),
)
