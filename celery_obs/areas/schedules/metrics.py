"""
The beat schedule: what was fired, what succeeded, what is late.
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
    help="When should beat publish this entry next? Worked out from its schedule.",
    labels=("entry",),
    aggregate="mostrecent",
)
ENTRY_OVERDUE = Metric(
    kind="gauge",
    name="celery_beat_entry_overdue_seconds",
    help="What should have been fired and was not? Seconds since the entry was due, 0 when it is in time.",
    labels=("entry",),
)
HEARTBEAT = Metric(
    kind="gauge",
    name="celery_beat_heartbeat_timestamp_seconds",
    help="Does beat still go through its schedule? Time of its last pass.",
    aggregate="mostrecent",
)
