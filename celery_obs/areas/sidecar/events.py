"""
Ourselves: the health of celery_obs itself.
"""

from __future__ import annotations

from typing import NamedTuple


__all__ = ["ObservationDropped", "TelemetryDropped"]


class ObservationDropped(NamedTuple):
    """
    Something could not be recorded as it came.

    Attributes:
        reason: One of a few fixed words.
    """

    reason: str


class TelemetryDropped(NamedTuple):
    """
    Spans, error reports or the like were made and will not arrive.

    Attributes:
        reason: One of a few fixed words, such as ``spans_queue_full``.

        number: How many.
    """

    reason: str
    number: int
