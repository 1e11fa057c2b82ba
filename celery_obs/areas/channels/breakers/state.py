"""
The breakers of all channels, in Redis: one hash a channel holds everything, so that its deletion by hand is a complete reset.

A breaker that is not there is closed.  A malformed breaker, typed by hand, is deleted and logged.

A breaker's *generation* is a number that grows with each of its changes, also across a deletion, for it is made of the time.  A permit
carries it, so that the outcome of a call that began before a change no longer counts.
"""

from __future__ import annotations

import json
import math

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from celery_obs.areas.channels.policies import BreakerPolicy
from celery_obs.areas.channels.rate_limits.announced import ADVERTISED, LEARN
from celery_obs.areas.channels.state import Channels
from celery_obs.clock import Clock, wall
from celery_obs.state import hashes, keys
from celery_obs.state.scripts import TIME, Call, Command, Prepared, Script, Scripts, call, command, text

from .metrics import STATES, BreakerState


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["BreakerView", "Breakers", "Checked", "Outcome", "Permit", "Transition", "decode_breaker", "encode_breaker"]


Outcome: TypeAlias = Literal["success", "failure", "none"]
"""
What became of a call: the channel is well; it is not; it cannot be told.
"""

_TTL: Final = 7 * 24 * 3600
_FOREIGN_FOR: Final = 3600.0
_MICRO: Final = 1_000_000
_MOST_PACKED: Final = 1024


class Permit(NamedTuple):
    """
    The right to make one call.

    Attributes:
        channel: The channel to call.

        generation: Of the breaker that gave it; 0 where none did, because the channel has none, or because Redis is away.

        probe: Number of the probe that this call is; 0 where it is an ordinary one.

        scope: The endpoint or connection whose breaker gave it; empty for the channel's.

        since: When it was given, by `time.perf_counter`, where the breaker wants to know of slow calls; else 0.

    Since 0.1.
    """

    channel: str
    generation: int = 0
    probe: int = 0
    scope: str = ""
    since: float = 0.0


class Transition(NamedTuple):
    """
    A breaker changed its state.

    Attributes:
        from_state, to_state: Before and after.

        open_for: Seconds since it left *closed*, when it is closed again; else None.
    """

    from_state: BreakerState
    to_state: BreakerState
    open_for: float | None


class Checked(NamedTuple):
    """
    What a script found and did.

    Attributes:
        permit: None where the call may not be made, or none was asked for.

        retry_after: Seconds until asking again may help; None where that is unknown, as the breaker is held open by hand.

        transition: The change that this very call made, which no other caller was told of.

        garbage: Whether what lay in the key was no breaker and has been deleted.

        advertised: Whether the breaker would let the call through, and the channel itself said that it does not want to be called yet.

        generation: Of the breaker that refused; 0 while it is half open, and where none refused.
    """

    permit: Permit | None
    retry_after: float | None = 0.0
    transition: Transition | None = None
    garbage: bool = False
    advertised: bool = False
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerView:
    """
    A breaker as one sees it from outside.

    Attributes:
        state: closed, open or half_open.

        failure_count: Failures in a row.

        success_count: Probes in a row that succeeded.

        opened_at: When it last opened, in seconds since the epoch; None where it never did.

        last_failure_at: When the last failure was recorded.

        probe_at: When an open breaker lets the first probe through; None where it is not open, or held open by hand.

        forced: Whether it is held open by hand.

        changed_at: When its state last changed.

        changed_by: Who changed it by hand; empty where it did so itself.

        source: Whose breaker it is: empty for ours.
    """

    state: BreakerState = "closed"
    failure_count: int = 0
    success_count: int = 0
    opened_at: float | None = None
    last_failure_at: float | None = None
    probe_at: float | None = None
    forced: bool = False
    changed_at: float | None = None
    changed_by: str = ""
    source: str = ""


# --- the scripts ------------------------------------------------------------------------------------------------------------------

_LOAD: Final = """
local key = KEYS[1]
local garbage = 0
local numbers = {'generation', 'failures', 'successes', 'probes_from', 'forced', 'probe', 'left_at'}

local function load()
  local found = redis.pcall('HMGET', key, 'state', unpack(numbers))
  if found.err then
    if not string.find(found.err, 'WRONGTYPE', 1, true) then error(found.err) end
    redis.call('DEL', key)
    garbage = 1
    return nil
  end
  local b = {state = found[1]}
  local sound = b.state == 'closed' or b.state == 'open' or b.state == 'half_open'
  for at, name in ipairs(numbers) do
    local number = found[at + 1] and tonumber(found[at + 1]) or (found[at + 1] and 0 / 0 or 0)
    if not (number > -9e15 and number < 9e15) then sound = false end
    b[name] = number
  end
  if not sound or b.generation < 1 then
    garbage = redis.call('DEL', key)
    return nil
  end
  return b
end

local function keep(ttl)
  redis.call('PEXPIRE', key, ttl)
end

local function forget_calls()
  redis.call('HDEL', key, 'slots', 'bucket', 'width', 'counted', 'c0', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7', 'c8', 'c9')
end

local function open_up(b, now, timeout, forced, actor, ttl)
  local from = b.state
  forget_calls()
  local left_at = from == 'closed' and now or b.left_at
  redis.call('HSET', key, 'state', 'open', 'generation', math.max(now, b.generation + 1), 'successes', 0, 'opened_at', now,
    'probes_from', timeout < 0 and -1 or now + timeout, 'forced', forced, 'left_at', left_at,
    'changed_at', now, 'changed_by', actor)
  if timeout < 0 then redis.call('PERSIST', key) else keep(ttl + math.floor(timeout / 1000)) end
  return from
end

local function close(b, now, actor, ttl)
  forget_calls()
  local open_for = b.left_at > 0 and math.max(0, now - b.left_at) or 0
  redis.call('HSET', key, 'state', 'closed', 'generation', math.max(now, b.generation + 1), 'failures', 0, 'successes', 0,
    'probes_from', 0, 'forced', 0, 'left_at', 0, 'changed_at', now, 'changed_by', actor)
  keep(ttl)
  return open_for
end

local function answer(allowed, generation, probe, retry, from, to, open_for, told)
  return {allowed, generation, probe, retry, from, to, open_for, garbage, told or 0}
end

local function begin(ttl)
  redis.call('HSET', key, 'state', 'closed', 'generation', now, 'failures', 0)
  keep(ttl)
end
"""
"""
An answer is a list: allowed, generation, probe, microseconds to wait (-1 for ever), state before and after ('' for no change), microseconds open,
garbage, and whether the channel itself said to wait.
"""

_CHECK: Final = """
local timeout, probe_timeout, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local probes, soon = tonumber(ARGV[4]), tonumber(ARGV[5])
local b = load()
if not b then
  begin(ttl)
  if garbage == 0 then return now end
  return answer(1, now, 0, 0, '', '', -1)
end
if b.state == 'open' then
  if b.probes_from < 0 then return answer(0, b.generation, 0, -1, '', '', -1) end
  -- The timeout was made shorter, or the clock was set back.
  if b.forced == 0 and b.probes_from > now + timeout then
    b.probes_from = now + timeout
    redis.call('HSET', key, 'probes_from', b.probes_from)
  end
  if now < b.probes_from then return answer(0, b.generation, 0, b.probes_from - now, '', '', -1) end
end
local wait = told(key, 1, b.state == 'closed')
if wait > 0 then return answer(0, 0, 0, wait, '', '', -1, 1) end
if b.state == 'closed' then
  keep(ttl)
  return b.generation
end
local from, generation, slots = '', b.generation, {}
if b.state == 'open' then
  from, generation = 'open', math.max(now, b.generation + 1)
  redis.call('HSET', key, 'state', 'half_open', 'generation', generation, 'successes', 0, 'forced', 0, 'changed_at', now, 'changed_by', '')
else
  local first
  for number, ends in string.gmatch(redis.call('HGET', key, 'slots') or '', '(%d+):(%d+)') do
    ends = math.min(tonumber(ends), now + probe_timeout)
    if ends > now then
      slots[#slots + 1] = number .. ':' .. string.format('%.0f', ends)
      first = math.min(first or ends, ends)
    end
  end
  if #slots >= probes then return answer(0, 0, 0, math.min(first - now, soon), '', '', -1) end
end
told(key, 1, true)
slots[#slots + 1] = string.format('%.0f:%.0f', b.probe + 1, now + probe_timeout)
redis.call('HSET', key, 'probe', b.probe + 1, 'slots', table.concat(slots, ','))
keep(ttl)
return answer(1, generation, b.probe + 1, 0, from, from ~= '' and 'half_open' or '', -1)
"""

_POLICY: Final = """
local failure_threshold, success_threshold, timeout, ttl = {failure_threshold}, {success_threshold}, {timeout}, {ttl}
local failure_rate, slow_rate, width, least = {failure_rate}, {slow_rate}, {width}, {least}
local lane = 131072
"""
"""
The numbers of a policy stand in the script that records: there are few policies, and many records, of each of which Redis would have to read them.
"""

_QUICK_RECORD: Final = """
local function are_too_high(counted)
  local calls, failures, slows = counted % lane, math.floor(counted / lane) % lane, math.floor(counted / lane / lane)
  return calls >= least
    and (failure_rate > 0 and failures * 1000000 >= failure_rate * calls or slow_rate > 0 and slows * 1000000 >= slow_rate * calls)
end
if width > 0 and ARGV[3] == 'success' and ARGV[4] == '0' and ARGV[2] == '0' then
  local bucket = math.floor(now / width)
  local field = 'c' .. bucket % 10
  local found = redis.pcall('HMGET', KEYS[1], 'state', 'failures', 'generation', 'width', 'bucket', 'counted', field)
  if found[1] == 'closed' and found[2] == '0' and found[3] == ARGV[1] and tonumber(found[4]) == width and tonumber(found[5]) == bucket then
    local counted, mine = tonumber(found[6]), tonumber(found[7])
    if counted and mine and counted % lane < lane - 2 and (counted < lane or not are_too_high(counted + 1)) then
      redis.call('HSET', KEYS[1], field, mine + 1, 'counted', counted + 1)
      return 0
    end
  end
end
"""
"""
What nearly every record finds that has to count: a call that went well, a closed breaker that knows of no failure in a row, and the bucket of the call
before.
"""

_RECORD: Final = """
local generation, probe, outcome, slow = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
local b = load()
if not b then return garbage == 0 and 0 or answer(0, 0, 0, 0, '', '', -1) end
if b.generation ~= generation then return 0 end

local function rates_are_too_high()
  local found = redis.call('HMGET', key, 'width', 'bucket', 'counted')
  local last, counted = tonumber(found[2]), tonumber(found[3])
  local bucket = math.floor(now / width)
  if tonumber(found[1]) ~= width or not last or not counted or bucket - last >= 10 or last - bucket >= 10 then
    forget_calls()
    redis.call('HSET', key, 'width', width)
    counted = 0
  else
    bucket = math.max(bucket, last)
    for old = last + 1, bucket do
      local field = 'c' .. old % 10
      counted = counted - (tonumber(redis.call('HGET', key, field)) or 0)
      redis.call('HDEL', key, field)
    end
  end
  local failed = outcome == 'failure'
  if counted % lane < lane - 2 then
    local more = 1 + (failed and lane or 0) + (slow and lane * lane or 0)
    counted = counted + more
    redis.call('HINCRBY', key, 'c' .. bucket % 10, string.format('%.0f', more))
    redis.call('HSET', key, 'bucket', bucket, 'counted', string.format('%.0f', counted))
  end
  return are_too_high(counted)
end

if b.state == 'closed' then
  if outcome == 'none' then return 0 end
  local failures = b.failures
  if outcome == 'failure' then
    failures = failures + 1
    redis.call('HSET', key, 'failures', failures, 'last_failure_at', now)
    keep(ttl)
  elseif failures > 0 then
    failures = 0
    redis.call('HSET', key, 'failures', 0)
  end
  local opens = width > 0 and rates_are_too_high()
  if opens or outcome == 'failure' and failure_threshold > 0 and failures >= failure_threshold then
    return answer(0, 0, 0, 0, open_up(b, now, timeout, 0, '', ttl), 'open', -1)
  end
  return 0
end
if b.state ~= 'half_open' then return 0 end
local slots, mine = {}, false
for number, ends in string.gmatch(redis.call('HGET', key, 'slots') or '', '(%d+):(%d+)') do
  if tonumber(number) == probe then mine = true else slots[#slots + 1] = number .. ':' .. ends end
end
if not mine then return 0 end
if outcome == 'failure' or outcome == 'success' and slow then
  redis.call('HSET', key, 'failures', b.failures + 1, 'last_failure_at', now)
  return answer(0, 0, 0, 0, open_up(b, now, timeout, 0, '', ttl), 'open', -1)
end
if outcome == 'success' and b.successes + 1 >= success_threshold then
  return answer(0, 0, 0, 0, 'half_open', 'closed', close(b, now, '', ttl))
end
redis.call('HSET', key, 'slots', table.concat(slots, ','), 'successes', b.successes + (outcome == 'success' and 1 or 0))
return 0
"""
"""
A window is ten buckets, each a number of calls, failures and slow calls side by side in one field; *counted* is their sum.
"""

_TELL: Final = """
if not load() then begin(tonumber(ARGV[3])) end
learn(key, tonumber(ARGV[1]), now + tonumber(ARGV[2]))
keep(tonumber(ARGV[3]))
return garbage
"""

_FORCE: Final = """
local target, seconds, actor, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local b = load() or {state = 'closed', generation = 0, left_at = 0}
local from, open_for = b.state, -1
if target == 'open' then
  open_up(b, now, seconds, 1, actor, ttl)
elseif target == 'closed' then
  open_for = close(b, now, actor, ttl)
else
  target = 'closed'
  open_for = b.left_at > 0 and math.max(0, now - b.left_at) or 0
  redis.call('DEL', key)
end
if from == target then from, target = '', '' end
return answer(0, 0, 0, 0, from, target, open_for)
"""


class Breakers:
    """
    Ask and tell the breakers.

    Args:
        redis: A client; every method raises what it raises.

        clock: Tells the time to those who look.

        now: Lua that lets *now* be microseconds, for those who call; tests have their own.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis, *, clock: Clock = wall, now: str = TIME) -> None:
        from redis.exceptions import ResponseError

        self._redis = redis
        self._clock = clock
        self._scripts = Scripts(redis)
        self._refusal = ResponseError
        self._check = Script(now + _LOAD + ADVERTISED + _CHECK)
        self._now = now
        self._records: dict[BreakerPolicy, Script] = {}
        self._tell = Script(now + _LOAD + LEARN + _TELL)
        self._force = Script(now + _LOAD + _FORCE)
        self._prepared: dict[tuple[str, str, BreakerPolicy], _Prepared] = {}

    # -- for those who call -------------------------------------------------------------------------------------------

    def check(self, channel: str, policy: BreakerPolicy, scope: str = "", *, keep: bool = False) -> Checked:
        """
        Ask whether *channel* may be called now.

        Nearly every time a plain read finds the breaker closed; a script decides about everything else.

        Args:
            channel: The channel to call.

            policy: When its breaker opens and closes.

            scope: The endpoint or connection that has the breaker; empty for the channel's.

            keep: Put off the breaker's expiry, too; once in a while is enough.
        """
        prepared = self._prepared.get((channel, scope, policy)) or self._prepare(channel, scope, policy)
        if not keep:
            generation = self._closed(prepared.look)
            if generation:
                return Checked(Permit(channel, generation, 0, scope))
        answer = self._scripts.run(prepared.check)
        if isinstance(answer, int):
            return Checked(Permit(channel, answer, 0, scope))
        return _checked(channel, scope, answer)

    def _closed(self, look: Command) -> int:
        """
        Return the generation of a breaker that is closed and whose channel said nothing; 0 for everything else.
        """
        try:
            state, generation, advertised = self._scripts.send(look)
        except self._refusal as error:
            if "WRONGTYPE" in str(error):
                return 0
            raise
        if advertised is not None or (state != b"closed" and state != "closed"):  # noqa: PLR1714 -- the cheaper way.
            return 0
        try:
            number = int(generation)
        except (TypeError, ValueError):
            return 0
        return number if 1 <= number < _MOST_COUNTED else 0

    def record(self, permit: Permit, policy: BreakerPolicy, outcome: Outcome, *, slow: bool = False) -> Checked:
        """
        Tell what became of a call; a permit of an earlier generation changes nothing.
        """
        prepared = self._prepared.get((permit.channel, permit.scope, policy)) or self._prepare(permit.channel, permit.scope, policy)
        if outcome == "success" and not permit.probe and not policy.has_window and self._knows_of_no_failure(prepared.look_again):
            return _NOTHING
        answer = self._scripts.run(prepared.record.with_more(permit.generation, permit.probe, outcome, int(slow)))
        return _NOTHING if isinstance(answer, int) else _checked(permit.channel, permit.scope, answer)

    def _knows_of_no_failure(self, look: Command) -> bool:
        """
        Tell whether there is nothing that a success would change.
        """
        try:
            state, failures = self._scripts.send(look)
        except self._refusal as error:
            if "WRONGTYPE" in str(error):
                return False
            raise
        return (state, failures) in _FAULTLESS

    def _prepare(self, channel: str, scope: str, policy: BreakerPolicy) -> _Prepared:
        key, timeout, ttl = keys.breaker(channel, scope), _micro(policy.timeout), _TTL * 1000
        soon = _micro(min(_SOON, policy.timeout))
        made = _Prepared(
            look=command("HMGET", key, "state", "generation", "told_until"),
            look_again=command("HMGET", key, "state", "failures"),
            check=call(self._check, key, timeout, _micro(policy.probe_timeout), ttl, policy.probes, soon),
            record=Prepared(self._record_of(policy), key, more=4),
        )
        if len(self._prepared) >= _MOST_PACKED:
            self._prepared.clear()
        self._prepared[channel, scope, policy] = made
        return made

    def _record_of(self, policy: BreakerPolicy) -> Script:
        found = self._records.get(policy)
        if found is None:
            numbers = _POLICY.format(
                failure_threshold=policy.failure_threshold,
                success_threshold=policy.success_threshold,
                timeout=_micro(policy.timeout),
                ttl=_TTL * 1000,
                failure_rate=round(policy.failure_rate * 1e6),
                slow_rate=round(policy.slow_rate * 1e6),
                width=_micro(policy.window / _BUCKETS) if policy.has_window else 0,
                least=policy.minimum_calls,
            )
            found = self._records[policy] = Script(self._now + numbers + _QUICK_RECORD + _LOAD + _RECORD)
        return found

    def tell(self, channel: str, *, left: int, seconds: float) -> bool:
        """
        Note what *channel* itself said: so many calls are *left* for the next *seconds*; tell whether garbage lay in the way.
        """
        return bool(self._scripts.run(call(self._tell, keys.breaker(channel), left, _micro(seconds), _TTL * 1000)))

    def note(self, channel: str, scope: str, state: BreakerState) -> None:
        """
        Keep known which breakers of endpoints and connections are not closed, so that `states` finds them.
        """
        member = json.dumps([channel, scope])
        if state == "closed":
            self._redis.zrem(keys.SCOPES, member)
        else:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.zadd(keys.SCOPES, {member: self._clock()})
                pipe.zremrangebyrank(keys.SCOPES, 0, -_MOST_SCOPES - 1)
                pipe.expire(keys.SCOPES, _TTL)
                pipe.execute()

    def scopes(self) -> Mapping[str, tuple[str, ...]]:
        """
        Return the endpoints and connections whose breakers are not closed, as far as is known, by channel.
        """
        written: Any = self._redis.zrange(keys.SCOPES, 0, -1)
        return _scopes(written)

    # -- for those who operate ----------------------------------------------------------------------------------------

    def force_open(self, channel: str, *, actor: str = "", seconds: float | None = None) -> Checked:
        """
        Let no call through, until it is closed by hand, or for so many *seconds*, after which probes decide.

        A breaker that is held open for ever has no TTL: it stays open until it is closed by hand.
        """
        return self._by_hand(channel, "open", actor, -1 if seconds is None else _micro(seconds))

    def force_close(self, channel: str, *, actor: str = "") -> Checked:
        """
        Let all calls through again, those of its endpoints and connections too, and start counting at 0.
        """
        self._each_scope(channel, "closed", actor)
        return self._by_hand(channel, "closed", actor, 0)

    def reset(self, channel: str) -> Checked:
        """
        Forget the breaker and those of its endpoints and connections, as their deletion by hand does.
        """
        self._each_scope(channel, "gone", "")
        return self._by_hand(channel, "gone", "", 0)

    def _by_hand(self, channel: str, target: str, actor: str, micro: int) -> Checked:
        answer = self._scripts.run(call(self._force, keys.breaker(channel), target, micro, actor[:_LONGEST_ACTOR], _TTL * 1000))
        if target != "gone":
            Channels(self._redis, clock=self._clock).touch([channel])  # A channel that is operated is listed, also when it is not called.
        return _checked(channel, "", answer)

    def _each_scope(self, channel: str, target: str, actor: str) -> None:
        for scope in self.scopes().get(channel, ()):
            self._scripts.run(call(self._force, keys.breaker(channel, scope), target, 0, actor[:_LONGEST_ACTOR], _TTL * 1000))
            self.note(channel, scope, "closed")

    # -- for those who look -------------------------------------------------------------------------------------------

    def states(self, channels: Iterable[str]) -> Mapping[str, BreakerView]:
        """
        Return the breakers of *channels* in one round trip (one for each node of a Redis Cluster); those that are not there are closed.

        Where there is none of ours, it is the one that `show` last returned.  Where the channel's own is closed and those of some of its endpoints or
        connections are not, it is the first of these that lets no call through; that takes another round trip.
        """
        from redis.exceptions import ResponseError

        asked = list(dict.fromkeys(channels))
        if not asked:
            return {}
        with self._redis.pipeline(transaction=False) as pipe:
            for channel in asked:
                pipe.hgetall(keys.breaker(channel))
            pipe.hgetall(keys.BREAKERS)
            pipe.zrange(keys.SCOPES, 0, -1)
            # What is no hash makes its own command fail, and the next check deletes it.
            answers = pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not (isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer)):
                raise answer
        *ours, shown, scoped = ({} if isinstance(answer, Exception) else answer for answer in answers)
        foreign = _foreign(shown, now=self._clock())
        found = {channel: _view(hash_) if hash_ else foreign.get(channel, _CLOSED) for channel, hash_ in zip(asked, ours, strict=True)}
        return {**found, **self._worst({name: scopes for name, scopes in _scopes(scoped).items() if name in found}, found)}

    def _worst(self, scopes: Mapping[str, tuple[str, ...]], own: Mapping[str, BreakerView]) -> dict[str, BreakerView]:
        pairs = [(channel, scope) for channel, each in scopes.items() if own[channel].state == "closed" for scope in each]
        if not pairs:
            return {}
        with self._redis.pipeline(transaction=False) as pipe:
            for channel, scope in pairs:
                pipe.hgetall(keys.breaker(channel, scope))
            answers = pipe.execute(raise_on_error=False)
        worst: dict[str, BreakerView] = {}
        for (channel, _), answer in zip(pairs, answers, strict=True):
            view = _CLOSED if isinstance(answer, Exception) or not answer else _view(answer)
            if _SEVERITY[view.state] > _SEVERITY[worst.get(channel, own[channel]).state]:
                worst[channel] = view
        return worst

    def export(self, now: float) -> int:
        """
        Write the breakers of all known channels to where the exporter reads them; return how many.

        Args:
            now: Seconds since the epoch, to be written beside them.
        """
        states = self.states(Channels(self._redis).known())
        written = {channel.encode("utf-8", "replace"): encode_breaker(view, at=now) for channel, view in states.items() if not view.source}
        hashes.export(self._redis, keys.BREAKERS, written, keep=states)
        return len(written)

    def show(self, channel: str, view: BreakerView, *, at: float) -> None:
        """
        Write a breaker that is not ours to where the exporter reads; say it again within the hour, or it is forgotten.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(keys.BREAKERS, channel, encode_breaker(view, at=at))
            pipe.expire(keys.BREAKERS, hashes.EXPORTED_FOR)
            pipe.execute()


class _Prepared(NamedTuple):
    """
    What is sent for one breaker, packed.
    """

    look: Command
    look_again: Command
    check: Call
    record: Prepared


_SOON: Final = 0.5
"""
Seconds after which asking again may help while another's probe is under way.
"""

_BUCKETS: Final = 10
_MOST_COUNTED: Final = 9e15
_MOST_SCOPES: Final = 1000
_FAULTLESS: Final = ((b"closed", b"0"), ("closed", "0"))
_SEVERITY: Final = {"closed": 0, "half_open": 1, "open": 2}
_LONGEST_ACTOR: Final = 200
_NOTHING: Final = Checked(None)
_CLOSED: Final = BreakerView()


def _micro(seconds: float) -> int:
    return round(seconds * _MICRO)


def _checked(channel: str, scope: str, answer: Any) -> Checked:
    allowed, generation, probe, retry, before, after, open_for, garbage, advertised = answer
    transition = None
    if before:
        transition = Transition(_state(text(before)), _state(text(after)), open_for / _MICRO if open_for >= 0 else None)
    return Checked(
        Permit(channel, generation, probe, scope) if allowed else None,
        None if retry < 0 else retry / _MICRO,
        transition,
        garbage=bool(garbage),
        advertised=bool(advertised),
        generation=0 if allowed else generation,
    )


def _scopes(written: Iterable[Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for member in written:
        try:
            channel, scope = json.loads(member)
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(channel, str) and isinstance(scope, str):
            found[channel] = (*found.get(channel, ()), scope)
    return found


def _state(word: str) -> BreakerState:
    return next((state for state in STATES if state == word), "closed")


def _view(written: Mapping[Any, Any]) -> BreakerView:
    """
    Read a breaker's hash, which any client may have written.
    """
    data = {text(name): text(value) for name, value in written.items()}
    state = _state(data.get("state", "closed"))
    if data.get("state") not in STATES or (_number(data, "generation") or 0) < 1:
        return BreakerView()
    probes_from = _number(data, "probes_from")
    return BreakerView(
        state=state,
        failure_count=int(_number(data, "failures") or 0),
        success_count=int(_number(data, "successes") or 0),
        opened_at=_seconds(data, "opened_at"),
        last_failure_at=_seconds(data, "last_failure_at"),
        probe_at=probes_from / _MICRO if state == "open" and probes_from is not None and probes_from > 0 else None,
        forced=state == "open" and data.get("forced") == "1",
        changed_at=_seconds(data, "changed_at"),
        changed_by=data.get("changed_by", "")[:_LONGEST_ACTOR],
    )


def _number(data: Mapping[str, str], name: str) -> float | None:
    try:
        number = float(data[name])
    except (KeyError, ValueError):
        return None
    return number if abs(number) < _MOST_COUNTED else None  # What Lua counts without loss.


def _seconds(data: Mapping[str, str], name: str) -> float | None:
    number = _number(data, name)
    return number / _MICRO if number else None


# --- as the exporter reads it -----------------------------------------------------------------------------------------------------


def encode_breaker(view: BreakerView, *, at: float) -> str:
    """
    Write *view*, seen *at* so many seconds since the epoch, as JSON.
    """
    return json.dumps({**{name: getattr(view, name) for name in BreakerView.__dataclass_fields__}, "at": at})


def decode_breaker(written: bytes | str) -> tuple[BreakerView, float] | None:
    """
    Read what `encode_breaker` wrote: a breaker, and when it was seen; None for anything else.
    """
    try:
        data = json.loads(written)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or data.get("state") not in STATES or not _is_time(data.get("at")):
        return None
    read: dict[str, Any] = {"state": data["state"]}
    for name, fits in _FIELDS.items():
        if fits(data.get(name)):
            read[name] = data[name]
    return BreakerView(**read), float(data["at"])


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_FIELDS: Final = {
    "failure_count": _is_count,
    "success_count": _is_count,
    "opened_at": _is_time,
    "last_failure_at": _is_time,
    "probe_at": _is_time,
    "forced": lambda value: isinstance(value, bool),
    "changed_at": _is_time,
    "changed_by": _is_text,
    "source": _is_text,
}


def _foreign(written: Mapping[Any, Any], *, now: float) -> dict[str, BreakerView]:
    """
    Pick the breakers that are not ours, and were shown of late.
    """
    decoded = {text(name): decode_breaker(value) for name, value in written.items()}
    return {name: found[0] for name, found in decoded.items() if found is not None and found[0].source and found[1] > now - _FOREIGN_FOR}
