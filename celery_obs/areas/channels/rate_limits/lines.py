"""
Lines in the log about rate limits.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .events import RateLimitChecked


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
        return ((RateLimitChecked, self._rate_limit_checked),)

    def _rate_limit_checked(self, event: RateLimitChecked) -> None:
        """
        Write ``rate_limit_exceeded`` when the answer was no.
        """
        if event.result == "denied":
            self._log.write(
                logging.WARNING,
                "rate_limit_exceeded",
                channel_type=event.channel_type,
                connection_id=event.connection_id,
                retry_after_seconds=round(event.retry_after, 3),
            )
