"""
Alerts about webhooks: they fail, are slow, pile up, or are forged.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import count_of, happened, increase, none_of, quantile, ratio, sum_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import amount, part, seconds

from .metrics import PROCESSED, PROCESSING, RECEIVED


__all__ = ["ALERTS"]


_BY = ("channel_type",)
_GENUINE = sum_by(increase(PROCESSED, "5m", status=none_of("invalid_signature")), *_BY)

ALERTS: Final = (
    Alert(
        name="ChannelWebhookProcessingFailing",
        severity="critical",
        # Not by those received: these are counted elsewhere and at another time, so that the ratio would lie while a backlog grows or drains.
        expr=f"{ratio(sum_by(increase(PROCESSED, '5m', status='error'), *_BY), _GENUINE)}\n> $threshold\nand\n{_GENUINE} >= $min_events",
        threshold=part(0.05),
        min_events=10,
        for_="5m",
        by=_BY,
        summary="Webhook processing errors for {{ $labels.channel_type }}",
        description="{{ $value | humanizePercentage }} of the webhooks of {{ $labels.channel_type }} failed in the last 5 minutes (threshold: $threshold).",
        dashboard="channel-manager-platform",
    ),
    Alert(
        name="ChannelWebhookBacklog",
        severity="warning",
        expr=f"{sum_by(increase(RECEIVED, '30m'), *_BY)}\n- {sum_by(increase(PROCESSED, '30m'), *_BY)}\n> $threshold",
        threshold=amount(50),
        for_="10m",
        by=_BY,
        summary="Webhooks of {{ $labels.channel_type }} are received and not processed",
        description='{{ $value | printf "%.0f" }} more webhooks of {{ $labels.channel_type }} were received than processed in the last 30 minutes (threshold: $threshold).',
        dashboard="channel-manager-platform",
    ),
    Alert(
        name="ChannelWebhookInvalidSignatures",
        severity="warning",
        expr=f"{happened(PROCESSED, '15m', *_BY, status='invalid_signature')} > $threshold",
        threshold=amount(20),
        by=_BY,
        summary="Webhooks with wrong signatures for {{ $labels.channel_type }}",
        description='{{ $value | printf "%.0f" }} webhooks in the name of {{ $labels.channel_type }} had a wrong signature in the last 15 minutes (threshold: $threshold).',
        dashboard="channel-manager-platform",
    ),
    Alert(
        name="ChannelWebhookSlow",
        severity="warning",
        expr=f"{quantile(0.95, PROCESSING, '10m', *_BY)} > $threshold\nand\n600 * {sum_by(count_of(PROCESSING, '10m'), *_BY)} >= $min_events",
        threshold=seconds(1, below=PROCESSING.buckets[-1]),
        min_events=20,
        for_="10m",
        by=_BY,
        summary="Webhooks of {{ $labels.channel_type }} are slow",
        description="One webhook in twenty of {{ $labels.channel_type }} takes longer than {{ $value | humanizeDuration }} (threshold: $threshold).",
        dashboard="channel-manager-platform",
    ),
)
