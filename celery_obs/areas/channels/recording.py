"""
The metrics observer of the sync engine: which numbers its events change.

A `SyncLost` changes none: the process that finds a dead one's slot counts the run there, see `AttemptMeter`.

The state of the cluster (breakers, tokens, connections, drift, pauses, windows of rate limits) is not counted here: it lies in Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import Family
from celery_obs.vocabulary.spec import Metric

from .api_calls import metrics as api_calls
from .api_calls.events import ApiCallFinished, EndpointFolded
from .breakers import metrics as circuit_breaker
from .breakers.events import CircuitChanged, CircuitRejected
from .conflicts import metrics as conflicts
from .conflicts.events import ConflictDetected, ConflictResolved, DoubleBookingDetected
from .connections import metrics as connections
from .connections.events import ConnectionErrored
from .rate_limits import metrics as rate_limiter
from .rate_limits.events import RateLimitChecked, RateLimitWaited
from .reconciliation import metrics as reconciliation
from .reconciliation.events import ConnectionReconciled
from .syncs import metrics as syncs
from .syncs.events import SyncFinished, SyncHeldBack, SyncStarted
from .tokens import metrics as tokens
from .tokens.events import TokenAtRisk, TokenRefreshed
from .webhooks import metrics as webhooks
from .webhooks.events import WebhookProcessed, WebhookReceived


__all__ = ["SyncObserver", "of_channel", "of_sync"]


_CHANGES = (("closed", "open"), ("open", "half_open"), ("half_open", "closed"), ("half_open", "open"), ("open", "closed"))


class SyncObserver:
    """
    Turn the events of the sync engine into numbers.

    Args:
        recorder: Knows where the numbers lie.

        attempts: Keeps, in a worker, what is to be counted when the process of a run dies.

    Threads: safe under the GIL.  Forks: through the recorder.
    """

    def __init__(self, recorder: Recorder, *, attempts: AttemptMeter) -> None:
        def family(metric: Metric) -> Family:
            return Family(recorder, metric)

        self._attempts = attempts
        self._stakes: dict[int, int] = {}
        self._syncs = family(syncs.TOTAL)
        self._durations = family(syncs.DURATION)
        self._records = family(syncs.RECORDS)
        self._in_progress = family(syncs.IN_PROGRESS)
        self._held_back = family(syncs.HELD_BACK)
        self._requests = family(api_calls.REQUESTS)
        self._latencies = family(api_calls.LATENCY)
        self._errors = family(api_calls.ERRORS)
        self._folded = family(ourselves.LABELS_FOLDED)
        self._checks = family(rate_limiter.REQUESTS)
        self._waits = family(rate_limiter.WAIT)
        self._transitions = family(circuit_breaker.TRANSITIONS)
        self._rejections = family(circuit_breaker.REJECTIONS)
        self._outages = family(circuit_breaker.OPEN_DURATION)
        self._received = family(webhooks.RECEIVED)
        self._processed = family(webhooks.PROCESSED)
        self._processing = family(webhooks.PROCESSING)
        self._refreshes = family(tokens.REFRESH_TOTAL)
        self._at_risk = family(tokens.AT_RISK)
        self._connection_errors = family(connections.ERRORS)
        self._conflicts = family(conflicts.DETECTED)
        self._resolved = family(conflicts.RESOLVED)
        self._double_bookings = family(conflicts.DOUBLE_BOOKINGS)
        self._days_checked = family(reconciliation.DAYS_CHECKED)
        self._days_drifted = family(reconciliation.DAYS_DRIFTED)

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that change a number, each with what it does.  An event whose fields are the labels is counted as it is.
        """
        return (
            (SyncStarted, self.sync_started),
            (SyncFinished, self.sync_finished),
            (SyncHeldBack, self.sync_held_back),
            (ApiCallFinished, self.api_call_finished),
            (EndpointFolded, self.endpoint_folded),
            (RateLimitChecked, self.rate_limit_checked),
            (RateLimitWaited, self.rate_limit_waited),
            (CircuitChanged, self.circuit_changed),
            (CircuitRejected, self._rejections.count),
            (WebhookReceived, self._received.count),
            (WebhookProcessed, self.webhook_processed),
            (TokenRefreshed, self.token_refreshed),
            (TokenAtRisk, self.token_at_risk),
            (ConnectionErrored, self.connection_errored),
            (ConflictDetected, self._conflicts.count),
            (ConflictResolved, self._resolved.count),
            (DoubleBookingDetected, self._double_bookings.count),
            (ConnectionReconciled, self.connection_reconciled),
        )

    # -- syncs --------------------------------------------------------------------------------------------------------

    def sync_started(self, event: SyncStarted) -> None:
        """
        One more runs, and would count as a failure if its process died now.
        """
        channel, sync, direction, _, _ = event
        self._in_progress.add((channel, sync), 1.0)
        word = self._syncs.word((channel, sync, direction, "failure"))
        self._stakes[id(event)] = 0 if word is None else self._attempts.stake(word)

    def sync_finished(self, event: SyncFinished) -> None:
        """
        Count a run by outcome, time it, and count what it moved.
        """
        (channel, sync, direction, _, _), status, duration, created, updated, failed, skipped, _, _ = event
        pair = (channel, sync)
        self._in_progress.add(pair, -1.0)
        at = self._stakes.pop(id(event[0]), 0)
        if at == 0:
            self._syncs.count((channel, sync, direction, status))
        else:
            word = self._syncs.word((channel, sync, direction, status))
            if word is not None:
                self._attempts.redeem(at, word)
        self._durations.observe(pair, duration)
        if created:
            self._records.inc((channel, sync, "created"), created)
        if updated:
            self._records.inc((channel, sync, "updated"), updated)
        if failed:
            self._records.inc((channel, sync, "failed"), failed)
        if skipped:
            self._records.inc((channel, sync, "skipped"), skipped)

    def sync_held_back(self, event: SyncHeldBack) -> None:
        """
        Count a task that was put back.
        """
        self._held_back.count((event.channel_type, event.sync_type, event.reason))

    # -- the channel --------------------------------------------------------------------------------------------------

    def api_call_finished(self, event: ApiCallFinished) -> None:
        """
        Count a call, time it, and count why it failed; one that the breaker stopped was not made, so that it is a failure alone.
        """
        channel, endpoint, method, status_code, duration, error_type, _ = event
        if error_type != "circuit_breaker":
            self._requests.count((channel, endpoint, method, status_code))
            self._latencies.observe((channel, endpoint), duration)
        if error_type:
            self._errors.count((channel, error_type))

    def endpoint_folded(self, event: EndpointFolded) -> None:
        """
        Count an endpoint that had to be made into a template.
        """
        self._folded.count((api_calls.REQUESTS.name,))

    def rate_limit_checked(self, event: RateLimitChecked) -> None:
        """
        Count an answer of the limiter.
        """
        self._checks.count((event.channel_type, event.result))

    def rate_limit_waited(self, event: RateLimitWaited) -> None:
        """
        Time a caller who stood in line.
        """
        self._waits.observe((event.channel_type,), event.waited)

    def circuit_changed(self, event: CircuitChanged) -> None:
        """
        Count a change, and time the outage that ends with it.
        """
        self._transitions.count(event[:3])
        if event.open_for is not None:
            self._outages.observe((event.channel_type,), event.open_for)

    # -- the others ---------------------------------------------------------------------------------------------------

    def webhook_processed(self, event: WebhookProcessed) -> None:
        """
        Count a webhook by what became of it, and time it.
        """
        self._processed.count((event.channel_type, event.status))
        self._processing.observe((event.channel_type,), event.duration)

    def token_refreshed(self, event: TokenRefreshed) -> None:
        """
        Count a refresh by outcome.
        """
        self._refreshes.count((event.channel_type, event.status))

    def token_at_risk(self, event: TokenAtRisk) -> None:
        """
        Count a new token that is not safe, by what became of it.
        """
        self._at_risk.count((event.channel_type, event.risk))

    def connection_errored(self, event: ConnectionErrored) -> None:
        """
        Count a failure of a connection.
        """
        self._connection_errors.count((event.channel_type,))

    def connection_reconciled(self, event: ConnectionReconciled) -> None:
        """
        Count the days that were compared.
        """
        self._days_checked.inc((event.channel_type,), event.checked)
        self._days_drifted.inc((event.channel_type,), event.drifted)


def of_channel(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    for words, metric in (
        (api_calls.ERROR_TYPES, api_calls.ERRORS),
        (rate_limiter.RESULTS, rate_limiter.REQUESTS),
        (webhooks.STATUSES, webhooks.PROCESSED),
        (tokens.REFRESH_STATUSES, tokens.REFRESH_TOTAL),
        (tokens.RISKS, tokens.AT_RISK),
    ):
        for word in words:
            yield metric, (channel, word)
    for change in _CHANGES:
        yield circuit_breaker.TRANSITIONS, (channel, *change)
    for metric in (
        circuit_breaker.REJECTIONS,
        circuit_breaker.OPEN_DURATION,
        connections.ERRORS,
        conflicts.DOUBLE_BOOKINGS,
        reconciliation.DAYS_CHECKED,
        reconciliation.DAYS_DRIFTED,
    ):
        yield metric, (channel,)


def of_sync(channel: str, sync: str, direction: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a sync whose channel is known.
    """
    for status in syncs.STATUSES:
        yield syncs.TOTAL, (channel, sync, direction, status)
    for result in syncs.RECORD_RESULTS:
        yield syncs.RECORDS, (channel, sync, result)
    yield syncs.DURATION, (channel, sync)
    for reason in syncs.HOLD_REASONS:
        yield syncs.HELD_BACK, (channel, sync, reason)
