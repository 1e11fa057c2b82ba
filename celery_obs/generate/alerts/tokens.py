"""
Alerts about tokens: they are about to expire and nothing helps, or have expired.

A token of an hour is always "about to expire within a day", and is well as long as it is refreshed; so the time left is measured by the token's life.
"""

from __future__ import annotations

from typing import Final

from celery_obs.generate.promql import among, gauge, happened, increase, most, share, total
from celery_obs.generate.rules import Alert
from celery_obs.vocabulary.tokens import EXPIRES_AT, LIFETIME, REFRESH_TOTAL


__all__ = ["ALERTS"]


_BY = ("channel_type", "connection_id")
_DAY = 86_400
_LEFT = f"{most(gauge(EXPIRES_AT), *_BY)} - time()"
_LIFE = most(gauge(LIFETIME), *_BY)
_FAILED_REFRESHES = happened(REFRESH_TOTAL, "2h", "channel_type", status=among("failure", "refused"))
_REFRESHES = total(increase(REFRESH_TOTAL, "1h"), "channel_type")

ALERTS: Final = (
    Alert(
        name="ChannelTokenExpired",
        severity="critical",
        expr=f"time() - {most(gauge(EXPIRES_AT), *_BY)} >= 0\nand\n{most(gauge(EXPIRES_AT), *_BY)} > 0",
        lasts="5m",
        by=_BY,
        summary="A token of {{ $labels.channel_type }} has expired",
        description="The token of connection {{ $labels.connection_id }} of {{ $labels.channel_type }} expired {{ $value | humanizeDuration }} ago and was not refreshed.",
        shows="channel-manager-connections",
        seeds=("000 §6.1 Token Refresh",),
    ),
    Alert(
        name="ChannelTokenExpiringCritical",
        severity="critical",
        expr=(
            f"(\n  {_LEFT} < clamp_max(0.2 * {_LIFE}, {_DAY})\n  or\n  ({_LEFT} < {_DAY} unless {_LIFE})\n)\n"
            f"> 0\nand on (channel_type)\n{_FAILED_REFRESHES} > 0"
        ),
        lasts="5m",
        by=_BY,
        summary="OAuth token of {{ $labels.channel_type }} expires, and refreshing fails",
        description="The token of connection {{ $labels.connection_id }} of {{ $labels.channel_type }} expires in {{ $value | humanizeDuration }}, and refreshes of this channel have failed.",
        shows="channel-manager-connections",
        seeds=("000 §4.1",),
    ),
    Alert(
        name="ChannelTokenExpiringSoon",
        severity="warning",
        expr=f"{_LEFT} < {7 * _DAY} and {_LEFT} >= {_DAY}\nunless\n{_LIFE} < {30 * _DAY}",
        lasts="10m",
        by=_BY,
        summary="OAuth token of {{ $labels.channel_type }} expires in < 7 days",
        description="The token of connection {{ $labels.connection_id }} of {{ $labels.channel_type }} expires in {{ $value | humanizeDuration }}.",
        shows="channel-manager-connections",
        seeds=("000 §4.2",),
    ),
    Alert(
        name="ChannelTokenRefreshRefused",
        severity="warning",
        expr=f"{happened(REFRESH_TOTAL, '1h', 'channel_type', status='refused')} > 0",
        by=("channel_type",),
        summary="{{ $labels.channel_type }} refuses to refresh a token",
        description='{{ $value | printf "%.0f" }} refreshes were refused by {{ $labels.channel_type }} for good in the last hour. Their customers have to authorise again.',
        shows="channel-manager-connections",
        keeps_firing="1h",
    ),
    Alert(
        name="ChannelTokenRefreshFailing",
        severity="critical",
        expr=(
            f"{share(total(increase(REFRESH_TOTAL, '1h', status='failure'), 'channel_type'), _REFRESHES)}\n> 0.5\nand\n{_REFRESHES} >= 5"
        ),
        lasts="10m",
        by=("channel_type",),
        summary="Most token refreshes of {{ $labels.channel_type }} fail",
        description="{{ $value | humanizePercentage }} of the token refreshes of {{ $labels.channel_type }} failed in the last hour (threshold: 50%).",
        shows="channel-manager-connections",
        seeds=("000 §7.3",),
    ),
)
