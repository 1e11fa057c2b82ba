"""
The rate limiter: how often a channel may be called.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


__all__ = ["RateLimitChecked", "RateLimitWaited"]


class RateLimitChecked(NamedTuple):
    """
    A caller asked whether a call may be made now.

    Attributes:
        channel_type: The channel.

        connection_id: Whose account; empty where the limit is the whole channel's.

        result: The answer.

        retry_after: Seconds until asking again may help; 0 when allowed.
    """

    channel_type: str
    connection_id: str
    result: Literal["allowed", "denied"]
    retry_after: float


class RateLimitWaited(NamedTuple):
    """
    A caller has waited until it may call, or until it gave up.

    Attributes:
        channel_type: The channel.

        waited: Seconds; 0 where it did not have to wait.
    """

    channel_type: str
    waited: float
