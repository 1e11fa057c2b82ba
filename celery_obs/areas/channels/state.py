"""
Which channels there are: those that were used, so that they need not be listed by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from celery_obs.clock import Clock, wall
from celery_obs.state import keys
from celery_obs.state.scripts import text


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Channels"]


_MOST: Final = 1000
"""
Channels that are remembered, those used last; names come from users' code, which may invent them.
"""

_LONGEST: Final = 512


class Channels:
    """
    Remember channels.

    Args:
        redis: A client; every method raises what it raises.

        clock: Tells the time.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis, *, clock: Clock = wall) -> None:
        self._redis = redis
        self._clock = clock

    def touch(self, names: Iterable[str]) -> None:
        """
        Say that channels are used now.  A name of more than 512 characters is not readable, and is left out.
        """
        now = self._clock()
        used = {name.encode("utf-8", "replace"): now for name in names if len(name) <= _LONGEST}
        if used:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.zadd(keys.CHANNELS, used)
                pipe.zremrangebyrank(keys.CHANNELS, 0, -_MOST - 1)
                pipe.execute()

    def known(self) -> tuple[str, ...]:
        """
        Return all that are known, in order of their names.
        """
        written: Any = self._redis.zrange(keys.CHANNELS, 0, -1)
        return tuple(sorted(map(text, written)))

    def has_any(self) -> bool:
        """
        Tell whether a channel is known.
        """
        return bool(self._redis.exists(keys.CHANNELS))

    def forget_unused(self, before: float) -> int:
        """
        Forget channels that were not used since *before*, in seconds since the epoch; return how many.
        """
        return int(self._redis.zremrangebyscore(keys.CHANNELS, "-inf", f"({before!r}"))
