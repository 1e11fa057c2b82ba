"""
The beat schedule: what was fired, what succeeded, and what is overdue.
"""

from __future__ import annotations

from celery_obs.areas.tasks.metrics import SUCCEEDED_ENTRY
from celery_obs.vocabulary.spec import Metric


__all__ = ["ENTRY_DUE", "ENTRY_LAST_FIRED", "ENTRY_OVERDUE", "HEARTBEAT", "SUCCEEDED_ENTRY"]


ENTRY_LAST_FIRED = Metric(
    kind="gauge",
    name="celery_beat_entry_last_fired_timestamp_seconds",
    help="When did beat last publish this entry?",
    labels=("entry",),
    aggregate="mostrecent",
)
ENTRY_DUE = Metric(
    kind="gauge",
    name="celery_beat_entry_next_due_timestamp_seconds",
    help="When should beat publish this entry next? Computed from its schedule.",
    labels=("entry",),
    aggregate="mostrecent",
)
ENTRY_OVERDUE = Metric(
    kind="gauge",
    name="celery_beat_entry_overdue_seconds",
    help="Which entry is overdue? Seconds since it was due, 0 while it is on time.",
    labels=("entry",),
)
HEARTBEAT = Metric(
    kind="gauge",
    name="celery_beat_heartbeat_timestamp_seconds",
    help="Does beat still run its schedule? Time of its last pass.",
    aggregate="mostrecent",
)
