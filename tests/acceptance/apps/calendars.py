"""
An app that is reconciled: ten days on each side of each connection, two of which differ.

A connection called ``slow…`` hangs in the middle of its first comparison, so that a test can kill who is at it.
"""

from __future__ import annotations

import time

from collections.abc import Iterator
from datetime import date, timedelta

from observed import app, enter  # type: ignore[import-not-found]  # Beside it on the path of a worker of the tests.


class Calendar:
    """
    Both sides; how often each connection's were read is in the ledger.
    """

    def local(self, connection_id: str, start: date, end: date) -> Iterator[tuple[date, int]]:
        for number in range(10):
            yield start + timedelta(days=number), number

    def remote(self, connection_id: str, start: date, end: date) -> Iterator[tuple[date, int]]:
        times = enter(f"remote {connection_id}")
        for number in range(10):
            if connection_id.startswith("slow") and times == 1 and number == 5:
                time.sleep(600)
            yield start + timedelta(days=number), 0 if number in {3, 4} else number


SOURCE = Calendar()

app.conf.celery_obs = {"reconciliation_source": "calendars:SOURCE", "beat_periods": {"check_drift": 5, "take_census": 0, "sweep_state": 0}}
