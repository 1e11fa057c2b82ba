"""
What reconciliation has left to be settled: per connection that drifts, how many days, and a few of them to look at.
"""

from __future__ import annotations

import json
import math

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.state import keys
from celery_obs.state.scripts import text


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["MOST_TYPES", "SAMPLE", "Pending", "PendingConnection", "PendingDay", "decode", "encode"]


SAMPLE: Final = 10
"""
Days that are kept of a connection, the earliest ones: a person looks at the first few, and the list stays small however much drifts.
"""

MOST_TYPES: Final = 20
"""
Types of conflict that are counted by name for one connection.
"""

_LONGEST: Final = 100


class PendingDay(NamedTuple):
    """
    One day on which the two sides differ.

    Attributes:
        day: The date, as ``2030-12-31``.

        conflict_type: One of the application's few words.

        local, remote: What each side holds, as a short text; None where it holds nothing.
    """

    day: str
    conflict_type: str
    local: str | None
    remote: str | None


class PendingConnection(NamedTuple):
    """
    What the last check of a connection left to be settled.

    Attributes:
        connection_id: The connection.

        channel_type: The channel.

        days: Days on which the two sides differ.

        conflicts: The same days by type of conflict.

        sample: The earliest of them.

        at: When that was found, in seconds since the epoch.
    """

    connection_id: str
    channel_type: str
    days: int
    conflicts: Mapping[str, int]
    sample: tuple[PendingDay, ...]
    at: float


class Pending:
    """
    Write and read the list.

    Args:
        redis: A client; every method raises what it raises.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def put(self, entry: PendingConnection) -> None:
        """
        Say what a connection has to be settled; what was said of it before is replaced.
        """
        self._redis.hset(keys.PENDING, entry.connection_id, encode(entry))

    def remove(self, *connection_ids: str) -> None:
        """
        Say that nothing is left of these connections.
        """
        if connection_ids:
            self._redis.hdel(keys.PENDING, *connection_ids)

    def all(self) -> Mapping[str, PendingConnection]:
        """
        Return everything that is left, by connection.  A field that is none of ours is left out.
        """
        written: Any = self._redis.hgetall(keys.PENDING)
        found = (decode(text(connection_id), value) for connection_id, value in written.items())
        return {entry.connection_id: entry for entry in found if entry is not None}


def encode(entry: PendingConnection) -> str:
    """
    Write *entry* as the JSON that goes into its field; texts are cut, and no more than :data:`SAMPLE` days are kept.
    """
    return json.dumps(
        {
            "channel_type": entry.channel_type,
            "days": entry.days,
            "conflicts": {_cut(name): count for name, count in list(entry.conflicts.items())[:MOST_TYPES]},
            "sample": [[_cut(text) for text in day] for day in entry.sample[:SAMPLE]],
            "at": entry.at,
        }
    )


def decode(connection_id: str, written: bytes | str) -> PendingConnection | None:
    """
    Read what :func:`encode` wrote; None for anything else.
    """
    try:
        data = json.loads(written)
        entry = PendingConnection(
            connection_id,
            _word(data["channel_type"]),
            _count(data["days"]),
            {name: _count(count) for name, count in data["conflicts"].items()},
            tuple(_days(data["sample"])),
            float(data["at"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return entry if math.isfinite(entry.at) else None


def _days(written: Iterable[Any]) -> Iterable[PendingDay]:
    for day, conflict_type, local, remote in written:
        yield PendingDay(_word(day), _word(conflict_type), *(None if side is None else _word(side) for side in (local, remote)))


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise TypeError


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError


def _cut(text: Any) -> Any:
    return text[:_LONGEST] if isinstance(text, str) else None
