"""
Deliveries: what a transport of sentry-sdk was given and did not deliver.

sentry-sdk tells of what it drops, for one reason or another, to the endpoint that it cannot reach; we tell it on the page of metrics.
"""

from __future__ import annotations

import threading

from collections.abc import Callable
from typing import Any, Final

from celery_obs.compat.sentry import replace_send, send_of


__all__ = ["TransportWatch"]


_DECIDED: Final = frozenset({"sample_rate", "before_send", "event_processor", "callback_error"})
"""
Reasons for which a report is not sent on purpose.
"""

_COUNTED: Final = frozenset({"error", "default", "monitor"})


class TransportWatch:
    """
    Watch one transport.

    Args:
        transport: The client's.

        dropped: Hears how many reports will not arrive, from any thread.

    Threads: safe.  Forks: of no use in a child, which has a transport of its own.
    """

    def __init__(self, transport: Any, dropped: Callable[[int], object]) -> None:
        self._dropped = dropped
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._under_way = 0
        self._is_over = False
        self._record = transport.record_lost_event
        self._drop = getattr(transport, "on_dropped_event", None)
        self._take = transport.capture_envelope
        self._send = send_of(transport)
        transport.record_lost_event = self.lost
        transport.on_dropped_event = self.refused
        if self._send is not None:  # Transports of others may have no such thing; then only what they tell of is counted.
            transport.capture_envelope = self.taken
            replace_send(transport, self.sent)

    def lost(self, reason: str, data_category: str | None = None, item: Any = None, *, quantity: int = 1) -> None:
        """
        Hear that the transport gave something up.
        """
        self._record(reason, data_category=data_category, item=item, quantity=quantity)
        if reason in _DECIDED or (data_category if item is None else item.data_category) not in _COUNTED:
            return
        if reason == "queue_overflow":
            self._settle(1)
        self._count(1 if item is not None else quantity)

    def refused(self, reason: str) -> None:
        """
        Hear that the endpoint wants less, which is not told as a loss.
        """
        if self._drop is not None:
            self._drop(reason)
        if reason == "status_429":
            self._count(1)

    def taken(self, envelope: Any) -> None:
        """
        Pass on what is to be sent.
        """
        with self._lock:
            self._under_way += _reports_in(envelope)
        self._take(envelope)

    def sent(self, envelope: Any) -> None:
        """
        Send, well or not.
        """
        try:
            if self._send is not None:
                self._send(envelope)
        finally:
            self._settle(_reports_in(envelope))

    def end(self) -> None:
        """
        Give up what is still under way, because the process ends.
        """
        with self._lock:
            left, self._under_way = self._under_way, 0
        if left > 0:
            self._count(left)
        self._is_over = True

    def _settle(self, number: int) -> None:
        with self._lock:
            self._under_way -= number

    def _count(self, number: int) -> None:
        # A task's thread and the transport's own add to the same number, which is no one step.
        with self._counting:
            if not self._is_over:
                self._dropped(number)


def _reports_in(envelope: Any) -> int:
    return sum(item.data_category in _COUNTED for item in envelope.items)
