"""
Recording rules of circuit breakers: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import gauge, max_by
from celery_obs.rules.rules import RecordingRule

from .metrics import STATE


__all__ = ["GROUP", "RULES"]


GROUP: Final = "channels"


def _rules() -> Iterator[RecordingRule]:
    by = ("channel_type",)
    yield RecordingRule(
        name="channel_type:channel_circuit_breaker_closed:bool",
        help="Which circuit breaker is closed? 1 where it is, 0 where it is open or half-open.",
        expr=f"{max_by(gauge(STATE), *by)} == bool 0",
        by=by,
    )


RULES: Final = tuple(_rules())
