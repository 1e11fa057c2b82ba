"""
Is a channel paused?  Asked before every sync task, so the answer is kept for a second, and nobody waits for a Redis that is away.
"""

from __future__ import annotations

import threading
import time

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from celery_obs.state.pauses import Pauses

from . import engine
from .engine import Engine


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["PauseCheck", "is_paused"]


_GOOD_FOR: Final = 1.0
_BACK_OFF: Final = 5.0
_MOST: Final = 10_000


def is_paused(channel: str) -> bool:
    """
    Tell whether somebody paused *channel*, as it was at most a second ago.

    Without a Redis, and while it does not answer, nothing is paused.
    """
    found = engine.current()
    return found.redis is not None and found.part(_check).is_paused(channel)


def _check(found: Engine) -> PauseCheck:
    assert found.redis is not None  # noqa: S101 -- asked by the only caller.
    return PauseCheck(found.redis, on_error=lambda exc: found.hub.on_error(exc, component="sync.pauses"))


class PauseCheck:
    """
    Ask Redis, and remember what it said.

    Args:
        redis: A client with short timeouts: one of them is the longest that anybody waits here, once in some seconds.

        on_error: Hears when Redis does not answer.

    Threads: safe; while one asks, the others take the answer before.  Forks: safe, see `after_fork`.
    """

    def __init__(self, redis: Redis, *, on_error: Callable[[Exception], object]) -> None:
        self._pauses = Pauses(redis)
        self._on_error = on_error
        self._known: dict[str, tuple[float, bool]] = {}
        self._silent_until = 0.0
        self._asking = threading.Lock()

    def after_fork(self) -> None:
        """
        Become usable in a child, whatever other threads of the parent were doing.
        """
        self._asking = threading.Lock()

    def is_paused(self, channel: str) -> bool:
        """
        Tell whether *channel* is paused.
        """
        now = time.monotonic()
        if now < self._silent_until:
            return False
        asked, answer = self._known.get(channel, (-_GOOD_FOR, False))
        if now - asked < _GOOD_FOR:
            return answer
        asking = self._asking
        if not asking.acquire(blocking=False):
            return answer
        try:
            return self._ask(channel)
        finally:
            asking.release()

    def _ask(self, channel: str) -> bool:
        from redis.exceptions import RedisError

        try:
            answer = self._pauses.is_paused(channel)
        except (RedisError, OSError) as exc:
            self._silent_until = time.monotonic() + _BACK_OFF
            self._on_error(exc)
            return False
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[channel] = (time.monotonic(), answer)
        return answer
