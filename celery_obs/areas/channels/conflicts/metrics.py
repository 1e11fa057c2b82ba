"""
Conflicts: where the two sides disagree, and double bookings.
"""

from __future__ import annotations

from celery_obs.vocabulary.spec import Metric


__all__ = ["DETECTED", "DOUBLE_BOOKINGS", "RESOLVED", "REVIEW"]


DETECTED = Metric(
    kind="counter",
    name="channel_conflicts_total",
    help="Do the two sides disagree? Conflicts detected.",
    labels=("conflict_type", "channel_type"),
)
RESOLVED = Metric(
    kind="counter",
    name="channel_conflicts_resolved_total",
    help="How are conflicts resolved? Resolved conflicts by resolution.",
    labels=("conflict_type", "resolution"),
)
REVIEW = Metric(
    kind="gauge",
    name="channel_conflicts_requiring_review",
    help="How many conflicts await review? Conflicts that only a person can resolve.",
    labels=("conflict_type",),
)
DOUBLE_BOOKINGS = Metric(
    kind="counter",
    name="channel_double_bookings_detected_total",
    help="How many double bookings were detected? Rooms sold twice for one night.",
    labels=("channel_type",),
)
