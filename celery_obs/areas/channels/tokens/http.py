"""
What can be asked about tokens over HTTP.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.reports import reports_of
from celery_obs.exporter.api.model import DAY, FLAG, TEXT, TIME, Question, list_of, object_of


__all__ = ["QUESTIONS"]


QUESTIONS: Final = (
    Question(
        "/tokens/expiring",
        "tokens_expiring",
        "Which tokens expire soon, or have expired?",
        ("within_days", "limit", "offset"),
        lambda redis, given: reports_of(redis).expiring(
            within=given["within_days"] * DAY, limit=int(given["limit"]), offset=int(given["offset"])
        ),
        list_of(object_of(connection_id=TEXT, channel_type=TEXT, expires_at=TIME, expires_in_days={"type": "number"}, expired=FLAG)),
    ),
)
