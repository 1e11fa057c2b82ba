"""
What operators do to a channel: one table for the exporter's API and for the commands, and every deed in the audit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.exporter.api.model import LONGEST_PAUSE, Order
from celery_obs.state.audit import Audit

from .breakers.state import Breakers
from .pauses.state import Pauses
from .rate_limits.state import RateLimits


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["LONGEST_PAUSE", "OPERATIONS", "Operation", "Order", "perform"]


class Operation(NamedTuple):
    """
    Something that can be done to a channel.

    Attributes:
        summary: What it does, in a sentence.

        do: Does it, and returns what there is to tell.

        takes_seconds: Whether it can be told to end by itself.
    """

    summary: str
    do: Callable[[Any, str, Order], Mapping[str, object]]
    takes_seconds: bool = False


def perform(redis: Redis, action: str, channel: str, order: Order) -> Mapping[str, object]:
    """
    Do *action* to *channel*, write it down, and return what there is to tell; raises what the client raises, and writes that down, too.
    """
    audit = Audit(redis)
    facts: dict[str, Any] = {} if order.seconds is None else {"seconds": order.seconds}
    try:
        result = OPERATIONS[action].do(redis, channel, order)
    except Exception as error:
        audit.write(action, actor=order.actor, reason=order.reason, channel=channel, outcome=f"failed: {type(error).__name__}", **facts)
        raise
    audit.write(action, actor=order.actor, reason=order.reason, channel=channel, **{**facts, **result})
    return result


def _pause(redis: Redis, channel: str, order: Order) -> Mapping[str, object]:
    Pauses(redis).pause(channel, actor=order.actor, reason=order.reason, seconds=order.seconds)
    return {"paused": True}


def _resume(redis: Redis, channel: str, order: Order) -> Mapping[str, object]:
    return {"paused": False, "was_paused": Pauses(redis).resume(channel)}


def _open(redis: Redis, channel: str, order: Order) -> Mapping[str, object]:
    Breakers(redis).force_open(channel, actor=order.actor, seconds=order.seconds)
    return {"state": "open"}


def _close(redis: Redis, channel: str, order: Order) -> Mapping[str, object]:
    Breakers(redis).force_close(channel, actor=order.actor)
    return {"state": "closed"}


def _reset(redis: Redis, channel: str, order: Order) -> Mapping[str, object]:
    Breakers(redis).reset(channel)
    return {"state": "closed"}


def _clear(redis: Redis, channel: str, order: Order) -> Mapping[str, object]:
    return {"cleared": RateLimits(redis).clear(channel)}


OPERATIONS: Final[Mapping[str, Operation]] = {
    "channel.pause": Operation("Hold back all syncs of a channel.", _pause, takes_seconds=True),
    "channel.resume": Operation("Resume the syncs of a paused channel.", _resume),
    "breaker.open": Operation("Open a channel's circuit breaker: no call goes through.", _open, takes_seconds=True),
    "breaker.close": Operation("Close a channel's circuit breaker: all calls go through again.", _close),
    "breaker.reset": Operation("Reset a channel's circuit breaker: its counts are cleared, and it is closed.", _reset),
    "rate_limit.clear": Operation("Reset a channel's rate-limit counters.", _clear),
}
"""
The operations by the word that the audit has for them.
"""
