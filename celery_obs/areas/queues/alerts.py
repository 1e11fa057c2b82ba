"""
Alerts about queues: they grow, grow old, or no worker consumes them.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.tasks.metrics import STARTED
from celery_obs.areas.workers.metrics import POOL_BUSY, POOL_SIZE, UP
from celery_obs.rules.promql import gauge, increase, most, total
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, seconds
from celery_obs.vocabulary.conditions import QUEUE_BACKED_UP, QUEUE_BACKLOG, QUEUE_MESSAGES_OLD, QUEUE_NOT_CONSUMED, QUEUE_WITHOUT_CONSUMERS

from .metrics import CONSUMERS, DEPTH, OLDEST_MESSAGE_AGE


__all__ = ["ALERTS"]


_DEPTH = most(gauge(DEPTH), "queue")

ALERTS: Final = (
    Alert(
        name="CeleryQueueBacklog",
        severity=QUEUE_BACKLOG.severity,
        when=f"{_DEPTH} > $threshold",
        threshold=amount(QUEUE_BACKLOG.threshold),
        lasts=QUEUE_BACKLOG.lasts,
        by=("queue",),
        summary="Queue {{ $labels.queue }} has a backlog",
        description='{{ $value | printf "%.0f" }} messages have been waiting in queue {{ $labels.queue }} (threshold: $threshold for $for).',
        shows="celery-queues",
    ),
    Alert(
        name="CeleryQueueBackedUp",
        severity=QUEUE_BACKED_UP.severity,
        when=f"{_DEPTH} > $threshold",
        threshold=amount(QUEUE_BACKED_UP.threshold),
        lasts=QUEUE_BACKED_UP.lasts,
        by=("queue",),
        summary="Queue {{ $labels.queue }} is backed up",
        description='{{ $value | printf "%.0f" }} messages have been waiting in queue {{ $labels.queue }} (threshold: $threshold for $for).',
        shows="celery-queues",
    ),
    Alert(
        name="CeleryQueueMessagesOld",
        severity=QUEUE_MESSAGES_OLD.severity,
        when=f"{most(gauge(OLDEST_MESSAGE_AGE), 'queue')} > $threshold",
        threshold=seconds(QUEUE_MESSAGES_OLD.threshold),
        lasts=QUEUE_MESSAGES_OLD.lasts,
        by=("queue",),
        summary="Messages in queue {{ $labels.queue }} wait too long",
        description="The oldest message of queue {{ $labels.queue }} has waited {{ $value | humanizeDuration }} since it was due (threshold: $threshold).",
        shows="celery-queues",
    ),
    Alert(
        name="CeleryQueueNotConsumed",
        severity=QUEUE_NOT_CONSUMED.severity,
        when=(
            f"{_DEPTH} > $threshold\nunless\n{total(increase(STARTED, QUEUE_NOT_CONSUMED.window), 'queue')} > 0\n"
            f"and on ()\n{total(gauge(POOL_BUSY))} < {total(gauge(POOL_SIZE))}"
        ),
        threshold=amount(QUEUE_NOT_CONSUMED.threshold),
        lasts=QUEUE_NOT_CONSUMED.lasts,
        by=("queue",),
        summary="Workers have stopped consuming queue {{ $labels.queue }}",
        description='{{ $value | printf "%.0f" }} messages wait in queue {{ $labels.queue }}, workers have room, and none has started a task of it for 10 minutes.',
        shows="celery-queues",
    ),
    Alert(
        name="CeleryQueueWithoutConsumers",
        severity=QUEUE_WITHOUT_CONSUMERS.severity,
        # A Redis does not know its consumers; where no worker is up at all, there is none.
        when=(
            f"{_DEPTH} > $threshold\nand\n(\n  {most(gauge(CONSUMERS), 'queue')} == 0\n  or\n"
            f"  (({_DEPTH} unless {most(gauge(CONSUMERS), 'queue')}) and on () absent({gauge(UP)} == 1))\n)"
        ),
        threshold=amount(QUEUE_WITHOUT_CONSUMERS.threshold),
        lasts=QUEUE_WITHOUT_CONSUMERS.lasts,
        by=("queue",),
        summary="No worker consumes queue {{ $labels.queue }}",
        description='{{ $value | printf "%.0f" }} messages wait in queue {{ $labels.queue }}, which has no consumer.',
        shows="celery-queues",
    ),
)
