"""
Recording rules: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.areas.channels.api_calls import metrics as api_calls
from celery_obs.areas.channels.breakers import metrics as circuit_breaker
from celery_obs.areas.channels.rate_limits import metrics as rate_limiter
from celery_obs.areas.channels.reconciliation import metrics as reconciliation
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.tokens import metrics as tokens
from celery_obs.areas.channels.webhooks import metrics as webhooks
from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.areas.workers import metrics as workers

from .links import Links
from .promql import count_of, divided, gauge, increase, max_by, none_of, one_of, quantile, rate, ratio, sum_by
from .render import Output
from .rules import Group, RecordingRule, rule_file


__all__ = ["CHANNELS_PATH", "GROUPS", "PATH", "build"]


PATH: Final = "deploy/prometheus/rules/recording.yml"
CHANNELS_PATH: Final = "deploy/prometheus/rules/recording-channels.yml"
"""
In a file of their own, so that an app without channels can do without them.
"""

_SETTLED: Final = one_of("success", "partial", "failure")
"""
Runs that are over: those that will be tried again, or had nothing to do, say neither that syncs work nor that they do not.
"""

_QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def _tasks() -> Iterator[RecordingRule]:
    by = ("task", "queue")
    ended = none_of("retry", "ignored")
    yield RecordingRule(
        name="task_queue:celery_task_published:rate5m",
        help="How many tasks are published? Messages per second.",
        expr=sum_by(rate(tasks.PUBLISHED, "5m"), *by),
        by=by,
    )
    yield RecordingRule(
        name="task_queue:celery_task_started:rate5m",
        help="How many attempts are started? Attempts per second.",
        expr=sum_by(rate(tasks.STARTED, "5m"), *by),
        by=by,
    )
    yield RecordingRule(
        name="task_queue_state:celery_task_finished:rate5m",
        help="How do attempts end? Attempts per second by outcome.",
        expr=sum_by(rate(tasks.FINISHED, "5m"), *by, "state"),
        by=(*by, "state"),
    )
    yield RecordingRule(
        name="task_queue:celery_task_failure:ratio_rate5m",
        help="How many attempts fail? Share of the finished attempts that ended as failure, timeout or lost.",
        expr=ratio(
            sum_by(rate(tasks.FINISHED, "5m", state=one_of("failure", "timeout", "lost")), *by),
            sum_by(rate(tasks.FINISHED, "5m", state=ended), *by),
        ),
        by=by,
    )
    yield RecordingRule(
        name="task_queue:celery_task_retry:ratio_rate5m",
        help="How many attempts are retried? Share of the attempts that asked for a retry.",
        expr=ratio(sum_by(rate(tasks.FINISHED, "5m", state="retry"), *by), sum_by(rate(tasks.FINISHED, "5m"), *by)),
        by=by,
    )
    for metric, word in ((tasks.RUNTIME, "runtime"), (tasks.QUEUE_WAIT, "queue_wait"), (tasks.LATENCY, "latency")):
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
        expr=sum_by(gauge(tasks.IN_PROGRESS), "task"),
        by=("task",),
    )


def _workers() -> Iterator[RecordingRule]:
    yield RecordingRule(
        name="celery_worker_pool_busy:ratio",
        help="How much of the workers' pools is in use?",
        expr=divided(sum_by(gauge(workers.POOL_BUSY)), f"({sum_by(gauge(workers.POOL_SIZE))} > 0)"),
    )
    yield RecordingRule(
        name="worker_reason:celery_worker_process_restarts:increase1h",
        help="Which workers replace pool processes, and why? Replaced ones in the last hour.",
        expr=sum_by(increase(workers.PROCESS_RESTARTS, "1h"), "worker", "reason"),
        by=("worker", "reason"),
    )
    yield RecordingRule(
        name="queue:celery_queue_depth:max",
        help="How long is the queue? Counted once, however many exporters look at it.",
        expr=max_by(gauge(queues.DEPTH), "queue"),
        by=("queue",),
    )
    yield RecordingRule(
        name="queue:celery_queue_oldest_message_age_seconds:max",
        help="How old is the oldest message of the queue?",
        expr=max_by(gauge(queues.OLDEST_MESSAGE_AGE), "queue"),
        by=("queue",),
    )


def _syncs() -> Iterator[RecordingRule]:
    by = ("channel_type",)
    yield RecordingRule(
        name="channel_type_status:channel_sync:rate5m",
        help="How many syncs end, and how? Runs per second by outcome.",
        expr=sum_by(rate(syncs.TOTAL, "5m"), *by, "status"),
        by=(*by, "status"),
    )
    for window in ("5m", "1h", "1d"):
        yield RecordingRule(
            name=f"channel_type:channel_sync_success:ratio_rate{window}",
            help=f"Do syncs succeed? Share of the runs that ended within {window} and succeeded.",
            expr=ratio(
                sum_by(rate(syncs.TOTAL, window, status="success"), *by),
                sum_by(rate(syncs.TOTAL, window, status=_SETTLED), *by),
            ),
            by=by,
        )
    yield RecordingRule(
        name="channel_sync_success:ratio_rate1d",
        help="Do syncs succeed, all together? Share of the runs of a day that succeeded.",
        expr=ratio(sum_by(rate(syncs.TOTAL, "1d", status="success")), sum_by(rate(syncs.TOTAL, "1d", status=_SETTLED))),
    )
    for part, name in _QUANTILES:
        yield RecordingRule(
            name=f"channel_type:channel_sync_duration_seconds:{name}_15m",
            help=f"How long does a sync take? {name} of the last fifteen minutes.",
            expr=quantile(part, syncs.DURATION, "15m", *by),
            by=by,
        )
    yield RecordingRule(
        name="channel_type_result:channel_sync_records:rate5m",
        help="How many records are processed? Records per second, by what became of them.",
        expr=sum_by(rate(syncs.RECORDS, "5m"), *by, "result"),
        by=(*by, "result"),
    )


def _channels() -> Iterator[RecordingRule]:
    by = ("channel_type",)
    yield RecordingRule(
        name="channel_type:channel_api_requests:rate5m",
        help="How often is the channel called? Calls per second.",
        expr=sum_by(rate(api_calls.REQUESTS, "5m"), *by),
        by=by,
    )
    yield RecordingRule(
        name="channel_type:channel_api_error:ratio_rate5m",
        help="How many calls fail? Share of the calls made.",
        expr=ratio(
            sum_by(rate(api_calls.ERRORS, "5m", error_type=none_of("circuit_breaker")), *by),
            sum_by(rate(api_calls.REQUESTS, "5m"), *by),
        ),
        by=by,
    )
    for part, name in _QUANTILES:
        yield RecordingRule(
            name=f"channel_type:channel_api_latency_seconds:{name}_5m",
            help=f"Is the channel slow? {name} of the last five minutes.",
            expr=quantile(part, api_calls.LATENCY, "5m", *by),
            by=by,
        )
    yield RecordingRule(
        name="channel_type:channel_circuit_breaker_closed:bool",
        help="Which circuit breaker is closed? 1 where it is, 0 where it is open or half-open.",
        expr=f"{max_by(gauge(circuit_breaker.STATE), *by)} == bool 0",
        by=by,
    )
    yield RecordingRule(
        name="channel_type_connection_id:channel_rate_limit_used:ratio",
        help="How close are calls to the rate limit? Calls in the window, divided by the limit.",
        expr=(
            f"{max_by(gauge(rate_limiter.CURRENT), *by, 'connection_id')}\n"
            f"/ on (channel_type) group_left ()\n({max_by(gauge(rate_limiter.MAX), *by)} > 0)"
        ),
        by=(*by, "connection_id"),
    )
    yield RecordingRule(
        name="channel_type:channel_webhook_error:ratio_rate5m",
        help="How many webhooks fail? Share of the genuine ones: forged ones do not count.",
        expr=ratio(
            sum_by(rate(webhooks.PROCESSED, "5m", status="error"), *by),
            sum_by(rate(webhooks.PROCESSED, "5m", status=none_of("invalid_signature")), *by),
        ),
        by=by,
    )
    yield RecordingRule(
        name="channel_type:channel_webhook_processing_seconds:p95_5m",
        help="How long does it take to process a webhook? p95 of the last five minutes.",
        expr=quantile(0.95, webhooks.PROCESSING, "5m", *by),
        by=by,
    )
    yield RecordingRule(
        name="channel_type:channel_webhook_processing:rate5m",
        help="How many webhooks are processed? Per second.",
        expr=sum_by(count_of(webhooks.PROCESSING, "5m"), *by),
        by=by,
    )
    yield RecordingRule(
        name="channel_type_connection_id:channel_token_remaining:seconds",
        help="How long is each token still valid? Negative once it has expired.",
        expr=f"{max_by(gauge(tokens.EXPIRES_AT), *by, 'connection_id')} - time()",
        by=(*by, "connection_id"),
    )
    yield RecordingRule(
        name="channel_type:channel_reconciliation_drift:ratio_increase1d",
        help="How much of the calendar has drifted? Share of the days compared in the last day that differed.",
        expr=ratio(
            sum_by(increase(reconciliation.DAYS_DRIFTED, "1d"), *by),
            sum_by(increase(reconciliation.DAYS_CHECKED, "1d"), *by),
        ),
        by=by,
    )


_GENERAL: Final = (
    Group(name="celery_obs_recording_tasks", comment="tasks; metrics of celery_obs/areas/tasks.", rules=tuple(_tasks())),
    Group(
        name="celery_obs_recording_workers",
        comment="workers and queues; metrics of celery_obs/areas/workers and queues.",
        rules=tuple(_workers()),
    ),
)

_OF_CHANNELS: Final = (
    Group(
        name="celery_obs_recording_syncs",
        comment="syncs; metrics of celery_obs/areas/channels/syncs.",
        rules=tuple(_syncs()),
        interval="1m",
    ),
    Group(
        name="celery_obs_recording_channels",
        comment="channels; metrics of the other areas in celery_obs/areas/channels.",
        rules=tuple(_channels()),
        interval="1m",
    ),
)

GROUPS: Final = (*_GENERAL, *_OF_CHANNELS)


def build(links: Links) -> Iterator[Output]:
    """
    Write the recording rules.
    """
    yield Output(PATH, rule_file("celery_obs/rules/recording", _GENERAL, links))
    yield Output(CHANNELS_PATH, rule_file("celery_obs/rules/recording", _OF_CHANNELS, links))
