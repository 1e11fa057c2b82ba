"""
What can be asked about reconciliation over HTTP.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.reports import reports_of
from celery_obs.exporter.api.model import COUNT, TEXT, TIME, Question, list_of, object_of


__all__ = ["QUESTIONS"]


QUESTIONS: Final = (
    Question(
        "/reconciliation/pending",
        "reconciliation_pending",
        "Which connections' calendars differ, and where?",
        ("limit", "offset"),
        lambda redis, given: reports_of(redis).pending(limit=int(given["limit"]), offset=int(given["offset"])),
        object_of(
            count=COUNT,
            days=COUNT,
            connections=list_of(
                object_of(
                    connection_id=TEXT,
                    channel_type=TEXT,
                    days=COUNT,
                    conflicts={"type": "object", "additionalProperties": COUNT},
                    sample=list_of(
                        object_of(day=TEXT, conflict_type=TEXT, local={"type": ["string", "null"]}, remote={"type": ["string", "null"]})
                    ),
                    found_at=TIME,
                )
            ),
        ),
    ),
)
