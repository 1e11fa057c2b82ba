"""
What each event of the sync engine is counted as.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from celery_obs.areas.channels.api_calls import metrics as api_calls
from celery_obs.areas.channels.api_calls.events import ApiCallFinished, EndpointFolded
from celery_obs.areas.channels.breakers import metrics as circuit_breaker
from celery_obs.areas.channels.breakers.events import CircuitChanged, CircuitRejected
from celery_obs.areas.channels.conflicts import metrics as conflicts
from celery_obs.areas.channels.conflicts.events import ConflictDetected, ConflictResolved, DoubleBookingDetected
from celery_obs.areas.channels.connections import metrics as connections
from celery_obs.areas.channels.connections.events import ConnectionErrored
from celery_obs.areas.channels.rate_limits import metrics as rate_limiter
from celery_obs.areas.channels.rate_limits.events import RateLimitChecked, RateLimitWaited
from celery_obs.areas.channels.reconciliation import metrics as reconciliation
from celery_obs.areas.channels.reconciliation.events import ConnectionReconciled
from celery_obs.areas.channels.runtime import channel_series
from celery_obs.areas.channels.syncs import metrics as syncs
from celery_obs.areas.channels.syncs.events import SyncFinished, SyncHeldBack, SyncStarted
from celery_obs.areas.channels.syncs.recording import sync_series
from celery_obs.areas.channels.tokens import metrics as tokens
from celery_obs.areas.channels.tokens.events import TokenAtRisk, TokenRefreshed
from celery_obs.areas.channels.webhooks import metrics as webhooks
from celery_obs.areas.channels.webhooks.events import WebhookProcessed, WebhookReceived
from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.recording import MetricsObserver
from celery_obs.testing import RaisingErrors, counters
from celery_obs.vocabulary.spec import Metric
from tests.unit.recorder.builders import lane, recorder


STARTED = SyncStarted("airbnb", "export", "outbound", "c-1", 100.0)


def finished(status: syncs.SyncStatus = "success", **records: int) -> SyncFinished:
    counts = {result: records.get(result, 0) for result in syncs.RECORD_RESULTS}
    return SyncFinished(STARTED, status, 1.5, **counts, error="", error_message="")


def observed(folder: Path) -> tuple[Recorder, Hub]:
    at, hub = recorder(folder), Hub(on_error=RaisingErrors())
    for event_type, observer in MetricsObserver(at, attempts=AttemptMeter(at)).subscriptions():
        hub.subscribe(event_type, observer)
    at.open()
    return at, hub


CASES: list[tuple[Any, Mapping[tuple[str, tuple[str, ...]], int]]] = [
    (
        finished("partial", created=1, updated=2, failed=3, skipped=4),
        {
            (syncs.TOTAL.name, ("airbnb", "export", "outbound", "partial")): 1,
            (syncs.RECORDS.name, ("airbnb", "export", "created")): 1,
            (syncs.RECORDS.name, ("airbnb", "export", "updated")): 2,
            (syncs.RECORDS.name, ("airbnb", "export", "failed")): 3,
            (syncs.RECORDS.name, ("airbnb", "export", "skipped")): 4,
        },
    ),
    (SyncHeldBack("airbnb", "export", "c-1", 30.0), {(syncs.HELD_BACK.name, ("airbnb", "export", "paused")): 1}),
    (SyncHeldBack("airbnb", "export", "c-1", 3.0, "rate_limit"), {(syncs.HELD_BACK.name, ("airbnb", "export", "rate_limit")): 1}),
    (
        ApiCallFinished("airbnb", "/x", "GET", "503", 0.1, "server_error", "c-1"),
        {
            (api_calls.REQUESTS.name, ("airbnb", "/x", "GET", "503")): 1,
            (api_calls.ERRORS.name, ("airbnb", "server_error")): 1,
        },
    ),
    (
        ApiCallFinished("airbnb", "/x", "GET", api_calls.NO_RESPONSE, 0.0, "circuit_breaker", "c-1"),
        {(api_calls.ERRORS.name, ("airbnb", "circuit_breaker")): 1},
    ),
    (EndpointFolded("airbnb"), {(ourselves.LABELS_FOLDED.name, (api_calls.REQUESTS.name,)): 1}),
    (RateLimitChecked("airbnb", "c-1", "denied", 2.0), {(rate_limiter.REQUESTS.name, ("airbnb", "denied")): 1}),
    (
        CircuitChanged("airbnb", "closed", "open", None),
        {(circuit_breaker.TRANSITIONS.name, ("airbnb", "closed", "open")): 1},
    ),
    (CircuitRejected("airbnb"), {(circuit_breaker.REJECTIONS.name, ("airbnb",)): 1}),
    (WebhookReceived("airbnb", "booking"), {(webhooks.RECEIVED.name, ("airbnb", "booking")): 1}),
    (WebhookProcessed("airbnb", "booking", "duplicate", 0.01, ""), {(webhooks.PROCESSED.name, ("airbnb", "duplicate")): 1}),
    (TokenAtRisk("airbnb", "c-1", "parked"), {(tokens.AT_RISK.name, ("airbnb", "parked")): 1}),
    (TokenRefreshed("airbnb", "c-1", "refused", 0.3, "AuthError"), {(tokens.REFRESH_TOTAL.name, ("airbnb", "refused")): 1}),
    (ConnectionErrored("airbnb", "c-1"), {(connections.ERRORS.name, ("airbnb",)): 1}),
    (ConflictDetected("price", "airbnb"), {(conflicts.DETECTED.name, ("price", "airbnb")): 1}),
    (ConflictResolved("price", "local_wins"), {(conflicts.RESOLVED.name, ("price", "local_wins")): 1}),
    (DoubleBookingDetected("airbnb"), {(conflicts.DOUBLE_BOOKINGS.name, ("airbnb",)): 1}),
    (
        ConnectionReconciled("airbnb", "c-1", 365, 7, 1.0),
        {(reconciliation.DAYS_CHECKED.name, ("airbnb",)): 365, (reconciliation.DAYS_DRIFTED.name, ("airbnb",)): 7},
    ),
]


@pytest.mark.parametrize(("event", "expected"), CASES, ids=[f"{number} {type(event).__name__}" for number, (event, _) in enumerate(CASES)])
def test_each_event_is_counted_where_the_contract_says(
    tmp_path: Path, event: Any, expected: Mapping[tuple[str, tuple[str, ...]], int]
) -> None:
    """
    An event changes the counters that its metrics promise, by what it says, and no others.
    """
    at, hub = observed(tmp_path)

    hub.emit(event)

    at.close()
    assert expected == counters(tmp_path)


@pytest.mark.parametrize(
    ("event", "histogram", "values", "total"),
    [
        (finished(), syncs.DURATION, ("airbnb", "export"), 1_500_000),
        (ApiCallFinished("airbnb", "/x", "GET", "200", 0.25, "", ""), api_calls.LATENCY, ("airbnb", "/x"), 250_000),
        (RateLimitWaited("airbnb", 0.5), rate_limiter.WAIT, ("airbnb",), 500_000),
        (CircuitChanged("airbnb", "half_open", "closed", 61.0), circuit_breaker.OPEN_DURATION, ("airbnb",), 61_000_000),
        (WebhookProcessed("airbnb", "booking", "success", 0.02, ""), webhooks.PROCESSING, ("airbnb",), 20_000),
    ],
    ids=["sync", "call", "wait", "outage", "webhook"],
)
def test_what_takes_time_is_timed(tmp_path: Path, event: Any, histogram: Metric, values: tuple[str, ...], total: int) -> None:
    """
    A duration goes into one bucket, and into the sum to the microsecond.
    """
    at, hub = observed(tmp_path)

    hub.emit(event)

    word = at.word(histogram, values)
    assert word is not None
    assert at.slot is not None
    edges = len(histogram.buckets) + 1
    assert (1, total) == (sum(at.slot.words[word : word + edges]), at.slot.words[word + edges])


def test_what_runs_is_shown_while_it_runs(tmp_path: Path) -> None:
    """
    Two runs have begun and one has ended, so one is in progress.
    """
    at, hub = observed(tmp_path)

    for event in (STARTED, STARTED, finished()):
        hub.emit(event)

    word = at.word(syncs.IN_PROGRESS, ("airbnb", "export"))
    assert word is not None
    assert at.slot is not None
    assert 1.0 == at.slot.floats[word]


def test_what_is_known_at_the_start_exists_at_0(tmp_path: Path) -> None:
    """
    The first failure of a channel that is configured is an increase.
    """
    at, _ = observed(tmp_path)

    at.declare([*channel_series("airbnb"), *sync_series("airbnb", "export", "outbound")])

    assert at.is_known(syncs.TOTAL, ("airbnb", "export", "outbound", "failure"))
    assert at.is_known(circuit_breaker.TRANSITIONS, ("airbnb", "closed", "open"))
    assert at.is_known(circuit_breaker.OPEN_DURATION, ("airbnb",))
    assert 0 == lane(at, api_calls.ERRORS, "airbnb", "timeout")
