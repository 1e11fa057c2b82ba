"""
Observability for Celery workers: one line in the app, one sidecar beside the worker.

::

    app = Celery("proj")
    celery_obs.setup(app)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from celery_obs import beat, metrics
    from celery_obs.correlation import correlate, correlation_id
    from celery_obs.logs.processors import LogFilter, log_processors
    from celery_obs.plugin import setup, teardown
    from celery_obs.settings import Settings
    from celery_obs.sync import circuit_breaker, rate_limiter, tokens
    from celery_obs.sync.api_calls import api_call
    from celery_obs.sync.conflicts import conflict_detected, conflict_resolved, double_booking, requires_review, reviewed
    from celery_obs.sync.connections import Connection, ConnectionSource, forget_connection, register_connection, set_connection_status
    from celery_obs.sync.errors import classify, register_client_error
    from celery_obs.sync.reconciliation import Reconciled, ReconciliationSource, Unknown, by_windows, reconcile
    from celery_obs.sync.retries import retry_policy
    from celery_obs.sync.runs import SyncResult, sync_run
    from celery_obs.sync.webhooks import webhook
    from celery_obs.worker.sync_task import SyncTask


__all__ = [
    "Connection",
    "ConnectionSource",
    "LogFilter",
    "Reconciled",
    "ReconciliationSource",
    "Settings",
    "SyncResult",
    "SyncTask",
    "Unknown",
    "__version__",
    "api_call",
    "beat",
    "by_windows",
    "circuit_breaker",
    "classify",
    "conflict_detected",
    "conflict_resolved",
    "correlate",
    "correlation_id",
    "double_booking",
    "forget_connection",
    "log_processors",
    "metrics",
    "rate_limiter",
    "reconcile",
    "register_client_error",
    "register_connection",
    "requires_review",
    "retry_policy",
    "reviewed",
    "set_connection_status",
    "setup",
    "sync_run",
    "teardown",
    "tokens",
    "webhook",
]

__version__ = "0.1.0"

_MODULES = {
    "beat": "celery_obs.beat",
    "circuit_breaker": "celery_obs.sync.circuit_breaker",
    "metrics": "celery_obs.metrics",
    "rate_limiter": "celery_obs.sync.rate_limiter",
    "tokens": "celery_obs.sync.tokens",
}
_LAZY = {
    "Connection": "celery_obs.sync.connections",
    "ConnectionSource": "celery_obs.sync.connections",
    "LogFilter": "celery_obs.logs.processors",
    "Reconciled": "celery_obs.sync.reconciliation",
    "ReconciliationSource": "celery_obs.sync.reconciliation",
    "Settings": "celery_obs.settings",
    "SyncResult": "celery_obs.sync.runs",
    "SyncTask": "celery_obs.worker.sync_task",
    "Unknown": "celery_obs.sync.reconciliation",
    "api_call": "celery_obs.sync.api_calls",
    "by_windows": "celery_obs.sync.reconciliation",
    "classify": "celery_obs.sync.errors",
    "conflict_detected": "celery_obs.sync.conflicts",
    "conflict_resolved": "celery_obs.sync.conflicts",
    "correlate": "celery_obs.correlation",
    "correlation_id": "celery_obs.correlation",
    "double_booking": "celery_obs.sync.conflicts",
    "forget_connection": "celery_obs.sync.connections",
    "log_processors": "celery_obs.logs.processors",
    "reconcile": "celery_obs.sync.reconciliation",
    "register_client_error": "celery_obs.sync.errors",
    "register_connection": "celery_obs.sync.connections",
    "requires_review": "celery_obs.sync.conflicts",
    "retry_policy": "celery_obs.sync.retries",
    "reviewed": "celery_obs.sync.conflicts",
    "set_connection_status": "celery_obs.sync.connections",
    "setup": "celery_obs.plugin",
    "sync_run": "celery_obs.sync.runs",
    "teardown": "celery_obs.plugin",
    "webhook": "celery_obs.sync.webhooks",
}


def __getattr__(name: str) -> Any:
    """
    Import what is asked for when it is asked for, so that ``import celery_obs`` costs and does nothing.
    """
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    message = f"module 'celery_obs' has no attribute {name!r}"
    raise AttributeError(message)
