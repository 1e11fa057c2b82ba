"""
The catalogue: one truth, without contradictions.
"""

from __future__ import annotations

import types

import pytest

from celery_obs.vocabulary import AREAS, CATALOGUE, catalogue
from celery_obs.vocabulary.spec import Metric
from celery_obs.vocabulary.tasks import FINAL_STATES, STATES


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
    An area without metrics is forgotten, not empty.
    """
    assert all(any(isinstance(value, Metric) for value in vars(area).values()) for area in AREAS)
