"""
What happens while Redis is away: nobody waits for it again and again.

Breakers and limits fail open: the call goes through, and is counted.  The first that finds out waits for a time-out; after that, nobody in this
process asks for a second or so.
"""

from __future__ import annotations

import random
import time

from typing import Final

from .engine import Engine


__all__ = ["Outage", "RedisAwayError"]


_SHORTEST: Final = 1.0
_LONGEST: Final = 5.0


class RedisAwayError(Exception):
    """
    Redis did not answer a moment ago, and is left alone for another.
    """


_AWAY: Final = RedisAwayError(
    "Redis did not answer a moment ago, so it was not asked: the call went through without breaker and rate limit. Expected a Redis that answers."
)


class Outage:
    """
    Whether Redis is worth asking; one a process, so that what one part found out spares the others.

    Threads: safe, for nothing here has to be exact.  Forks: a child goes on with what the parent knew.
    """

    def __init__(self, engine: Engine) -> None:
        self._hub = engine.hub
        self._until = 0.0
        self._pause = _SHORTEST
        self.errors: tuple[type[Exception], ...] = (OSError,)
        """
        What a client raises when Redis is away, or answers what it should not.
        """
        if engine.redis is not None:
            from redis.exceptions import RedisClusterException, RedisError

            self.errors = (RedisError, RedisClusterException, OSError)

    def is_on(self, component: str) -> bool:
        """
        Tell whether Redis should be left alone for now; that is counted, as the call goes through unguarded.
        """
        if not self._until or time.monotonic() >= self._until:
            return False
        self._hub.on_error(_AWAY, component=component)
        return True

    def began(self, error: Exception, component: str) -> None:
        """
        Leave Redis alone for a while, longer each time.
        """
        # Not all processes come back in the same moment.
        self._until = time.monotonic() + self._pause * random.uniform(0.75, 1.25)  # noqa: S311 -- no secret.
        self._pause = min(2 * self._pause, _LONGEST)
        self._hub.on_error(error, component=component)

    def ended(self) -> None:
        """
        Redis answered.
        """
        if self._until:
            self._until = 0.0
            self._pause = _SHORTEST
