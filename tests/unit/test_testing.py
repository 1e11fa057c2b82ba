"""
The public test support: it works as it promises.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from celery_obs.areas.tasks.events import TaskFinished
from celery_obs.areas.tasks.metrics import PUBLISHED
from celery_obs.exceptions import CeleryObsError
from celery_obs.testing import FakeClock, capture_events, counters
from tests.unit.recorder.builders import recorder


def test_a_fake_clock_stands_until_told() -> None:
    """
    Time passes when the test says so.
    """
    clock = FakeClock(100.0)

    clock.advance(5)

    assert 105.0 == clock()


def test_counters_are_read_from_the_files(tmp_path: Path) -> None:
    """
    What processes counted can be asserted on without a sidecar.
    """
    for number in (1, 2):
        at = recorder(tmp_path, number=number)
        at.count(PUBLISHED, ("t", "q"), 3)
        at.close()

    assert {(PUBLISHED.name, ("t", "q")): 6} == counters(tmp_path)


def test_capturing_without_setup_is_refused() -> None:
    """
    A test that would hear nothing says why.
    """
    with pytest.raises(CeleryObsError, match="setup"), capture_events(TaskFinished):
        pass
