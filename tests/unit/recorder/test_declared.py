"""
Metrics that users declare.
"""

from __future__ import annotations

import math

from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_obs.areas.sidecar.metrics import DROPPED
from celery_obs.areas.tasks.metrics import FINISHED
from celery_obs.recorder import declared
from celery_obs.recorder.recorder import Recorder

from .builders import lane, recorder


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Recorder]:
    """
    A recorder that declared metrics write through.
    """
    made = recorder(tmp_path)
    declared.connect(made)
    yield made
    declared.disconnect()
    declared._declared.clear()


def test_a_counter_keeps_fractions_exactly(at: Recorder) -> None:
    """
    A tenth added ten times is one, not nearly one.
    """
    money = declared.counter("revenue_total", "How much?", labels=["channel"])

    for _ in range(10):
        money.inc(0.1, channel="airbnb")

    assert 1_000_000 == lane(at, money.metric, "airbnb")


def test_a_histogram_takes_values_into_its_buckets(at: Recorder) -> None:
    """
    A value is counted in the first bucket whose bound it does not exceed.
    """
    sizes = declared.histogram("batch_size", "How many at once?", buckets=[1, 10, 100], resolution=1)

    for size in (1, 7, 1000):
        sizes.observe(size)

    assert at.slot is not None
    first = at.word(sizes.metric, ())
    assert first is not None
    assert [1, 1, 0, 1, 1008] == list(at.slot.words[first : first + 5])


def test_a_gauge_goes_up_and_down(at: Recorder) -> None:
    """
    A gauge that was never set begins at 0.
    """
    open_orders = declared.gauge("open_orders", "What is open?")

    open_orders.inc(5)
    open_orders.dec(2)

    assert at.slot is not None
    word = at.word(open_orders.metric, ())
    assert word is not None
    assert 3.0 == at.slot.floats[word]


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf, "two", None, 1e300])
def test_what_cannot_be_recorded_is_counted_and_raises_nothing(at: Recorder, amount: object) -> None:
    """
    A metric never breaks the program that it measures.
    """
    sold = declared.counter("sold_total", "How many?")

    sold.inc(amount)  # type: ignore[arg-type]  # that is the point.

    assert (0, 1) == (lane(at, sold.metric), lane(at, DROPPED, "bad_value"))


@pytest.mark.parametrize("labels", [{}, {"shop": "a", "town": "b"}, {"town": "b"}])
def test_wrong_labels_are_counted_and_raise_nothing(at: Recorder, labels: dict[str, str]) -> None:
    """
    A misspelt label costs the observation, not the task.
    """
    sold = declared.counter("sold_total", "How many?", labels=["shop"])

    sold.inc(1, **labels)

    assert 1 == lane(at, DROPPED, "bad_value")


def test_without_setup_nothing_is_recorded() -> None:
    """
    Library code may declare and record in programs that never set us up.
    """
    declared.counter("lonely_total", "Alone?").inc()

    assert "lonely_total" == declared._declared.pop("lonely_total").name


def test_a_name_means_one_thing(at: Recorder) -> None:
    """
    A second declaration has to be equal to the first, and none may take a name of ours; the error shows both.
    """
    declared.counter("sold_total", "How many?")
    declared.counter("sold_total", "How many?")

    with pytest.raises(ValueError, match="exists already"):
        declared.counter("sold_total", "How many?", labels=["shop"])
    with pytest.raises(ValueError, match="exists already"):
        declared.counter(FINISHED.name, "Mine now?")


@pytest.mark.parametrize(
    ("first", "second"),
    [("counter orders_total", "gauge orders"), ("histogram wait", "gauge wait_count"), ("gauge nap_bucket", "histogram nap")],
)
def test_two_metrics_share_no_name_on_the_page(first: str, second: str) -> None:
    """
    OpenMetrics writes a counter without ``_total``, and a histogram has samples of its own: a parser would refuse the whole page.
    """

    def declare(written: str) -> None:
        kind, _, name = written.partition(" ")
        getattr(declared, kind)(name, "Which?")

    declare(first)

    with pytest.raises(ValueError, match="Give it another name"):
        declare(second)
    with pytest.raises(ValueError, match=f"and so is {FINISHED.name}"):
        declared.gauge(FINISHED.name.removesuffix("_total"), "Mine now?")


@pytest.mark.parametrize(
    ("name", "labels"),
    [("sold", []), ("9lives_total", []), ("so-ld_total", []), ("sold_total", ["le"]), ("sold_total", ["a", "a"]), ("sold_total", ["__a"])],
)
def test_what_prometheus_would_refuse_is_refused_at_declaration(name: str, labels: list[str]) -> None:
    """
    A bad name or label is an error where it is written, not at the first scrape.
    """
    with pytest.raises(ValueError, match="The metric"):
        declared.counter(name, "Why?", labels=labels)


def test_buckets_have_to_ascend() -> None:
    """
    Buckets out of order are a mistake, not a preference.
    """
    with pytest.raises(ValueError, match="ascending"):
        declared.histogram("size", "How big?", buckets=[2, 1])
