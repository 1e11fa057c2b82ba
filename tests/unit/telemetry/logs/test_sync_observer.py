"""
The lines of the sync engine: their names and facts are what people search for.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

import pytest
import structlog

from celery_obs.areas.channels.rate_limits.events import RateLimitChecked
from celery_obs.areas.channels.syncs.events import SyncFinished, SyncHeldBack, SyncLost, SyncStarted
from celery_obs.areas.channels.syncs.metrics import SyncStatus
from celery_obs.areas.channels.tokens.events import TokenAtRisk
from celery_obs.areas.channels.webhooks.events import WebhookProcessed
from celery_obs.runtime.hub import Hub
from celery_obs.telemetry.logs.sync_observer import LOGGER, SyncLogObserver
from celery_obs.testing import RaisingErrors


STARTED = SyncStarted("airbnb", "availability_export", "outbound", "abc-123", 1000.0)


def finished(status: SyncStatus, error: str = "", message: str = "") -> SyncFinished:
    return SyncFinished(STARTED, status, 1.2341, 0, 28, 2, 0, error, message)


@pytest.fixture
def hub() -> Hub:
    """
    A hub whose events are written.
    """
    made = Hub(on_error=RaisingErrors())
    for event_type, observer in SyncLogObserver().subscriptions():
        made.subscribe(event_type, observer)
    return made


@pytest.fixture
def structured() -> Iterator[list[dict[str, Any]]]:
    """
    A program that has configured structlog: what it gets to see.
    """
    seen: list[dict[str, Any]] = []

    def keep(_: object, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        seen.append({**event, "level": method})
        raise structlog.DropEvent

    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    yield seen
    structlog.reset_defaults()


IDENTITY = {"channel_type": "airbnb", "connection_id": "abc-123", "sync_type": "availability_export", "direction": "outbound"}
RECORDS = {
    "duration_ms": 1234,
    "records_processed": 30,
    "records_created": 0,
    "records_updated": 28,
    "records_failed": 2,
    "records_skipped": 0,
}

CASES: list[tuple[Any, dict[str, Any]]] = [
    (STARTED, {"event": "sync_started", "level": "info", **IDENTITY}),
    (finished("partial"), {"event": "sync_completed", "level": "info", "status": "partial", **IDENTITY, **RECORDS}),
    (
        finished("skipped", message="no listings"),
        {"event": "sync_completed", "level": "info", "status": "skipped", "reason": "no listings", **IDENTITY, **RECORDS},
    ),
    (
        finished("failure", "AuthError", "Token expired"),
        {
            "event": "sync_failed",
            "level": "error",
            "status": "failure",
            "error": "AuthError",
            "error_message": "Token expired",
            **IDENTITY,
            **RECORDS,
        },
    ),
    (
        finished("retry", "ApiTimeoutError", "slow"),
        {
            "event": "sync_failed",
            "level": "warning",
            "status": "retry",
            "error": "ApiTimeoutError",
            "error_message": "slow",
            **IDENTITY,
            **RECORDS,
        },
    ),
    (
        SyncLost("airbnb", "availability_export", "outbound"),
        {
            "event": "sync_failed",
            "level": "error",
            "status": "failure",
            "channel_type": "airbnb",
            "sync_type": "availability_export",
            "direction": "outbound",
            "error": "WorkerLostError",
            "error_message": "The process that ran it died.",
        },
    ),
    (
        SyncHeldBack("airbnb", "availability_export", "abc-123", 28.12345),
        {
            "event": "sync_held_back",
            "level": "info",
            "channel_type": "airbnb",
            "sync_type": "availability_export",
            "connection_id": "abc-123",
            "reason": "paused",
            "delay_seconds": 28.123,
        },
    ),
    (
        RateLimitChecked("airbnb", "abc-123", "denied", 5.2),
        {
            "event": "rate_limit_exceeded",
            "level": "warning",
            "channel_type": "airbnb",
            "connection_id": "abc-123",
            "retry_after_seconds": 5.2,
        },
    ),
    (
        TokenAtRisk("airbnb", "abc-123", "lost"),
        {"event": "token_at_risk", "level": "error", "channel_type": "airbnb", "connection_id": "abc-123", "risk": "lost"},
    ),
    (
        WebhookProcessed("airbnb", "booking", "error", 0.05, "KeyError"),
        {
            "event": "webhook_failed",
            "level": "error",
            "channel_type": "airbnb",
            "event_type": "booking",
            "status": "error",
            "duration_ms": 50,
            "error": "KeyError",
        },
    ),
]


@pytest.mark.parametrize(("event", "expected"), CASES, ids=[f"{n} {type(event).__name__}" for n, (event, _) in enumerate(CASES)])
def test_a_line_has_the_name_and_the_facts_of_the_contract(
    hub: Hub, structured: list[dict[str, Any]], event: Any, expected: dict[str, Any]
) -> None:
    """
    What the queries for Elasticsearch and Loki look for is there, at the level that they look at.
    """
    hub.emit(event)

    assert [expected] == structured


@pytest.mark.parametrize("event", [RateLimitChecked("airbnb", "", "allowed", 0.0), WebhookProcessed("airbnb", "x", "success", 0.1, "")])
def test_what_went_well_and_often_is_not_written(hub: Hub, structured: list[dict[str, Any]], event: Any) -> None:
    """
    Counters tell of the many, lines of the few.
    """
    hub.emit(event)

    assert [] == structured


def test_without_a_configuration_lines_go_through_the_programs_own_logging(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    """
    A program that does not know structlog gets one JSON line through the standard library's logger, whatever an id holds.
    """
    with caplog.at_level(logging.INFO, logger=LOGGER):
        hub.emit(STARTED._replace(connection_id="a\nb'\"\udc80"))

    (record,) = caplog.records
    assert (LOGGER, logging.INFO) == (record.name, record.levelno)
    assert "\n" not in record.getMessage()
    line = json.loads(record.getMessage())
    assert ("sync_started", "a\nb'\"\udc80") == (line["event"], line["connection_id"])


def test_a_level_that_is_off_costs_no_line(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    """
    The program's own levels decide.
    """
    with caplog.at_level(logging.ERROR, logger=LOGGER):
        hub.emit(STARTED)
        hub.emit(finished("failure"))

    assert [logging.ERROR] == [record.levelno for record in caplog.records]


def test_nothing_of_structlog_is_configured_by_us() -> None:
    """
    How a program's lines look is the program's business.
    """
    program = (
        "import structlog, logging; logging.basicConfig(level='INFO')\n"
        "from celery_obs.telemetry.logs.sync_observer import SyncLogObserver\n"
        "from celery_obs.areas.channels.syncs.events import SyncStarted\n"
        "dict(SyncLogObserver().subscriptions())[SyncStarted](SyncStarted('airbnb', 'export', 'outbound', '', 1.0))\n"
        "print(structlog.is_configured())"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, env=dict(os.environ))

    assert "False\n" == done.stdout
    assert '"event": "sync_started"' in done.stderr
