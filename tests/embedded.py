"""
A worker in a thread of this process, as programs embed one in their own tests.
"""

from __future__ import annotations

import contextlib

from collections.abc import Iterator
from typing import Any
from unittest import mock

from celery import Celery
from celery.contrib.testing.worker import start_worker
from kombu import Connection
from kombu.transport import memory


__all__ = ["embedded_worker"]


_PATIENCE = 0.05


@contextlib.contextmanager
def embedded_worker(app: Celery, *, pool: str = "solo") -> Iterator[None]:
    """
    Run Celery's own test worker, which soon notices that it is to end: by itself it looks for that every other second only.
    """
    drain = Connection.drain_events

    def drain_events(connection: Any, **options: Any) -> Any:
        return drain(connection, **{**options, "timeout": _PATIENCE})

    with (
        mock.patch.object(memory.Transport, "polling_interval", _PATIENCE),
        mock.patch.object(Connection, "drain_events", drain_events),
        start_worker(app, perform_ping_check=False, pool=pool),
    ):
        yield
