"""
The rate limits of all channels, in Redis: for each, the times of its last calls, newest first, as many as the limit.

The times are Redis' own, taken inside the script: the moving window of the library `limits` compares clocks of clients, and one that is ahead
gets more than the limit.  A limit that changes with the hour goes on with the same list, so that a stretch of time across the change holds no more
than the smaller one allows.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.clock import Clock, wall
from celery_obs.vocabulary.policies import ChannelPolicy, RateLimit, limit_at, policy_of

from . import keys
from .scripts import TIME, Call, Script, Scripts, call, text


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Acquired", "Count", "RateLimits", "limits_storage"]


class Acquired(NamedTuple):
    """
    What came of asking.

    Attributes:
        retry_after: Seconds until asking again may help; 0 where the call may be made.

        garbage: Whether what lay in the key was no list of times and has been deleted.
    """

    retry_after: float
    garbage: bool = False


class Count(NamedTuple):
    """
    How much of a limit is used.

    Attributes:
        used: Calls in the window.

        most: Calls that it may hold; 0 where nothing is limited at this hour.
    """

    used: int
    most: int


_MICRO: Final = 1_000_000
_MOST_PACKED: Final = 4096
_MOST_PAIRS: Final = 10_000
_USED_FOR: Final = 3600.0
_EXPORTED_FOR: Final = 300
_SCANNED: Final = 1000

_NEWEST: Final = """
local key = KEYS[1]
local garbage = 0
local function at(index)
  local found = redis.pcall('LINDEX', key, index)
  if found and type(found) == 'table' and found.err then
    if not string.find(found.err, 'WRONGTYPE', 1, true) then error(found.err) end
    return 0 / 0
  end
  return found and (tonumber(found) or 0 / 0)
end
local function sound(found)
  return not found or (found > 0 and found < 9e15)
end
"""

_ACQUIRE: Final = """
local limit, window, amount, most, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if amount > limit then return -window end
local newest, oldest = at(0), at(limit - amount)
-- A time so far ahead is no time of ours, or the clock was set back; a bit ahead, time stands still until the clock is there.
if not sound(newest) or not sound(oldest) or newest and newest > now + longest then
  redis.call('DEL', key)
  newest, oldest, garbage = false, false, 1
end
if newest and newest > now then now = newest end
if oldest and oldest >= now - window then return math.min(-1, now - window - oldest - 1) end
for _ = 1, amount do redis.call('LPUSH', key, now) end
redis.call('LTRIM', key, 0, most - 1)
redis.call('PEXPIRE', key, math.ceil(longest / 1000) + 1)
return garbage
"""

_COUNT: Final = """
local window = tonumber(ARGV[1])
local newest = at(0)
if not newest or not sound(newest) then return {0, 0} end
if newest > now then now = newest end
local low, high = 0, redis.call('LLEN', key)
while low < high do
  local middle = math.floor((low + high) / 2)
  local found = at(middle)
  if found and found >= now - window then low = middle + 1 else high = middle end
end
return {low, low > 0 and at(low - 1) or 0}
"""


class RateLimits:
    """
    Ask the limits, and look at them.

    Args:
        redis: A client; every method raises what it raises.

        channels: The policies; for `counts` and `export`.

        clock: Tells the time of day.

        now: Lua that lets *now* be microseconds; tests have their own.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis, channels: Mapping[str, ChannelPolicy] | None = None, *, clock: Clock = wall, now: str = TIME) -> None:
        self._redis = redis
        self._channels = channels or {}
        self._clock = clock
        self._scripts = Scripts(redis)
        self._acquire = Script(now + _NEWEST + _ACQUIRE)
        self._count = Script(now + _NEWEST + _COUNT)
        self._packed: dict[tuple[str, str, RateLimit], Call] = {}

    # -- for those who call -------------------------------------------------------------------------------------------

    def acquire(self, channel: str, connection_id: str, limit: RateLimit, limits: Iterable[RateLimit] = ()) -> Acquired:
        """
        Ask for one call.

        Args:
            channel: Whom to call.

            connection_id: Whose account; empty for the channel's own.

            limit: What holds now.

            limits: All that hold at some hour, so that the list is as long as the widest needs it.
        """
        wanted = self._packed.get((channel, connection_id, limit))
        if wanted is None:
            every = (limit, *limits)
            most, longest = max(each.requests for each in every), max(each.seconds for each in every)
            wanted = self._call(
                keys.rate_limit(channel, connection_id), limit.requests, limit.seconds, amount=1, most=most, longest=longest
            )
            if len(self._packed) >= _MOST_PACKED:
                self._packed.clear()
            self._packed[channel, connection_id, limit] = wanted
        return _acquired(self._scripts.run(wanted))

    def acquire_entry(self, key: str, limit: int, seconds: float, amount: int) -> Acquired:
        """
        Ask for *amount* calls at once, under a key of one's own.
        """
        return _acquired(self._scripts.run(self._call(key, limit, seconds, amount=amount, most=limit, longest=seconds)))

    def _call(self, key: str, limit: int, seconds: float, *, amount: int, most: int, longest: float) -> Call:
        return call(self._acquire, key, limit, round(seconds * _MICRO), amount, most, round(longest * _MICRO))

    def use(self, pairs: Iterable[tuple[str, str]]) -> None:
        """
        Say that these channels and connections ask now, so that `export` looks at them.
        """
        now = self._clock()
        used = {_member(channel, connection): now for channel, connection in pairs}
        if used:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.zadd(keys.LIMITED, used)
                pipe.zremrangebyrank(keys.LIMITED, 0, -_MOST_PAIRS - 1)
                pipe.expire(keys.LIMITED, int(_USED_FOR))
                pipe.execute()

    # -- for those who look and operate -------------------------------------------------------------------------------

    def used(self) -> tuple[tuple[str, str], ...]:
        """
        Return the channels and connections that asked within the last hour.
        """
        written: Any = self._redis.zrangebyscore(keys.LIMITED, self._clock() - _USED_FOR, "+inf")
        return tuple(pair for pair in map(_pair, written) if pair is not None)

    def counts(self, pairs: Iterable[tuple[str, str]] | None = None) -> Mapping[tuple[str, str], Count]:
        """
        Return how much of their limits *pairs* of channel and connection use now, in one round trip; those that asked of late, by default.
        """
        asked = list(dict.fromkeys(self.used() if pairs is None else pairs))
        now = self._clock()
        limits = [limit_at(policy_of(self._channels, channel).rate_limits, now) for channel, _ in asked]
        if not asked:
            return {}
        with self._redis.pipeline(transaction=False) as pipe:
            for (channel, connection), limit in zip(asked, limits, strict=True):
                window = round(limit.seconds * _MICRO) if limit else 0
                pipe.execute_command("EVAL", self._count.lua, 1, keys.rate_limit(channel, connection), window)
            answers = pipe.execute()
        return {
            pair: Count(answer[0] if limit else 0, limit.requests if limit else 0)
            for pair, limit, answer in zip(asked, limits, answers, strict=True)
        }

    def window(self, key: str, seconds: float) -> tuple[int, float]:
        """
        Return how many calls a window under a key of one's own holds, and when the first of them was, in seconds since the epoch.
        """
        count, oldest = self._scripts.run(call(self._count, key, round(seconds * _MICRO)))
        return count, oldest / _MICRO

    def export(self, now: float) -> int:
        """
        Write the counts of all that asked of late to where the exporter reads them; return how many.

        Args:
            now: Seconds since the epoch, to be written beside them.
        """
        counts = self.counts()
        written = {_member(*pair): json.dumps({"count": count.used, "max": count.most, "at": now}) for pair, count in counts.items()}
        there: Any = self._redis.hkeys(keys.RATE_LIMITS)
        gone = [name for name in there if text(name) not in written]
        with self._redis.pipeline(transaction=False) as pipe:
            if written:
                pipe.hset(keys.RATE_LIMITS, mapping=written)  # type: ignore[arg-type]  # Invariant mapping in the stubs.
            if gone:
                pipe.hdel(keys.RATE_LIMITS, *gone)
            pipe.expire(keys.RATE_LIMITS, _EXPORTED_FOR)
            pipe.zremrangebyscore(keys.LIMITED, "-inf", self._clock() - _USED_FOR)
            pipe.execute()
        return len(written)

    def clear(self, channel: str) -> int:
        """
        Forget all calls of *channel*, so that it may be called up to its limit at once; return how many lists were removed.

        It walks through all keys of Redis, in small steps: for operators only.
        """
        removed = 0
        batch: list[Any] = []
        for key in self._redis.scan_iter(match=f"rate_limit:{keys.part(channel)}:*", count=_SCANNED):
            batch.append(key)
            if len(batch) >= _SCANNED:
                removed += self._remove(batch)
                batch = []
        return removed + self._remove(batch)

    def _remove(self, batch: list[Any]) -> int:
        if not batch:
            return 0
        with self._redis.pipeline(transaction=False) as pipe:  # One at a time: in a cluster they lie on several nodes.
            for key in batch:
                pipe.execute_command("UNLINK", key)
            return sum(pipe.execute())


def _acquired(answer: int) -> Acquired:
    return _ALLOWED if answer == 0 else Acquired(-answer / _MICRO) if answer < 0 else Acquired(0.0, garbage=True)


_ALLOWED: Final = Acquired(0.0)


def _member(channel: str, connection: str) -> str:
    return json.dumps([channel, connection])  # Whatever they hold, this is ASCII.


def _pair(written: Any) -> tuple[str, str] | None:
    try:
        channel, connection = json.loads(written)
    except (ValueError, TypeError, RecursionError):
        return None
    return (channel, connection) if isinstance(channel, str) and isinstance(connection, str) else None


def limits_storage(redis: Redis) -> Any:
    """
    Return a storage for the library `limits`, for its `MovingWindowRateLimiter`: as exact as our own limits, on whatever Redis this is.

    Since 0.1.
    """
    from .limits_storage import RedisTimeStorage

    return RedisTimeStorage(redis)
