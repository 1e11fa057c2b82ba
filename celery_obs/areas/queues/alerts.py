"""
Alerts about queues: they grow, grow old, or no worker consumes them.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.tasks.metrics import STARTED
from celery_obs.areas.workers.metrics import POOL_BUSY, POOL_SIZE, UP
from celery_obs.rules.promql import gauge, increase, max_by, sum_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, seconds
from celery_obs.vocabulary.conditions import QUEUE_BACKED_UP, QUEUE_BACKLOG, QUEUE_MESSAGES_OLD, QUEUE_NOT_CONSUMED, QUEUE_WITHOUT_CONSUMERS

from .metrics import CONSUMERS, DEPTH, OLDEST_MESSAGE_AGE


__all__ = ["ALERTS"]


_DEPTH = max_by(gauge(DEPTH), "queue")

ALERTS: Final = (
    Alert(
        name="CeleryQueueBacklog",
        severity=QUEUE_BACKLOG.severity,
        expr=f"{_DEPTH} > $threshold",
        threshold=amount(QUEUE_BACKLOG.threshold),
        for_=QUEUE_BACKLOG.for_,
        by=("queue",),
        summary="Queue {{ $labels.queue }} has a backlog",
        description='{{ $value | printf "%.0f" }} messages have been waiting in queue {{ $labels.queue }} (threshold: $threshold for $for).',
        dashboard="celery-queues",
    ),
    Alert(
        name="CeleryQueueBackedUp",
        severity=QUEUE_BACKED_UP.severity,
        expr=f"{_DEPTH} > $threshold",
        threshold=amount(QUEUE_BACKED_UP.threshold),
        for_=QUEUE_BACKED_UP.for_,
        by=("queue",),
        summary="Queue {{ $labels.queue }} is backed up",
        description='{{ $value | printf "%.0f" }} messages have been waiting in queue {{ $labels.queue }} (threshold: $threshold for $for).',
        dashboard="celery-queues",
    ),
    Alert(
        name="CeleryQueueMessagesOld",
        severity=QUEUE_MESSAGES_OLD.severity,
        expr=f"{max_by(gauge(OLDEST_MESSAGE_AGE), 'queue')} > $threshold",
        threshold=seconds(QUEUE_MESSAGES_OLD.threshold),
        for_=QUEUE_MESSAGES_OLD.for_,
        by=("queue",),
        summary="Messages in queue {{ $labels.queue }} wait too long",
        description="The oldest message of queue {{ $labels.queue }} has waited {{ $value | humanizeDuration }} since it was due (threshold: $threshold).",
        dashboard="celery-queues",
    ),
    Alert(
        name="CeleryQueueNotConsumed",
        severity=QUEUE_NOT_CONSUMED.severity,
        expr=(
            f"{_DEPTH} > $threshold\nunless\n{sum_by(increase(STARTED, QUEUE_NOT_CONSUMED.window), 'queue')} > 0\n"
            f"and on ()\n{sum_by(gauge(POOL_BUSY))} < {sum_by(gauge(POOL_SIZE))}"
        ),
        threshold=amount(QUEUE_NOT_CONSUMED.threshold),
        for_=QUEUE_NOT_CONSUMED.for_,
        by=("queue",),
        summary="Workers have stopped consuming queue {{ $labels.queue }}",
        description='{{ $value | printf "%.0f" }} messages wait in queue {{ $labels.queue }}, workers have room, and none has started a task of it for 10 minutes.',
        dashboard="celery-queues",
    ),
    Alert(
        name="CeleryQueueWithoutConsumers",
        severity=QUEUE_WITHOUT_CONSUMERS.severity,
        # A Redis does not know its consumers; where no worker is up at all, there is none.
        expr=(
            f"{_DEPTH} > $threshold\nand\n(\n  {max_by(gauge(CONSUMERS), 'queue')} == 0\n  or\n"
            f"  (({_DEPTH} unless {max_by(gauge(CONSUMERS), 'queue')}) and on () absent({gauge(UP)} == 1))\n)"
        ),
        threshold=amount(QUEUE_WITHOUT_CONSUMERS.threshold),
        for_=QUEUE_WITHOUT_CONSUMERS.for_,
        by=("queue",),
        summary="No worker consumes queue {{ $labels.queue }}",
        description='{{ $value | printf "%.0f" }} messages wait in queue {{ $labels.queue }}, which has no consumer.',
        dashboard="celery-queues",
    ),
)
