"""
Webhooks: events that channels send.
"""

from __future__ import annotations

from typing import NamedTuple

from .metrics import WebhookStatus


__all__ = ["WebhookProcessed", "WebhookReceived"]


class WebhookReceived(NamedTuple):
    """
    A webhook came in.

    Attributes:
        channel_type: The channel that sent it.

        event_type: What it says has happened, such as ``booking.created``.
    """

    channel_type: str
    event_type: str


class WebhookProcessed(NamedTuple):
    """
    A webhook was dealt with.

    Attributes:
        channel_type, event_type: As in `WebhookReceived`.

        status: What became of it.

        duration: Seconds.

        error: Class name of what was raised; else empty.
    """

    channel_type: str
    event_type: str
    status: WebhookStatus
    duration: float
    error: str
