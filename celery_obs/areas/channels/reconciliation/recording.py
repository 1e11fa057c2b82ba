"""
Which numbers the events of reconciliation change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import ConnectionReconciled
from .metrics import DAYS_CHECKED, DAYS_DRIFTED


__all__ = ["Recording", "channel_series"]


class Recording:
    """
    The numbers of reconciliation.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._days_checked = SeriesWriter(recorder, DAYS_CHECKED)
        self._days_drifted = SeriesWriter(recorder, DAYS_DRIFTED)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.
        """
        return ((ConnectionReconciled, self.connection_reconciled),)

    def connection_reconciled(self, event: ConnectionReconciled) -> None:
        """
        Count the days that were compared.
        """
        self._days_checked.inc((event.channel_type,), event.checked)
        self._days_drifted.inc((event.channel_type,), event.drifted)


def channel_series(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    yield DAYS_CHECKED, (channel,)
    yield DAYS_DRIFTED, (channel,)
