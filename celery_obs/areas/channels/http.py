"""
What can be asked about channels over HTTP, and done to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from celery_obs.exporter.api.model import COUNT, FLAG, TEXT, TIME, Deed, Order, Question, Schema, list_of, object_of

from .breakers.metrics import STATES
from .connections.metrics import STATUSES
from .operations import OPERATIONS, perform
from .reports import reports_of


__all__ = ["DEEDS", "QUESTIONS", "channels"]


def channels(redis: Any) -> tuple[str, ...]:
    """
    Return all channels that were used, or have a connection.
    """
    return reports_of(redis).channels()


def _deed(path: str, name: str, action: str, answer: Schema) -> Deed:
    operation = OPERATIONS[action]
    return Deed(path, name, action, answer, operation.summary, partial(_perform, action), operation.takes_seconds)


def _perform(action: str, redis: Any, channel: str, order: Order) -> Mapping[str, object]:
    return perform(redis, action, channel, order)


_PAUSE: Final = {"paused_by": TEXT, "reason": TEXT, "paused_at": TIME, "paused_until": TIME}

QUESTIONS: Final = (
    Question(
        "/status",
        "channels_status",
        "What is the state of connections, and which channels are paused?",
        ("limit", "offset"),
        lambda redis, given: reports_of(redis).status(limit=int(given["limit"]), offset=int(given["offset"])),
        object_of(
            count=COUNT,
            connections=list_of(
                object_of(
                    connection_id=TEXT,
                    channel_type=TEXT,
                    status={"enum": list(STATUSES)},
                    created_at=TIME,
                    last_sync_at=TIME,
                    error_count=COUNT,
                )
            ),
            channels=list_of(
                {"type": "object", "properties": {"channel_type": TEXT, "paused": FLAG, **_PAUSE}, "required": ["channel_type", "paused"]}
            ),
        ),
    ),
    Question(
        "/circuit-breakers",
        "circuit_breakers",
        "Which circuit breakers are open?",
        (),
        lambda redis, _: reports_of(redis).breakers(),
        list_of(
            object_of(
                channel_type=TEXT,
                state={"enum": list(STATES)},
                failure_count=COUNT,
                opened_at=TIME,
                probe_at=TIME,
                forced=FLAG,
                changed_by=TEXT,
            )
        ),
    ),
)

DEEDS: Final = (
    _deed("/pause-all", "pause_all", "channel.pause", {"paused": FLAG}),
    _deed("/resume-all", "resume_all", "channel.resume", {"paused": FLAG, "was_paused": FLAG}),
    _deed("/circuit-breaker/open", "circuit_breaker_open", "breaker.open", {"state": {"enum": list(STATES)}}),
    _deed("/circuit-breaker/close", "circuit_breaker_close", "breaker.close", {"state": {"enum": list(STATES)}}),
    _deed("/rate-limit/clear", "rate_limit_clear", "rate_limit.clear", {"cleared": COUNT}),
)
