"""
Connections: the accounts that are synchronised, and their state.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from celery_obs.vocabulary.spec import Metric


__all__ = ["CREATED_AT", "ERRORS", "ERROR_COUNT", "LAST_SYNC", "PAUSED", "STATUSES", "TOTAL", "ConnectionStatus"]


ConnectionStatus: TypeAlias = Literal["active", "paused", "error", "disconnected"]
"""
*error*: it cannot go on without a person.  *disconnected*: the customer has left the channel.
"""

STATUSES: Final[tuple[ConnectionStatus, ...]] = ("active", "paused", "error", "disconnected")


_LABELS = ("channel_type", "connection_id")
_CONTRACT = "The name that existing dashboards use"

TOTAL = Metric(
    kind="gauge",
    name="channel_connections_total",
    help="How many connections are there, and how many are broken? Connections by status.",
    labels=("channel_type", "status"),
    lint_exempt=f"{_CONTRACT}; _total is a suffix of counters to a linter.",
)
LAST_SYNC = Metric(
    kind="gauge",
    name="channel_connection_last_sync_timestamp",
    help="Which connection's data is stale? Time of its last successful sync; absent before the first.",
    labels=_LABELS,
)
ERROR_COUNT = Metric(
    kind="gauge",
    name="channel_connection_error_count",
    help="Which connection keeps failing? Its consecutive failed syncs.",
    labels=_LABELS,
    lint_exempt=f"{_CONTRACT}; _count is a suffix of histograms to a linter.",
)
CREATED_AT = Metric(
    kind="gauge",
    name="channel_connection_created_at",
    help="Is this connection new? Time of its creation.",
    labels=_LABELS,
)
ERRORS = Metric(
    kind="counter",
    name="channel_connection_errors_total",
    help="Do connections fail more often than before? Failures of connections.",
    labels=("channel_type",),
)
PAUSED = Metric(
    kind="gauge",
    name="channel_paused",
    help="Is this channel paused? 1 while it is.",
    labels=("channel_type",),
)
