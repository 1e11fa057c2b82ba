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

from typing import Any, Final, NamedTuple

from celery_obs.state.channels import Channels
from celery_obs.state.rate_limits import RateLimits, Taken, listed
from celery_obs.vocabulary.policies import ANY_CHANNEL, RateLimit, limits_at
from celery_obs.vocabulary.rate_limiter import RateLimitChecked, RateLimitWaited

from . import engine as engines
from .engine import Engine
from .errors import RateLimitError
from .outage import Outage


__all__ = ["acquire", "acquire_async", "check", "limits_storage"]


COMPONENT: Final = "rate_limiter"
_USE_EVERY: Final = 60.0
_MOST_USED: Final = 10_000
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
    began = time.monotonic()
    while True:
        retry_after = limiter.ask(channel, connection_id)
        pause = limiter.pause(channel, retry_after, waited=time.monotonic() - began, wait=wait)
        if pause is None:
            return
        time.sleep(pause)


async def acquire_async(channel: str, connection_id: str = "", *, wait: float = 0.0) -> None:
    """
    Take a call as `acquire` does; Redis is asked in a thread, and the event loop goes on.

    Raises:
        RateLimitError: if there is none.

    Since 0.1.
    """
    limiter = engines.current().part(_Limiter)
    began = time.monotonic()
    while True:
        retry_after = await asyncio.to_thread(limiter.ask, channel, connection_id)
        pause = limiter.pause(channel, retry_after, waited=time.monotonic() - began, wait=wait)
        if pause is None:
            return
        await asyncio.sleep(pause)


def check(channel: str, connection_id: str = "") -> float:
    """
    Return the seconds until *channel* may be called, 0 where it may be now.  Nothing is taken: somebody else may be quicker.

    Since 0.1.
    """
    return engines.current().part(_Limiter).look(channel, connection_id) or 0.0


def limits_storage() -> Any:
    """
    Return a storage for the library `limits`, for its `MovingWindowRateLimiter`: as exact as our own limits, on whatever Redis is configured.

    Raises:
        ConfigurationError: if none is.

    Since 0.1.
    """
    from celery_obs.exceptions import ConfigurationError
    from celery_obs.state.limits_storage import RedisTimeStorage

    redis = engines.current().redis
    if redis is None:
        message = "A storage for the library limits was asked for, and no Redis is configured. Expected the setting redis_url."
        raise ConfigurationError(message)
    return RedisTimeStorage(redis)


class _Lists(NamedTuple):
    """
    The limits of a channel, by whose calls they count.

    Attributes:
        configured_as: The name under which the settings have them.

        every: All of them.

        own: A connection's.

        shared: The whole channel's.

        nobodys: Those of a call that names no connection.
    """

    configured_as: str
    every: tuple[RateLimit, ...]
    own: tuple[RateLimit, ...]
    shared: tuple[RateLimit, ...]
    nobodys: tuple[RateLimit, ...]


_NO_LISTS: Final = _Lists(ANY_CHANNEL, (), (), (), ())


class _Limiter:
    """
    The limits of one process.
    """

    def __init__(self, engine: Engine) -> None:
        self._hub = engine.hub
        self._clock = engine.clock
        self._outage = engine.part(Outage)
        self._known = Channels(engine.redis, clock=engine.clock) if engine.redis is not None else None
        self._limits = RateLimits(engine.redis, clock=engine.clock) if engine.redis is not None else None
        self._lists = {name: _lists(name, policy.rate_limits) for name, policy in engine.settings.channels.items()}
        self._others = self._lists.get(ANY_CHANNEL, _NO_LISTS)
        self._used: dict[tuple[str, str], float] = {}

    # -- asking -------------------------------------------------------------------------------------------------------

    def ask(self, channel: str, connection_id: str) -> float | None:
        """
        Ask for a call; return the seconds until asking again may help, 0 when it may be made, and None where nothing limits it.
        """
        lists = self._lists.get(channel, self._others)
        if not lists.every or self._limits is None:
            return None
        return self._answered(channel, connection_id, lists, self._take)

    def look(self, channel: str, connection_id: str) -> float | None:
        """
        Tell what `ask` would say, and take nothing.
        """
        lists = self._lists.get(channel, self._others)
        if not lists.every or self._limits is None:
            return None
        return self._answered(channel, connection_id, lists, self._peek)

    def _answered(self, channel: str, connection_id: str, lists: _Lists, question: Any) -> float | None:
        asked = self._asked(connection_id, lists)
        if not asked or self._outage.is_on(COMPONENT):
            return None
        since = time.monotonic()
        try:
            found: Taken = question(channel, asked, lists)
        except self._outage.errors as error:
            self._outage.began(error, COMPONENT)
            return None
        self._outage.ended(since, COMPONENT)
        self._use(channel, asked, lists)
        if found.garbage:
            self._hub.on_error(_garbage(channel), component=COMPONENT)
        retry_after = found.retry_after
        self._hub.emit(RateLimitChecked(channel, asked[0][0], "denied" if retry_after else "allowed", retry_after))
        return retry_after

    def _asked(self, connection_id: str, lists: _Lists) -> list[tuple[str, tuple[RateLimit, ...]]]:
        """
        Return the lists that count this call, by their connection, with the limits that hold now.
        """
        now = self._clock()
        sides = ((connection_id, lists.own), ("", lists.shared)) if connection_id else (("", lists.nobodys),)
        return [(name, held) for name, limits in sides if limits and (held := limits_at(limits, now))]

    def _take(self, channel: str, asked: list[tuple[str, tuple[RateLimit, ...]]], lists: _Lists) -> Taken:
        """
        Take a call from every list, or from none.

        They lie on several nodes of a cluster, so that it is one after the other: whoever is refused by the channel's gives its connection's call
        back.  In between, the connection has one call less than it may have, and never one more.
        """
        assert self._limits is not None  # noqa: S101 -- whoever asks has seen to it.
        taken: list[tuple[str, Taken]] = []
        since = time.monotonic()
        for connection_id, held in asked:
            if taken:
                self._outage.go_on(since)
            found = self._limits.take(channel, connection_id, held, lists.every)
            if found.retry_after:
                for given, back in taken:
                    self._give_back(channel, given, back)
                return found
            taken.append((connection_id, found))
        return taken[-1][1]

    def _give_back(self, channel: str, connection_id: str, taken: Taken) -> None:
        assert self._limits is not None  # noqa: S101 -- as above.
        try:
            self._limits.give_back(channel, connection_id, taken)
        except self._outage.errors as error:
            # It goes by itself with its window; a refusal stays one.
            self._outage.began(error, COMPONENT)

    def _peek(self, channel: str, asked: list[tuple[str, tuple[RateLimit, ...]]], lists: _Lists) -> Taken:
        assert self._limits is not None  # noqa: S101 -- as above.
        return max(self._limits.peek(channel, connection_id, held) for connection_id, held in asked)

    # -- around it ----------------------------------------------------------------------------------------------------

    def pause(self, channel: str, retry_after: float | None, *, waited: float, wait: float) -> float | None:
        """
        Return how long to wait before asking again; None where there is no need to.

        Raises:
            RateLimitError: if it is longer than the caller wants to wait.
        """
        if retry_after is None:
            return None
        left = wait - waited
        if retry_after and retry_after <= left:
            # Those who wait for the same moment come one after the other.
            jitter = random.uniform(0.0, max(_LEAST_JITTER, _JITTER * retry_after))  # noqa: S311 -- no secret.
            return max(_LEAST_PAUSE, min(retry_after + jitter, left))
        self._hub.emit(RateLimitWaited(channel, waited if waited > _LEAST_PAUSE and wait > 0 else 0.0))
        if retry_after:
            raise _refusal(channel, retry_after, waited=waited, wait=wait)
        return None

    def _use(self, channel: str, asked: list[tuple[str, tuple[RateLimit, ...]]], lists: _Lists) -> None:
        """
        Make known, once a minute, that these ask.
        """
        now = time.monotonic()
        for connection_id, _ in asked:
            if now < self._used.get((channel, connection_id), 0.0) or self._limits is None or self._known is None or self._outage.rests():
                continue
            if len(self._used) >= _MOST_USED:
                self._used.clear()
            self._used[channel, connection_id] = now + _USE_EVERY
            try:
                self._limits.use(channel, connection_id, lists.every, configured_as=lists.configured_as)
                self._outage.go_on(now)
                self._known.touch([channel])
                self._outage.ended(now, COMPONENT)
            except self._outage.errors as error:
                # It is for the exporter; the answer stands.
                self._outage.began(error, COMPONENT)


def _lists(configured_as: str, every: tuple[RateLimit, ...]) -> _Lists:
    own, shared = (tuple(limit for limit in every if limit.per == per) for per in ("connection", "channel"))
    return _Lists(configured_as, every, own, shared, listed(every, ""))


def _refusal(channel: str, retry_after: float, *, waited: float, wait: float) -> RateLimitError:
    stood = f" after {waited:.1f} s in line" if waited > _LEAST_PAUSE and wait > 0 else ""
    message = (
        f"The rate limit of {channel!r:.200} has no call left{stood}. Expected one in {retry_after:.2f} s; try again then, or wait longer."
    )
    return RateLimitError(message, channel=channel, retry_after=retry_after)


def _garbage(channel: str) -> ValueError:
    return ValueError(
        f"What lay under the rate limit's key of {channel!r:.200} was no list of times, and has been deleted: counting starts anew. "
        "Expected that nobody writes there."
    )
