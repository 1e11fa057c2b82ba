"""
Providers: what can happen.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


__all__ = ["DataPointsProcessed"]


class DataPointsProcessed(NamedTuple):
    """
    A batch of measurements of one kind was taken, or refused.

    Attributes:
        provider: Whose they are; the name that its channel has.

        kind: Such as steps or heart_rate; a few, for each is a series.

        status: How it ended: refused is what is no valid measurement.

        number: How many.
    """

    provider: str
    kind: str
    status: Literal["accepted", "refused"]
    number: int
