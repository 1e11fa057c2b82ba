"""
Reconciliation: comparing, day by day, what we and the channel hold for available.
"""

from __future__ import annotations

from typing import NamedTuple

from .spec import Metric


__all__ = [
    "DAYS_CHECKED",
    "DAYS_DRIFTED",
    "DRIFT_DAYS",
    "LAST_RUN",
    "ConnectionReconciled",
    "ReconciliationEnded",
    "ReconciliationStarted",
]


class ReconciliationStarted(NamedTuple):
    """
    A connection's days are about to be compared, in this thread.

    Attributes:
        channel_type: The channel.

        connection_id: Whose account.
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

        connection_id: Whose account.

        checked: Days that were compared.

        drifted: Days on which the two sides differ.

        duration: Seconds.
    """

    channel_type: str
    connection_id: str
    checked: int
    drifted: int
    duration: float


_DAYS = "The contract of the channel manager's dashboards; days are what is counted here, not a time, as a linter takes them for."

DRIFT_DAYS = Metric(
    kind="gauge",
    name="channel_reconciliation_drift_days",
    help="Whose calendar is wrong? Days on which the last check of the connection found a difference.",
    labels=("channel_type", "connection_id"),
    lint_exempt=_DAYS,
)
DAYS_CHECKED = Metric(
    kind="counter",
    name="channel_reconciliation_days_checked_total",
    help="Do the checks run? Days that were compared.",
    labels=("channel_type",),
    lint_exempt=_DAYS,
)
DAYS_DRIFTED = Metric(
    kind="counter",
    name="channel_reconciliation_days_drifted_total",
    help="How much of the calendar is wrong? Compared days on which the two sides differed.",
    labels=("channel_type",),
    lint_exempt=_DAYS,
)
LAST_RUN = Metric(
    kind="gauge",
    name="channel_reconciliation_last_run_timestamp",
    help="How old is what I know of the drift? Time at which a connection of the channel was last compared.",
    labels=("channel_type",),
)
