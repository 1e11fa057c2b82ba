"""
Alerts about workers: they are down, do not respond, lose pool processes, or are saturated.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import gauge, increase, max_by, one_of, sum_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, part, seconds
from celery_obs.vocabulary.conditions import WORKER_CHILDREN_DYING, WORKER_DOWN, WORKER_NOT_RESPONDING, WORKERS_ABSENT

from .metrics import HEARTBEAT, POOL_BUSY, POOL_SIZE, PROCESS_RESTARTS, UP


__all__ = ["ALERTS"]


ALERTS: Final = (
    Alert(
        name="CeleryWorkersAbsent",
        severity=WORKERS_ABSENT.severity,
        expr=f"absent({gauge(UP)} == 1)",
        for_=WORKERS_ABSENT.for_,
        summary="No Celery worker is up",
        description="No exporter has seen a running worker for $for. No task is being run.",
        dashboard="celery-tasks",
    ),
    Alert(
        name="CeleryWorkerDown",
        severity=WORKER_DOWN.severity,
        expr=f"{max_by(gauge(UP), 'worker')} == 0\nand\nmax by (worker) (max_over_time({gauge(UP)}[1d])) == 1",
        for_=WORKER_DOWN.for_,
        by=("worker",),
        summary="Worker {{ $labels.worker }} is down",
        description="The main process of worker {{ $labels.worker }} has been gone for $for.",
        dashboard="celery-tasks",
    ),
    Alert(
        name="CeleryWorkerNotResponding",
        severity=WORKER_NOT_RESPONDING.severity,
        expr=f"time() - {max_by(gauge(HEARTBEAT), 'worker')} > $threshold\nand\n{max_by(gauge(UP), 'worker')} == 1",
        threshold=seconds(WORKER_NOT_RESPONDING.threshold),
        for_=WORKER_NOT_RESPONDING.for_,
        by=("worker",),
        summary="Worker {{ $labels.worker }} is up and does not respond",
        description="The event loop of worker {{ $labels.worker }} last ran {{ $value | humanizeDuration }} ago (threshold: $threshold).",
        dashboard="celery-tasks",
    ),
    Alert(
        name="CeleryWorkerChildrenDying",
        severity=WORKER_CHILDREN_DYING.severity,
        expr=f"{sum_by(increase(PROCESS_RESTARTS, WORKER_CHILDREN_DYING.window, reason=one_of('killed', 'lost')), 'worker')} > $threshold",
        threshold=amount(WORKER_CHILDREN_DYING.threshold),
        by=("worker",),
        summary="Pool processes of worker {{ $labels.worker }} are dying",
        description='{{ $value | printf "%.0f" }} pool processes of worker {{ $labels.worker }} were killed or died in the last 15 minutes (threshold: $threshold).',
        dashboard="celery-tasks",
        keep_firing_for="10m",
    ),
    Alert(
        name="CeleryPoolSaturated",
        severity="info",
        expr=f"{sum_by(gauge(POOL_BUSY), 'worker')}\n/\n({sum_by(gauge(POOL_SIZE), 'worker')} > 0)\n>= $threshold",
        threshold=part(0.95),
        for_="30m",
        by=("worker",),
        summary="Pool of worker {{ $labels.worker }} is saturated",
        description="{{ $value | humanizePercentage }} of the pool of worker {{ $labels.worker }} has been in use for $for.",
        dashboard="celery-tasks",
    ),
)
