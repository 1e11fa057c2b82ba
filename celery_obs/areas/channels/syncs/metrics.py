"""
Syncs: one movement of data between us and a channel, as one run.

A *channel* is the other side, such as ``airbnb``; a *connection* is one customer's account there.
A run lies inside a task, or inside any other code, so that a task may succeed while its sync is *partial*.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from celery_obs.vocabulary.spec import Metric


__all__ = [
    "DURATION",
    "HELD_BACK",
    "HOLD_REASONS",
    "IN_PROGRESS",
    "RECORDS",
    "RECORD_RESULTS",
    "STATUSES",
    "TOTAL",
    "HoldReason",
    "SyncStatus",
]


SyncStatus: TypeAlias = Literal["success", "partial", "failure", "retry", "skipped", "held_back"]
"""
How a run ended.

*partial*: it came to its end, and some records failed.  *retry*: it failed, and its task will try again.  *skipped*: there was nothing to do, as it says itself.
*held_back*: our own breaker or rate limit did not let it call the channel, and its task comes again.
"""

STATUSES: Final[tuple[SyncStatus, ...]] = ("success", "partial", "failure", "retry", "skipped", "held_back")

HoldReason: TypeAlias = Literal["paused", "rate_limit", "circuit_breaker"]
"""
Why a task was held back.
"""

HOLD_REASONS: Final[tuple[HoldReason, ...]] = ("paused", "rate_limit", "circuit_breaker")

RECORD_RESULTS: Final[tuple[str, ...]] = ("created", "updated", "failed", "skipped")


TOTAL = Metric(
    kind="counter",
    name="channel_sync_total",
    help="Do syncs succeed? Runs by outcome, each counted once.",
    labels=("channel_type", "sync_type", "direction", "status"),
)
DURATION = Metric(
    kind="histogram",
    name="channel_sync_duration_seconds",
    help="How long does a sync take, failed ones included?",
    labels=("channel_type", "sync_type"),
    buckets=(0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
    resolution=1e-6,
)
RECORDS = Metric(
    kind="counter",
    name="channel_sync_records_total",
    help="How many records do syncs process? Records by what became of them.",
    labels=("channel_type", "sync_type", "result"),
)
IN_PROGRESS = Metric(
    kind="gauge",
    name="channel_sync_in_progress",
    help="How many syncs are running? Runs in processes that are alive.",
    labels=("channel_type", "sync_type"),
)
HELD_BACK = Metric(
    kind="counter",
    name="channel_sync_held_back_total",
    help="Why are syncs held back? Times that a sync task was put back into its queue: channel paused, rate limit exhausted, or circuit breaker open.",
    labels=("channel_type", "sync_type", "reason"),
)
