"""
Which numbers the events of tokens change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .events import TokenAtRisk, TokenRefreshed
from .metrics import AT_RISK, REFRESH_STATUSES, REFRESH_TOTAL, RISKS


__all__ = ["Recording", "channel_series"]


class Recording:
    """
    The numbers of tokens.

    Args:
        recorder: Knows where the numbers lie.

        attempts: What every area is given; not used here.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, attempts: AttemptMeter) -> None:
        self._refreshes = SeriesWriter(recorder, REFRESH_TOTAL)
        self._at_risk = SeriesWriter(recorder, AT_RISK)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.
        """
        return ((TokenRefreshed, self.token_refreshed), (TokenAtRisk, self.token_at_risk))

    def token_refreshed(self, event: TokenRefreshed) -> None:
        """
        Count a refresh by outcome.
        """
        self._refreshes.count((event.channel_type, event.status))

    def token_at_risk(self, event: TokenAtRisk) -> None:
        """
        Count a new token that is not safe, by what became of it.
        """
        self._at_risk.count((event.channel_type, event.risk))


def channel_series(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    for status in REFRESH_STATUSES:
        yield REFRESH_TOTAL, (channel, status)
    for risk in RISKS:
        yield AT_RISK, (channel, risk)
