"""
Webhooks: events that channels send.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from celery_obs.vocabulary.spec import Metric


__all__ = ["PROCESSED", "PROCESSING", "RECEIVED", "STATUSES", "WebhookStatus"]


WebhookStatus: TypeAlias = Literal["success", "duplicate", "stale", "invalid_signature", "error"]
"""
What became of a webhook; *stale*: something newer about its object was done before.
"""

STATUSES: Final[tuple[WebhookStatus, ...]] = ("success", "duplicate", "stale", "invalid_signature", "error")


RECEIVED = Metric(
    kind="counter",
    name="channel_webhook_received_total",
    help="Does the channel still send webhooks? Webhooks received, by type of event.",
    labels=("channel_type", "event_type"),
)
PROCESSED = Metric(
    kind="counter",
    name="channel_webhook_processed_total",
    help="Are webhooks processed? Webhooks by what became of them.",
    labels=("channel_type", "status"),
)
PROCESSING = Metric(
    kind="histogram",
    name="channel_webhook_processing_seconds",
    help="How long does it take to process a webhook?",
    labels=("channel_type",),
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    resolution=1e-6,
)
