"""
API calls: calls to channels, and how they are answered.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from celery_obs.vocabulary.spec import Metric


__all__ = ["ERRORS", "ERROR_TYPES", "LATENCY", "NO_RESPONSE", "REQUESTS", "ErrorType"]


ErrorType: TypeAlias = Literal["timeout", "rate_limit", "auth", "server_error", "network", "validation", "circuit_breaker"]
"""
Why a call failed; *circuit_breaker* for calls that were never made, because the breaker is open.
"""

ERROR_TYPES: Final[tuple[ErrorType, ...]] = ("timeout", "rate_limit", "auth", "server_error", "network", "validation", "circuit_breaker")

NO_RESPONSE: Final = "none"
"""
The status code label of a call that got no answer.
"""


REQUESTS = Metric(
    kind="counter",
    name="channel_api_requests_total",
    help="How are calls to the channel answered? Calls by status code.",
    labels=("channel_type", "endpoint", "method", "status_code"),
)
LATENCY = Metric(
    kind="histogram",
    name="channel_api_latency_seconds",
    help="Is the channel slow? Time until its answer, or until the call failed.",
    labels=("channel_type", "endpoint"),
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    resolution=1e-6,
)
ERRORS = Metric(
    kind="counter",
    name="channel_api_errors_total",
    help="Why do calls fail? Failed calls by type of error, including those that an open circuit breaker rejected.",
    labels=("channel_type", "error_type"),
)
