"""
Families: the series of one metric.
"""

from __future__ import annotations

import math

from pathlib import Path

import pytest

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_obs.areas.sidecar.metrics import LABELS_FOLDED
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric

from .builders import lane, recorder


SEEN = Metric(kind="counter", name="seen_total", help="How many?", labels=("who",))
COST = Metric(kind="counter", name="cost_total", help="How much?", labels=("who",), resolution=1e-6)
SIZE = Metric(kind="histogram", name="size", help="How big?", labels=("who",), buckets=(1.0, 10.0), resolution=1e-3)
OPEN = Metric(kind="gauge", name="open", help="How many now?", labels=("who",))


def gauge(at: Recorder, *values: str) -> float:
    word = at.word(OPEN, values)
    assert word is not None
    assert at.slot is not None
    return float(at.slot.floats[word])


def test_counting_goes_on_in_a_new_slot(tmp_path: Path) -> None:
    """
    A family that was used before its process claimed another slot writes into the new one.
    """
    at = recorder(tmp_path)
    seen = SeriesWriter(at, SEEN)
    seen.count(("a",))
    at.close()
    at.identify = recorder(tmp_path, number=2, attempts=8).identify  # Its lanes lie elsewhere, behind a larger table.

    seen.count(("a",))

    assert 1 == lane(at, SEEN, "a")


def test_beyond_the_limit_values_are_folded_each_time(tmp_path: Path) -> None:
    """
    What goes to _other is not remembered as a series of its own, so that every observation of it is told.
    """
    at = recorder(tmp_path, label_limit=1)
    seen = SeriesWriter(at, SEEN)

    for name in ("a", "b", "b"):
        seen.count((name,))

    assert (1, 2, 2) == (lane(at, SEEN, "a"), lane(at, SEEN, "_other"), lane(at, LABELS_FOLDED, SEEN.name))


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf, 1e300])
def test_what_no_lane_can_take_is_refused_and_changes_nothing(tmp_path: Path, amount: float) -> None:
    """
    A counter only grows, by numbers that can be added up exactly.
    """
    at = recorder(tmp_path)

    for record in (SeriesWriter(at, COST).inc, SeriesWriter(at, SIZE).observe):
        with pytest.raises((ValueError, OverflowError)):
            record(("a",), amount)

    assert (0, 0) == (lane(at, COST, "a"), lane(at, SIZE, "a"))


@given(amounts=st.lists(st.integers(0, 10**9)))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_millionths_add_up_exactly(tmp_path_factory: pytest.TempPathFactory, amounts: list[int]) -> None:
    """
    However many fractions come, their total is their sum.
    """
    at = recorder(tmp_path_factory.mktemp("slot"))
    at.open()
    cost = SeriesWriter(at, COST)

    for amount in amounts:
        cost.inc(("a",), amount / 1e6)

    assert sum(amounts) == lane(at, COST, "a")
    at.close()


def test_half_a_character_is_no_label(tmp_path: Path) -> None:
    """
    A value that cannot be written as UTF-8 would spoil the whole page, so it is folded.
    """
    at = recorder(tmp_path)

    SeriesWriter(at, SEEN).count(("a\udc80",))

    assert (1, 1) == (lane(at, SEEN, "_other"), lane(at, LABELS_FOLDED, SEEN.name))


def test_a_gauge_that_was_never_set_begins_at_0(tmp_path: Path) -> None:
    """
    Adding to what a predecessor in the slot has left would count the dead.
    """
    at = recorder(tmp_path)
    SeriesWriter(at, OPEN).add(("a",), 3)
    at.close()
    running = SeriesWriter(at, OPEN)

    running.add(("a",), 1)
    running.add(("a",), 1)

    assert 2.0 == gauge(at, "a")
