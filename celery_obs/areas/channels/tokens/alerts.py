"""
Alerts about tokens: they are about to expire, have expired, or cannot be refreshed.

A token that lives an hour always expires within a day, and is fine as long as it is refreshed; so the time left is measured by the token's lifetime.
"""

from __future__ import annotations

from typing import Final

from celery_obs.rules.promql import Match, gauge, happened, increase, max_by, one_of, ratio, sum_by
from celery_obs.rules.rules import Alert
from celery_obs.rules.thresholds import DAY, amount, part, seconds

from .metrics import EXPIRES_AT, LIFETIME, REFRESH_TOTAL


__all__ = ["ALERTS"]


_BY = ("channel_type", "connection_id")
_LEFT = f"{max_by(gauge(EXPIRES_AT), *_BY)} - time()"
_LIFE = max_by(gauge(LIFETIME), *_BY)
_NOT_REFRESHED = happened(REFRESH_TOTAL, "2h", "channel_type", status=one_of("failure", "refused", "held_back"))
# What our own breaker or pause held back tells nothing of the channel.
_REFRESHES = sum_by(increase(REFRESH_TOTAL, "1h", status=Match("!=", "held_back")), "channel_type")

ALERTS: Final = (
    Alert(
        name="ChannelTokenExpired",
        severity="critical",
        expr=f"time() - {max_by(gauge(EXPIRES_AT), *_BY)} >= 0\nand\n{max_by(gauge(EXPIRES_AT), *_BY)} > 0",
        for_="5m",
        by=_BY,
        summary="A token of {{ $labels.channel_type }} has expired",
        description="The token of connection {{ $labels.connection_id }} of {{ $labels.channel_type }} expired {{ $value | humanizeDuration }} ago and was not refreshed.",
        dashboard="channel-manager-connections",
    ),
    Alert(
        name="ChannelTokenExpiringCritical",
        severity="critical",
        # One that is good for a month or longer ought to have been refreshed long before its last day, whether or not a refresh was tried.
        expr=(
            f"(\n  ({_LEFT} < $threshold and {_LIFE} >= {30 * DAY})\n  or\n"
            f"  ({_LEFT} < clamp_max(0.2 * {_LIFE}, $threshold) or ({_LEFT} < $threshold unless {_LIFE}))\n"
            f"  and on (channel_type)\n  {_NOT_REFRESHED} > 0\n)\n> 0"
        ),
        threshold=seconds(DAY),
        # Not longer: the last fifth of an hour's token is twelve minutes.
        for_="5m",
        by=_BY,
        summary="OAuth token of {{ $labels.channel_type }} is about to expire and was not refreshed",
        description="The token of connection {{ $labels.connection_id }} of {{ $labels.channel_type }} expires in {{ $value | humanizeDuration }} and was not refreshed in time (threshold: $threshold).",
        dashboard="channel-manager-connections",
    ),
    Alert(
        name="ChannelTokenExpiringSoon",
        severity="warning",
        expr=f"{_LEFT} < $threshold and {_LEFT} >= {DAY}\nunless\n{_LIFE} < {30 * DAY}",
        threshold=seconds(7 * DAY, above=DAY),
        for_="10m",
        by=_BY,
        summary="OAuth token of {{ $labels.channel_type }} expires in < $threshold",
        description="The token of connection {{ $labels.connection_id }} of {{ $labels.channel_type }} expires in {{ $value | humanizeDuration }}.",
        dashboard="channel-manager-connections",
    ),
    Alert(
        name="ChannelTokenRefreshRefused",
        severity="warning",
        expr=f"{happened(REFRESH_TOTAL, '1h', 'channel_type', status='refused')} > $threshold",
        threshold=amount(0),
        by=("channel_type",),
        summary="{{ $labels.channel_type }} rejects the refresh of a token",
        description='{{ $labels.channel_type }} rejected {{ $value | printf "%.0f" }} token refreshes for good in the last hour. Their customers have to authorise again.',
        dashboard="channel-manager-connections",
        keep_firing_for="1h",
    ),
    Alert(
        name="ChannelTokenRefreshFailing",
        severity="critical",
        expr=(
            f"{ratio(sum_by(increase(REFRESH_TOTAL, '1h', status='failure'), 'channel_type'), _REFRESHES)}\n> $threshold\nand\n{_REFRESHES} >= $min_events"
        ),
        threshold=part(0.5),
        min_events=5,
        for_="10m",
        by=("channel_type",),
        summary="Most token refreshes of {{ $labels.channel_type }} fail",
        description="{{ $value | humanizePercentage }} of the token refreshes of {{ $labels.channel_type }} failed in the last hour (threshold: $threshold).",
        dashboard="channel-manager-connections",
    ),
)
