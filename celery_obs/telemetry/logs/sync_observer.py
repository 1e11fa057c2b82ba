"""
The log observer of the sync engine: one line for what its events tell, under the names that people search for.

Written through the logger ``celery_obs.sync``, see `celery_obs.telemetry.logs.lines`.  What is written inside a run knows its channel and connection,
and so does the canonical line of the task around it.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from typing import Any, Final

from structlog import contextvars as structlogs

from celery_obs.areas.channels.rate_limits.events import RateLimitChecked
from celery_obs.areas.channels.syncs.events import SyncFinished, SyncHeldBack, SyncLost, SyncStarted
from celery_obs.areas.channels.tokens.events import TokenAtRisk
from celery_obs.areas.channels.webhooks.events import WebhookProcessed
from celery_obs.telemetry.redaction import Redactor

from .context import running
from .lines import SYNC, write


__all__ = ["LOGGER", "SyncLogObserver"]


LOGGER: Final = SYNC


class SyncLogObserver:
    """
    Write a line for each event.

    Args:
        redactor: Keeps secrets out of what a channel or a program says.

    Threads and forks: as the loggers.
    """

    def __init__(self, redactor: Redactor | None = None) -> None:
        self._redactor = redactor or Redactor()
        self._open: dict[int, tuple[SyncStarted, Mapping[str, Token[Any]]]] = {}

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that are worth a line, each with what writes it.
        """
        return (
            (SyncStarted, self.sync_started),
            (SyncFinished, self.sync_finished),
            (SyncLost, self.sync_lost),
            (SyncHeldBack, self.sync_held_back),
            (RateLimitChecked, self.rate_limit_checked),
            (TokenAtRisk, self.token_at_risk),
            (WebhookProcessed, self.webhook_processed),
        )

    def sync_started(self, event: SyncStarted) -> None:
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
        self._log(
            logging.INFO,
            "sync_started",
            channel_type=event.channel_type,
            connection_id=event.connection_id,
            sync_type=event.sync_type,
            direction=event.direction,
        )

    def sync_finished(self, event: SyncFinished) -> None:
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
            facts.update(error=event.error, error_message=self._redactor.text(event.error_message))
        elif event.error_message:
            facts.update(reason=self._redactor.text(event.error_message))
        self._log(level, "sync_failed" if failed else "sync_completed", **facts)

    def sync_lost(self, event: SyncLost) -> None:
        """
        Write ``sync_failed`` for a run that its process did not live to tell of.
        """
        self._log(
            logging.ERROR,
            "sync_failed",
            channel_type=event.channel_type,
            sync_type=event.sync_type,
            direction=event.direction,
            status="failure",
            error="WorkerLostError",
            error_message="The process that ran it died.",
        )

    def sync_held_back(self, event: SyncHeldBack) -> None:
        """
        Write ``sync_held_back``.
        """
        self._log(
            logging.INFO,
            "sync_held_back",
            channel_type=event.channel_type,
            connection_id=event.connection_id,
            sync_type=event.sync_type,
            reason=event.reason,
            delay_seconds=round(event.delay, 3),
        )

    def rate_limit_checked(self, event: RateLimitChecked) -> None:
        """
        Write ``rate_limit_exceeded`` when the answer was no.
        """
        if event.result == "denied":
            self._log(
                logging.WARNING,
                "rate_limit_exceeded",
                channel_type=event.channel_type,
                connection_id=event.connection_id,
                retry_after_seconds=round(event.retry_after, 3),
            )

    def token_at_risk(self, event: TokenAtRisk) -> None:
        """
        Write ``token_at_risk``: as an error where the token is lost.
        """
        self._log(
            logging.ERROR if event.risk == "lost" else logging.WARNING,
            "token_at_risk",
            channel_type=event.channel_type,
            connection_id=event.connection_id,
            risk=event.risk,
        )

    def webhook_processed(self, event: WebhookProcessed) -> None:
        """
        Write ``webhook_failed`` or ``webhook_rejected``; what went well is counted, not written.
        """
        if event.status in {"error", "invalid_signature"}:
            failed = event.status == "error"
            self._log(
                logging.ERROR if failed else logging.WARNING,
                "webhook_failed" if failed else "webhook_rejected",
                channel_type=event.channel_type,
                event_type=event.event_type,
                status=event.status,
                duration_ms=round(event.duration * 1000),
                error=event.error,
            )

    def _log(self, level: int, name: str, **facts: Any) -> None:
        write(SYNC, level, name, facts)
