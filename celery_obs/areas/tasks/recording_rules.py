"""
Recording rules of tasks: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import gauge, none_of, one_of, quantile, rate, ratio, sum_by
from celery_obs.rules.rules import RecordingRule

from .metrics import FINISHED, IN_PROGRESS, LATENCY, PUBLISHED, QUEUE_WAIT, RUNTIME, STARTED


__all__ = ["RULES"]


_QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def _rules() -> Iterator[RecordingRule]:
    by = ("task", "queue")
    ended = none_of("retry", "ignored")
    yield RecordingRule(
        name="task_queue:celery_task_published:rate5m",
        help="How many tasks are published? Messages per second.",
        expr=sum_by(rate(PUBLISHED, "5m"), *by),
        by=by,
    )
    yield RecordingRule(
        name="task_queue:celery_task_started:rate5m",
        help="How many attempts are started? Attempts per second.",
        expr=sum_by(rate(STARTED, "5m"), *by),
        by=by,
    )
    yield RecordingRule(
        name="task_queue_state:celery_task_finished:rate5m",
        help="How do attempts end? Attempts per second by outcome.",
        expr=sum_by(rate(FINISHED, "5m"), *by, "state"),
        by=(*by, "state"),
    )
    yield RecordingRule(
        name="task_queue:celery_task_failure:ratio_rate5m",
        help="How many attempts fail? Share of the finished attempts that ended as failure, timeout or lost.",
        expr=ratio(
            sum_by(rate(FINISHED, "5m", state=one_of("failure", "timeout", "lost")), *by),
            sum_by(rate(FINISHED, "5m", state=ended), *by),
        ),
        by=by,
    )
    yield RecordingRule(
        name="task_queue:celery_task_retry:ratio_rate5m",
        help="How many attempts are retried? Share of the attempts that asked for a retry.",
        expr=ratio(sum_by(rate(FINISHED, "5m", state="retry"), *by), sum_by(rate(FINISHED, "5m"), *by)),
        by=by,
    )
    for metric, word in ((RUNTIME, "runtime"), (QUEUE_WAIT, "queue_wait"), (LATENCY, "latency")):
        for part, name in _QUANTILES:
            yield RecordingRule(
                name=f"task_queue:celery_task_{word}_seconds:{name}_5m",
                help=f"{metric.help.partition('?')[0]}? {name} of the last five minutes.",
                expr=quantile(part, metric, "5m", *by),
                by=by,
            )
    yield RecordingRule(
        name="task:celery_task_in_progress:sum",
        help="How many attempts are running, on all workers?",
        expr=sum_by(gauge(IN_PROGRESS), "task"),
        by=("task",),
    )


RULES: Final = tuple(_rules())
