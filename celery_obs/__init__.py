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
    from celery_obs.areas.channels.api_calls.api import api_call
    from celery_obs.areas.channels.breakers import api as circuit_breaker
    from celery_obs.areas.channels.conflicts.api import conflict_detected, conflict_resolved, double_booking, requires_review, reviewed
    from celery_obs.areas.channels.connections.api import (
        Connection,
        ConnectionSource,
        forget_connection,
        register_connection,
        set_connection_status,
    )
    from celery_obs.areas.channels.errors import classify, register_client_error
    from celery_obs.areas.channels.rate_limits import api as rate_limiter
    from celery_obs.areas.channels.reconciliation.api import Reconciled, ReconciliationSource, Unknown, by_windows, reconcile
    from celery_obs.areas.channels.retries import retry_policy
    from celery_obs.areas.channels.syncs.api import SyncResult, sync_run
    from celery_obs.areas.channels.syncs.sync_task import SyncTask
    from celery_obs.areas.channels.tokens import api as tokens
    from celery_obs.areas.channels.webhooks.api import webhook
    from celery_obs.runtime.hooks import emit, subscribe, unsubscribe
    from celery_obs.runtime.plugin import setup, teardown
    from celery_obs.settings import Settings
    from celery_obs.telemetry.correlation import correlate, correlation_id
    from celery_obs.telemetry.logs.processors import LogFilter, log_processors


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
    "emit",
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
    "subscribe",
    "sync_run",
    "teardown",
    "tokens",
    "unsubscribe",
    "webhook",
]

__version__ = "0.1.0"

_MODULES = {
    "beat": "celery_obs.beat",
    "circuit_breaker": "celery_obs.areas.channels.breakers.api",
    "metrics": "celery_obs.metrics",
    "rate_limiter": "celery_obs.areas.channels.rate_limits.api",
    "tokens": "celery_obs.areas.channels.tokens.api",
}
_LAZY = {
    "Connection": "celery_obs.areas.channels.connections.api",
    "ConnectionSource": "celery_obs.areas.channels.connections.api",
    "LogFilter": "celery_obs.telemetry.logs.processors",
    "Reconciled": "celery_obs.areas.channels.reconciliation.api",
    "ReconciliationSource": "celery_obs.areas.channels.reconciliation.api",
    "Settings": "celery_obs.settings",
    "SyncResult": "celery_obs.areas.channels.syncs.api",
    "SyncTask": "celery_obs.areas.channels.syncs.sync_task",
    "Unknown": "celery_obs.areas.channels.reconciliation.api",
    "api_call": "celery_obs.areas.channels.api_calls.api",
    "by_windows": "celery_obs.areas.channels.reconciliation.api",
    "classify": "celery_obs.areas.channels.errors",
    "conflict_detected": "celery_obs.areas.channels.conflicts.api",
    "conflict_resolved": "celery_obs.areas.channels.conflicts.api",
    "correlate": "celery_obs.telemetry.correlation",
    "correlation_id": "celery_obs.telemetry.correlation",
    "double_booking": "celery_obs.areas.channels.conflicts.api",
    "emit": "celery_obs.runtime.hooks",
    "forget_connection": "celery_obs.areas.channels.connections.api",
    "log_processors": "celery_obs.telemetry.logs.processors",
    "reconcile": "celery_obs.areas.channels.reconciliation.api",
    "register_client_error": "celery_obs.areas.channels.errors",
    "register_connection": "celery_obs.areas.channels.connections.api",
    "requires_review": "celery_obs.areas.channels.conflicts.api",
    "retry_policy": "celery_obs.areas.channels.retries",
    "reviewed": "celery_obs.areas.channels.conflicts.api",
    "set_connection_status": "celery_obs.areas.channels.connections.api",
    "setup": "celery_obs.runtime.plugin",
    "subscribe": "celery_obs.runtime.hooks",
    "sync_run": "celery_obs.areas.channels.syncs.api",
    "teardown": "celery_obs.runtime.plugin",
    "unsubscribe": "celery_obs.runtime.hooks",
    "webhook": "celery_obs.areas.channels.webhooks.api",
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
