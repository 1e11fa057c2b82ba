"""
Conflicts: two sides that disagree, and rooms that were sold twice.
"""

from __future__ import annotations

from celery_obs.vocabulary.spec import Metric


__all__ = ["DETECTED", "DOUBLE_BOOKINGS", "RESOLVED", "REVIEW"]


DETECTED = Metric(
    kind="counter",
    name="channel_conflicts_total",
    help="Do the two sides disagree? Conflicts that were found.",
    labels=("conflict_type", "channel_type"),
)
RESOLVED = Metric(
    kind="counter",
    name="channel_conflicts_resolved_total",
    help="Who was right? Conflicts that were resolved, by resolution.",
    labels=("conflict_type", "resolution"),
)
REVIEW = Metric(
    kind="gauge",
    name="channel_conflicts_requiring_review",
    help="What waits for a person? Conflicts that nothing but a person can resolve.",
    labels=("conflict_type",),
)
DOUBLE_BOOKINGS = Metric(
    kind="counter",
    name="channel_double_bookings_detected_total",
    help="Whom do we have to call? Rooms that were sold twice for a night.",
    labels=("channel_type",),
)
