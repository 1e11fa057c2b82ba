"""
Which numbers the events of webhooks change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import WebhookProcessed, WebhookReceived
from .metrics import PROCESSED, PROCESSING, RECEIVED, STATUSES


__all__ = ["Recording", "channel_series"]


class Recording:
    """
    The numbers of webhooks.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._received = SeriesWriter(recorder, RECEIVED)
        self._processed = SeriesWriter(recorder, PROCESSED)
        self._processing = SeriesWriter(recorder, PROCESSING)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.  An event whose fields are the labels is counted as it is.
        """
        return ((WebhookReceived, self._received.count), (WebhookProcessed, self.webhook_processed))

    def webhook_processed(self, event: WebhookProcessed) -> None:
        """
        Count a webhook by what became of it, and time it.
        """
        self._processed.count((event.channel_type, event.status))
        self._processing.observe((event.channel_type,), event.duration)


def channel_series(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    for status in STATUSES:
        yield PROCESSED, (channel, status)
