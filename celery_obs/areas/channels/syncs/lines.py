"""
Lines in the log about sync runs.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from typing import TYPE_CHECKING, Any

from structlog import contextvars as structlogs

from celery_obs.telemetry.logs.context import running

from .events import SyncFinished, SyncHeldBack, SyncLost, SyncStarted


if TYPE_CHECKING:
    from celery_obs.telemetry.logs.sync_observer import SyncLogObserver


__all__ = ["Lines"]


class Lines:
    """
    Write them.

    Args:
        log: Where they go.
    """

    def __init__(self, log: SyncLogObserver) -> None:
        self._log = log
        self._open: dict[int, tuple[SyncStarted, Mapping[str, Token[Any]]]] = {}

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that are worth a line, each with what writes it.
        """
        return (
            (SyncStarted, self._sync_started),
            (SyncFinished, self._sync_finished),
            (SyncLost, self._sync_lost),
            (SyncHeldBack, self._sync_held_back),
        )

    def _sync_started(self, event: SyncStarted) -> None:
        """
        Write ``sync_started``, and bind whose run it is.
        """
        whose = {"channel_type": event.channel_type}
        if event.connection_id:
            whose["connection_id"] = event.connection_id
        attempt = running()
        if attempt is not None:
            attempt.facts.update(whose)
        self._open[id(event)] = event, structlogs.bind_contextvars(**whose)
        self._log.write(
            logging.INFO,
            "sync_started",
            channel_type=event.channel_type,
            connection_id=event.connection_id,
            sync_type=event.sync_type,
            direction=event.direction,
        )

    def _sync_finished(self, event: SyncFinished) -> None:
        """
        Write ``sync_completed``; or ``sync_failed``, as a warning where the task will try again.  Of one that was held back, ``sync_held_back`` has told.
        """
        started, status = event.started, event.status
        _, tokens = self._open.pop(id(started), (started, {}))
        try:
            structlogs.reset_contextvars(**tokens)
        except ValueError:  # The run was ended in another context than it was begun in.
            structlogs.unbind_contextvars(*tokens)
        if status == "held_back":
            return
        failed = status in {"failure", "retry"}
        level = {"failure": logging.ERROR, "retry": logging.WARNING}.get(status, logging.INFO)
        facts: dict[str, Any] = {
            "channel_type": started.channel_type,
            "connection_id": started.connection_id,
            "sync_type": started.sync_type,
            "direction": started.direction,
            "status": status,
            "duration_ms": round(event.duration * 1000),
            "records_processed": event.created + event.updated + event.failed + event.skipped,
            "records_created": event.created,
            "records_updated": event.updated,
            "records_failed": event.failed,
            "records_skipped": event.skipped,
        }
        if failed:
            facts.update(error=event.error, error_message=self._log.redactor.text(event.error_message))
        elif event.error_message:
            facts.update(reason=self._log.redactor.text(event.error_message))
        self._log.write(level, "sync_failed" if failed else "sync_completed", **facts)

    def _sync_lost(self, event: SyncLost) -> None:
        """
        Write ``sync_failed`` for a run that its process did not live to tell of.
        """
        self._log.write(
            logging.ERROR,
            "sync_failed",
            channel_type=event.channel_type,
            sync_type=event.sync_type,
            direction=event.direction,
            status="failure",
            error="WorkerLostError",
            error_message="The process that ran it died.",
        )

    def _sync_held_back(self, event: SyncHeldBack) -> None:
        """
        Write ``sync_held_back``.
        """
        self._log.write(
            logging.INFO,
            "sync_held_back",
            channel_type=event.channel_type,
            connection_id=event.connection_id,
            sync_type=event.sync_type,
            reason=event.reason,
            delay_seconds=round(event.delay, 3),
        )
