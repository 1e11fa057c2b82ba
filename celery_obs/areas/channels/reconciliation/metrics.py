"""
Reconciliation: comparing availability with the channel, day by day.
"""

from __future__ import annotations

from celery_obs.vocabulary.spec import Metric


__all__ = ["DAYS_CHECKED", "DAYS_DRIFTED", "DRIFT_DAYS", "LAST_RUN"]


_DAYS = "The name that existing dashboards use; days are what is counted here, not a time, as a linter takes them for."

DRIFT_DAYS = Metric(
    kind="gauge",
    name="channel_reconciliation_drift_days",
    help="Which connection's calendar has drifted? Days that differed in its last check.",
    labels=("channel_type", "connection_id"),
    lint_exempt=_DAYS,
)
DAYS_CHECKED = Metric(
    kind="counter",
    name="channel_reconciliation_days_checked_total",
    help="Does reconciliation run? Days compared.",
    labels=("channel_type",),
    lint_exempt=_DAYS,
)
DAYS_DRIFTED = Metric(
    kind="counter",
    name="channel_reconciliation_days_drifted_total",
    help="How much of the calendar has drifted? Compared days on which the two sides differed.",
    labels=("channel_type",),
    lint_exempt=_DAYS,
)
LAST_RUN = Metric(
    kind="gauge",
    name="channel_reconciliation_last_run_timestamp",
    help="Is reconciliation up to date? Time at which a connection of the channel was last compared.",
    labels=("channel_type",),
)
