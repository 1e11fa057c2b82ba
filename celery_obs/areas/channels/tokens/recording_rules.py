"""
Recording rules of tokens: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import gauge, max_by
from celery_obs.rules.rules import RecordingRule

from .metrics import EXPIRES_AT


__all__ = ["GROUP", "RULES"]


GROUP: Final = "channels"


def _rules() -> Iterator[RecordingRule]:
    by = ("channel_type",)
    yield RecordingRule(
        name="channel_type_connection_id:channel_token_remaining:seconds",
        help="How long is each token still valid? Negative once it has expired.",
        expr=f"{max_by(gauge(EXPIRES_AT), *by, 'connection_id')} - time()",
        by=(*by, "connection_id"),
    )


RULES: Final = tuple(_rules())
