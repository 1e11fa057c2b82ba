"""
The circuit breaker: whether a channel is called at all.
"""

from __future__ import annotations

from typing import NamedTuple

from .metrics import BreakerState


__all__ = ["CircuitChanged", "CircuitRejected"]


class CircuitChanged(NamedTuple):
    """
    A breaker changed its state, and this process did it.

    Attributes:
        channel_type: The channel.

        from_state, to_state: Before and after.

        open_for: Seconds since it left *closed*, when it is closed again; else None.
    """

    channel_type: str
    from_state: BreakerState
    to_state: BreakerState
    open_for: float | None


class CircuitRejected(NamedTuple):
    """
    A call was not made because the breaker did not let it through.

    Attributes:
        channel_type: The channel.
    """

    channel_type: str
