"""
Alerts about queues: they grow, grow old, or nobody listens.
"""

from __future__ import annotations

from typing import Final

from celery_obs.generate.promql import gauge, increase, most, total
from celery_obs.generate.rules import Alert
from celery_obs.generate.thresholds import amount, seconds
from celery_obs.vocabulary.queues import CONSUMERS, DEPTH, OLDEST_MESSAGE_AGE
from celery_obs.vocabulary.tasks import STARTED
from celery_obs.vocabulary.workers import POOL_BUSY, POOL_SIZE


__all__ = ["ALERTS"]


_DEPTH = most(gauge(DEPTH), "queue")

ALERTS: Final = (
    Alert(
        name="CeleryQueueBacklog",
        severity="warning",
        when=f"{_DEPTH} > $threshold",
        threshold=amount(1000),
        lasts="15m",
        by=("queue",),
        summary="Queue {{ $labels.queue }} has a backlog",
        description='{{ $value | printf "%.0f" }} messages have been waiting in queue {{ $labels.queue }} (threshold: $threshold for $for).',
        shows="celery-queues",
        seeds=("000 §9.2", "002 QueueBacklog", "003 QueueBacklog"),
    ),
    Alert(
        name="CeleryQueueBackedUp",
        severity="critical",
        when=f"{_DEPTH} > $threshold",
        threshold=amount(10_000),
        lasts="10m",
        by=("queue",),
        summary="Queue {{ $labels.queue }} is backed up",
        description='{{ $value | printf "%.0f" }} messages have been waiting in queue {{ $labels.queue }} (threshold: $threshold for $for).',
        shows="celery-queues",
        seeds=("004 Worker Queue Backed Up",),
    ),
    Alert(
        name="CeleryQueueMessagesOld",
        severity="warning",
        when=f"{most(gauge(OLDEST_MESSAGE_AGE), 'queue')} > $threshold",
        threshold=seconds(600),
        lasts="5m",
        by=("queue",),
        summary="Messages grow old in queue {{ $labels.queue }}",
        description="The oldest message of queue {{ $labels.queue }} has been due for {{ $value | humanizeDuration }} (threshold: $threshold).",
        shows="celery-queues",
    ),
    Alert(
        name="CeleryQueueNotConsumed",
        severity="critical",
        when=(
            f"{_DEPTH} > $threshold\nunless\n{total(increase(STARTED, '10m'), 'queue')} > 0\n"
            f"and on ()\n{total(gauge(POOL_BUSY))} < {total(gauge(POOL_SIZE))}"
        ),
        threshold=amount(0),
        lasts="10m",
        by=("queue",),
        summary="Workers have stopped to consume queue {{ $labels.queue }}",
        description='{{ $value | printf "%.0f" }} messages wait in queue {{ $labels.queue }}, workers have room, and for 10 minutes none has begun a task of it.',
        shows="celery-queues",
    ),
    Alert(
        name="CeleryQueueWithoutConsumers",
        severity="critical",
        when=f"{_DEPTH} > $threshold\nand\n{most(gauge(CONSUMERS), 'queue')} == 0",
        threshold=amount(0),
        lasts="5m",
        by=("queue",),
        summary="Nobody listens to queue {{ $labels.queue }}",
        description='{{ $value | printf "%.0f" }} messages wait in queue {{ $labels.queue }}, which has no consumer.',
        shows="celery-queues",
    ),
)
