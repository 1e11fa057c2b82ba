"""
Reconciliation: comparing availability with the channel, day by day.
"""

from __future__ import annotations

from typing import Final, NamedTuple


__all__ = ["ENDINGS", "ConnectionReconciled", "ReconciliationEnded", "ReconciliationStarted"]


class ReconciliationStarted(NamedTuple):
    """
    A connection's days are about to be compared, in this thread.

    Attributes:
        channel_type: The channel.

        connection_id: The connection.
    """

    channel_type: str
    connection_id: str


class ReconciliationEnded(NamedTuple):
    """
    What `ReconciliationStarted` began is over, in the same thread, well or not.  Not counted: `ConnectionReconciled` is.

    Attributes:
        started: The event that opened it; the same object.

        checked, drifted: As in `ConnectionReconciled`; 0 where it came to no end.

        error: Class name of what went wrong; else empty.
    """

    started: ReconciliationStarted
    checked: int
    drifted: int
    error: str


class ConnectionReconciled(NamedTuple):
    """
    A connection's days were compared.

    Attributes:
        channel_type: The channel.

        connection_id: The connection.

        checked: Days that were compared.

        drifted: Days on which the two sides differ.

        duration: Seconds.
    """

    channel_type: str
    connection_id: str
    checked: int
    drifted: int
    duration: float


ENDINGS: Final = (ReconciliationEnded,)
"""
Those that end what another one began, in the same thread.
"""
