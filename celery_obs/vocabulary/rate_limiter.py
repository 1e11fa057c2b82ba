"""
The rate limiter: how often we may ask a channel.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from .spec import Metric


__all__ = ["CURRENT", "MAX", "REQUESTS", "RESULTS", "WAIT", "RateLimitChecked", "RateLimitWaited"]


RESULTS: Final[tuple[Literal["allowed", "denied"], ...]] = ("allowed", "denied")


class RateLimitChecked(NamedTuple):
    """
    Somebody asked whether a call may be made now.

    Attributes:
        channel_type: The channel.

        connection_id: Whose account; empty where the limit is the whole channel's.

        result: The answer.

        retry_after: Seconds until asking again may help; 0 when allowed.
    """

    channel_type: str
    connection_id: str
    result: Literal["allowed", "denied"]
    retry_after: float


class RateLimitWaited(NamedTuple):
    """
    A caller has waited until it may call, or until it gave up.

    Attributes:
        channel_type: The channel.

        waited: Seconds; 0 where it did not have to wait.
    """

    channel_type: str
    waited: float


REQUESTS = Metric(
    kind="counter",
    name="channel_rate_limit_requests_total",
    help="Do we run into the limit? Checks of the rate limit by answer.",
    labels=("channel_type", "result"),
)
CURRENT = Metric(
    kind="gauge",
    name="channel_rate_limit_current_count",
    help="How close to the limit are we? Calls in the sliding window now.",
    labels=("channel_type", "connection_id"),
    lint_exempt="The contract of the channel manager's dashboards; _count is a suffix of histograms to a linter.",
)
MAX = Metric(
    kind="gauge",
    name="channel_rate_limit_max",
    help="What is the limit at this time of day? Calls that one window may hold.",
    labels=("channel_type",),
)
WAIT = Metric(
    kind="histogram",
    name="channel_rate_limit_wait_seconds",
    help="How long do we stand in line? Time that callers waited for the rate limit.",
    labels=("channel_type",),
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    resolution=1e-6,
)
