"""
Which numbers the events of connections change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import ConnectionErrored
from .metrics import ERRORS


__all__ = ["Recording", "channel_series"]


class Recording:
    """
    The numbers of connections.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._errors = SeriesWriter(recorder, ERRORS)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.
        """
        return ((ConnectionErrored, self.connection_errored),)

    def connection_errored(self, event: ConnectionErrored) -> None:
        """
        Count a failure of a connection.
        """
        self._errors.count((event.channel_type,))


def channel_series(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    yield ERRORS, (channel,)
