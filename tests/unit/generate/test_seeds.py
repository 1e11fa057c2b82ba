"""
Every alert that the five plans ask for is there, as urgent, as sensitive and as patient as it was asked for; where it is not, there is a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

import pytest

from celery_obs.rules.rules import Alert
from tests.unit.generate.shipped import EVERY_ALERT


OURS = {alert.name: alert for alert in EVERY_ALERT}


class Asked(NamedTuple):
    """
    An alert of a plan.

    Attributes:
        seed, section: Which plan, and where in it.

        name: What it is called there.

        severity: How urgent it is there; by the heading that it stands under, where it has none of its own.

        threshold: What is compared with there, in base units; None where something is so or not.

        for_: How long it has to be so there.

        ours: What it is called here.

        reasons: What is otherwise here, and why.
    """

    seed: str
    section: str
    name: str
    severity: str
    threshold: str | None
    for_: str
    ours: str
    reasons: Mapping[str, str] = {}

    def differences(self, alert: Alert) -> set[str]:
        """
        Tell what is otherwise in our *alert*.
        """
        threshold = None if alert.threshold is None else alert.threshold.value
        asked = None if self.threshold is None else Decimal(self.threshold)
        found = {"severity": alert.severity != self.severity, "threshold": threshold != asked, "for_": alert.for_ != self.for_}
        return {name for name, differs in found.items() if differs}


_BAD_SCRAPE = {"for_": "one bad scrape would page"}
_CHANNEL = "of the channel manager, whose plan comes first"

ASKED = (
    Asked("000", "§4.1", "ChannelSyncHighFailureRate", "critical", "0.1", "5m", "ChannelSyncHighFailureRate"),
    Asked("000", "§4.1", "ChannelCircuitBreakerOpen", "critical", None, "5m", "ChannelCircuitBreakerOpen"),
    Asked("000", "§4.1", "ChannelTokenExpiringCritical", "critical", "86400", "0m", "ChannelTokenExpiringCritical", _BAD_SCRAPE),
    Asked("000", "§4.1", "ChannelWebhookProcessingFailing", "critical", "0.05", "5m", "ChannelWebhookProcessingFailing"),
    Asked("000", "§4.2", "ChannelRateLimitApproaching", "warning", "0.8", "5m", "ChannelRateLimitApproaching"),
    Asked("000", "§4.2", "ChannelSyncLatencyHigh", "warning", "10", "10m", "ChannelSyncLatencyHigh"),
    Asked("000", "§4.2", "ChannelConnectionErrorsIncreasing", "warning", "5", "0m", "ChannelConnectionErrorsIncreasing", _BAD_SCRAPE),
    Asked("000", "§4.2", "ChannelTokenExpiringSoon", "warning", "604800", "0m", "ChannelTokenExpiringSoon", _BAD_SCRAPE),
    Asked("000", "§4.3", "ChannelAvailabilityDriftDetected", "info", "5", "0m", "ChannelAvailabilityDriftDetected", _BAD_SCRAPE),
    Asked("000", "§4.3", "ChannelNewConnectionInactive", "info", "86400", "0m", "ChannelNewConnectionInactive", _BAD_SCRAPE),
    Asked("001", "Alerting Rules", "HighErrorRate", "warning", "0.05", "5m", "ChannelSyncFailureRateElevated"),
    Asked("001", "Alerting Rules", "SyncLatencyHigh", "warning", "5", "10m", "ChannelSyncLatencyHigh", {"threshold": _CHANNEL}),
    Asked(
        *("001", "Alerting Rules", "DatabaseConnectionPoolExhausted", "critical", "95", "5m", "DatabaseConnectionPoolExhausted"),
        {"threshold": "a part of the pool: its size alone says nothing of what is used"},
    ),
    Asked("001", "Alerting Rules", "APIUnavailable", "critical", None, "2m", "APIUnavailable"),
    Asked("002", "Alerting Rules", "DoubleBookingDetected", "critical", "0", "0m", "DoubleBookingDetected"),
    Asked(
        *("002", "Alerting Rules", "AllChannelsSyncFailing", "critical", "5", "5m", "AllChannelsSyncFailing"),
        {"threshold": "all there are, not five"},
    ),
    Asked("002", "Alerting Rules", "HighApiErrorRate", "critical", "0.05", "5m", "HighApiErrorRate"),
    Asked(
        *("002", "Alerting Rules", "ChannelSyncDegraded", "warning", None, "10m", "ChannelSyncDegraded"),
        {"threshold": "a breaker that stays open is ChannelCircuitBreakerOpen; this tells of one that comes and goes"},
    ),
    Asked("002", "Alerting Rules", "HighSyncLatency", "warning", "60", "10m", "CeleryTaskLatencyHigh"),
    Asked("002", "Alerting Rules", "QueueBacklog", "warning", "1000", "15m", "CeleryQueueBacklog"),
    Asked("003", "Critical Alerts", "HighErrorRate", "critical", "0.1", "5m", "ChannelApiErrorRateHigh"),
    Asked("003", "Critical Alerts", "CircuitBreakerOpen", "critical", None, "10m", "ChannelCircuitBreakerOpen", {"for_": _CHANNEL}),
    Asked(
        *("003", "Critical Alerts", "QueueBacklog", "critical", "1000", "15m", "CeleryQueueBacklog"),
        {"severity": "002 has the same numbers as a warning, and 004 pages at ten times as many"},
    ),
    Asked("003", "Warning Alerts", "SlowSyncOperations", "warning", "30", "10m", "ChannelSyncLatencyHigh", {"threshold": _CHANNEL}),
    Asked("003", "Warning Alerts", "RateLimitApproaching", "warning", "10", "0m", "ChannelRateLimitHit", _BAD_SCRAPE),
    Asked("004", "Critical Alerts", "API Availability", "critical", "0.05", "5m", "HighApiErrorRate"),
    Asked("004", "Critical Alerts", "Database Down", "critical", None, "0m", "DatabaseDown", _BAD_SCRAPE),
    Asked("004", "Critical Alerts", "Worker Queue Backed Up", "critical", "10000", "10m", "CeleryQueueBackedUp"),
    Asked("004", "Critical Alerts", "Alert Delivery SLA Breach", "critical", "0.1", "0m", "AlertDeliverySlow", _BAD_SCRAPE),
    Asked("004", "Warning Alerts", "High Latency", "warning", "0.3", "5m", "ApiLatencyHigh"),
    Asked("004", "Warning Alerts", "Cache Hit Ratio Low", "warning", "0.7", "0m", "CacheHitRatioLow", _BAD_SCRAPE),
    Asked("004", "Warning Alerts", "Channel Delivery Failures", "warning", "0.05", "0m", "ChannelSyncFailureRateElevated", _BAD_SCRAPE),
    Asked("004", "Warning Alerts", "High Memory Usage", "warning", "0.8", "10m", "HighMemoryUsage"),
    Asked("004", "SLI Dashboards", "Alerting when error budget depleted", "warning", None, "0m", "SLOErrorBudgetExhausted", _BAD_SCRAPE),
)

each = pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked.seed} {asked.name}")


@each
def test_an_alert_that_was_asked_for_is_there(asked: Asked) -> None:
    """
    Under its own name if it is the channel manager's, and with its origin in any case.
    """
    ours = OURS[asked.ours]

    assert (f"000 {asked.section}" if asked.seed == "000" else f"{asked.seed} {asked.name}") in ours.seeds
    assert asked.seed != "000" or asked.name == ours.name


@each
def test_it_is_as_it_was_asked_for_or_there_is_a_reason(asked: Asked) -> None:
    """
    Urgency, threshold and patience are kept; whatever is otherwise is so on purpose.
    """
    assert asked.reasons.keys() == asked.differences(OURS[asked.ours])


def test_no_origin_is_made_up() -> None:
    """
    What an alert says of a plan's alerts is in the table; sections of prose are told apart by having no such name.
    """
    named = {f"{asked.seed} {asked.name}" for asked in ASKED} | {f"000 {asked.section}" for asked in ASKED}
    prose = {
        "000 §2.8",
        "000 §6.1",
        "000 §6.1 Token Refresh",
        "000 §6.1, 001",
        "000 §7.3",
        "000 §8.2",
        "000 §9.2",
        "003 Auth failure rate",
        "004",
        "none",
    }

    assert {seed for alert in EVERY_ALERT for seed in alert.seeds} <= named | prose | {"001; 004 asks for 150 ms"}
