"""
What happens while Redis is away, or so slow that waiting for it would cost the tasks their time: no task waits for it again and again.

Breakers and limits fail open: the call goes through, and is counted.  The first that finds out waits for a time-out, or until its budget is spent;
after that, this process does not ask for a second or so.

In a Redis Cluster that holds for each node by itself: while one is away, the keys of the others are asked as ever.
"""

from __future__ import annotations

import threading
import time

from collections.abc import Callable
from typing import Any, Final, TypeVar

from celery_obs.clock import between
from celery_obs.state.connection import is_cluster, node_of

from .engine import Engine


__all__ = ["Outage", "RedisAwayError", "RedisSlowError"]


T = TypeVar("T")

_SHORTEST: Final = 1.0
_LONGEST: Final = 5.0

SLOW: Final = 0.1
"""
Seconds from which on an answer is a slow one, and spends from the budget.
"""

BUDGET: Final = 0.5
"""
Seconds that a thread waits for slow answers in `WINDOW` before Redis is left alone: a task waits for one answer more than that at most.
"""

WINDOW: Final = 5.0
"""
Seconds after which a thread has its whole budget again.
"""


class RedisAwayError(Exception):
    """
    Redis did not answer a moment ago, and is left alone for another.
    """


class RedisSlowError(OSError):
    """
    Redis answers, and so slowly that it is left alone for a while, as if it did not.
    """


_AWAY: Final = RedisAwayError(
    "Redis did not answer a moment ago, so it was not asked: the call went through without circuit breaker and rate limit."
)


class _Backoff:
    """
    Whether one server is left alone.
    """

    __slots__ = ("pause", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.pause = _SHORTEST


class Outage:
    """
    Whether Redis is worth asking; one a process, so that what one part found out spares the others.

    Every method takes the *key* that is asked for, which tells the node of a Redis Cluster.

    Threads: safe, for nothing here has to be exact.  Forks: a child goes on with what the parent knew.
    """

    def __init__(self, engine: Engine) -> None:
        self._hub = engine.hub
        self._one = _Backoff()
        self._nodes: dict[str, _Backoff] = {}
        self._cluster: Any = engine.redis if engine.redis is not None and is_cluster(engine.redis) else None
        self._spending = threading.local()
        self.errors: tuple[type[Exception], ...] = (OSError,)
        """
        What a client raises when Redis is away, or answers what it should not.
        """
        if engine.redis is not None:
            from redis.exceptions import RedisClusterException, RedisError

            self.errors = (RedisError, RedisClusterException, OSError)

    def _backoff_of(self, key: str) -> _Backoff:
        if self._cluster is None:
            return self._one
        node = node_of(self._cluster, key)
        if not node:
            return self._one
        return self._nodes.get(node) or self._nodes.setdefault(node, _Backoff())

    def is_on(self, component: str, key: str) -> bool:
        """
        Tell whether Redis should be left alone for now; that is counted, as the call goes through unguarded.
        """
        if not self.rests(key):
            return False
        self._hub.on_error(_AWAY, component=component)
        return True

    def rests(self, key: str = "") -> bool:
        """
        Tell whether Redis is left alone at the moment, for what no call depends on: that is not counted.
        """
        until = self._backoff_of(key).until
        return bool(until) and time.monotonic() < until

    def ask(self, component: str, key: str, question: Callable[[], T]) -> T | None:
        """
        Ask Redis, unless it is left alone; None where it did not answer, which is counted.
        """
        if self.is_on(component, key):
            return None
        since = time.monotonic()
        try:
            answer = question()
        except self.errors as error:
            self.began(error, component, key)
            return None
        self.ended(since, component, key)
        return answer

    def began(self, error: Exception, component: str, key: str) -> None:
        """
        Leave Redis alone for a while, longer each time.
        """
        backoff = self._backoff_of(key)
        # Not all processes come back in the same moment.
        backoff.until = time.monotonic() + backoff.pause * between(0.75, 1.25)
        backoff.pause = min(2 * backoff.pause, _LONGEST)
        self._hub.on_error(error, component=component)

    def ended(self, since: float, component: str, key: str) -> None:
        """
        Redis answered what it was asked at *since*, by `time.monotonic`; leave it alone for a while if this thread has waited for slow answers enough.
        """
        now = time.monotonic()
        if now - since >= SLOW:
            if self._is_spent(now - since, now):
                self.began(_slow(now - since), component, key)
            return
        backoff = self._backoff_of(key)
        if backoff.until:
            backoff.until = 0.0
            backoff.pause = _SHORTEST

    def go_on(self, since: float) -> None:
        """
        Raise what `began` is told if the answers to one question, asked at *since*, took the whole budget already: before the next round trip.

        Raises:
            RedisSlowError: then.
        """
        took = time.monotonic() - since
        if took >= BUDGET:
            raise _slow(took)

    def _is_spent(self, took: float, now: float) -> bool:
        mine = self._spending.__dict__
        until, spent = mine.get("budget", (0.0, 0.0))
        if now - took >= until:
            until, spent = now - took + WINDOW, 0.0
        spent += took
        mine["budget"] = (0.0, 0.0) if spent >= BUDGET else (until, spent)
        return bool(spent >= BUDGET)


def _slow(took: float) -> RedisSlowError:
    return RedisSlowError(
        f"Redis took {took:.2f} s to answer, so it is not asked for a moment: meanwhile calls go through without circuit breaker and rate limit. "
        f"Expected answers within {SLOW:g} s."
    )
