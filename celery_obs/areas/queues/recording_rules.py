"""
Recording rules of queues: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import gauge, max_by
from celery_obs.rules.rules import RecordingRule

from .metrics import DEPTH, OLDEST_MESSAGE_AGE


__all__ = ["GROUP", "RULES"]


GROUP: Final = "workers"


def _rules() -> Iterator[RecordingRule]:
    yield RecordingRule(
        name="queue:celery_queue_depth:max",
        help="How long is the queue? Counted once, however many exporters look at it.",
        expr=max_by(gauge(DEPTH), "queue"),
        by=("queue",),
    )
    yield RecordingRule(
        name="queue:celery_queue_oldest_message_age_seconds:max",
        help="How old is the oldest message of the queue?",
        expr=max_by(gauge(OLDEST_MESSAGE_AGE), "queue"),
        by=("queue",),
    )


RULES: Final = tuple(_rules())
