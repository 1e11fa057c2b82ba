"""
Syncs: one movement of data between us and a channel, as one run.

A *channel* is the other side, such as ``airbnb``; a *connection* is one customer's account there.
A run lies inside a task, or inside any other code, so that a task may succeed while its sync is *partial*.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .metrics import HoldReason, SyncStatus


__all__ = ["ENDINGS", "NAMES_CHANNEL", "SyncFinished", "SyncHeldBack", "SyncLost", "SyncStarted"]


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
    A run's process died with it.  The process that finds its slot has counted it as a failure by then, once, even if one dies on the way.

    Attributes:
        channel_type, sync_type, direction: As in `SyncStarted`.
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


ENDINGS: Final = (SyncFinished,)
"""
Those that end what another one began, in the same thread.
"""

NAMES_CHANNEL: Final = (SyncStarted,)
"""
Those whose channel is what the attempt that they happen in is about.
"""
