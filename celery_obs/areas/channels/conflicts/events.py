"""
Conflicts: where the two sides disagree, and double bookings.
"""

from __future__ import annotations

from typing import NamedTuple


__all__ = ["ConflictDetected", "ConflictResolved", "DoubleBookingDetected"]


class ConflictDetected(NamedTuple):
    """
    The channel and we hold different things for true.

    Attributes:
        conflict_type: One of a few words of the application's, such as ``availability_mismatch``.

        channel_type: The channel.
    """

    conflict_type: str
    channel_type: str


class ConflictResolved(NamedTuple):
    """
    A person or a rule has decided.

    Attributes:
        conflict_type: As in `ConflictDetected`.

        resolution: Who was right, such as ``local_wins``.
    """

    conflict_type: str
    resolution: str


class DoubleBookingDetected(NamedTuple):
    """
    One room, one night, two guests.

    Attributes:
        channel_type: The channel.
    """

    channel_type: str
