"""
All channels at a glance, and one channel in full; each area gives the panels about itself.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards import third_party as outside
from celery_obs.rules.dashboards.model import Dashboard, Panel, Query, Row, Step, Variable
from celery_obs.rules.dashboards.parts import JOB
from celery_obs.rules.dashboards.queries import selector
from celery_obs.rules.promql import Match

from .syncs.metrics import TOTAL


__all__ = ["DASHBOARDS", "OVERVIEW", "PLATFORM"]


_ALERTS: Final = Panel(
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
)

OVERVIEW: Final = Dashboard(
    uid="channel-manager-overview",
    title="Channel Manager Overview",
    question="Which channels are in sync, and which are not?",
    rows=(Row("Summary", (_ALERTS,)), Row("Sync activity", ()), Row("Channels", ())),
    variables=(JOB,),
    tags=("channel-manager", "pms"),
)

PLATFORM: Final = Dashboard(
    uid="channel-manager-platform",
    title="Channel Manager: One Channel",
    question="What is the state of this channel and its connections?",
    rows=tuple(
        Row(title, ())
        for title in ("Connection status", "Sync timeline", "Error breakdown", "Rate limit usage", "Token status", "Webhooks and outages")
    ),
    variables=(JOB, Variable("channel_type", "Channel", TOTAL.name, many=False)),
    tags=("channel-manager",),
)

DASHBOARDS: Final = (OVERVIEW, PLATFORM)
