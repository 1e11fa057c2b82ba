"""
When each alert fires, when it does not yet, and when it is silent again.

Slopes are constant where a value is shown, so that Prometheus 2 and 3, whose ranges differ by one sample, show the same.
"""

from __future__ import annotations

from celery_obs.areas.channels.api_calls.metrics import ERRORS as API_ERRORS
from celery_obs.areas.channels.api_calls.metrics import REQUESTS as API_REQUESTS
from celery_obs.vocabulary.spec import Metric

from .promtool import Case


__all__ = ["CASES"]


AIRBNB = {"channel_type": "airbnb"}
C1 = {"channel_type": "airbnb", "connection_id": "c1"}
TASK = {"task": "t", "queue": "q"}
US = {"job": "celery-obs", "instance": "a"}
POD = {"namespace": "n", "pod": "p", "container": "c"}


def _series(metric: Metric | str, **labels: str) -> str:
    name = metric if isinstance(metric, str) else metric.name
    inside = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inside}}}"


def _histogram(name: str, *, good: str, other: str, slow: str, every: str, **labels: str) -> dict[str, str]:
    """
    Write a histogram of ten observations a minute: those up to *good* as *slow* says, all of them up to *other*.
    """
    return {
        _series(f"{name}_bucket", le=good, **labels): slow,
        _series(f"{name}_bucket", le=other, **labels): every,
        _series(f"{name}_bucket", le="+Inf", **labels): every,
        _series(f"{name}_count", **labels): every,
    }


# Ten a minute; after half an hour none of them is quick; after another forty minutes all are.
_SLOW = {"slow": "0+10x30 300x40 300+10x90", "every": "0+10x160"}
_UP_DOWN_UP = "1x10 0x20 1x20"


CASES: dict[str, tuple[Case, ...]] = {
    "tasks": (
        Case(
            alert="CeleryTaskFailureRateHigh",
            series={
                'celery_task_finished_total{task="t", queue="q", state="success"}': "0+10x122",
                'celery_task_finished_total{task="t", queue="q", state="failure"}': "0x30 0+5x30 150x60",
                'celery_task_finished_total{task="t", queue="q", state="retry"}': "0+100x122",
                'celery_task_finished_total{task="rare", queue="q", state="failure"}': "0x30 1x90",
            },
            quiet=(20, 35),
            fires=50,
            recovers=80,
            labels=TASK,
            value="33.33%",
        ),
        Case(
            alert="CeleryTaskRetriesExhausted",
            series={
                'celery_task_failures_total{task="t", queue="q", exception="E", exhausted="true"}': "_x20 1x60",
                'celery_task_failures_total{task="t", queue="q", exception="E", exhausted="false"}': "0+1x80",
            },
            quiet=(10,),
            fires=25,
            recovers=58,
            labels=TASK,
            value="1",
        ),
        Case(
            alert="CeleryTaskHung",
            series={'celery_task_longest_running_seconds{task="t"}': "0+60x90 0x30"},
            quiet=(60, 64),
            fires=70,
            recovers=95,
            labels={"task": "t"},
            value="1h 10m 0s",
        ),
        Case(
            alert="CeleryTasksLost",
            series={'celery_task_finished_total{task="t", queue="q", state="lost"}': "_x20 2x60"},
            quiet=(10,),
            fires=25,
            recovers=58,
            labels=TASK,
            value="2",
        ),
        Case(
            alert="CeleryTasksLost",
            # An exporter that was away for three quarters of an hour comes back with what it had counted before.
            series={'celery_task_finished_total{task="t", queue="q", state="lost"}': "3x20 _x45 3x20 5x80"},
            quiet=(60, 70),
            fires=95,
            recovers=150,
            labels=TASK,
            value="2",
        ),
        Case(
            alert="CeleryTasksTimedOut",
            series={'celery_task_finished_total{task="t", queue="q", state="timeout"}': "_x20 2x60"},
            quiet=(10,),
            fires=25,
            recovers=58,
            labels=TASK,
            value="2",
        ),
        Case(
            alert="CeleryMessagesRejected",
            series={
                'celery_task_finished_total{task="_unregistered", queue="q", state="rejected"}': "_x20 3x60",
                'celery_task_finished_total{task="t", queue="q", state="rejected"}': "_x20 3x60",
            },
            quiet=(10,),
            fires=25,
            recovers=58,
            labels={"task": "_unregistered", "queue": "q"},
            value="3",
        ),
        Case(
            alert="CeleryTaskLatencyHigh",
            series=_histogram("celery_task_latency_seconds", good="60", other="120", **_SLOW, task="t", queue="q"),
            quiet=(25, 38),
            fires=60,
            recovers=100,
            labels={"queue": "q"},
            value="1m 59s",
        ),
        Case(
            alert="AlertDeliverySlow",
            series={
                'celery_task_latency_seconds_bucket{task="t", queue="alerts", le="30"}': "0+10x30 305+5x30 465+10x60",
                'celery_task_latency_seconds_count{task="t", queue="alerts"}': "0+10x122",
                'celery_task_latency_seconds_count{task="t", queue="reports"}': "0+10x122",
            },
            quiet=(25, 34),
            fires=45,
            recovers=80,
            labels={"queue": "alerts"},
            value="50%",
        ),
        Case(
            alert="CeleryClockSkew",
            series={'celery_task_clock_skew_total{queue="q"}': "_x20 15x90"},
            quiet=(10,),
            fires=25,
            recovers=90,
            labels={"queue": "q"},
            value="15",
        ),
    ),
    "workers": (
        Case(alert="CeleryWorkersAbsent", series={'celery_worker_up{worker="w"}': _UP_DOWN_UP}, quiet=(8, 13), fires=20, recovers=40),
        Case(
            alert="CeleryWorkerDown",
            series={
                'celery_worker_up{worker="w"}': "1x10 0x30 1x20",
                'celery_worker_up{worker="never"}': "0x60",
                'celery_worker_up{worker="stopped in order"}': "1x10 stale",
            },
            quiet=(8, 20),
            fires=30,
            recovers=45,
            labels={"worker": "w"},
        ),
        Case(
            alert="CeleryWorkerNotResponding",
            series={
                'celery_worker_heartbeat_timestamp_seconds{worker="w"}': "0+60x10 600x20 1920+60x20",
                'celery_worker_up{worker="w"}': "1x60",
                'celery_worker_heartbeat_timestamp_seconds{worker="gone"}': "0x60",
                'celery_worker_up{worker="gone"}': "0x60",
            },
            quiet=(12, 14),
            fires=20,
            recovers=36,
            labels={"worker": "w"},
            value="10m 0s",
        ),
        Case(
            alert="CeleryWorkerChildrenDying",
            series={
                'celery_worker_process_restarts_total{worker="w", reason="killed"}': "0x20 0+1x20 20x40",
                'celery_worker_process_restarts_total{worker="w", reason="recycled"}': "0+10x82",
            },
            quiet=(15, 22),
            fires=38,
            recovers=75,
            labels={"worker": "w"},
            value="15",
        ),
        Case(
            alert="CeleryPoolSaturated",
            series={'celery_worker_pool_busy{worker="w"}': "1x10 4x40 1x20", 'celery_worker_pool_size{worker="w"}': "4x80"},
            quiet=(8, 30),
            fires=45,
            recovers=60,
            labels={"worker": "w"},
            value="100%",
        ),
    ),
    "queues": (
        Case(
            alert="CeleryQueueBacklog",
            series={
                'celery_queue_depth{queue="q", instance="a"}': "0x10 2000x30 0x20",
                'celery_queue_depth{queue="q", instance="b"}': "0x10 2000x30 0x20",
                'celery_queue_depth{queue="small", instance="a"}': "900x60",
            },
            quiet=(8, 20),
            fires=30,
            recovers=50,
            labels={"queue": "q"},
            value="2000",
        ),
        Case(
            alert="CeleryQueueBackedUp",
            series={'celery_queue_depth{queue="q"}': "0x10 20000x30 0x20"},
            quiet=(8, 18),
            fires=30,
            recovers=50,
            labels={"queue": "q"},
            value="20000",
        ),
        Case(
            alert="CeleryQueueMessagesOld",
            series={'celery_queue_oldest_message_age_seconds{queue="q"}': "0x10 900x20 0x20"},
            quiet=(8, 14),
            fires=20,
            recovers=40,
            labels={"queue": "q"},
            value="15m 0s",
        ),
        Case(
            alert="CeleryQueueNotConsumed",
            series={
                'celery_queue_depth{queue="q"}': "5x80",
                'celery_task_started_total{task="t", queue="q"}': "0+1x20 20x30 20+1x30",
                'celery_worker_pool_busy{worker="w"}': "0x80",
                'celery_worker_pool_size{worker="w"}': "4x80",
            },
            quiet=(15, 35),
            fires=45,
            recovers=60,
            labels={"queue": "q"},
            value="5",
        ),
        Case(
            alert="CeleryQueueWithoutConsumers",
            series={
                'celery_queue_depth{queue="q"}': "5x60",
                'celery_queue_consumers{queue="q"}': _UP_DOWN_UP,
                'celery_queue_depth{queue="redis"}': "5x60",
                'celery_worker_up{worker="w"}': "1x60",
            },
            quiet=(8, 13),
            fires=20,
            recovers=40,
            labels={"queue": "q"},
            value="5",
        ),
        Case(
            alert="CeleryQueueWithoutConsumers",
            series={
                'celery_queue_depth{queue="redis"}': "5x60",
                'celery_queue_depth{queue="empty"}': "0x60",
                'celery_queue_depth{queue="consumed"}': "5x60",
                'celery_queue_consumers{queue="consumed"}': "1x60",
                'celery_worker_up{worker="w"}': _UP_DOWN_UP,
            },
            quiet=(8, 13),
            fires=20,
            recovers=40,
            labels={"queue": "redis"},
            value="5",
        ),
    ),
    "beat": (
        Case(
            alert="CeleryBeatStopped",
            series={"celery_beat_heartbeat_timestamp_seconds": "0+60x10 _x40 3060+60x20"},
            quiet=(15, 21),
            fires=30,
            recovers=60,
            value="20m 0s",
        ),
        Case(
            alert="CeleryBeatEntryOverdue",
            series={'celery_beat_entry_overdue_seconds{entry="e"}': "0x10 400x20 0x20"},
            quiet=(8, 14),
            fires=20,
            recovers=40,
            labels={"entry": "e"},
            value="6m 40s",
        ),
        Case(
            alert="CeleryBeatEntryNotSucceeding",
            series={
                'celery_beat_entry_next_due_timestamp_seconds{entry="e"}': "300+60x80",
                'celery_beat_entry_last_fired_timestamp_seconds{entry="e"}': "0+60x80",
                'celery_beat_entry_last_success_timestamp_seconds{entry="e"}': "0+60x10 600x40 3120+60x20",
                'celery_beat_entry_next_due_timestamp_seconds{entry="daily"}': "86400x80",
                'celery_beat_entry_last_fired_timestamp_seconds{entry="daily"}': "0x80",
                'celery_beat_entry_last_success_timestamp_seconds{entry="daily"}': "0x80",
            },
            quiet=(20, 28),
            fires=35,
            recovers=58,
            labels={"entry": "e"},
            value="25m 0s",
        ),
        Case(
            alert="CeleryBeatEntryNeverSucceeded",
            series={
                'celery_beat_entry_last_fired_timestamp_seconds{entry="e"}': "0+60x90",
                'celery_beat_entry_last_success_timestamp_seconds{entry="e"}': "_x50 3000+60x40",
                'celery_beat_entry_last_fired_timestamp_seconds{entry="daily"}': "0x20 1200x70",
                'celery_beat_entry_last_fired_timestamp_seconds{entry="fine"}': "0+60x90",
                'celery_beat_entry_last_success_timestamp_seconds{entry="fine"}': "0+60x90",
            },
            quiet=(2, 30),
            fires=45,
            recovers=55,
            labels={"entry": "e"},
        ),
    ),
    "syncs": (
        Case(
            alert="ChannelSyncHighFailureRate",
            series={
                'channel_sync_total{channel_type="airbnb", sync_type="s", direction="outbound", status="success"}': "0+10x122",
                'channel_sync_total{channel_type="airbnb", sync_type="s", direction="outbound", status="failure"}': "0x30 0+10x30 300x60",
                'channel_sync_total{channel_type="airbnb", sync_type="s", direction="outbound", status="retry"}': "0+100x122",
                'channel_sync_total{channel_type="idle", sync_type="s", direction="outbound", status="failure"}': "0x30 1x90",
            },
            quiet=(20, 35),
            fires=45,
            recovers=80,
            labels=AIRBNB,
            value="50%",
        ),
        Case(
            alert="ChannelSyncFailureRateElevated",
            series={
                'channel_sync_total{channel_type="airbnb", sync_type="s", direction="outbound", status="success"}': "0+9x160",
                'channel_sync_total{channel_type="airbnb", sync_type="s", direction="outbound", status="failure"}': "0x30 0+1x60 60x60",
            },
            quiet=(20, 40),
            fires=80,
            recovers=125,
            labels=AIRBNB,
            value="10%",
        ),
        Case(
            alert="ChannelSyncLatencyHigh",
            series=_histogram("channel_sync_duration_seconds", good="10", other="30", **_SLOW, channel_type="airbnb", sync_type="s"),
            quiet=(25, 38),
            fires=60,
            recovers=100,
            labels=AIRBNB,
            value="29s",
        ),
        Case(
            alert="ChannelSyncStalled",
            series={
                _series("channel_connection_last_sync_timestamp", **C1): "0x130 7860+60x20",
                'channel_connections_total{channel_type="airbnb", status="active"}': "3x160",
                'channel_paused{channel_type="airbnb"}': "0x160",
                'channel_connection_last_sync_timestamp{channel_type="paused", connection_id="c2"}': "0x160",
                'channel_connections_total{channel_type="paused", status="active"}': "3x160",
                'channel_paused{channel_type="paused"}': "1x160",
                'channel_connection_last_sync_timestamp{channel_type="left", connection_id="c3"}': "0x160",
                'channel_connections_total{channel_type="left", status="active"}': "0x160",
            },
            quiet=(115, 123),
            fires=128,
            recovers=135,
            labels=AIRBNB,
            value="2h 8m 0s",
        ),
    ),
    "api_calls": (
        Case(
            alert="ChannelApiErrorRateHigh",
            series={
                _series(API_REQUESTS, channel_type="airbnb", endpoint="/a", method="GET", status_code="200"): "0+10x122",
                _series(API_ERRORS, channel_type="airbnb", error_type="server_error"): "0x30 0+5x30 150x60",
                _series(API_ERRORS, channel_type="airbnb", error_type="circuit_breaker"): "0+100x122",
            },
            quiet=(20, 35),
            fires=45,
            recovers=80,
            labels=AIRBNB,
            value="50%",
        ),
        Case(
            alert="ChannelApiAuthErrors",
            series={_series(API_ERRORS, channel_type="airbnb", error_type="auth"): "0x20 0+1x30 30x40"},
            quiet=(15, 28),
            fires=45,
            recovers=80,
            labels=AIRBNB,
            value="15",
        ),
    ),
    "rate_limiter": (
        Case(
            alert="ChannelRateLimitApproaching",
            series={
                _series("channel_rate_limit_current_count", **C1): "10x10 90x20 10x20",
                'channel_rate_limit_max{channel_type="airbnb", instance="a"}': "100x60",
                'channel_rate_limit_max{channel_type="airbnb", instance="b"}': "100x60",
            },
            quiet=(8, 14),
            fires=20,
            recovers=40,
            labels=C1,
            value="90%",
        ),
        Case(
            alert="ChannelRateLimitHit",
            series={_series(API_ERRORS, channel_type="airbnb", error_type="rate_limit"): "0x20 0+1x100 100x100"},
            quiet=(15, 30),
            fires=100,
            recovers=200,
            labels=AIRBNB,
            value="60",
        ),
    ),
    "circuit_breaker": (
        Case(
            alert="ChannelCircuitBreakerOpen",
            series={'channel_circuit_breaker_state{channel_type="airbnb"}': "0x10 1 1 2 1 1 2 1 1 2 1 1 2 1 1 2 0x20"},
            quiet=(8, 15),
            fires=22,
            recovers=30,
            labels=AIRBNB,
        ),
        Case(
            alert="AllChannelsSyncFailing",
            series={
                'channel_circuit_breaker_state{channel_type="airbnb", instance="a"}': "0x10 1x20 0x20",
                'channel_circuit_breaker_state{channel_type="airbnb", instance="b"}': "0x10 1x20 0x20",
                'channel_circuit_breaker_state{channel_type="booking", instance="a"}': "0x5 1x60",
            },
            quiet=(8, 13),
            fires=20,
            recovers=40,
            value="2",
        ),
        Case(
            alert="ChannelSyncDegraded",
            series={'channel_circuit_breaker_state{channel_type="airbnb"}': "0x30 2x45 0x60"},
            quiet=(20, 42),
            fires=75,
            recovers=110,
            labels=AIRBNB,
            value="100%",
        ),
    ),
    "webhooks": (
        Case(
            alert="ChannelWebhookProcessingFailing",
            series={
                'channel_webhook_processed_total{channel_type="airbnb", status="success"}': "0+10x122",
                'channel_webhook_processed_total{channel_type="airbnb", status="error"}': "0x30 0+5x30 150x60",
                'channel_webhook_processed_total{channel_type="airbnb", status="invalid_signature"}': "0+100x122",
            },
            quiet=(20, 35),
            fires=45,
            recovers=80,
            labels=AIRBNB,
            value="33.33%",
        ),
        Case(
            alert="ChannelWebhookBacklog",
            series={
                'channel_webhook_received_total{channel_type="airbnb", event_type="e"}': "0+10x200",
                'channel_webhook_processed_total{channel_type="airbnb", status="success"}': "0+10x30 300x60 300+10x100",
            },
            quiet=(20, 40),
            fires=80,
            recovers=130,
            labels=AIRBNB,
            value="300",
        ),
        Case(
            alert="ChannelWebhookInvalidSignatures",
            series={'channel_webhook_processed_total{channel_type="airbnb", status="invalid_signature"}': "_x20 30x60"},
            quiet=(10,),
            fires=25,
            recovers=45,
            labels=AIRBNB,
            value="30",
        ),
        Case(
            alert="ChannelWebhookSlow",
            series=_histogram("channel_webhook_processing_seconds", good="1", other="2.5", **_SLOW, channel_type="airbnb"),
            quiet=(25, 38),
            fires=60,
            recovers=100,
            labels=AIRBNB,
            value="2.425s",
        ),
    ),
    "tokens": (
        Case(
            alert="ChannelTokenExpired",
            series={_series("channel_token_expires_at_timestamp", **C1): "600x25 100000x20"},
            quiet=(8, 13),
            fires=20,
            recovers=30,
            labels=C1,
            value="10m 0s",
        ),
        Case(
            alert="ChannelTokenExpiringCritical",
            series={
                _series("channel_token_expires_at_timestamp", **C1): "3600x56 9000x30",
                _series("channel_token_lifetime_seconds", **C1): "3600x90",
                'channel_token_refresh_total{channel_type="airbnb", status="failure"}': "_x40 1x60",
                'channel_token_expires_at_timestamp{channel_type="booking", connection_id="c2"}': "3600x90",
                'channel_token_lifetime_seconds{channel_type="booking", connection_id="c2"}': "3600x90",
                'channel_token_refresh_total{channel_type="booking", status="success"}': "0+1x90",
                # Good for a year, and far from its end.
                'channel_token_expires_at_timestamp{channel_type="google", connection_id="c3"}': "100000x90",
                'channel_token_lifetime_seconds{channel_type="google", connection_id="c3"}': "31536000x90",
            },
            quiet=(45, 50),
            fires=55,
            recovers=60,
            labels=C1,
            value="5m 0s",
        ),
        # Of a month and more, which has not been refreshed; one of a day that is well has as little left.
        Case(
            alert="ChannelTokenExpiringCritical",
            series={
                _series("channel_token_expires_at_timestamp", **C1): "90000x75 5000000x30",
                _series("channel_token_lifetime_seconds", **C1): "2592000x110",
                'channel_token_expires_at_timestamp{channel_type="booking", connection_id="c2"}': "80000x110",
                'channel_token_lifetime_seconds{channel_type="booking", connection_id="c2"}': "86400x110",
            },
            quiet=(50, 62),
            fires=70,
            recovers=80,
            labels=C1,
            value="23h 50m 0s",
        ),
        Case(
            alert="ChannelTokenExpiringSoon",
            series={
                _series("channel_token_expires_at_timestamp", **C1): "500000x30 5000000x30",
                _series("channel_token_lifetime_seconds", **C1): "5184000x60",
                'channel_token_expires_at_timestamp{channel_type="booking", connection_id="c2"}': "500000x60",
                'channel_token_lifetime_seconds{channel_type="booking", connection_id="c2"}': "864000x60",
            },
            quiet=(5,),
            fires=20,
            recovers=40,
            labels=C1,
            value="5d 18h 33m 20s",
        ),
        Case(
            alert="ChannelTokenRefreshRefused",
            series={'channel_token_refresh_total{channel_type="airbnb", status="refused"}': "_x20 1x160"},
            quiet=(10,),
            fires=25,
            recovers=150,
            labels=AIRBNB,
            value="1",
        ),
        Case(
            alert="ChannelTokenRefreshFailing",
            series={
                'channel_token_refresh_total{channel_type="airbnb", status="failure"}': "0x10 0+1x100 100x100",
                'channel_token_refresh_total{channel_type="airbnb", status="success"}': "0x220",
                # Our own breaker is open, and lets few through: neither are they failures, nor does their number hide those.
                'channel_token_refresh_total{channel_type="airbnb", status="held_back"}': "0+9x220",
                'channel_token_refresh_total{channel_type="booking", status="held_back"}': "0+9x220",
            },
            quiet=(8, 16),
            fires=90,
            recovers=185,
            labels=AIRBNB,
            value="100%",
        ),
    ),
    "connections": (
        Case(
            alert="ChannelConnectionErrorsIncreasing",
            series={
                _series("channel_connection_error_count", **C1): "0x10 8x20 0x80",
                'channel_connection_error_count{channel_type="airbnb", connection_id="flapping"}': "0 3 0 3 0 3 0 3 0 3 0 3 0 3 0 3 0 3 0 3 0x60",
            },
            quiet=(8, 13),
            fires=20,
            recovers=40,
            labels=C1,
            value="8",
        ),
        Case(
            alert="ChannelConnectionStale",
            series={
                _series("channel_connection_last_sync_timestamp", **C1): "0x1470 88260+60x30",
                # One that left a month ago.
                'channel_connection_last_sync_timestamp{channel_type="airbnb", connection_id="left"}': "-2592000x1500",
            },
            quiet=(1430, 1445),
            fires=1460,
            recovers=1490,
            labels=C1,
            value="1d 0h 20m 0s",
        ),
        Case(
            alert="ChannelNewConnectionInactive",
            series={
                _series("channel_connection_created_at", **C1): "0x1500",
                'channel_connection_created_at{channel_type="airbnb", connection_id="old"}': "-2592000x1500",
                _series("channel_connection_last_sync_timestamp", **C1): "_x1470 88200x30",
            },
            quiet=(1430, 1445),
            fires=1460,
            recovers=1480,
            labels=C1,
            value="1d 0h 20m 0s",
        ),
        Case(
            alert="ChannelLeftPaused",
            series={'channel_paused{channel_type="airbnb"}': "1x300 0x30"},
            quiet=(5, 200),
            fires=250,
            recovers=310,
            labels=AIRBNB,
        ),
    ),
    "conflicts": (
        Case(
            alert="DoubleBookingDetected",
            series={'channel_double_bookings_detected_total{channel_type="airbnb"}': "_x20 1x120"},
            quiet=(10,),
            fires=22,
            recovers=100,
            labels=AIRBNB,
            value="1",
        ),
        Case(
            alert="ChannelConflictsAwaitReview",
            series={'channel_conflicts_requiring_review{conflict_type="dates"}': "3x1460 0x30"},
            quiet=(5, 1400),
            fires=1450,
            recovers=1470,
            labels={"conflict_type": "dates"},
            value="3",
        ),
    ),
    "reconciliation": (
        Case(
            alert="ChannelAvailabilityDriftDetected",
            series={_series("channel_reconciliation_drift_days", **C1): "0x10 7x20 0x20"},
            quiet=(8, 13),
            fires=20,
            recovers=40,
            labels=C1,
            value="7",
        ),
        Case(
            alert="ChannelReconciliationStale",
            series={'channel_reconciliation_last_run_timestamp{channel_type="airbnb"}': "0x2910 174660+60x30"},
            quiet=(2870, 2890),
            fires=2900,
            recovers=2930,
            labels=AIRBNB,
            value="2d 0h 20m 0s",
        ),
    ),
    "ourselves": (
        Case(alert="Watchdog", series={"celery_obs_leader": "1x10"}, quiet=(), fires=5, recovers=None),
        Case(alert="CeleryObsExporterDown", series={_series("up", **US): _UP_DOWN_UP}, quiet=(8, 13), fires=20, recovers=40, labels=US),
        Case(
            alert="CeleryObsAbsent", series={_series("celery_obs_build_info", **US): "1x10 _x20 1x20"}, quiet=(8, 18), fires=25, recovers=40
        ),
        Case(
            alert="CeleryObsCollectorFailing",
            series={_series("celery_obs_collector_success", **US, collector="queues"): "1x10 0x30 1x20"},
            quiet=(8, 18),
            fires=25,
            recovers=50,
            labels={**US, "collector": "queues"},
        ),
        Case(
            alert="CeleryObsMetricFilesUnreadable",
            series={
                _series("celery_obs_metric_files", **US, state="corrupt"): "0x10 2x30 0x20",
                _series("celery_obs_metric_files", **US, state="dead"): "5x60",
            },
            quiet=(8, 18),
            fires=25,
            recovers=50,
            labels={**US, "state": "corrupt"},
            value="2",
        ),
        Case(
            alert="CeleryObsNoLeader",
            series={'celery_obs_leader{instance="a"}': _UP_DOWN_UP, 'celery_obs_leader{instance="b"}': "0x60"},
            quiet=(8, 13),
            fires=20,
            recovers=40,
        ),
        Case(
            alert="CeleryObsDropping",
            series={'celery_obs_dropped_total{reason="lanes_full"}': "_x20 1x60"},
            quiet=(10, 22),
            fires=28,
            recovers=58,
            labels={"reason": "lanes_full"},
            value="1",
        ),
        Case(
            alert="CeleryObsInternalErrors",
            series={'celery_obs_internal_errors_total{component="hub"}': "_x20 1x60"},
            quiet=(10, 22),
            fires=28,
            recovers=58,
            labels={"component": "hub"},
            value="1",
        ),
        Case(
            alert="CeleryObsLabelsFolded",
            series={'celery_obs_labels_folded_total{metric="m"}': "_x20 1x160"},
            quiet=(10, 22),
            fires=28,
            recovers=150,
            labels={"metric": "m"},
            value="1",
        ),
        Case(
            alert="CeleryObsPageNearLimit",
            series={'celery_obs_page_samples{job="celery-obs", instance="i"}': "1600000x10 1600001x30 1500000x20"},
            quiet=(8, 20),
            fires=30,
            recovers=45,
            labels={"job": "celery-obs", "instance": "i"},
            value="1600001",
        ),
    ),
    "neighbours": (
        Case(
            alert="HighApiErrorRate",
            series={
                'http_requests_total{job="api", status_code="200"}': "0+10x122",
                'http_requests_total{job="api", status_code="503"}': "0x30 0+10x30 300x60",
            },
            quiet=(20, 35),
            fires=45,
            recovers=80,
            labels={"job": "api"},
            value="50%",
        ),
        Case(
            alert="APIUnavailable",
            series={'up{job="my-api", instance="a"}': _UP_DOWN_UP, 'up{job="other", instance="a"}': "0x60"},
            quiet=(8, 12),
            fires=20,
            recovers=40,
            labels={"job": "my-api"},
        ),
        # Gone from service discovery, which does not show as "0".
        Case(
            alert="APIUnavailable",
            series={'up{job="my-api", instance="a"}': "1x10 stale _x20 1x20", 'up{job="other", instance="a"}': "1x10 stale"},
            quiet=(8, 12),
            fires=20,
            recovers=40,
            labels={"job": "my-api"},
        ),
        Case(
            alert="ApiLatencyHigh",
            series=_histogram("http_request_duration_seconds", good="0.3", other="0.5", **_SLOW, job="api"),
            quiet=(25, 34),
            fires=60,
            recovers=100,
            labels={"job": "api"},
            value="490ms",
        ),
        Case(
            alert="DatabaseConnectionPoolExhausted",
            series={
                'db_connection_pool_in_use{job="api", instance="a"}': "10x10 99x20 10x20",
                'db_connection_pool_size{job="api", instance="a"}': "100x60",
            },
            quiet=(8, 14),
            fires=20,
            recovers=40,
            labels={"job": "api", "instance": "a"},
            value="99%",
        ),
        Case(
            alert="DatabaseDown",
            series={'pg_up{instance="db"}': _UP_DOWN_UP},
            quiet=(8, 12),
            fires=20,
            recovers=40,
            labels={"instance": "db"},
        ),
        Case(
            alert="CacheHitRatioLow",
            series={
                'redis_keyspace_hits_total{instance="r"}': "0+600x200",
                'redis_keyspace_misses_total{instance="r"}': "0x30 0+600x60 36000x100",
            },
            quiet=(20, 45),
            fires=75,
            recovers=125,
            labels={"instance": "r"},
            value="50%",
        ),
        Case(
            alert="RedisMemoryHigh",
            series={'redis_memory_used_bytes{instance="r"}': "10x10 90x30 10x20", 'redis_memory_max_bytes{instance="r"}': "100x60"},
            quiet=(8, 18),
            fires=25,
            recovers=50,
            labels={"instance": "r"},
            value="90%",
        ),
        Case(
            alert="HighMemoryUsage",
            series={
                _series("container_memory_working_set_bytes", **POD): "10x10 90x30 10x20",
                _series("container_spec_memory_limit_bytes", **POD): "100x60",
                'container_memory_working_set_bytes{namespace="n", pod="unlimited", container="c"}': "90x60",
                'container_spec_memory_limit_bytes{namespace="n", pod="unlimited", container="c"}': "0x60",
            },
            quiet=(8, 18),
            fires=25,
            recovers=50,
            labels=POD,
            value="90%",
        ),
    ),
}
"""
By area.
"""
