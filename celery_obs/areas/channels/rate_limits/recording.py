"""
Which numbers the events of rate limits change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import RateLimitChecked, RateLimitWaited
from .metrics import REQUESTS, RESULTS, WAIT


__all__ = ["Recording", "channel_series"]


class Recording:
    """
    The numbers of rate limits.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._checks = SeriesWriter(recorder, REQUESTS)
        self._waits = SeriesWriter(recorder, WAIT)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.
        """
        return ((RateLimitChecked, self.rate_limit_checked), (RateLimitWaited, self.rate_limit_waited))

    def rate_limit_checked(self, event: RateLimitChecked) -> None:
        """
        Count an answer of the limiter.
        """
        self._checks.count((event.channel_type, event.result))

    def rate_limit_waited(self, event: RateLimitWaited) -> None:
        """
        Time a caller who waited in line.
        """
        self._waits.observe((event.channel_type,), event.waited)


def channel_series(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    for result in RESULTS:
        yield REQUESTS, (channel, result)
