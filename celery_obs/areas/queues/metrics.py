"""
Queues, as the broker reports them.
"""

from __future__ import annotations

from typing import Any, Final

from celery_obs.vocabulary.spec import Metric


__all__ = ["CONSUMERS", "DEPTH", "OLDEST_MESSAGE_AGE", "PRIORITY_DEPTH", "UNACKED", "shared_label"]


WORKER_DIRECT: Final = "C.dq2"
"""
Exchange of the queues that Celery makes for single workers (``worker_direct``), one for each node name.
"""


def shared_label(queue: Any) -> str:
    """
    Return the label value that a queue which lives no longer than its consumer shares with all of its kind: its exchange's name.

    Broadcast queues, exclusive and auto-delete ones have random names, a new one for each process; those of ``worker_direct`` one for each node.

    Args:
        queue: A `kombu.Queue`.

    Returns:
        Nothing for a queue that has its name for good, which is its own label value.
    """
    exchange = str(getattr(queue.exchange, "name", "") or "")
    if not exchange or exchange == queue.name:
        return ""
    is_temporary = queue.auto_delete or queue.exclusive or type(queue).__name__ == "Broadcast"
    return exchange if is_temporary or exchange == WORKER_DIRECT else ""


DEPTH = Metric(
    kind="gauge",
    name="celery_queue_depth",
    help="How long is the queue? Messages waiting in it, all priorities together; absent where the queue does not exist.",
    labels=("queue",),
)
PRIORITY_DEPTH = Metric(
    kind="gauge",
    name="celery_queue_priority_depth",
    help="Which priority has a backlog? Messages in the queue by priority step.",
    labels=("queue", "priority"),
)
UNACKED = Metric(
    kind="gauge",
    name="celery_queue_unacked",
    help="How many messages are unacknowledged? Delivered to workers, and not acknowledged; absent where the broker cannot tell.",
    labels=("queue",),
)
CONSUMERS = Metric(
    kind="gauge",
    name="celery_queue_consumers",
    help="How many consumers does the queue have? Absent where the broker cannot tell.",
    labels=("queue",),
)
OLDEST_MESSAGE_AGE = Metric(
    kind="gauge",
    name="celery_queue_oldest_message_age_seconds",
    help="How old is the oldest message? Seconds since its publish (or ETA); absent without our publish stamp.",
    labels=("queue",),
)
