"""
The rate limiter: how often a channel may be called.
"""

from __future__ import annotations

from typing import Final, Literal

from celery_obs.vocabulary.spec import Metric


__all__ = ["CURRENT", "MAX", "REQUESTS", "RESULTS", "WAIT"]


RESULTS: Final[tuple[Literal["allowed", "denied"], ...]] = ("allowed", "denied")


REQUESTS = Metric(
    kind="counter",
    name="channel_rate_limit_requests_total",
    help="Do calls hit the rate limit? Checks of it by result.",
    labels=("channel_type", "result"),
)
CURRENT = Metric(
    kind="gauge",
    name="channel_rate_limit_current_count",
    help="How close are calls to the rate limit? Calls in the sliding window now.",
    labels=("channel_type", "connection_id"),
    lint_exempt="The name that existing dashboards use; _count is a suffix of histograms to a linter.",
)
MAX = Metric(
    kind="gauge",
    name="channel_rate_limit_max",
    help="What is the rate limit at this time of day? Calls allowed in one window.",
    labels=("channel_type",),
)
WAIT = Metric(
    kind="histogram",
    name="channel_rate_limit_wait_seconds",
    help="How long do calls wait for the rate limit? Time that callers waited.",
    labels=("channel_type",),
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    resolution=1e-6,
)
