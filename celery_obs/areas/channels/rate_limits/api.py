"""
The rate limiter as application code uses it: never more calls in any stretch of time than the channel allows, by the whole cluster.

::

    rate_limiter.acquire("airbnb", connection_id, wait=5.0)
    push_prices()

What the channel itself says of its limits, in the headers of its answers, is passed to `learn`, and respected by the whole cluster.

Without Redis, or while it is away, every call goes through.  Nothing here raises but `LimitReachedError`, and `ValueError` for an impossible cost.
"""

from __future__ import annotations

import asyncio
import math
import time

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.engine import Engine
from celery_obs.areas.channels.errors import LimitReachedError
from celery_obs.areas.channels.outage import Outage
from celery_obs.areas.channels.policies import ANY_CHANNEL, RateLimit, limits_at, policy_of
from celery_obs.areas.channels.state import Channels
from celery_obs.clock import between
from celery_obs.state import keys

from .events import RateLimitChecked, RateLimitWaited
from .state import RateLimits, Taken, listed, spaced


if TYPE_CHECKING:
    from typing import TypeGuard


__all__ = ["acquire", "acquire_async", "check", "learn", "limits_storage"]


COMPONENT: Final = "rate_limiter"
_USE_EVERY: Final = 60.0
_MOST_USED: Final = 10_000
_JITTER: Final = 0.1
_LEAST_JITTER: Final = 0.005
_LEAST_PAUSE: Final = 0.001
_MOST_ADVERTISED: Final = 100
_SPACED: Final = 1.01
"""
How much farther apart those come again who were refused than the limit demands: they are not all equally late.
"""

_LONGEST_ADVERTISED: Final = 86_400.0


def acquire(channel: str, connection_id: str = "", *, wait: float = 0.0, cost: int = 1) -> None:
    """
    Take one of the calls that *channel* allows now.

    Args:
        channel: The channel to call.

        connection_id: The connection, where each has its own limit.

        wait: Seconds to wait at most; a call that cannot get its turn in that time is refused at once.

        cost: Calls that this one counts as, where the channel counts some for several.

    Raises:
        LimitReachedError: if none is left, which is a `RateLimitError`; *retry_after* says when there may be one.

        ValueError: if *cost* is more than a limit ever allows at once.

    Since 0.1.
    """
    limiter = engines.current().part(_Limiter)
    began = time.monotonic()
    while True:
        asked = limiter.ask(channel, connection_id, cost)
        pause = limiter.pause(channel, asked, waited=time.monotonic() - began, wait=wait)
        if pause is None:
            return
        time.sleep(pause)


async def acquire_async(channel: str, connection_id: str = "", *, wait: float = 0.0, cost: int = 1) -> None:
    """
    Take a call as `acquire` does; Redis is asked in a thread, and the event loop goes on.

    Raises:
        LimitReachedError: if there is none.

        ValueError: if *cost* is more than a limit ever allows at once.

    Since 0.1.
    """
    limiter = engines.current().part(_Limiter)
    began = time.monotonic()
    while True:
        asked = await asyncio.to_thread(limiter.ask, channel, connection_id, cost)
        pause = limiter.pause(channel, asked, waited=time.monotonic() - began, wait=wait)
        if pause is None:
            return
        await asyncio.sleep(pause)


def check(channel: str, connection_id: str = "", *, cost: int = 1) -> float:
    """
    Return the seconds until *channel* may be called, 0 where it may be now.  Nothing is taken: another caller may be quicker.

    Since 0.1.
    """
    found = engines.current().part(_Limiter).look(channel, connection_id, cost)
    return 0.0 if found is None else found.retry_after


def learn(
    channel: str,
    connection_id: str = "",
    *,
    remaining: int | None = None,
    reset_after: float | None = None,
    retry_after: float | None = None,
) -> None:
    """
    Take note of the limits in an answer of *channel*, so that the whole cluster respects them.

    Args:
        channel: The channel that answered.

        connection_id: The connection that the call was about.

        remaining: Calls left, as it said.

        reset_after: Seconds until there are new ones; without it *remaining* says nothing.

        retry_after: Seconds for which it wants no call.

    Invalid values, and more than a hundred remaining calls, change nothing.  Never raises.

    Since 0.1.
    """
    engines.current().part(_Limiter).learn(channel, connection_id, remaining=remaining, reset_after=reset_after, retry_after=retry_after)


def limits_storage() -> Any:
    """
    Return a storage for the library `limits`, for its `MovingWindowRateLimiter`: as exact as our own limits, on whatever Redis is configured.

    Raises:
        ConfigurationError: if none is.

        MissingExtraError: if limits is not installed.

    Since 0.1.
    """
    from celery_obs.exceptions import ConfigurationError, MissingExtraError

    try:
        from .limits_storage import RedisTimeStorage
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "limits":
            raise
        feature = "A storage for the library limits"
        raise MissingExtraError(feature, extra="limits") from error

    redis = engines.current().redis
    if redis is None:
        message = "A storage for the library limits was asked for, and no Redis is configured. Expected the setting redis_url."
        raise ConfigurationError(message)
    return RedisTimeStorage(redis)


class _Asked(NamedTuple):
    """
    What came of asking.

    Attributes:
        retry_after: Seconds until asking again may help; 0 when the call may be made.

        line: Name of the line in which those stand whom the same limit refused.

        spacing: Seconds between two calls that it allows.
    """

    retry_after: float
    line: str
    spacing: float


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


_Sides: TypeAlias = tuple[tuple[str, tuple[RateLimit, ...]], ...]
"""
The lists that count a call, by their connection, each with the limits that hold now.
"""

_NO_LISTS: Final = _Lists(ANY_CHANNEL, (), (), (), ())


class _Limiter:
    """
    The limits of one process.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._hub = engine.hub
        self._clock = engine.clock
        self._channels = engine.settings.channels
        self._outage = engine.part(Outage)
        self._known = Channels(engine.redis, clock=engine.clock) if engine.redis is not None else None
        self._limits = RateLimits(engine.redis, clock=engine.clock) if engine.redis is not None else None
        self._lists = {name: _lists(name, policy.rate_limits) for name, policy in engine.settings.channels.items()}
        self._others = self._lists.get(ANY_CHANNEL, _NO_LISTS)
        self._used: dict[tuple[str, str], float] = {}

    # -- asking -------------------------------------------------------------------------------------------------------

    def ask(self, channel: str, connection_id: str, cost: int = 1) -> _Asked | None:
        """
        Ask for a call; None where nothing limits it.
        """
        lists = self._lists.get(channel, self._others)
        if self._limits is None:
            return None
        if not lists.every:
            return self._ask_advertised(channel)
        return self._answered(channel, connection_id, lists, self._take, cost)

    def look(self, channel: str, connection_id: str, cost: int = 1) -> _Asked | None:
        """
        Tell what `ask` would say, and take nothing.
        """
        lists = self._lists.get(channel, self._others)
        if not lists.every or self._limits is None:
            return None
        return self._answered(channel, connection_id, lists, self._peek, cost)

    def _answered(self, channel: str, connection_id: str, lists: _Lists, question: Any, cost: int) -> _Asked | None:
        sides = self._sides(connection_id, lists)
        if not sides:
            return None
        if cost != 1:
            _check_cost(channel, cost, sides)
        key = keys.rate_limit(channel, sides[0][0])
        found: Taken | None = self._outage.ask(COMPONENT, key, lambda: question(channel, sides, lists, cost))
        if found is None:
            return None
        self._use(channel, sides, lists)
        if found.garbage:
            self._hub.on_error(_garbage(channel), component=COMPONENT)
        retry_after = found.retry_after
        self._hub.emit(RateLimitChecked(channel, sides[0][0], "denied" if retry_after else "allowed", retry_after))
        refused_by, limits = sides[found.refused_by]
        return _Asked(retry_after, f"limit:{channel}:{refused_by}", cost * _SPACED * max((spaced(each) for each in limits), default=0.0))

    def _sides(self, connection_id: str, lists: _Lists) -> _Sides:
        """
        Return the lists that count this call, by their connection, with the limits that hold now.
        """
        now = self._clock()
        sides = ((connection_id, lists.own), ("", lists.shared)) if connection_id else (("", lists.nobodys),)
        return tuple((name, held) for name, limits in sides if limits and (held := limits_at(limits, now)))

    def _take(self, channel: str, asked: _Sides, lists: _Lists, cost: int) -> Taken:
        """
        Take a call from every list, or from none.

        In a Redis Cluster they lie on several nodes, so that it is one after the other: a call that is refused by the channel's gives its connection's call
        back.  In between, the connection has one call less than it may have, and never one more.
        """
        assert self._limits is not None  # noqa: S101 -- the caller has checked it.
        if self._limits.takes_together:
            return self._limits.take_all(channel, asked, lists.every, cost=cost)
        taken: list[tuple[str, tuple[RateLimit, ...], Taken]] = []
        since = time.monotonic()
        for place, (connection_id, held) in enumerate(asked):
            if taken:
                self._outage.go_on(since)
            found = self._limits.take(channel, connection_id, held, lists.every, cost=cost)
            if found.retry_after:
                for given in taken:
                    self._give_back(channel, *given, cost)
                return found._replace(refused_by=place)
            taken.append((connection_id, held, found))
        return taken[-1][2]

    def _give_back(self, channel: str, connection_id: str, held: tuple[RateLimit, ...], taken: Taken, cost: int) -> None:
        assert self._limits is not None  # noqa: S101 -- as above.
        try:
            self._limits.give_back(channel, connection_id, taken, limits=held, cost=cost)
        except self._outage.errors as error:
            # It goes by itself with its window; a refusal stays one.
            self._outage.began(error, COMPONENT, keys.rate_limit(channel, connection_id))

    def _peek(self, channel: str, asked: _Sides, lists: _Lists, cost: int) -> Taken:
        assert self._limits is not None  # noqa: S101 -- as above.
        return max(self._limits.peek(channel, connection_id, held, cost=cost) for connection_id, held in asked)

    # -- what the channel itself says ---------------------------------------------------------------------------------

    def learn(
        self, channel: str, connection_id: str, *, remaining: int | None, reset_after: float | None, retry_after: float | None
    ) -> None:
        """
        Keep what the channel said where the next call is asked for anyway: beside its limits, or at its breaker.
        """
        policy = policy_of(self._channels, channel)
        advertised = _advertised(remaining, reset_after, retry_after)
        if advertised is None or self._limits is None or policy.told_limits == "off":
            return
        left, seconds = advertised
        lists = self._lists.get(channel, self._others)
        if not lists.every and policy.breaker is not None:
            self._engine.part(circuit_breaker.Guardian).tell(channel, left=left, seconds=seconds)
            return
        by_connection = policy.told_limits == "connection" or (policy.told_limits == "auto" and bool(lists.own))
        about = connection_id if by_connection and lists.own else ""
        limits = self._limits
        garbage = self._outage.ask(
            COMPONENT, keys.rate_limit(channel, about), lambda: limits.learn(channel, about, left=left, seconds=seconds)
        )
        if garbage:
            self._hub.on_error(_garbage(channel), component=COMPONENT)

    def _ask_advertised(self, channel: str) -> _Asked | None:
        """
        Ask what a channel said that has no limits of ours: its breaker knows, so that Redis is asked here only where it has none.
        """
        policy = policy_of(self._channels, channel)
        if policy.breaker is not None or policy.told_limits == "off":
            return None
        limits = self._limits
        assert limits is not None  # noqa: S101 -- asked by the only caller.
        found = self._outage.ask(
            COMPONENT, keys.rate_limit(channel), lambda: None if limits.has_no_advertised_limit(channel) else limits.take(channel, "", ())
        )
        if found is None:
            return None
        if found.retry_after:
            self._hub.emit(RateLimitChecked(channel, "", "denied", found.retry_after))
        return _Asked(found.retry_after, f"told:{channel}", circuit_breaker.ADVERTISED_SPACING)

    # -- around it ----------------------------------------------------------------------------------------------------

    def pause(self, channel: str, asked: _Asked | None, *, waited: float, wait: float) -> float | None:
        """
        Return how long to wait before asking again; None where there is no need to.

        Raises:
            LimitReachedError: if it is longer than the caller wants to wait.
        """
        if asked is None:
            return None
        retry_after = asked.retry_after
        left = wait - waited
        if retry_after and retry_after <= left:
            # Those who wait for the same moment come one after the other.
            jitter = between(0.0, max(_LEAST_JITTER, _JITTER * retry_after))
            return max(_LEAST_PAUSE, min(retry_after + jitter, left))
        self._hub.emit(RateLimitWaited(channel, waited if waited > _LEAST_PAUSE and wait > 0 else 0.0))
        if retry_after:
            raise _refusal(channel, asked, waited=waited, wait=wait)
        return None

    def _use(self, channel: str, asked: _Sides, lists: _Lists) -> None:
        """
        Make known, once a minute, that these ask.
        """
        now = time.monotonic()
        for connection_id, _ in asked:
            if (
                now < self._used.get((channel, connection_id), 0.0)
                or self._limits is None
                or self._known is None
                or self._outage.rests(keys.LIMITED)
            ):
                continue
            if len(self._used) >= _MOST_USED:
                self._used.clear()
            self._used[channel, connection_id] = now + _USE_EVERY
            try:
                self._limits.use(channel, connection_id, lists.every, configured_as=lists.configured_as)
                self._outage.go_on(now)
                self._known.touch([channel])
                self._outage.ended(now, COMPONENT, keys.LIMITED)
            except self._outage.errors as error:
                # It is for the exporter; the answer stands.
                self._outage.began(error, COMPONENT, keys.LIMITED)


def _lists(configured_as: str, every: tuple[RateLimit, ...]) -> _Lists:
    own, shared = (tuple(limit for limit in every if limit.per == per) for per in ("connection", "channel"))
    return _Lists(configured_as, every, own, shared, listed(every, ""))


def _check_cost(channel: str, cost: int, sides: _Sides) -> None:
    least = min((limit.most for _, limits in sides for limit in limits), default=0)
    if type(cost) is not int or not 1 <= cost <= least:
        message = (
            f"A call of {channel!r:.200} that costs {cost!r} was asked for. "
            f"Expected a whole number from 1 to {least}, which is what its limit allows at once."
        )
        raise ValueError(message)


def _advertised(remaining: int | None, reset_after: float | None, retry_after: float | None) -> tuple[int, float] | None:
    """
    Return what to heed: calls that are left, and for how many seconds; None where there is nothing.
    """
    if _is_time(retry_after):
        return 0, min(retry_after, _LONGEST_ADVERTISED)
    if type(remaining) is int and remaining <= _MOST_ADVERTISED and _is_time(reset_after):
        return max(0, remaining), min(reset_after, _LONGEST_ADVERTISED)
    return None


def _is_time(value: float | None) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _refusal(channel: str, asked: _Asked, *, waited: float, wait: float) -> LimitReachedError:
    stood = f" after a wait of {waited:.1f} s" if waited > _LEAST_PAUSE and wait > 0 else ""
    message = (
        f"The rate limit of {channel!r:.200} has no call left{stood}. "
        f"Expected one in {asked.retry_after:.2f} s; try again then, or wait longer."
    )
    return LimitReachedError(message, channel=channel, retry_after=asked.retry_after, line=asked.line, spacing=asked.spacing)


def _garbage(channel: str) -> ValueError:
    return ValueError(f"Deleted malformed rate-limit data for {channel!r:.200}: counting starts anew. Do not write to its keys in Redis.")
