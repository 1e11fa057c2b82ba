"""
Lines in the log about webhooks.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .events import WebhookProcessed


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

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that are worth a line, each with what writes it.
        """
        return ((WebhookProcessed, self._webhook_processed),)

    def _webhook_processed(self, event: WebhookProcessed) -> None:
        """
        Write ``webhook_failed`` or ``webhook_rejected``; what went well is counted, not written.
        """
        if event.status in {"error", "invalid_signature"}:
            failed = event.status == "error"
            self._log.write(
                logging.ERROR if failed else logging.WARNING,
                "webhook_failed" if failed else "webhook_rejected",
                channel_type=event.channel_type,
                event_type=event.event_type,
                status=event.status,
                duration_ms=round(event.duration * 1000),
                error=event.error,
            )
