"""
Recording rules of calls of channels: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import none_of, quantile, rate, ratio, sum_by
from celery_obs.rules.rules import RecordingRule

from .metrics import ERRORS, LATENCY, REQUESTS


__all__ = ["GROUP", "RULES"]


GROUP: Final = "channels"

_QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def _rules() -> Iterator[RecordingRule]:
    by = ("channel_type",)
    yield RecordingRule(
        name="channel_type:channel_api_requests:rate5m",
        help="How often is the channel called? Calls per second.",
        expr=sum_by(rate(REQUESTS, "5m"), *by),
        by=by,
    )
    yield RecordingRule(
        name="channel_type:channel_api_error:ratio_rate5m",
        help="How many calls fail? Share of the calls made.",
        expr=ratio(
            sum_by(rate(ERRORS, "5m", error_type=none_of("circuit_breaker")), *by),
            sum_by(rate(REQUESTS, "5m"), *by),
        ),
        by=by,
    )
    for part, name in _QUANTILES:
        yield RecordingRule(
            name=f"channel_type:channel_api_latency_seconds:{name}_5m",
            help=f"Is the channel slow? {name} of the last five minutes.",
            expr=quantile(part, LATENCY, "5m", *by),
            by=by,
        )


RULES: Final = tuple(_rules())
