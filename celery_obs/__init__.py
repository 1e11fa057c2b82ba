"""
Observability for Celery workers: one line in the app, one sidecar beside the worker.
"""

from __future__ import annotations


__version__ = "0.1.0"
