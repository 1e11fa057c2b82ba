"""
Recording rules of webhooks: what dashboards and people ask again and again, worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from celery_obs.rules.promql import count_of, none_of, quantile, rate, ratio, sum_by
from celery_obs.rules.rules import RecordingRule

from .metrics import PROCESSED, PROCESSING


__all__ = ["GROUP", "RULES"]


GROUP: Final = "channels"


def _rules() -> Iterator[RecordingRule]:
    by = ("channel_type",)
    yield RecordingRule(
        name="channel_type:channel_webhook_error:ratio_rate5m",
        help="How many webhooks fail? Share of the genuine ones: forged ones do not count.",
        expr=ratio(
            sum_by(rate(PROCESSED, "5m", status="error"), *by),
            sum_by(rate(PROCESSED, "5m", status=none_of("invalid_signature")), *by),
        ),
        by=by,
    )
    yield RecordingRule(
        name="channel_type:channel_webhook_processing_seconds:p95_5m",
        help="How long does it take to process a webhook? p95 of the last five minutes.",
        expr=quantile(0.95, PROCESSING, "5m", *by),
        by=by,
    )
    yield RecordingRule(
        name="channel_type:channel_webhook_processing:rate5m",
        help="How many webhooks are processed? Per second.",
        expr=sum_by(count_of(PROCESSING, "5m"), *by),
        by=by,
    )


RULES: Final = tuple(_rules())
