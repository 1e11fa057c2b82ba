"""
The rate limiter as application code uses it: never more calls in any stretch of time than the channel allows, by the whole cluster.

::

    rate_limiter.acquire("airbnb", connection_id, wait=5.0)
    push_prices()

Without Redis, or while it is away, every call goes through.  Nothing here raises but `RateLimitError`.
"""

from __future__ import annotations

import asyncio
import random
import time

from typing import Final

from celery_obs.state.rate_limits import RateLimits
from celery_obs.vocabulary.policies import limit_at, policy_of
from celery_obs.vocabulary.rate_limiter import RateLimitChecked, RateLimitWaited

from . import engine as engines
from .engine import Engine
from .errors import RateLimitError
from .outage import Outage


__all__ = ["acquire", "acquire_async"]


COMPONENT: Final = "rate_limiter"
_USE_EVERY: Final = 60.0
_MOST_USED: Final = 4096
_JITTER: Final = 0.1
_LEAST_JITTER: Final = 0.005
_LEAST_PAUSE: Final = 0.001


def acquire(channel: str, connection_id: str = "", *, wait: float = 0.0) -> None:
    """
    Take one of the calls that *channel* allows now.

    Args:
        channel: Whom to call.

        connection_id: Whose account, where each has its own limit.

        wait: Seconds to stand in line at most; where it is clear that they will not do, nobody waits.

    Raises:
        RateLimitError: if there is none; *retry_after* says when there may be one.

    Since 0.1.
    """
    limiter = engines.current().part(_Limiter)
    began, waited = time.monotonic(), 0.0
    while True:
        retry_after = limiter.ask(channel, connection_id)
        pause = limiter.pause(channel, retry_after, waited=waited, wait=wait)
        if pause is None:
            return
        time.sleep(pause)
        waited = time.monotonic() - began


async def acquire_async(channel: str, connection_id: str = "", *, wait: float = 0.0) -> None:
    """
    Take a call as `acquire` does; Redis is asked in a thread, and the event loop goes on.

    Raises:
        RateLimitError: if there is none.

    Since 0.1.
    """
    limiter = engines.current().part(_Limiter)
    began, waited = time.monotonic(), 0.0
    while True:
        retry_after = await asyncio.to_thread(limiter.ask, channel, connection_id)
        pause = limiter.pause(channel, retry_after, waited=waited, wait=wait)
        if pause is None:
            return
        await asyncio.sleep(pause)
        waited = time.monotonic() - began


class _Limiter:
    """
    The limits of one process.
    """

    def __init__(self, engine: Engine) -> None:
        self._hub = engine.hub
        self._channels = engine.settings.channels
        self._clock = engine.clock
        self._outage = engine.part(Outage)
        self._limits = RateLimits(engine.redis, self._channels, clock=engine.clock) if engine.redis is not None else None
        self._used: dict[tuple[str, str], float] = {}

    def ask(self, channel: str, connection_id: str) -> float:
        """
        Ask once; return the seconds until asking again may help, 0 when the call may be made.
        """
        every = policy_of(self._channels, channel).rate_limits
        limit = limit_at(every, self._clock()) if every else None
        if limit is None or self._limits is None or self._outage.is_on(COMPONENT):
            return 0.0
        counted = connection_id if limit.per == "connection" else ""
        try:
            found = self._limits.acquire(channel, counted, limit, every)
        except self._outage.errors as error:
            self._outage.began(error, COMPONENT)
            return 0.0
        self._outage.ended()
        if found.garbage:
            self._hub.on_error(_garbage(channel), component=COMPONENT)
        retry_after = found.retry_after
        self._hub.emit(RateLimitChecked(channel, counted, "denied" if retry_after else "allowed", retry_after))
        self._use(channel, counted)
        return retry_after

    def pause(self, channel: str, retry_after: float, *, waited: float, wait: float) -> float | None:
        """
        Return how long to wait before asking again; None where there is no need to.

        Raises:
            RateLimitError: if it is longer than the caller wants to wait.
        """
        left = wait - waited
        if retry_after and retry_after <= left:
            # Those who wait for the same moment come one after the other.
            jitter = random.uniform(0.0, max(_LEAST_JITTER, _JITTER * retry_after))  # noqa: S311 -- no secret.
            return max(_LEAST_PAUSE, min(retry_after + jitter, left))
        self._hub.emit(RateLimitWaited(channel, waited))
        if retry_after:
            raise _refusal(channel, retry_after, waited=waited)
        return None

    def _use(self, channel: str, connection_id: str) -> None:
        now = time.monotonic()
        pair = (channel, connection_id)
        if now < self._used.get(pair, 0.0) or self._limits is None:
            return
        if len(self._used) >= _MOST_USED:
            self._used.clear()
        self._used[pair] = now + _USE_EVERY
        try:
            self._limits.use([pair])
        except self._outage.errors as error:
            self._outage.began(error, COMPONENT)


def _refusal(channel: str, retry_after: float, *, waited: float) -> RateLimitError:
    stood = f" after {waited:.1f} s in line" if waited else ""
    message = f"The rate limit of {channel!r} has no call left{stood}. Expected one in {retry_after:.2f} s; try again then, or wait longer."
    return RateLimitError(message, channel=channel, retry_after=retry_after)


def _garbage(channel: str) -> ValueError:
    return ValueError(
        f"What lay under the rate limit's key of {channel!r} was no list of times, and has been deleted: counting starts anew. "
        "Expected that nobody writes there, and that Redis' clock is not set back."
    )
