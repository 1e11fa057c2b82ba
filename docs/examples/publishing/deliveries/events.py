"""
Deliveries: what can happen.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


__all__ = ["AlertDelivered", "PublicationDelivered"]


class PublicationDelivered(NamedTuple):
    """
    A channel took a publication, or refused it.

    Attributes:
        channel: Such as email or chat; a few, for each is a series.

        status: How it ended.
    """

    channel: str
    status: Literal["success", "failure"]


class AlertDelivered(NamedTuple):
    """
    An alert has reached its reader.

    Attributes:
        channel: Such as email or chat.

        seconds: Since it was created.
    """

    channel: str
    seconds: float
