"""
Alerts about tasks: they fail, hang, get lost, or take too long.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import count_of, gauge, happened, increase, max_by, none_of, one_of, quantile, ratio, sum_by, within
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
        expr=(
            f"{ratio(sum_by(increase(FINISHED, '10m', state=one_of('failure', 'timeout', 'lost')), *_BY), sum_by(increase(FINISHED, '10m', state=_ENDED), *_BY))}\n"
            f"> $threshold\nand\n{sum_by(increase(FINISHED, '10m', state=_ENDED), *_BY)} >= $min_events"
        ),
        threshold=part(0.1),
        min_events=10,
        for_="5m",
        by=_BY,
        summary="Task {{ $labels.task }} fails often",
        description="{{ $value | humanizePercentage }} of the attempts of {{ $labels.task }} in queue {{ $labels.queue }} failed in the last 10 minutes (threshold: $threshold).",
        dashboard="celery-tasks",
    ),
    Alert(
        name="CeleryTaskRetriesExhausted",
        severity="warning",
        expr=f"{happened(FAILURES, '15m', *_BY, exhausted='true')} > $threshold",
        threshold=amount(0),
        by=_BY,
        summary="Task {{ $labels.task }} exhausted its retries",
        description='{{ $value | printf "%.0f" }} {{ $labels.task }} tasks in queue {{ $labels.queue }} exhausted their retries in the last 15 minutes. They will not be tried again.',
        dashboard="celery-tasks",
        keep_firing_for="15m",
    ),
    Alert(
        name="CeleryTaskHung",
        severity=TASK_HUNG.severity,
        expr=f"{max_by(gauge(LONGEST_RUNNING), 'task')} > $threshold",
        threshold=seconds(TASK_HUNG.threshold),
        for_=TASK_HUNG.for_,
        by=("task",),
        summary="Task {{ $labels.task }} is hung",
        description="An attempt of {{ $labels.task }} has been running for {{ $value | humanizeDuration }} (threshold: $threshold).",
        dashboard="celery-tasks",
    ),
    Alert(
        name="CeleryTasksLost",
        severity="warning",
        expr=f"{happened(FINISHED, '15m', *_BY, state='lost')} > $threshold",
        threshold=amount(0),
        by=_BY,
        summary="Processes die while they run task {{ $labels.task }}",
        description='{{ $value | printf "%.0f" }} attempts of {{ $labels.task }} in queue {{ $labels.queue }} were lost with their process in the last 15 minutes.',
        dashboard="celery-tasks",
        keep_firing_for="15m",
    ),
    Alert(
        name="CeleryTasksTimedOut",
        severity="warning",
        expr=f"{happened(FINISHED, '15m', *_BY, state='timeout')} > $threshold",
        threshold=amount(0),
        by=_BY,
        summary="Task {{ $labels.task }} is killed by its time limit",
        description='{{ $value | printf "%.0f" }} attempts of {{ $labels.task }} in queue {{ $labels.queue }} hit the hard time limit in the last 15 minutes.',
        dashboard="celery-tasks",
        keep_firing_for="15m",
    ),
    Alert(
        name="CeleryMessagesRejected",
        severity="warning",
        expr=f"{happened(FINISHED, '15m', *_BY, task=one_of(UNREGISTERED, MALFORMED))} > $threshold",
        threshold=amount(0),
        by=_BY,
        summary="Workers are rejecting messages of queue {{ $labels.queue }}",
        description='{{ $value | printf "%.0f" }} messages of queue {{ $labels.queue }} were {{ $labels.task }} in the last 15 minutes: no worker there can run them.',
        dashboard="celery-tasks",
        keep_firing_for="15m",
    ),
    Alert(
        name="CeleryTaskLatencyHigh",
        severity="warning",
        expr=f"{quantile(0.99, LATENCY, '10m', 'queue')} > $threshold\nand\n600 * {sum_by(count_of(LATENCY, '10m'), 'queue')} >= $min_events",
        threshold=seconds(60, below=LATENCY.buckets[-1]),
        min_events=20,
        for_="10m",
        by=("queue",),
        summary="Tasks of queue {{ $labels.queue }} are done late",
        description="One task in a hundred of queue {{ $labels.queue }} takes longer than {{ $value | humanizeDuration }} from due to done (threshold: $threshold).",
        dashboard="celery-tasks",
    ),
    Alert(
        name="AlertDeliverySlow",
        # "High" where it was asked for, which is no severity, among those that page.
        severity="critical",
        expr=(
            f"1 - {ratio(sum_by(within(LATENCY, _SLOW_AFTER, '10m', queue='alerts'), 'queue'), sum_by(count_of(LATENCY, '10m', queue='alerts'), 'queue'))}\n"
            f"> $threshold\nand\n600 * {sum_by(count_of(LATENCY, '10m', queue='alerts'), 'queue')} >= $min_events"
        ),
        threshold=part(0.1),
        min_events=10,
        for_="5m",
        by=("queue",),
        summary="Alerts to subscribers are delivered late",
        description=f"{{{{ $value | humanizePercentage }}}} of the tasks in queue {{{{ $labels.queue }}}} took longer than {_SLOW_AFTER:g} seconds (threshold: $threshold).",
        dashboard="celery-tasks",
    ),
    Alert(
        name="CeleryClockSkew",
        severity="info",
        expr=f"{happened(CLOCK_SKEW, '1h', 'queue')} > $threshold",
        threshold=amount(10),
        by=("queue",),
        summary="Clocks disagree, so waiting times of queue {{ $labels.queue }} are wrong",
        description='{{ $value | printf "%.0f" }} attempts of queue {{ $labels.queue }} started before they were published, in the last hour (threshold: $threshold).',
        dashboard="celery-tasks",
    ),
)
