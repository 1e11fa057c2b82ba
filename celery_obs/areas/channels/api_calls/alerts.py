"""
Alerts about calls to channels: they fail, or their credentials are rejected.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import happened, increase, none_of, ratio, sum_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, part

from .metrics import ERRORS, REQUESTS


__all__ = ["ALERTS"]


_BY = ("channel_type",)
_MADE = sum_by(increase(REQUESTS, "5m"), *_BY)
_FAILED = sum_by(increase(ERRORS, "5m", error_type=none_of("circuit_breaker")), *_BY)

ALERTS: Final = (
    Alert(
        name="ChannelApiErrorRateHigh",
        severity="critical",
        expr=f"{ratio(_FAILED, _MADE)}\n> $threshold\nand\n{_MADE} >= $min_events",
        threshold=part(0.1),
        min_events=20,
        for_="5m",
        by=_BY,
        summary="Many calls to {{ $labels.channel_type }} fail",
        description="{{ $value | humanizePercentage }} of the calls to {{ $labels.channel_type }} failed in the last 5 minutes (threshold: $threshold).",
        dashboard="channel-manager-platform",
    ),
    Alert(
        name="ChannelApiAuthErrors",
        severity="warning",
        expr=f"{happened(ERRORS, '15m', *_BY, error_type='auth')} > $threshold",
        threshold=amount(5),
        for_="5m",
        by=_BY,
        summary="{{ $labels.channel_type }} rejects our credentials",
        description='{{ $value | printf "%.0f" }} calls to {{ $labels.channel_type }} were rejected as unauthorised in the last 15 minutes (threshold: $threshold).',
        dashboard="channel-manager-platform",
    ),
)
