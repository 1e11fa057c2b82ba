"""
Panels about workers on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import Contribution, Panel, Query
from celery_obs.rules.dashboards.queries import increase_of, per_second, sum_of
from celery_obs.rules.promql import Match

from . import metrics


__all__ = ["PANELS"]


PANELS: Final = (
    Contribution(
        "celery-obs-infrastructure",
        "Workers",
        0,
        Panel(
            kind="timeseries",
            title="Memory of workers",
            question="Which worker grows?",
            queries=(Query(expr=sum_of(metrics.RESIDENT_MEMORY, "worker"), legend="{{worker}}"),),
            unit="bytes",
            width=8,
        ),
    ),
    Contribution(
        "celery-obs-infrastructure",
        "Workers",
        1,
        Panel(
            kind="timeseries",
            title="Processors in use by workers",
            question="Which worker is busy?",
            queries=(Query(expr=per_second(metrics.CPU_SECONDS, "worker"), legend="{{worker}}"),),
            width=8,
        ),
    ),
    Contribution(
        "celery-obs-infrastructure",
        "Workers",
        2,
        Panel(
            kind="timeseries",
            title="Pool processes that died in the last hour",
            question="Do processes die unexpectedly?",
            queries=(
                Query(
                    expr=increase_of(metrics.PROCESS_RESTARTS, "worker", "reason", over="1h", reason=Match("!=", "recycled")),
                    legend="{{worker}}: {{reason}}",
                ),
            ),
            unit="none",
            decimals=0,
            stacked=True,
            width=8,
        ),
    ),
)
