"""
Every query that we ship asks for what there is.
"""

from __future__ import annotations

import pytest

from celery_obs.rules.packs.aliases import ALIASES, RELABELLED
from celery_obs.rules.rules import Alert
from tests.queries import TARGET, problems, result_labels
from tests.unit.rules.shipped import EVERY_ALERT, KNOWN, RECORDS


def test_every_recording_rule_asks_for_what_there_is() -> None:
    """
    Metrics and labels are in the catalogue, counters are read by their rate, quantiles keep their buckets.
    """
    assert {} == {record.name: found for record in RECORDS if (found := problems(record.expr, KNOWN))}


def test_every_recording_rule_has_the_labels_that_it_says() -> None:
    """
    Who builds on a recorded series can rely on its labels.
    """
    said = {record.name: set(record.by) - record.labels.keys() for record in RECORDS}

    assert said == {record.name: result_labels(record.expr, KNOWN) - record.labels.keys() for record in RECORDS}


def test_every_alert_asks_for_what_there_is() -> None:
    """
    No alert waits for a metric or a label that does not exist.
    """
    assert {} == {alert.name: found for alert in EVERY_ALERT if (found := problems(alert.promql, KNOWN))}


@pytest.mark.parametrize("alert", EVERY_ALERT, ids=lambda alert: f"{alert.name}-{alert.labels.get('slo', '')}")
def test_an_alert_comes_with_the_labels_that_its_texts_name(alert: Alert) -> None:
    """
    No text says "for connection " followed by nothing.
    """
    assert set(alert.by) - alert.labels.keys() == result_labels(alert.promql, KNOWN) - alert.labels.keys()


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sum(rate(channel_sync_totl[5m]))", "there is no metric channel_sync_totl"),
        ('rate(channel_sync_total{state="failure"}[5m])', "channel_sync_total has no label state"),
        ("sum(channel_sync_total)", "the counter channel_sync_total is read by nothing, not by rate or increase"),
        ("increase(channel_connection_error_count[1h])", "increase of channel_connection_error_count, which is no counter"),
        ("histogram_quantile(0.95, sum(rate(channel_sync_duration_seconds_bucket[5m])))", "histogram_quantile has lost its le"),
        ("sum by (provider) (rate(channel_sync_total[5m]))", "something is aggregated by provider"),
        (
            "sum by (channel_type) (rate(channel_sync_total[5m])) / sum(rate(channel_sync_total[5m]))",
            "/ never matches: ['channel_type'] on the left, [] on the right",
        ),
        ("sum(", "it is no PromQL"),
        ("avg_over_time(channel_sync_total[5m])", "is read by avg_over_time"),
    ],
)
def test_a_query_that_would_never_answer_is_found(query: str, problem: str) -> None:
    """
    The check finds the mistakes that rules often have.
    """
    assert any(problem in found for found in problems(query, KNOWN)), problems(query, KNOWN)


def test_a_query_of_a_dashboard_is_understood() -> None:
    """
    Grafana's intervals stand for durations.
    """
    assert [] == problems("sum(rate(channel_sync_total[$__rate_interval])) / ignoring (x) sum(rate(channel_sync_total[5m]))", KNOWN)


@pytest.mark.parametrize("system", ALIASES)
def test_the_aliases_have_the_labels_of_the_other_system(system: str) -> None:
    """
    Who changes over to us finds the labels that the old dashboards ask for, and those of the target.

    A counter may stand as it is here, for it stays one.
    """
    records = [record for alias in ALIASES[system] for record in alias.records()]
    scraped = [each for relabelled in RELABELLED.values() for each in relabelled]
    known = dict(KNOWN)
    for each in scraped:
        series = known[each.metric.name]
        known[each.metric.name] = series._replace(labels=series.labels | set(each.labels.values()))

    assert [] == [
        (record.name, found)
        for record in records
        for found in problems(record.expr, known)
        if "is read by label_replace" not in found and "read by nothing" not in found
    ]
    assert [TARGET | set(record.by) for record in records] == [result_labels(record.expr, KNOWN) for record in records]


def test_labels_are_added_to_what_has_them_not() -> None:
    """
    None of ours is overwritten when a series gets the labels of another system.
    """
    for relabelled in RELABELLED.values():
        for each in relabelled:
            assert set(each.labels) <= set(each.metric.labels) | TARGET
            assert not set(each.labels.values()) & (set(each.metric.labels) | TARGET)
