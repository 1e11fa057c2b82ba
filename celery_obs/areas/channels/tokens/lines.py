"""
Lines in the log about tokens.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .events import TokenAtRisk


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
        return ((TokenAtRisk, self._token_at_risk),)

    def _token_at_risk(self, event: TokenAtRisk) -> None:
        """
        Write ``token_at_risk``: as an error where the token is lost.
        """
        self._log.write(
            logging.ERROR if event.risk == "lost" else logging.WARNING,
            "token_at_risk",
            channel_type=event.channel_type,
            connection_id=event.connection_id,
            risk=event.risk,
        )
