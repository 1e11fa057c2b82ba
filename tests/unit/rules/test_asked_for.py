"""
Every alert of the first users' monitoring plans is there, as urgent, as sensitive and as patient as they asked; where one differs, the reason is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

import pytest

from celery_obs.rules.rules import Alert
from tests.unit.rules.shipped import EVERY_ALERT


OURS = {alert.name: alert for alert in EVERY_ALERT}


class Asked(NamedTuple):
    """
    An alert of one of the plans; two may ask for the same one.

    Attributes:
        name: What it is called there.

        severity: How urgent it is there; by the heading that it stands under, where it has none of its own.

        threshold: What is compared with there, in base units; None where something is so or not.

        for_: How long it has to be so there.

        ours: What it is called here.

        reasons: What is otherwise here, and why.
    """

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
_CHANNEL = "another plan, which comes first, has another number"

ASKED = (
    Asked("ChannelSyncHighFailureRate", "critical", "0.1", "5m", "ChannelSyncHighFailureRate"),
    Asked("ChannelCircuitBreakerOpen", "critical", None, "5m", "ChannelCircuitBreakerOpen"),
    Asked("ChannelTokenExpiringCritical", "critical", "86400", "0m", "ChannelTokenExpiringCritical", _BAD_SCRAPE),
    Asked("ChannelWebhookProcessingFailing", "critical", "0.05", "5m", "ChannelWebhookProcessingFailing"),
    Asked("ChannelRateLimitApproaching", "warning", "0.8", "5m", "ChannelRateLimitApproaching"),
    Asked("ChannelSyncLatencyHigh", "warning", "10", "10m", "ChannelSyncLatencyHigh"),
    Asked("ChannelConnectionErrorsIncreasing", "warning", "5", "0m", "ChannelConnectionErrorsIncreasing", _BAD_SCRAPE),
    Asked("ChannelTokenExpiringSoon", "warning", "604800", "0m", "ChannelTokenExpiringSoon", _BAD_SCRAPE),
    Asked("ChannelAvailabilityDriftDetected", "info", "5", "0m", "ChannelAvailabilityDriftDetected", _BAD_SCRAPE),
    Asked("ChannelNewConnectionInactive", "info", "86400", "0m", "ChannelNewConnectionInactive", _BAD_SCRAPE),
    Asked("HighErrorRate", "warning", "0.05", "5m", "ChannelSyncFailureRateElevated"),
    Asked("SyncLatencyHigh", "warning", "5", "10m", "ChannelSyncLatencyHigh", {"threshold": _CHANNEL}),
    Asked(
        *("DatabaseConnectionPoolExhausted", "critical", "95", "5m", "DatabaseConnectionPoolExhausted"),
        {"threshold": "a part of the pool: its size alone says nothing of what is used"},
    ),
    Asked("APIUnavailable", "critical", None, "2m", "APIUnavailable"),
    Asked("DoubleBookingDetected", "critical", "0", "0m", "DoubleBookingDetected"),
    Asked(
        *("AllChannelsSyncFailing", "critical", "5", "5m", "AllChannelsSyncFailing"),
        {"threshold": "all there are, not five"},
    ),
    Asked("HighApiErrorRate", "critical", "0.05", "5m", "HighApiErrorRate"),
    Asked(
        *("ChannelSyncDegraded", "warning", None, "10m", "ChannelSyncDegraded"),
        {"threshold": "a breaker that stays open is ChannelCircuitBreakerOpen; this tells of one that comes and goes"},
    ),
    Asked("HighSyncLatency", "warning", "60", "10m", "CeleryTaskLatencyHigh"),
    Asked("QueueBacklog", "warning", "1000", "15m", "CeleryQueueBacklog"),
    Asked("HighErrorRate", "critical", "0.1", "5m", "ChannelApiErrorRateHigh"),
    Asked("CircuitBreakerOpen", "critical", None, "10m", "ChannelCircuitBreakerOpen", {"for_": _CHANNEL}),
    Asked(
        *("QueueBacklog", "critical", "1000", "15m", "CeleryQueueBacklog"),
        {"severity": "another plan has the same numbers as a warning, and one pages at ten times as many"},
    ),
    Asked("SlowSyncOperations", "warning", "30", "10m", "ChannelSyncLatencyHigh", {"threshold": _CHANNEL}),
    Asked("RateLimitApproaching", "warning", "10", "0m", "ChannelRateLimitHit", _BAD_SCRAPE),
    Asked("API Availability", "critical", "0.05", "5m", "HighApiErrorRate"),
    Asked("Database Down", "critical", None, "0m", "DatabaseDown", _BAD_SCRAPE),
    Asked("Worker Queue Backed Up", "critical", "10000", "10m", "CeleryQueueBackedUp"),
    Asked("Alert Delivery SLA Breach", "critical", "0.1", "0m", "AlertDeliverySlow", _BAD_SCRAPE),
    Asked("High Latency", "warning", "0.3", "5m", "ApiLatencyHigh"),
    Asked("Cache Hit Ratio Low", "warning", "0.7", "0m", "CacheHitRatioLow", _BAD_SCRAPE),
    Asked("Channel Delivery Failures", "warning", "0.05", "0m", "ChannelSyncFailureRateElevated", _BAD_SCRAPE),
    Asked("High Memory Usage", "warning", "0.8", "10m", "HighMemoryUsage"),
    Asked("Alerting when error budget depleted", "warning", None, "0m", "SLOErrorBudgetExhausted", _BAD_SCRAPE),
)

each = pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked.name} {asked.severity} {asked.threshold}")


@each
def test_an_alert_that_was_asked_for_is_there(asked: Asked) -> None:
    """
    Each has an alert of ours, under the name of the table.
    """
    assert asked.ours in OURS


@each
def test_it_is_as_it_was_asked_for_or_there_is_a_reason(asked: Asked) -> None:
    """
    Urgency, threshold and patience are kept; whatever is otherwise is so on purpose.
    """
    assert asked.reasons.keys() == asked.differences(OURS[asked.ours])
