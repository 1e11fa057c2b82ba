"""
The API as a table: what can be asked and done, from which both the routes and their description are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery_obs.areas.channels.breakers.metrics import STATES
from celery_obs.areas.channels.connections.metrics import STATUSES
from celery_obs.areas.channels.operations import LONGEST_PAUSE
from celery_obs.areas.channels.reports import DAY, SOON, Reports


__all__ = ["BODY", "DEEDS", "MOST", "PARAMETERS", "PREFIX", "QUESTIONS", "Deed", "Number", "Question"]


PREFIX: Final = "/api/v1/channels"

MOST: Final = 50_000
"""
Entries of one answer at most.
"""

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Number:
    """
    A parameter of a question.

    Attributes:
        least, most: What it may be.

        default: What it is when it is not given.

        whole: Whether it has to be a whole number.
    """

    summary: str
    least: float
    most: float
    default: float
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """
    Something that can be asked.

    Attributes:
        path: Behind :data:`PREFIX`.

        parameters: Names of :data:`PARAMETERS`.

        ask: Gives the answer; may raise what a Redis client raises.

        answer: The answer's schema.
    """

    path: str
    name: str
    summary: str
    parameters: tuple[str, ...]
    ask: Callable[[Reports, Mapping[str, float]], object]
    answer: Schema


@dataclass(frozen=True, slots=True)
class Deed:
    """
    Something that can be done to a channel.

    Attributes:
        path: Behind :data:`PREFIX` and the channel's name.

        action: The word for it in the table of operations.

        answer: Schemas of what it tells, beside ``channel_type`` and ``action``.
    """

    path: str
    name: str
    action: str
    answer: Schema


PARAMETERS: Final[Mapping[str, Number]] = {
    "limit": Number("Maximum number of entries.", 1, MOST, 10_000),
    "offset": Number("Number of entries to skip.", 0, 10_000_000, 0),
    "within_days": Number("How far to look ahead, in days.", 0, 3660, SOON / DAY, whole=False),
}

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer"}
_FLAG: Final = {"type": "boolean"}
_TIME: Final = {"type": ["string", "null"], "format": "date-time"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


_PAUSE: Final = {"paused_by": _TEXT, "reason": _TEXT, "paused_at": _TIME, "paused_until": _TIME}

QUESTIONS: Final = (
    Question(
        "/status",
        "channels_status",
        "What is the state of connections, and which channels are paused?",
        ("limit", "offset"),
        lambda reports, given: reports.status(limit=int(given["limit"]), offset=int(given["offset"])),
        _object(
            count=_COUNT,
            connections=_list(
                _object(
                    connection_id=_TEXT,
                    channel_type=_TEXT,
                    status={"enum": list(STATUSES)},
                    created_at=_TIME,
                    last_sync_at=_TIME,
                    error_count=_COUNT,
                )
            ),
            channels=_list(
                {"type": "object", "properties": {"channel_type": _TEXT, "paused": _FLAG, **_PAUSE}, "required": ["channel_type", "paused"]}
            ),
        ),
    ),
    Question(
        "/circuit-breakers",
        "circuit_breakers",
        "Which circuit breakers are open?",
        (),
        lambda reports, _: reports.breakers(),
        _list(
            _object(
                channel_type=_TEXT,
                state={"enum": list(STATES)},
                failure_count=_COUNT,
                opened_at=_TIME,
                probe_at=_TIME,
                forced=_FLAG,
                changed_by=_TEXT,
            )
        ),
    ),
    Question(
        "/reconciliation/pending",
        "reconciliation_pending",
        "Which connections' calendars differ, and where?",
        ("limit", "offset"),
        lambda reports, given: reports.pending(limit=int(given["limit"]), offset=int(given["offset"])),
        _object(
            count=_COUNT,
            days=_COUNT,
            connections=_list(
                _object(
                    connection_id=_TEXT,
                    channel_type=_TEXT,
                    days=_COUNT,
                    conflicts={"type": "object", "additionalProperties": _COUNT},
                    sample=_list(
                        _object(day=_TEXT, conflict_type=_TEXT, local={"type": ["string", "null"]}, remote={"type": ["string", "null"]})
                    ),
                    found_at=_TIME,
                )
            ),
        ),
    ),
    Question(
        "/tokens/expiring",
        "tokens_expiring",
        "Which tokens expire soon, or have expired?",
        ("within_days", "limit", "offset"),
        lambda reports, given: reports.expiring(within=given["within_days"] * DAY, limit=int(given["limit"]), offset=int(given["offset"])),
        _list(_object(connection_id=_TEXT, channel_type=_TEXT, expires_at=_TIME, expires_in_days={"type": "number"}, expired=_FLAG)),
    ),
)

DEEDS: Final = (
    Deed("/pause-all", "pause_all", "channel.pause", {"paused": _FLAG}),
    Deed("/resume-all", "resume_all", "channel.resume", {"paused": _FLAG, "was_paused": _FLAG}),
    Deed("/circuit-breaker/open", "circuit_breaker_open", "breaker.open", {"state": {"enum": list(STATES)}}),
    Deed("/circuit-breaker/close", "circuit_breaker_close", "breaker.close", {"state": {"enum": list(STATES)}}),
    Deed("/rate-limit/clear", "rate_limit_clear", "rate_limit.clear", {"cleared": _COUNT}),
)

BODY: Final[Mapping[str, Schema]] = {
    "reason": {"type": "string", "maxLength": 500, "description": "Reason, for the audit log."},
    "actor": {"type": "string", "maxLength": 200, "description": "The user; the header X-Actor wins."},
    "seconds": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": LONGEST_PAUSE,
        "description": "For how long; by default until it is ended by hand.",
    },
}
"""
The fields of a deed's body, none of which has to be there; ``seconds`` is for those that can end by themselves.
"""
