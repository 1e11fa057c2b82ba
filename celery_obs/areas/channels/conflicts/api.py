"""
Conflicts: say that the two sides disagree, who was right, what waits for a person, and that a room was sold twice.
"""

from __future__ import annotations

from typing import Any, Final

from celery_obs.areas.channels import engine as engines
from celery_obs.runtime.hub import guarded
from celery_obs.state import keys
from celery_obs.vocabulary.spec import OTHER

from .events import ConflictDetected, ConflictResolved, DoubleBookingDetected


__all__ = ["conflict_detected", "conflict_resolved", "double_booking", "requires_review", "reviewed"]


_MOST_TYPES: Final = 200
_LONGEST: Final = 200

_ADD: Final = """
local name = ARGV[1]
if redis.call('HEXISTS', KEYS[1], name) == 0 then
    if tonumber(ARGV[2]) < 0 or redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
        name = ARGV[4]
    end
end
if not string.match(redis.call('HGET', KEYS[1], name) or '0', '^%-?%d+$') then
    redis.call('HDEL', KEYS[1], name)
end
local count = redis.call('HINCRBY', KEYS[1], name, ARGV[2])
if count <= 0 then
    redis.call('HDEL', KEYS[1], name)
    count = 0
end
return count
"""
"""
Adds to a type's count; a count at 0 is removed, and types beyond the limit share one.
"""


def conflict_detected(conflict_type: str, channel_type: str) -> None:
    """
    Report that the channel and we disagree.

    Args:
        conflict_type: One of a few words of yours, such as ``availability_mismatch``.

        channel_type: The channel.

    Since 0.1.
    """
    engines.current().hub.emit(ConflictDetected(conflict_type, channel_type))


def conflict_resolved(conflict_type: str, resolution: str) -> None:
    """
    Report that a conflict is resolved, and how, such as ``local_wins``.

    Since 0.1.
    """
    engines.current().hub.emit(ConflictResolved(conflict_type, resolution))


def double_booking(channel_type: str) -> None:
    """
    Report that a room was sold twice for one night.

    Since 0.1.
    """
    engines.current().hub.emit(DoubleBookingDetected(channel_type))


def requires_review(conflict_type: str, count: int = 1) -> None:
    """
    Report that *count* more conflicts await review.  Costs one round trip to Redis; without Redis it is skipped, and counted.

    Raises:
        ValueError: if *count* is below 1.

    Since 0.1.
    """
    _add(conflict_type, count, 1)


def reviewed(conflict_type: str, count: int = 1) -> None:
    """
    Report that *count* conflicts were reviewed.  Cost and errors as `requires_review`; no count falls below 0.

    Since 0.1.
    """
    _add(conflict_type, count, -1)


def _add(conflict_type: str, count: Any, sign: int) -> None:
    if not isinstance(count, int) or count < 1:
        message = f"The count of conflicts of type {conflict_type[:_LONGEST]!r} is {count!r}. Expected a whole number above 0."
        raise ValueError(message)
    engine = engines.current()
    if engine.redis is None:
        return
    with guarded(engine.hub.on_error, "sync.conflicts"):
        engine.redis.eval(_ADD, 1, keys.REVIEWS, conflict_type[:_LONGEST], str(sign * count), str(_MOST_TYPES), OTHER)
