"""
Recording rules of workers: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import divided, gauge, increase, sum_by
from celery_obs.rules.rules import RecordingRule

from .metrics import POOL_BUSY, POOL_SIZE, PROCESS_RESTARTS


__all__ = ["RULES"]


def _rules() -> Iterator[RecordingRule]:
    yield RecordingRule(
        name="celery_worker_pool_busy:ratio",
        help="How much of the workers' pools is in use?",
        expr=divided(sum_by(gauge(POOL_BUSY)), f"({sum_by(gauge(POOL_SIZE))} > 0)"),
    )
    yield RecordingRule(
        name="worker_reason:celery_worker_process_restarts:increase1h",
        help="Which workers replace pool processes, and why? Replaced ones in the last hour.",
        expr=sum_by(increase(PROCESS_RESTARTS, "1h"), "worker", "reason"),
        by=("worker", "reason"),
    )


RULES: Final = tuple(_rules())
