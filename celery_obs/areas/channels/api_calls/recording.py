"""
Which numbers the events of API calls change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.areas.sidecar.metrics import LABELS_FOLDED
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import ApiCallFinished, EndpointFolded
from .metrics import ERROR_TYPES, ERRORS, LATENCY, REQUESTS


__all__ = ["Recording", "channel_series"]


class Recording:
    """
    The numbers of API calls.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._requests = SeriesWriter(recorder, REQUESTS)
        self._latencies = SeriesWriter(recorder, LATENCY)
        self._errors = SeriesWriter(recorder, ERRORS)
        self._folded = SeriesWriter(recorder, LABELS_FOLDED)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.
        """
        return ((ApiCallFinished, self.api_call_finished), (EndpointFolded, self.endpoint_folded))

    def api_call_finished(self, event: ApiCallFinished) -> None:
        """
        Count a call, time it, and count why it failed; one that the breaker stopped was not made, so that it is a failure alone.
        """
        channel, endpoint, method, status_code, duration, error_type, _ = event
        if error_type != "circuit_breaker":
            self._requests.count((channel, endpoint, method, status_code))
            self._latencies.observe((channel, endpoint), duration)
        if error_type:
            self._errors.count((channel, error_type))

    def endpoint_folded(self, event: EndpointFolded) -> None:
        """
        Count an endpoint that had to be made into a template.
        """
        self._folded.count((REQUESTS.name,))


def channel_series(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    for error_type in ERROR_TYPES:
        yield ERRORS, (channel, error_type)
