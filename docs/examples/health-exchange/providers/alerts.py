"""
Alerts about providers.  Their calls, limits, breakers and tokens have alerts of their own, as channels.
"""

from __future__ import annotations

from typing import Final

from celery_obs.areas.channels.api_calls.metrics import ERRORS
from celery_obs.rules.promql import increase, sum_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, part

from .metrics import DATA_POINTS


__all__ = ["ALERTS"]


ALERTS: Final = (
    Alert(
        name="ProviderSendsNothing",
        severity="warning",
        expr=f"{sum_by(increase(DATA_POINTS, '6h'), 'provider')} <= $threshold",
        threshold=amount(0),
        for_="30m",
        by=("provider",),
        summary="No measurements from {{ $labels.provider }}",
        description="No measurement came from {{ $labels.provider }} in the last six hours, for $for.",
        dashboard="exchange-providers",
    ),
    Alert(
        name="ProviderDataRefused",
        severity="warning",
        expr="provider:exchange_data_points_refused:ratio_rate15m > $threshold",
        threshold=part(0.05),
        for_="15m",
        by=("provider",),
        summary="Measurements from {{ $labels.provider }} are refused",
        description="{{ $value | humanizePercentage }} of the measurements from {{ $labels.provider }} are refused, more than $threshold, for $for.",
        dashboard="exchange-providers",
    ),
    Alert(
        name="ProviderNearsRateLimit",
        severity="warning",
        expr=f"{sum_by(increase(ERRORS, '1h', error_type='rate_limit'), 'channel_type')} > $threshold",
        threshold=amount(10),
        for_="5m",
        by=("channel_type",),
        summary="{{ $labels.channel_type }} limits our calls",
        description="{{ $labels.channel_type }} refused {{ $value | humanize }} calls in the last hour because of its rate limit, more than $threshold.",
        dashboard="exchange-providers",
    ),
)
