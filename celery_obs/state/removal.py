"""
The state in Redis, taken away: every key of ours, those that people type by hand included, in portions.
"""

from __future__ import annotations

import re

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, Final

from celery_obs.areas import optional

from . import keys


__all__ = ["channels_of", "count_keys", "remove_keys", "running_on"]


_PAGE: Final = 500
_PATTERNS: Final = ("celery_obs:*", "circuit_breaker:*:state", "channel_manager:*:paused", "rate_limit:*")
_OF_CHANNEL: Final = re.compile(
    r"(?:circuit_breaker:([^:]+)(?::[^:]+)?:state|channel_manager:([^:]+):paused|rate_limit:([^:]+):.*)", re.DOTALL
)
_LIBRARY: Final = "limits"


def channels_of(redis: Any) -> frozenset[str]:
    """
    Return the channels that are known, as they stand in keys.
    """
    channels, connections = optional("channels", "state"), optional("connections", "state")
    if channels is None or connections is None:
        return frozenset()
    known = {*channels.Channels(redis).known(), *(each.channel_type for each in connections.Facts(redis).connections().values())}
    return frozenset(map(keys.part, known))


def count_keys(redis: Any, channels: Collection[str]) -> Counter[str]:
    """
    Count our keys, by what they begin with.

    Args:
        redis: A client of any kind of Redis; what it raises is raised.

        channels: Those whose breakers, pauses and rate limits are ours: another program may have keys that are spelled alike.
    """
    return Counter(_text(key).partition(":")[0] for page in _pages(redis, channels) for key in page)


def remove_keys(redis: Any, channels: Collection[str]) -> int:
    """
    Remove our keys, and return how many went.
    """
    removed = 0
    for page in list(_pages(redis, channels)):
        # One key a command, so that Redis Cluster can do it.
        with redis.pipeline(transaction=False) as pipe:
            for key in page:
                pipe.unlink(key)
            removed += sum(map(int, pipe.execute()))
    return removed


def running_on(redis: Any) -> list[str]:
    """
    Name who is known to use this Redis at the moment: the exporter that holds the lease.

    What workers announced says nothing: that of one which stopped looks alike for a while.
    """
    holder = redis.get(keys.LEASE)
    return [f"exporter {_text(holder)}"] if holder else []


def _pages(redis: Any, channels: Collection[str]) -> Iterator[list[Any]]:
    page: list[Any] = []
    for pattern in _PATTERNS:
        for found in redis.scan_iter(match=pattern, count=1000):
            key = _text(found)
            if key.startswith("celery_obs:") or _is_of(key, channels):
                page.append(found)
            if len(page) >= _PAGE:
                yield page
                page = []
    if page:
        yield page


def _is_of(key: str, channels: Collection[str]) -> bool:
    found = _OF_CHANNEL.fullmatch(key)
    if found is None:
        return False
    channel = next(part for part in found.groups() if part is not None)
    return channel in channels or (channel == _LIBRARY and key.startswith("rate_limit:"))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
