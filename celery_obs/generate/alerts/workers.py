"""
Alerts about workers: they are gone, hang, or lose their children.
"""

from __future__ import annotations

from typing import Final

from celery_obs.generate.promql import among, gauge, increase, most, total
from celery_obs.generate.rules import Alert
from celery_obs.vocabulary.workers import HEARTBEAT, POOL_BUSY, POOL_SIZE, PROCESS_RESTARTS, UP


__all__ = ["ALERTS"]


ALERTS: Final = (
    Alert(
        name="CeleryWorkersAbsent",
        severity="critical",
        expr=f"absent({gauge(UP)} == 1)",
        lasts="5m",
        summary="No Celery worker is there",
        description="For 5 minutes no exporter has seen a living worker. Nothing is being worked on, and nothing else can tell.",
        shows="celery-tasks",
        seeds=("001 APIUnavailable",),
    ),
    Alert(
        name="CeleryWorkerDown",
        severity="warning",
        expr=f"{most(gauge(UP), 'worker')} == 0\nand\nmax by (worker) (max_over_time({gauge(UP)}[1d])) == 1",
        lasts="15m",
        by=("worker",),
        summary="Worker {{ $labels.worker }} is down",
        description="The main process of worker {{ $labels.worker }} went, and has not come back for 15 minutes.",
        shows="celery-tasks",
    ),
    Alert(
        name="CeleryWorkerNotResponding",
        severity="critical",
        expr=f"time() - {most(gauge(HEARTBEAT), 'worker')} > 120\nand\n{most(gauge(UP), 'worker')} == 1",
        lasts="2m",
        by=("worker",),
        summary="Worker {{ $labels.worker }} is there and does not respond",
        description="The event loop of worker {{ $labels.worker }} last turned {{ $value | humanizeDuration }} ago.",
        shows="celery-tasks",
    ),
    Alert(
        name="CeleryWorkerChildrenDying",
        severity="warning",
        expr=f"{total(increase(PROCESS_RESTARTS, '15m', reason=among('killed', 'lost')), 'worker')} > 3",
        by=("worker",),
        summary="Worker {{ $labels.worker }} loses its children",
        description='{{ $value | printf "%.0f" }} pool processes of worker {{ $labels.worker }} were killed or died in the last 15 minutes.',
        shows="celery-tasks",
        keeps_firing="10m",
    ),
    Alert(
        name="CeleryPoolSaturated",
        severity="info",
        expr=f"{total(gauge(POOL_BUSY), 'worker')}\n/\n({total(gauge(POOL_SIZE), 'worker')} > 0)\n>= 0.95",
        lasts="30m",
        by=("worker",),
        summary="Worker {{ $labels.worker }} has been busy with all it has",
        description="{{ $value | humanizePercentage }} of the pool of worker {{ $labels.worker }} has been in use for 30 minutes.",
        shows="celery-tasks",
        seeds=("000 §9.2",),
    ),
)
