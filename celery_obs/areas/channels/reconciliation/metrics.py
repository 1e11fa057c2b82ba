"""
Reconciliation: comparing, day by day, what we and the channel hold for available.
"""

from __future__ import annotations

from celery_obs.vocabulary.spec import Metric


__all__ = ["DAYS_CHECKED", "DAYS_DRIFTED", "DRIFT_DAYS", "LAST_RUN"]


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
