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
    from celery_obs import metrics
    from celery_obs.plugin import setup, teardown
    from celery_obs.settings import Settings
    from celery_obs.sync import tokens
    from celery_obs.sync.api_calls import api_call
    from celery_obs.sync.errors import classify
    from celery_obs.sync.retries import retry_policy
    from celery_obs.sync.runs import SyncResult, sync_run
    from celery_obs.sync.webhooks import webhook
    from celery_obs.worker.sync_task import SyncTask


__all__ = [
    "Settings",
    "SyncResult",
    "SyncTask",
    "__version__",
    "api_call",
    "classify",
    "metrics",
    "retry_policy",
    "setup",
    "sync_run",
    "teardown",
    "tokens",
    "webhook",
]

__version__ = "0.1.0"

_MODULES = {"metrics": "celery_obs.metrics", "tokens": "celery_obs.sync.tokens"}
_LAZY = {
    "Settings": "celery_obs.settings",
    "SyncResult": "celery_obs.sync.runs",
    "SyncTask": "celery_obs.worker.sync_task",
    "api_call": "celery_obs.sync.api_calls",
    "classify": "celery_obs.sync.errors",
    "retry_policy": "celery_obs.sync.retries",
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
