"""
Queues: how long they are, how old, and whether they are consumed.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.tasks import metrics as tasks
from celery_obs.rules.dashboards.model import WIDTH, Dashboard, Panel, Query, Row, Step, Variable
from celery_obs.rules.dashboards.parts import JOB, TO_QUEUES, higher_is_worse
from celery_obs.rules.dashboards.queries import chosen, increase_of, max_of, per_minute, quantile_of, selector

from . import metrics as queues
from .panels import oldest_message


__all__ = ["DASHBOARDS", "QUEUES"]


_QUEUE = chosen("queue")

_SUMMARY = Row(
    "Summary",
    (
        Panel(
            kind="stat",
            title="Messages waiting",
            question="How many messages wait, in all queues?",
            queries=(Query(expr=f"sum ({max_of(queues.DEPTH, 'queue', queue=_QUEUE)})", legend="Waiting"),),
            steps=higher_is_worse(1000, 10000),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Oldest message",
            question="How old is the oldest message of all queues? 0 where all queues are empty.",
            queries=(Query(expr=oldest_message(queue=_QUEUE), legend="Oldest"),),
            unit="s",
            steps=higher_is_worse(60, 600),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Unacknowledged messages",
            question="How many messages are unacknowledged?",
            queries=(Query(expr=f"sum ({max_of(queues.UNACKED, 'queue', queue=_QUEUE)})", legend="Unacknowledged"),),
            width=6,
            height=4,
        ),
        Panel(
            kind="stat",
            title="Disagreeing clocks",
            question="Are the waiting times right? Attempts in the time shown that started before they were published.",
            queries=(Query(expr=increase_of(tasks.CLOCK_SKEW, queue=_QUEUE), legend="Skewed"),),
            unit="none",
            decimals=0,
            steps=(Step(None, "green"), Step(1, "yellow")),
            width=6,
            height=4,
        ),
    ),
)

_WAITING = Row(
    "What waits",
    (
        Panel(
            kind="timeseries",
            title="Messages by queue",
            question="Does a queue grow? All priorities together; however many exporters show a queue, it is counted once.",
            queries=(Query(expr=max_of(queues.DEPTH, "queue", queue=_QUEUE), legend="{{queue}}"),),
            stacked=True,
            links=(TO_QUEUES,),
        ),
        Panel(
            kind="timeseries",
            title="Age of the oldest message",
            question="How old is the oldest message of the queue? A long queue that moves is no problem; an old message is. 0 where the queue is empty.",
            queries=(Query(expr=oldest_message("queue", queue=_QUEUE), legend="{{queue}}"),),
            unit="s",
            links=(TO_QUEUES,),
        ),
        Panel(
            kind="timeseries",
            title="Messages by priority",
            question="Which priority has a backlog? 0 is the highest on Redis.",
            queries=(
                Query(expr=max_of(queues.PRIORITY_DEPTH, "queue", "priority", queue=_QUEUE), legend="{{queue}} priority {{priority}}"),
            ),
            stacked=True,
            links=(TO_QUEUES,),
        ),
        Panel(
            kind="timeseries",
            title="Unacknowledged messages, and consumers",
            question="How many messages are unacknowledged, and does the queue have consumers?",
            queries=(
                Query(expr=max_of(queues.UNACKED, "queue", queue=_QUEUE), legend="{{queue}} not acknowledged"),
                Query(
                    expr=max_of(queues.CONSUMERS, "queue", queue=_QUEUE),
                    legend="{{queue}} consumers",
                    absent_where="the broker does not know its consumers, as Redis",
                ),
            ),
            links=(TO_QUEUES,),
        ),
    ),
)

_FLOW = Row(
    "What flows",
    (
        Panel(
            kind="timeseries",
            title="In and out per minute",
            question="Is more published than is finished? Retries and redeliveries are received and started again.",
            queries=(
                Query(expr=per_minute(tasks.PUBLISHED, "queue", queue=_QUEUE), legend="{{queue}} published"),
                Query(expr=per_minute(tasks.RECEIVED, "queue", queue=_QUEUE), legend="{{queue}} received"),
                Query(expr=per_minute(tasks.STARTED, "queue", queue=_QUEUE), legend="{{queue}} started"),
                Query(expr=per_minute(tasks.FINISHED, "queue", queue=_QUEUE), legend="{{queue}} finished"),
            ),
            unit="opm",
            links=(TO_QUEUES,),
        ),
        Panel(
            kind="timeseries",
            title="Wait before start",
            question="How long do tasks wait before they start? Seconds from publish (or ETA) to start.",
            queries=(
                Query(expr=quantile_of(0.5, tasks.QUEUE_WAIT, "queue", queue=_QUEUE), legend="{{queue}} p50"),
                Query(expr=quantile_of(0.95, tasks.QUEUE_WAIT, "queue", queue=_QUEUE), legend="{{queue}} p95", exemplars=True),
            ),
            unit="s",
            links=(TO_QUEUES,),
        ),
        Panel(
            kind="table",
            title="Queues",
            question="Which queue needs workers?",
            keys=(("queue", "Queue"),),
            queries=(
                Query(expr=max_of(queues.DEPTH, "queue", queue=_QUEUE), legend="Waiting", unit="short", steps=higher_is_worse(1000, 10000)),
                Query(
                    expr=oldest_message("queue", queue=_QUEUE),
                    legend="Oldest",
                    unit="s",
                    steps=higher_is_worse(60, 600),
                ),
                Query(expr=max_of(queues.UNACKED, "queue", queue=_QUEUE), legend="Not acknowledged", unit="short"),
                Query(
                    expr=f"60 * max by (queue) (deriv({selector(queues.DEPTH, queue=_QUEUE)}[30m]))",
                    legend="Growth per minute",
                    unit="short",
                ),
                Query(expr=per_minute(tasks.STARTED, "queue", queue=_QUEUE), legend="Started per minute", unit="short"),
            ),
            sort_by="Waiting",
            width=WIDTH,
        ),
    ),
)

QUEUES: Final = Dashboard(
    uid="celery-queues",
    title="Celery Queues",
    question="How long are the queues, how old are their messages, and are they consumed?",
    rows=(_SUMMARY, _WAITING, _FLOW),
    variables=(JOB, Variable("queue", "Queue", queues.DEPTH.name)),
    tags=("celery",),
)

DASHBOARDS: Final = (QUEUES,)
