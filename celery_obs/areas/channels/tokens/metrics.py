"""
Tokens: the OAuth tokens of connections, and how long they are valid.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from celery_obs.vocabulary.spec import Metric


__all__ = ["AT_RISK", "EXPIRES_AT", "LIFETIME", "REFRESH_STATUSES", "REFRESH_TOTAL", "RISKS", "RefreshStatus", "Risk"]


RefreshStatus: TypeAlias = Literal["success", "failure", "refused", "held_back"]
"""
*failure*: it did not work and will be tried again.  *refused*: the provider said no for good, so that a person has to authorise again.
*held_back*: our own breaker, rate limit or pause did not let it ask the token endpoint, and it is tried again.
"""

REFRESH_STATUSES: Final[tuple[RefreshStatus, ...]] = ("success", "failure", "refused", "held_back")


Risk: TypeAlias = Literal["parked", "lost", "not_replicated"]
"""
What became of a new token that is not safe where it belongs.  *parked*: it could not be stored, and lies in Redis for the next refresh, or in the
process that got it.  *lost*: that could not store it in the end.  *not_replicated*: it is stored, and fewer replicas than wanted have it.
"""

RISKS: Final[tuple[Risk, ...]] = ("parked", "lost", "not_replicated")


_LABELS = ("channel_type", "connection_id")

EXPIRES_AT = Metric(
    kind="gauge",
    name="channel_token_expires_at_timestamp",
    help="When does the connection's token expire? Absent where it does not.",
    labels=_LABELS,
)
LIFETIME = Metric(
    kind="gauge",
    name="channel_token_lifetime_seconds",
    help="How long is the connection's token valid? Its lifetime when it was issued.",
    labels=_LABELS,
)
REFRESH_TOTAL = Metric(
    kind="counter",
    name="channel_token_refresh_total",
    help="Do token refreshes succeed? Refreshes by outcome; those held back by our own breaker, rate limit or pause did not ask the channel.",
    labels=("channel_type", "status"),
)
AT_RISK = Metric(
    kind="counter",
    name="channel_token_at_risk_total",
    help="Could a new token be lost? New tokens that were not stored safely at once, by what became of them.",
    labels=("channel_type", "risk"),
)
