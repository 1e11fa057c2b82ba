"""
Our moving window as a storage of the library `limits`, for those who use that library with strategies and limits of their own.
"""

from __future__ import annotations

import time

from typing import TYPE_CHECKING, Any, Final

from limits.storage import MovingWindowSupport, Storage

from .state import RateLimits


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["RedisTimeStorage"]


_PREFIX: Final = "rate_limit:limits"


class RedisTimeStorage(Storage, MovingWindowSupport):
    """
    A storage whose clock is Redis'.

    Args:
        redis: A client of any kind of Redis.

    It knows moving windows only; the library's other strategies refuse it.
    """

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self._redis = redis
        self._limits = RateLimits(redis)

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """
        What the client raises.
        """
        from redis.exceptions import RedisError

        return RedisError

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """
        Ask for *amount* calls.
        """
        return self._limits.take_at(_key(key), limit, expiry, amount).retry_after == 0

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """
        Return when the window began, and how many calls it holds.
        """
        count, oldest = self._limits.window_at(_key(key), expiry)
        return (oldest, count) if count else (time.time(), 0)

    def get(self, key: str) -> int:
        """
        Return how many calls are remembered.
        """
        found: Any = self._redis.llen(_key(key))
        return int(found)

    def get_expiry(self, key: str) -> float:
        """
        Return when the last call will have left the window.
        """
        left: Any = self._redis.pttl(_key(key))
        return time.time() + max(0, int(left)) / 1000

    def clear(self, key: str) -> None:
        """
        Forget all calls.
        """
        self._redis.delete(_key(key))

    def check(self) -> bool:
        """
        Tell whether Redis answers.
        """
        try:
            return bool(self._redis.ping())
        except self.base_exceptions:
            return False

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """
        Refuse: fixed windows are the library's own business.
        """
        message = "This storage knows moving windows only. Expected limits.strategies.MovingWindowRateLimiter."
        raise NotImplementedError(message)

    def reset(self) -> int | None:
        """
        Refuse: it would have to look at every key of Redis.
        """
        message = "This storage does not remove all keys. Expected clear() with a limit and its identifiers."
        raise NotImplementedError(message)


def _key(key: str) -> str:
    return f"{_PREFIX}:{key}"
