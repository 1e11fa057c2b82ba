"""
Recording rules of rate limits: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import gauge, max_by
from celery_obs.rules.rules import RecordingRule

from .metrics import CURRENT, MAX


__all__ = ["GROUP", "RULES"]


GROUP: Final = "channels"


def _rules() -> Iterator[RecordingRule]:
    by = ("channel_type",)
    yield RecordingRule(
        name="channel_type_connection_id:channel_rate_limit_used:ratio",
        help="How close are calls to the rate limit? Calls in the window, divided by the limit.",
        expr=(f"{max_by(gauge(CURRENT), *by, 'connection_id')}\n/ on (channel_type) group_left ()\n({max_by(gauge(MAX), *by)} > 0)"),
        by=(*by, "connection_id"),
    )


RULES: Final = tuple(_rules())
