"""
Syncs: one movement of data between us and a channel, as one run.

A *channel* is the other side, such as ``airbnb``; a *connection* is one customer's account there.
A run lies inside a task, or inside any other code, so that a task may succeed while its sync is *partial*.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from .spec import Metric


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
    "SyncFinished",
    "SyncHeldBack",
    "SyncLost",
    "SyncStarted",
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


class SyncStarted(NamedTuple):
    """
    A run begins.

    Attributes:
        channel_type: The channel.

        sync_type: What is synchronised, such as ``availability_export``.

        direction: ``outbound`` or ``inbound``, as a rule.

        connection_id: Whose account; empty where the run is about none in particular.  Never a label of a counter.

        started_at: Seconds since the epoch.
    """

    channel_type: str
    sync_type: str
    direction: str
    connection_id: str
    started_at: float


class SyncFinished(NamedTuple):
    """
    A run ended, and its process lives to tell.

    Attributes:
        started: The event that opened it.

        status: The outcome.

        duration: Seconds.

        created, updated, failed, skipped: Records, by what became of them.

        error: Class name of what was raised, or of the error that the run told; else empty.

        error_message: Its text, shortened and without passwords, or why the run was skipped; else empty.
    """

    started: SyncStarted
    status: SyncStatus
    duration: float
    created: int
    updated: int
    failed: int
    skipped: int
    error: str
    error_message: str


class SyncLost(NamedTuple):
    """
    A run's process died with it.  Who finds its slot has counted it as a failure by then, once, whoever dies on the way.
    """

    channel_type: str
    sync_type: str
    direction: str


class SyncHeldBack(NamedTuple):
    """
    A task was put back into its queue, because its channel is paused, or was not to be called: that is no failure, and no retry of the task.

    Attributes:
        channel_type, sync_type, connection_id: As in `SyncStarted`.

        delay: Seconds until it comes again.

        reason: Why.
    """

    channel_type: str
    sync_type: str
    connection_id: str
    delay: float
    reason: HoldReason = "paused"


TOTAL = Metric(
    kind="counter",
    name="channel_sync_total",
    help="Do the syncs work? Runs by outcome, each counted once.",
    labels=("channel_type", "sync_type", "direction", "status"),
)
DURATION = Metric(
    kind="histogram",
    name="channel_sync_duration_seconds",
    help="How long does a sync take, the failed ones too?",
    labels=("channel_type", "sync_type"),
    buckets=(0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
    resolution=1e-6,
)
RECORDS = Metric(
    kind="counter",
    name="channel_sync_records_total",
    help="Does anything move? Records that syncs processed, by what became of them.",
    labels=("channel_type", "sync_type", "result"),
)
IN_PROGRESS = Metric(
    kind="gauge",
    name="channel_sync_in_progress",
    help="What is being synchronised right now? Runs in processes that are alive.",
    labels=("channel_type", "sync_type"),
)
HELD_BACK = Metric(
    kind="counter",
    name="channel_sync_held_back_total",
    help="Why does nothing happen? Times that a sync task was put back into its queue: channel paused, rate limit used up, or circuit breaker open.",
    labels=("channel_type", "sync_type", "reason"),
)
