"""
What the API is made of: questions and deeds, as values that areas give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple


__all__ = [
    "BODY",
    "COUNT",
    "DAY",
    "FLAG",
    "LONGEST_PAUSE",
    "MOST",
    "PARAMETERS",
    "PREFIX",
    "TEXT",
    "TIME",
    "Deed",
    "Number",
    "Order",
    "Question",
    "Schema",
    "list_of",
    "object_of",
]


PREFIX: Final = "/api/v1/channels"

MOST: Final = 50_000
"""
Entries of one answer at most.
"""

DAY: Final = 86400.0

LONGEST_PAUSE: Final = 366 * DAY
"""
Seconds; for longer, leave the time out and end it by hand.
"""

Schema = Mapping[str, Any]


class Order(NamedTuple):
    """
    Who wants something done, and why.

    Attributes:
        actor: A person or a program.

        reason: In words.

        seconds: For how long; None until it is ended by hand.
    """

    actor: str
    reason: str
    seconds: float | None = None


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

        ask: Gives the answer of a client of Redis; may raise what a Redis client raises.

        answer: The answer's schema.
    """

    path: str
    name: str
    summary: str
    parameters: tuple[str, ...]
    ask: Callable[[Any, Mapping[str, float]], object]
    answer: Schema


@dataclass(frozen=True, slots=True)
class Deed:
    """
    Something that can be done to a channel.

    Attributes:
        path: Behind :data:`PREFIX` and the channel's name.

        action: The word that the audit has for it.

        summary: What it does, in a sentence.

        do: Does it to a channel with a client of Redis, and returns what there is to tell.

        answer: Schemas of what it tells, beside ``channel_type`` and ``action``.

        takes_seconds: Whether it can be told to end by itself.
    """

    path: str
    name: str
    action: str
    answer: Schema
    summary: str
    do: Callable[[Any, str, Order], Mapping[str, object]]
    takes_seconds: bool = False


PARAMETERS: Final[Mapping[str, Number]] = {
    "limit": Number("Maximum number of entries.", 1, MOST, 10_000),
    "offset": Number("Number of entries to skip.", 0, 10_000_000, 0),
    "within_days": Number("How far to look ahead, in days.", 0, 3660, 7, whole=False),
}

TEXT: Final = {"type": "string"}
COUNT: Final = {"type": "integer"}
FLAG: Final = {"type": "boolean"}
TIME: Final = {"type": ["string", "null"], "format": "date-time"}


def object_of(**properties: Schema) -> Schema:
    """
    Describe an object that has all of these.
    """
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def list_of(of: Schema) -> Schema:
    """
    Describe a list.
    """
    return {"type": "array", "items": of}


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
