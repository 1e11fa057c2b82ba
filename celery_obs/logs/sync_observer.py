"""
The log observer of the sync engine: one line for what its events tell, under the names that people search for.

Written through structlog's logger ``celery_obs.sync``.  Where the program has configured structlog, that is how the lines look;
where it has not, they are JSON through the standard library's logger of that name, so that they go where the program's other lines go.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterable
from typing import Any, Final

from celery_obs.vocabulary.rate_limiter import RateLimitChecked
from celery_obs.vocabulary.syncs import SyncFinished, SyncHeldBack, SyncLost, SyncStarted
from celery_obs.vocabulary.webhooks import WebhookProcessed


__all__ = ["LOGGER", "SyncLogObserver"]


LOGGER: Final = "celery_obs.sync"


class SyncLogObserver:
    """
    Write a line for each event.

    Threads and forks: as the loggers.
    """

    def __init__(self) -> None:
        self._plain: Any = None

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
            (WebhookProcessed, self.webhook_processed),
        )

    def sync_started(self, event: SyncStarted) -> None:
        """
        Write ``sync_started``.
        """
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
        Write ``sync_completed``; or ``sync_failed``, as a warning where the task will try again.
        """
        started, status = event.started, event.status
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
            facts.update(error=event.error, error_message=event.error_message)
        elif event.error_message:
            facts.update(reason=event.error_message)
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
            error_message="The process of the run died with it.",
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
        import structlog  # noqa: PLC0415 -- only a process that has something to say needs it.

        if structlog.is_configured():
            # Asked anew each time: a logger that is kept would keep the configuration that it was made with.
            structlog.get_logger(LOGGER).log(level, name, **facts)
        elif logging.getLogger(LOGGER).isEnabledFor(level):
            if self._plain is None:
                self._plain = structlog.wrap_logger(
                    logging.getLogger(LOGGER),
                    processors=[structlog.processors.JSONRenderer(default=str)],
                    wrapper_class=structlog.stdlib.BoundLogger,
                )
            self._plain.log(level, name, **facts)
