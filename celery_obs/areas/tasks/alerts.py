"""
Alerts about tasks: they fail, hang, get lost, or take too long.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import among, count_of, gauge, happened, increase, most, none_of, quantile, share, total, within
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, part, seconds
from celery_obs.vocabulary.conditions import TASK_HUNG

from .metrics import CLOCK_SKEW, FAILURES, FINISHED, LATENCY, LONGEST_RUNNING, MALFORMED, UNREGISTERED


__all__ = ["ALERTS"]


_BY = ("task", "queue")
_ENDED = none_of("retry", "ignored")
_SLOW_AFTER = 30.0

ALERTS: Final = (
    Alert(
        name="CeleryTaskFailureRateHigh",
        severity="warning",
        when=(
            f"{share(total(increase(FINISHED, '10m', state=among('failure', 'timeout', 'lost')), *_BY), total(increase(FINISHED, '10m', state=_ENDED), *_BY))}\n"
            f"> $threshold\nand\n{total(increase(FINISHED, '10m', state=_ENDED), *_BY)} >= $least_events"
        ),
        threshold=part(0.1),
        least_events=10,
        lasts="5m",
        by=_BY,
        summary="Task {{ $labels.task }} fails often",
        description="{{ $value | humanizePercentage }} of the attempts of {{ $labels.task }} in queue {{ $labels.queue }} failed in the last 10 minutes (threshold: $threshold).",
        shows="celery-tasks",
    ),
    Alert(
        name="CeleryTaskRetriesExhausted",
        severity="warning",
        when=f"{happened(FAILURES, '15m', *_BY, exhausted='true')} > $threshold",
        threshold=amount(0),
        by=_BY,
        summary="Task {{ $labels.task }} exhausted its retries",
        description='{{ $value | printf "%.0f" }} {{ $labels.task }} tasks in queue {{ $labels.queue }} exhausted their retries in the last 15 minutes. They will not be tried again.',
        shows="celery-tasks",
        keeps_firing="15m",
    ),
    Alert(
        name="CeleryTaskHung",
        severity=TASK_HUNG.severity,
        when=f"{most(gauge(LONGEST_RUNNING), 'task')} > $threshold",
        threshold=seconds(TASK_HUNG.threshold),
        lasts=TASK_HUNG.lasts,
        by=("task",),
        summary="Task {{ $labels.task }} is hung",
        description="An attempt of {{ $labels.task }} has been running for {{ $value | humanizeDuration }} (threshold: $threshold).",
        shows="celery-tasks",
    ),
    Alert(
        name="CeleryTasksLost",
        severity="warning",
        when=f"{happened(FINISHED, '15m', *_BY, state='lost')} > $threshold",
        threshold=amount(0),
        by=_BY,
        summary="Processes die while they run task {{ $labels.task }}",
        description='{{ $value | printf "%.0f" }} attempts of {{ $labels.task }} in queue {{ $labels.queue }} were lost with their process in the last 15 minutes.',
        shows="celery-tasks",
        keeps_firing="15m",
    ),
    Alert(
        name="CeleryTasksTimedOut",
        severity="warning",
        when=f"{happened(FINISHED, '15m', *_BY, state='timeout')} > $threshold",
        threshold=amount(0),
        by=_BY,
        summary="Task {{ $labels.task }} is killed by its time limit",
        description='{{ $value | printf "%.0f" }} attempts of {{ $labels.task }} in queue {{ $labels.queue }} hit the hard time limit in the last 15 minutes.',
        shows="celery-tasks",
        keeps_firing="15m",
    ),
    Alert(
        name="CeleryMessagesRejected",
        severity="warning",
        when=f"{happened(FINISHED, '15m', *_BY, task=among(UNREGISTERED, MALFORMED))} > $threshold",
        threshold=amount(0),
        by=_BY,
        summary="Workers are rejecting messages of queue {{ $labels.queue }}",
        description='{{ $value | printf "%.0f" }} messages of queue {{ $labels.queue }} were {{ $labels.task }} in the last 15 minutes: no worker there can run them.',
        shows="celery-tasks",
        keeps_firing="15m",
    ),
    Alert(
        name="CeleryTaskLatencyHigh",
        severity="warning",
        when=f"{quantile(0.99, LATENCY, '10m', 'queue')} > $threshold\nand\n600 * {total(count_of(LATENCY, '10m'), 'queue')} >= $least_events",
        threshold=seconds(60, below=LATENCY.buckets[-1]),
        least_events=20,
        lasts="10m",
        by=("queue",),
        summary="Tasks of queue {{ $labels.queue }} are done late",
        description="One task in a hundred of queue {{ $labels.queue }} takes longer than {{ $value | humanizeDuration }} from due to done (threshold: $threshold).",
        shows="celery-tasks",
    ),
    Alert(
        name="AlertDeliverySlow",
        # "High" where it was asked for, which is no severity, among those that page.
        severity="critical",
        when=(
            f"1 - {share(total(within(LATENCY, _SLOW_AFTER, '10m', queue='alerts'), 'queue'), total(count_of(LATENCY, '10m', queue='alerts'), 'queue'))}\n"
            f"> $threshold\nand\n600 * {total(count_of(LATENCY, '10m', queue='alerts'), 'queue')} >= $least_events"
        ),
        threshold=part(0.1),
        least_events=10,
        lasts="5m",
        by=("queue",),
        summary="Alerts to subscribers are delivered late",
        description=f"{{{{ $value | humanizePercentage }}}} of the tasks in queue {{{{ $labels.queue }}}} took longer than {_SLOW_AFTER:g} seconds (threshold: $threshold).",
        shows="celery-tasks",
    ),
    Alert(
        name="CeleryClockSkew",
        severity="info",
        when=f"{happened(CLOCK_SKEW, '1h', 'queue')} > $threshold",
        threshold=amount(10),
        by=("queue",),
        summary="Clocks disagree, so waiting times of queue {{ $labels.queue }} are wrong",
        description='{{ $value | printf "%.0f" }} attempts of queue {{ $labels.queue }} started before they were published, in the last hour (threshold: $threshold).',
        shows="celery-tasks",
    ),
)
