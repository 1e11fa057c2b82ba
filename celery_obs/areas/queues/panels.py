"""
Panels about queues on dashboards about several areas.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.dashboards.model import Contribution, Panel, Query
from celery_obs.rules.dashboards.parts import higher_is_worse
from celery_obs.rules.dashboards.queries import max_of
from celery_obs.rules.promql import Where

from . import metrics


__all__ = ["PANELS", "oldest_message"]


def oldest_message(*by: str, **where: Where) -> str:
    """
    Tell how long the front of the queues has waited: 0 where nothing waits, absent where something does and the broker cannot tell since when.
    """
    return f"{max_of(metrics.OLDEST_MESSAGE_AGE, *by, **where)} or {max_of(metrics.DEPTH, *by, **where)} == 0"


PANELS: Final = (
    Contribution(
        "channel-manager-overview",
        "Summary",
        5,
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
