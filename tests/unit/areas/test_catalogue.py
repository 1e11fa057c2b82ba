"""
The catalogue: one truth, without contradictions.
"""

from __future__ import annotations

import types

import pytest

from celery_obs.areas import AREAS, parts
from celery_obs.areas.catalogue import CATALOGUE, catalogue
from celery_obs.areas.tasks.metrics import FINAL_STATES, STATES
from celery_obs.vocabulary.spec import Metric


CONTRACT = [
    "celery_task_published_total",
    "celery_task_received_total",
    "celery_task_started_total",
    "celery_task_finished_total",
    "celery_task_failures_total",
    "celery_task_retries_total",
    "celery_task_attempts",
    "celery_task_runtime_seconds",
    "celery_task_queue_wait_seconds",
    "celery_task_latency_seconds",
    "celery_task_in_progress",
    "celery_task_longest_running_seconds",
    "celery_task_clock_skew_total",
    "celery_worker_up",
    "celery_worker_heartbeat_timestamp_seconds",
    "celery_worker_pool_size",
    "celery_worker_pool_busy",
    "celery_worker_reserved",
    "celery_worker_scheduled",
    "celery_worker_info",
    "celery_worker_process_restarts_total",
    "celery_worker_process_resident_memory_bytes",
    "celery_worker_process_cpu_seconds_total",
    "celery_queue_depth",
    "celery_queue_priority_depth",
    "celery_queue_unacked",
    "celery_queue_consumers",
    "celery_queue_oldest_message_age_seconds",
    "celery_beat_entry_last_fired_timestamp_seconds",
    "celery_beat_entry_last_success_timestamp_seconds",
    "celery_beat_entry_overdue_seconds",
    "celery_beat_heartbeat_timestamp_seconds",
    "channel_sync_total",
    "channel_sync_duration_seconds",
    "channel_sync_records_total",
    "channel_sync_in_progress",
    "channel_api_requests_total",
    "channel_api_latency_seconds",
    "channel_api_errors_total",
    "channel_rate_limit_requests_total",
    "channel_rate_limit_current_count",
    "channel_rate_limit_max",
    "channel_rate_limit_wait_seconds",
    "channel_circuit_breaker_state",
    "channel_circuit_breaker_transitions_total",
    "channel_circuit_breaker_rejections_total",
    "channel_circuit_breaker_open_duration_seconds",
    "channel_webhook_received_total",
    "channel_webhook_processed_total",
    "channel_webhook_processing_seconds",
    "channel_token_expires_at_timestamp",
    "channel_token_lifetime_seconds",
    "channel_token_refresh_total",
    "channel_connections_total",
    "channel_connection_last_sync_timestamp",
    "channel_connection_error_count",
    "channel_connection_created_at",
    "channel_connection_errors_total",
    "channel_conflicts_total",
    "channel_conflicts_resolved_total",
    "channel_conflicts_requiring_review",
    "channel_double_bookings_detected_total",
    "channel_reconciliation_drift_days",
    "channel_reconciliation_days_checked_total",
    "channel_reconciliation_days_drifted_total",
    "channel_reconciliation_last_run_timestamp",
    "channel_paused",
    "celery_obs_build_info",
    "celery_obs_collector_success",
    "celery_obs_collector_duration_seconds",
    "celery_obs_collector_age_seconds",
    "celery_obs_internal_errors_total",
    "celery_obs_labels_folded_total",
    "celery_obs_dropped_total",
    "celery_obs_metric_files",
    "celery_obs_leader",
]


def test_the_catalogue_holds_every_name_of_the_contract() -> None:
    """
    The names that users rely on are all there.
    """
    assert set() == set(CONTRACT) - CATALOGUE.keys()


@pytest.mark.parametrize("metric", CATALOGUE.values(), ids=lambda metric: metric.name)
def test_a_help_text_is_a_question_somebody_asks_at_night(metric: Metric) -> None:
    """
    Every metric says what it is good for.
    """
    assert "?" in metric.help


def test_final_states_are_states() -> None:
    """
    The states in which a task is settled are among the states.
    """
    assert set(STATES) > FINAL_STATES


def test_two_metrics_of_one_name_are_refused_with_both_shown() -> None:
    """
    A name that is given twice stops the program, with both definitions in the message.
    """
    first, second = types.ModuleType("first"), types.ModuleType("second")
    first.A = Metric(kind="gauge", name="a", help="One?")  # type: ignore[attr-defined]  # a module of our making.
    second.A = Metric(kind="gauge", name="a", help="Two?")  # type: ignore[attr-defined]  # likewise.

    with pytest.raises(ValueError, match=r"(?s)One\?.*Two\?"):
        catalogue([first, second])


def test_every_area_is_gathered() -> None:
    """
    An area without metrics is forgotten, not empty; a pause is a number of connections, and what is counted of channels stands in the areas below.
    """
    with_metrics = {area.name for area, part in parts("metrics") if any(isinstance(value, Metric) for value in vars(part).values())}

    assert {"channels", "pauses"} == {area.name for area in AREAS} - with_metrics
