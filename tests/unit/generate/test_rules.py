"""
Rules and alerts that would mislead are refused.
"""

from __future__ import annotations

from typing import Any

import pytest

from celery_obs.exceptions import ConfigurationError
from celery_obs.generate.aliases import Alias
from celery_obs.generate.links import Links
from celery_obs.generate.rules import SEVERITIES, Group, Record, rule_file
from celery_obs.vocabulary.queues import DEPTH
from tests.unit.generate.builders import alert
from tests.unit.generate.shipped import EVERY_ALERT, RECORDS


CHANNEL_MANAGER = {
    "ChannelSyncHighFailureRate",
    "ChannelCircuitBreakerOpen",
    "ChannelTokenExpiringCritical",
    "ChannelWebhookProcessingFailing",
    "ChannelRateLimitApproaching",
    "ChannelSyncLatencyHigh",
    "ChannelConnectionErrorsIncreasing",
    "ChannelTokenExpiringSoon",
    "ChannelAvailabilityDriftDetected",
    "ChannelNewConnectionInactive",
}

ASKED_FOR = [
    "001 HighErrorRate",
    "001 SyncLatencyHigh",
    "001 DatabaseConnectionPoolExhausted",
    "001 APIUnavailable",
    "002 DoubleBookingDetected",
    "002 AllChannelsSyncFailing",
    "002 HighApiErrorRate",
    "002 ChannelSyncDegraded",
    "002 HighSyncLatency",
    "002 QueueBacklog",
    "003 HighErrorRate",
    "003 CircuitBreakerOpen",
    "003 QueueBacklog",
    "003 SlowSyncOperations",
    "003 RateLimitApproaching",
    "004 API Availability",
    "004 Database Down",
    "004 Worker Queue Backed Up",
    "004 Alert Delivery SLA Breach",
    "004 High Latency",
    "004 Cache Hit Ratio Low",
    "004 Channel Delivery Failures",
    "004 High Memory Usage",
]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "queue long"}, "The alert queue long has a name that is no word"),
        ({"shows": "nowhere"}, "The alert QueueLong shows the dashboard 'nowhere'. Expected one of channel-manager-overview"),
        ({"summary": "{{ $labels.provider }}"}, "The alert QueueLong names the label provider, which its result does not have: queue"),
    ],
)
def test_an_alert_that_would_mislead_is_refused(changes: dict[str, Any], problem: str) -> None:
    """
    What would show up as an empty text at night is told at once.
    """
    with pytest.raises(ConfigurationError, match=problem):
        alert(**changes)


def test_a_group_that_leaves_gaps_is_refused() -> None:
    """
    Five minutes between two evaluations are as long as Prometheus remembers.
    """
    with pytest.raises(ConfigurationError, match="The group g is evaluated every 5m"):
        Group(name="g", comment="", rules=(), interval="5m")


def test_a_recording_rule_without_a_level_is_refused() -> None:
    """
    A name says what was added up.
    """
    with pytest.raises(ConfigurationError, match="A recording rule is called 'Rate'"):
        Record(name="Rate", help="?", expr="1")


def test_an_alias_that_would_record_nothing_is_refused() -> None:
    """
    It names a label that the metric has.
    """
    with pytest.raises(ConfigurationError, match=r"reads the label channel, which celery_queue_depth does not have\. It has queue"):
        Alias(name="depth", metric=DEPTH, labels={"channel": "platform"})


def test_an_alias_whose_name_is_none_is_refused() -> None:
    """
    Prometheus would refuse the whole file.
    """
    with pytest.raises(ConfigurationError, match="has a name or a label that Prometheus does not accept"):
        Alias(name="queue-depth", metric=DEPTH, labels={"queue": "queue"})


@pytest.mark.parametrize("asked", [*(f"000 {section}" for section in ("§4.1", "§4.2", "§4.3")), *ASKED_FOR])
def test_every_alert_that_was_asked_for_is_there(asked: str) -> None:
    """
    No alert of the plans that we build after got lost, whatever its name is now.
    """
    assert [each.name for each in EVERY_ALERT if asked in each.seeds]


def test_the_alerts_of_the_channel_manager_keep_their_names() -> None:
    """
    Routes and silences know them.
    """
    assert set() == CHANNEL_MANAGER - {each.name for each in EVERY_ALERT}


def test_an_alert_on_a_ratio_has_a_floor_of_traffic() -> None:
    """
    One failure of two at night wakes nobody.
    """
    of_ratios = [
        each for each in EVERY_ALERT if "\n  or\n  0 * " in each.expr or "ratio_rate" in each.expr or "histogram_quantile" in each.expr
    ]

    assert 10 < len(of_ratios)
    assert [] == [each.name for each in of_ratios if " >= " not in each.expr]


def test_every_alert_of_ours_can_be_routed() -> None:
    """
    Severities are few, and every text is there.
    """
    for each in EVERY_ALERT:
        assert each.severity in SEVERITIES
        assert all(each.annotations(Links()).values())


def test_a_summary_is_the_same_whatever_the_value() -> None:
    """
    Notifications are grouped by it.
    """
    assert [] == [each.name for each in EVERY_ALERT if "$value" in each.summary]


def test_every_recorded_series_answers_a_question() -> None:
    """
    As every metric does.
    """
    assert [] == [record.name for record in RECORDS if "?" not in record.help]


def test_no_name_is_recorded_twice_with_the_same_labels() -> None:
    """
    One of the two would be lost, and Prometheus would warn of it in its log only.
    """
    names = [(record.name, tuple(record.labels.items())) for record in RECORDS]

    assert len(names) == len(set(names))


def test_a_file_of_rules_is_marked() -> None:
    """
    It says where it comes from, and what is in it.
    """
    text = rule_file("celery_obs/x", [Group(name="g", comment="about g.", rules=(alert(keeps_firing="1h", lasts="5m"),))], Links())

    assert text.startswith("# Generated by celery-obs generate from celery_obs/x; do not edit.\n# g: about g.\ngroups:\n")
    assert "        for: 5m\n        keep_firing_for: 1h\n" in text
