"""
The rate limits of all channels, in Redis: for each connection, and for the whole of a channel, the times of its last calls, newest first.

The calls of one of them are one list, and beside it, in the same slot of a Redis Cluster, lies a hash with its leaky buckets and with what the channel
said of its limits, so that one script decides about all of them at once.  The list is as long as the highest limit, for only the last so many calls matter.

On one Redis the same script also decides about a connection's limits and the whole channel's together: all or none.

The times are Redis' own, taken inside the script.  The moving window of the library `limits` takes them from its callers, so that one whose clock
is ahead gets more than the limit.  Where Redis' clock is set back, calls of the future count as calls of now: too few rather than too many.
"""

from __future__ import annotations

import json
import math

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.areas.channels.policies import ANY_CHANNEL, ChannelPolicy, RateLimit, limit_at
from celery_obs.clock import Clock, wall
from celery_obs.state import hashes, keys
from celery_obs.state.scripts import TIME, Call, Script, Scripts, call, command, text

from .announced import ADVERTISED, LEARN


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Count", "RateLimits", "Taken", "listed", "spaced"]


class Taken(NamedTuple):
    """
    What came of asking for a call.

    Attributes:
        retry_after: Seconds until asking again may help; 0 where the call may be made.

        at: When that was, by Redis' clock, in microseconds since the epoch.

        garbage: Whether the key held malformed data, which has been deleted.

        refused_by: Place of what refused, among those that were asked.
    """

    retry_after: float
    at: int
    garbage: bool
    refused_by: int = 0


class Count(NamedTuple):
    """
    How much of a limit is used.

    Attributes:
        used: Calls in the window.

        max: Calls that it may hold; 0 where nothing is limited at this hour.
    """

    used: int
    max: int


_MICRO: Final = 1_000_000
_MOST_PACKED: Final = 4096
_MOST_PAIRS: Final = 10_000
_LONGEST_NAMES: Final = 512
_USED_FOR: Final = 3600
_BATCH: Final = 1000

_GUARD: Final = 0.05
_GUARD_RATIO: Final = 0.05
"""
Seconds, and part of a window, by which a window is held longer than it is: a channel counts calls when they arrive, some of them late.
"""

_LIST: Final = """
local key = KEYS[1]
local garbage = 0
local function at(index)
  local found = redis.pcall('LINDEX', key, index)
  local time = type(found) == 'string' and tonumber(found)
  if found == false or time and time > 0 and time < 9e15 then return time end
  if type(found) == 'table' and found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then error(found.err) end
  redis.call('DEL', key)
  garbage = 1
  return false
end
local function settle()
  local newest = at(0)
  if not newest or newest <= now then return end
  local ahead = 0
  for _, found in ipairs(redis.call('LRANGE', key, 0, -1)) do
    local time = tonumber(found)
    if time and time <= now then break end
    ahead = ahead + 1
  end
  redis.call('LTRIM', key, ahead, -1)
  for _ = 1, ahead do redis.call('LPUSH', key, now) end
end
"""
"""
Lua that reads the list's times, and deletes what is none of ours; *settle* brings calls that lie ahead of the clock back to now.
"""

_BESIDE: Final = """
local function clean(beside)
  local kind = redis.call('TYPE', beside).ok
  if kind ~= 'hash' and kind ~= 'none' then
    redis.call('DEL', beside)
    garbage = 1
  end
end
local function filled(beside, field, step, burst)
  local full = tonumber(redis.call('HGET', beside, field)) or 0
  if full ~= full then full = 0 end
  return math.min(math.max(full, now), now + step * burst)
end
local function keep_beside(beside, micro)
  local wanted = math.ceil(micro / 1000) + 1
  if redis.call('PTTL', beside) < wanted then redis.call('PEXPIRE', beside, wanted) end
end
"""
"""
Lua for the hash beside a list.  A bucket is one number: when it will have leaked out, in microseconds (GCRA's theoretical arrival time).
"""

_TAKE: Final = """
local amount, takes = tonumber(ARGV[1]), ARGV[2] == '1'
local wait, refused, plans, number = 0, 0, {}, 3
for scope = 1, #KEYS / 2 do
  key = KEYS[2 * scope - 1]
  local beside = KEYS[2 * scope]
  local plan = {key = key, beside = beside, most = tonumber(ARGV[number]), longest = tonumber(ARGV[number + 1]), buckets = {}}
  local limits, here = tonumber(ARGV[number + 2]), 0
  number = number + 3
  if redis.call('EXISTS', beside) == 1 then
    clean(beside)
    here = told(beside, amount, false)
    plan.is_told = true
  end
  if plan.most > 0 then settle() end
  for _ = 1, limits do
    local kind, many, time = ARGV[number], tonumber(ARGV[number + 1]), tonumber(ARGV[number + 2])
    if kind == 'w' then
      if amount > many then
        here = math.max(here, time)
      else
        local oldest = at(many - amount)
        if oldest then here = math.max(here, oldest + time - now) end
      end
    else
      local field = 'bucket:' .. ARGV[number + 1] .. ':' .. ARGV[number + 2]
      local full = filled(beside, field, time, many) + amount * time
      here = math.max(here, full - many * time - now)
      plan.buckets[#plan.buckets + 1] = {field, full}
    end
    number = number + 3
  end
  if here > wait then wait, refused = here, scope - 1 end
  plans[scope] = plan
end
if wait > 0 or amount == 0 or not takes then return {wait, now, garbage, refused} end
for _, plan in ipairs(plans) do
  key = plan.key
  if plan.most > 0 then
    local length
    for _ = 1, amount do length = redis.call('LPUSH', key, now) end
    if length > plan.most then redis.call('LTRIM', key, 0, plan.most - 1) end
    redis.call('PEXPIRE', key, plan.longest)
  end
  for _, bucket in ipairs(plan.buckets) do
    redis.call('HSET', plan.beside, bucket[1], string.format('%.0f', bucket[2]))
    keep_beside(plan.beside, bucket[2] - now)
  end
  if plan.is_told then told(plan.beside, amount, true) end
end
return {0, now, garbage, 0}
"""
"""
Take *amount* calls from every list and every bucket, or from none: ``KEYS`` are each list and the hash beside it.
"""

_GIVE_BACK: Final = """
local amount = tonumber(ARGV[1])
if ARGV[2] ~= '' then redis.pcall('LREM', key, amount, ARGV[2]) end
clean(KEYS[2])
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
for number = 3, #ARGV, 2 do
  local many, time = ARGV[number], tonumber(ARGV[number + 1])
  local field = 'bucket:' .. many .. ':' .. ARGV[number + 1]
  local full = filled(KEYS[2], field, time, tonumber(many))
  redis.call('HSET', KEYS[2], field, string.format('%.0f', full - amount * time))
end
if redis.call('HGET', KEYS[2], 'told_left') then redis.call('HINCRBY', KEYS[2], 'told_left', amount) end
return 0
"""

_LEARN: Final = """
clean(KEYS[2])
learn(KEYS[2], tonumber(ARGV[1]), now + tonumber(ARGV[2]))
keep_beside(KEYS[2], tonumber(ARGV[2]))
return garbage
"""

_FILLED: Final = """
clean(KEYS[2])
return math.ceil((filled(KEYS[2], 'bucket:' .. ARGV[1] .. ':' .. ARGV[2], tonumber(ARGV[2]), tonumber(ARGV[1])) - now) / tonumber(ARGV[2]))
"""

_COUNT: Final = """
local window = tonumber(ARGV[1])
if not at(0) then return {0, 0} end
local low, high = 0, redis.call('LLEN', key)
while low < high do
  local middle = math.floor((low + high) / 2)
  local found = at(middle)
  if garbage == 1 then return {0, 0} end
  if found and found > now - window then low = middle + 1 else high = middle end
end
return {low, low > 0 and at(low - 1) or 0}
"""


class RateLimits:
    """
    Ask the limits, and look at them.

    Args:
        redis: A client; every method raises what it raises.

        channels: The policies, for those who look; as the last caller of each channel is configured, where they are not given.

        clock: Tells the time of day.

        now: Lua that lets *now* be microseconds; tests have their own.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis, channels: Mapping[str, ChannelPolicy] | None = None, *, clock: Clock = wall, now: str = TIME) -> None:
        self._redis = redis
        self._channels = channels
        self._clock = clock
        self._scripts = Scripts(redis)
        self._take = Script(now + _LIST + _BESIDE + ADVERTISED + _TAKE)
        self._give_back = Script(now + _LIST + _BESIDE + _GIVE_BACK)
        self._learn = Script(now + _LIST + _BESIDE + LEARN + _LEARN)
        self._count = Script(now + _LIST + _COUNT)
        self._filled = Script(now + _LIST + _BESIDE + _FILLED)
        self._packed: dict[Any, Call] = {}

    # -- for those who call -------------------------------------------------------------------------------------------

    @property
    def takes_together(self) -> bool:
        """
        Whether the limits of a connection and of its channel are taken in one call: on a Redis Cluster they lie on several nodes.
        """
        return self._scripts.are_together

    def take(
        self, channel: str, connection_id: str, limits: tuple[RateLimit, ...], every: Iterable[RateLimit] = (), *, cost: int = 1
    ) -> Taken:
        """
        Ask for one call: all of *limits* allow it, and it is counted, or it is not counted.

        Args:
            channel: The channel to call.

            connection_id: Whose account; empty for the whole channel.

            limits: What holds now for these.

            every: All of the channel's, so that the list reaches back as far as any of them needs at another hour.

            cost: Calls that this one counts as.
        """
        return self.take_all(channel, ((connection_id, limits),), every, cost=cost)

    def take_all(
        self, channel: str, asked: tuple[tuple[str, tuple[RateLimit, ...]], ...], every: Iterable[RateLimit] = (), *, cost: int = 1
    ) -> Taken:
        """
        Ask for one call of several lists, each with the limits that hold now: all of them allow it, or none counts it.  Only on one Redis.
        """
        return self._run(channel, asked, every, cost=cost, takes=1)

    def peek(self, channel: str, connection_id: str, limits: tuple[RateLimit, ...], *, cost: int = 1) -> Taken:
        """
        Tell whether a call could be made now, and count nothing.
        """
        return self._run(channel, ((connection_id, limits),), (), cost=cost, takes=0)

    def _run(
        self, channel: str, asked: tuple[tuple[str, tuple[RateLimit, ...]], ...], every: Iterable[RateLimit], *, cost: int, takes: int
    ) -> Taken:
        name = (channel, asked, cost, takes)
        wanted = self._packed.get(name)
        if wanted is None:
            if len(self._packed) >= _MOST_PACKED:
                self._packed.clear()
            names = [keys.rate_limit(channel, connection_id) for connection_id, _ in asked]
            lists = tuple(key for each in names for key in (each, keys.limits(each)))
            arguments = [word for _, limits in asked for word in _arguments(limits, (*limits, *every))]
            wanted = self._packed[name] = call(self._take, lists, cost, takes, *arguments)
        return _taken(self._scripts.run(wanted))

    def give_back(self, channel: str, connection_id: str, taken: Taken, *, limits: tuple[RateLimit, ...] = (), cost: int = 1) -> None:
        """
        Say that a call that was allowed will not be made.

        Args:
            channel, connection_id, limits, cost: As they were asked.

            taken: What was answered.
        """
        key = keys.rate_limit(channel, connection_id)
        buckets = [word for limit in limits if limit.algorithm == "leaky_bucket" for word in (limit.burst, _step(limit))]
        counted = str(taken.at) if not limits or any(limit.algorithm == "sliding_window" for limit in limits) else ""
        self._scripts.run(call(self._give_back, (key, keys.limits(key)), cost, counted, *buckets))

    def learn(self, channel: str, connection_id: str, *, left: int, seconds: float) -> bool:
        """
        Note what the channel itself said: so many calls are *left* for the next *seconds*; tell whether garbage lay in the way.

        Args:
            channel: Who said it.

            connection_id: Whose account it is about; empty for the whole channel.

            left: Calls; 0 for none.

            seconds: More than 0.
        """
        key = keys.rate_limit(channel, connection_id)
        return bool(self._scripts.run(call(self._learn, (key, keys.limits(key)), max(0, left), round(seconds * _MICRO))))

    def has_no_advertised_limit(self, channel: str) -> bool:
        """
        Tell whether nothing is known that the channel said of its limits: a plain read, for channels that have no limits of ours.
        """
        key = keys.limits(keys.rate_limit(channel))
        return self._scripts.send(command("HGET", key, "told_until")) is None

    def use(self, channel: str, connection_id: str, every: Iterable[RateLimit], *, configured_as: str) -> None:
        """
        Say that a channel and a connection ask now, so that `export` looks at them.

        Args:
            channel: The channel.

            connection_id: Whose account; empty for the whole channel.

            every: All limits of the channel.

            configured_as: The name under which the settings have them: the channel's, or ``*``.
        """
        if len(channel) + len(connection_id) > _LONGEST_NAMES:
            return
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(keys.LIMITED, {_member(channel, connection_id): self._clock()})
            pipe.zremrangebyrank(keys.LIMITED, 0, -_MOST_PAIRS - 1)
            pipe.expire(keys.LIMITED, _USED_FOR)
            pipe.hset(keys.LIMITS, configured_as.encode("utf-8", "replace"), json.dumps([asdict(limit) for limit in every]))
            pipe.expire(keys.LIMITS, _USED_FOR)
            pipe.execute()

    # -- under keys of one's own, as the library `limits` has them ----------------------------------------------------

    def take_at(self, key: str, limit: int, seconds: float, amount: int) -> Taken:
        """
        Ask for *amount* calls at once, under a key of one's own.
        """
        window = round(seconds * _MICRO)
        words = (amount, 1, limit, math.ceil(window / 1000) + 1, 1, "w", limit, window)
        return _taken(self._scripts.run(call(self._take, (key, keys.limits(key)), *words)))

    def window_at(self, key: str, seconds: float) -> tuple[int, float]:
        """
        Return how many calls the window under a key of one's own holds, and when the first of them was, in seconds since the epoch.
        """
        count, oldest = self._scripts.run(call(self._count, key, round(seconds * _MICRO)))
        return count, oldest / _MICRO

    # -- for those who look and operate -------------------------------------------------------------------------------

    def used(self) -> tuple[tuple[str, str], ...]:
        """
        Return the channels and connections that asked within the last hour.
        """
        written: Any = self._redis.zrangebyscore(keys.LIMITED, self._clock() - _USED_FOR, "+inf")
        return tuple(pair for pair in map(_pair, written) if pair is not None)

    def count(self, channel: str, connection_id: str = "") -> Count:
        """
        Return how much of its limit one connection, or the whole channel, uses now.
        """
        return self.counts([(channel, connection_id)])[channel, connection_id]

    def counts(self, pairs: Iterable[tuple[str, str]] | None = None) -> Mapping[tuple[str, str], Count]:
        """
        Return how much of their limits *pairs* of channel and connection use now; those that asked of late, by default.  A leaky bucket tells how full it is.

        Of several limits it is the first that holds at this hour.  One round trip for a thousand of them, and one more.
        """
        asked = list(dict.fromkeys(self.used() if pairs is None else pairs))
        if not asked:
            return {}
        policies, now = self._policies(), self._clock()
        return self._counts({pair: limit_at(listed(_policy(policies, pair[0]), pair[1]), now) for pair in asked})

    def _counts(self, limits: Mapping[tuple[str, str], RateLimit | None]) -> dict[tuple[str, str], Count]:
        found = dict.fromkeys(limits, Count(0, 0))
        limited = [(pair, limit) for pair, limit in limits.items() if limit is not None]
        for start in range(0, len(limited), _BATCH):
            batch = limited[start : start + _BATCH]
            with self._redis.pipeline(transaction=False) as pipe:
                for (channel, connection_id), limit in batch:
                    # As a whole, and by its bare name: pipelines of redis-py's cluster client know neither hashes nor a method for it.
                    key = keys.rate_limit(channel, connection_id)
                    if limit.algorithm == "leaky_bucket":
                        pipe.execute_command("EVAL", self._filled.lua, 2, key, keys.limits(key), limit.burst, _step(limit))
                    else:
                        pipe.execute_command("EVAL", self._count.lua, 1, key, round(limit.seconds * _MICRO))
                answers = pipe.execute()
            for (pair, limit), answer in zip(batch, answers, strict=True):
                found[pair] = Count(answer if isinstance(answer, int) else answer[0], limit.most)
        return found

    def export(self, now: float) -> int:
        """
        Write the counts of all that asked of late to where the exporter reads them; return how many.

        A channel has one maximum on the exporter's page, so only those are written that the first of its limits counts that holds at this hour.

        Args:
            now: Seconds since the epoch.
        """
        policies = self._policies()
        first: dict[tuple[str, str], RateLimit | None] = {}
        for channel, connection_id in self.used():
            every = _policy(policies, channel)
            limit = limit_at(every, now)
            if limit is None or limit in listed(every, connection_id):
                first[channel, connection_id] = limit
        written = {
            _member(*pair): json.dumps({"count": count.used, "max": count.max, "at": now}) for pair, count in self._counts(first).items()
        }
        hashes.export(self._redis, keys.RATE_LIMITS, written, keep=written.keys())
        self._redis.zremrangebyscore(keys.LIMITED, "-inf", now - _USED_FOR)
        return len(written)

    def clear(self, channel: str) -> int:
        """
        Forget all calls of *channel*, so that it may be called up to its limit at once; return how many lists were removed.

        It walks through all keys of Redis, on every node, in small steps: for operators only.
        """
        name = keys.part(channel)
        self._clear(f"{keys.limits(f'rate_limit:{name}:*')}")
        return self._clear(f"rate_limit:{name}:*")

    def _clear(self, pattern: str) -> int:
        removed = 0
        batch: list[Any] = []
        for key in self._redis.scan_iter(match=pattern, count=_BATCH):
            batch.append(key)
            if len(batch) >= _BATCH:
                removed += self._remove(batch)
                batch = []
        return removed + self._remove(batch)

    def _remove(self, batch: list[Any]) -> int:
        if not batch:
            return 0
        with self._redis.pipeline(transaction=False) as pipe:  # One by one: in a cluster they lie on several nodes.
            for key in batch:
                pipe.execute_command("UNLINK", key)
            return sum(pipe.execute())

    def _policies(self) -> dict[str, tuple[RateLimit, ...]]:
        if self._channels is not None:
            return {name: policy.rate_limits for name, policy in self._channels.items()}
        written: Any = self._redis.hgetall(keys.LIMITS)
        return {text(name): tuple(_limits(value)) for name, value in written.items()}


def listed(limits: tuple[RateLimit, ...], connection_id: str) -> tuple[RateLimit, ...]:
    """
    Return those of *limits* that are counted in the list of *connection_id*, or in the channel's where that is empty.

    A call of no connection counts as the channel's.  Where a channel has no limit of its own, what limits each of its connections limits that.
    """
    whole = not connection_id and any(limit.per == "channel" for limit in limits)
    return tuple(limit for limit in limits if (limit.per == "channel") is whole)


def spaced(limit: RateLimit) -> float:
    """
    Return the seconds between two calls of those who call as often as *limit* allows in the long run.
    """
    return (_held(limit.seconds) / limit.requests if limit.algorithm == "sliding_window" else _step(limit)) / _MICRO


def _held(seconds: float) -> int:
    return round((seconds + min(_GUARD, seconds * _GUARD_RATIO)) * _MICRO)


def _step(limit: RateLimit) -> int:
    """
    Return the microseconds in which one call leaks out of a bucket, rather too many than too few.
    """
    return math.ceil(limit.seconds * _MICRO / limit.requests)


def _arguments(limits: tuple[RateLimit, ...], every: tuple[RateLimit, ...]) -> Iterator[str | int]:
    windows = [limit for limit in every if limit.algorithm == "sliding_window"]
    yield max((each.requests for each in windows), default=0)
    yield math.ceil(max((_held(each.seconds) for each in windows), default=0) / 1000) + 1
    yield len(limits)
    for limit in limits:
        yield from ("w", limit.requests, _held(limit.seconds)) if limit.algorithm == "sliding_window" else ("b", limit.burst, _step(limit))


def _taken(answer: list[int]) -> Taken:
    wait, at, garbage, refused_by = answer
    return Taken(wait / _MICRO, at, bool(garbage), refused_by)


def _policy(policies: Mapping[str, tuple[RateLimit, ...]], channel: str) -> tuple[RateLimit, ...]:
    return policies.get(channel, policies.get(ANY_CHANNEL, ()))


# --- what lies in Redis, which any client may have written -----------------------------------------------------------------------------------


def _member(channel: str, connection_id: str) -> str:
    return json.dumps([channel, connection_id])  # Whatever they hold, this is ASCII.


def _pair(written: Any) -> tuple[str, str] | None:
    try:
        channel, connection_id = json.loads(written)
    except (ValueError, TypeError, RecursionError):
        return None
    return (channel, connection_id) if isinstance(channel, str) and isinstance(connection_id, str) else None


def _limits(written: Any) -> Iterator[RateLimit]:
    try:
        for data in json.loads(written):
            limit = RateLimit(**{**data, "hours": tuple(data["hours"]), "days": tuple(data["days"])})
            limit.applies(0.0)
            if limit.requests > 0 and 0 < limit.seconds < math.inf:
                yield limit
    except Exception:  # noqa: BLE001 -- what was typed by hand may be wrong in any way, and is no limit then.
        return
