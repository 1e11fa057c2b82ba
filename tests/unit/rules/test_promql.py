"""
PromQL that is written knows the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable

import promql_parser
import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.connections.metrics import ERROR_COUNT
from celery_obs.areas.channels.syncs.metrics import DURATION, TOTAL
from celery_obs.areas.queues.metrics import DEPTH
from celery_obs.exceptions import ConfigurationError
from celery_obs.rules.promql import avg_by, count_of, gauge, happened, increase, none_of, not_equal, one_of, quantile, rate, ratio, within
from tests.strategies import label_values


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: rate(ERROR_COUNT, "5m"),
            "channel_connection_error_count is a gauge, and rates and increases are of counters: they would take every fall for a restart",
        ),
        (lambda: gauge(TOTAL), "channel_sync_total is a counter, whose value says nothing by itself"),
        (
            lambda: rate(TOTAL, "5m", provider="airbnb"),
            "channel_sync_total has no label 'provider'. It has channel_type, sync_type, direction, status.",
        ),
        (lambda: quantile(0.95, DURATION, "5m", "status"), "channel_sync_duration_seconds has no label 'status'"),
        (lambda: count_of(TOTAL, "5m"), "channel_sync_total is a counter, so it has no buckets"),
        (
            lambda: within(DURATION, 15, "5m"),
            "has no bucket that ends at 15, so how many were within that is not known. Its buckets end at 0.1, 0.5, 1,",
        ),
        (lambda: increase(TOTAL, "five minutes"), "The window is 'five minutes'. Expected a duration such as 5m or 1h30m."),
    ],
)
def test_what_would_never_answer_is_refused(make: Callable[[], str], problem: str) -> None:
    """
    A mistake is told when the rules are made, with what there is instead.
    """
    with pytest.raises(ConfigurationError, match=problem.replace("(", r"\(").replace(".", r"\.")):
        make()


@given(label_values, st.lists(label_values, min_size=1, max_size=3))
def test_any_label_value_can_be_asked_for(value: str, values: list[str]) -> None:
    """
    Quotes, backslashes and signs of regular expressions mean themselves.
    """
    if not promql_can_say("".join([value, *values])):
        return

    tree = promql_parser.parse(
        rate(TOTAL, "5m", channel_type=value, status=one_of(*values), direction=none_of(*values), sync_type=not_equal(value))
    )

    assert isinstance(tree, promql_parser.Call)


def promql_can_say(text: str) -> bool:
    """
    Tell whether the parser of the tests takes such a text: it does not know every escape that Prometheus does.
    """
    return text.isprintable()


def test_the_first_of_its_kind_is_counted() -> None:
    """
    A series that is born with 1 has no increase, and is what a rare alert waits for.
    """
    new = "channel_sync_total unless last_over_time(channel_sync_total[1h] offset 5m)"

    assert f"sum by (status) (({new}) or increase(channel_sync_total[5m]))" == happened(TOTAL, "5m", "status")


def test_a_threshold_is_found_whatever_version_of_prometheus_wrote_it() -> None:
    """
    Prometheus 2 keeps le="10", 3 writes le="10.0".
    """
    assert r'rate(channel_sync_duration_seconds_bucket{le=~"10(\\.0)?"}[5m])' == within(DURATION, 10, "5m")


def test_a_part_of_nothing_is_absent_and_no_part_is_0() -> None:
    """
    Without failures the ratio is 0, without anything it is not there.
    """
    assert "(\n  a\n  or\n  0 * b\n)\n/\n(b > 0)" == ratio("a", "b")


def test_labels_of_the_target_can_be_asked_for_everywhere() -> None:
    """
    Prometheus adds them to whatever it scrapes.
    """
    assert 'avg by (queue) (celery_queue_depth{job="j"})' == avg_by(gauge(DEPTH, job="j"), "queue")
