"""
The breakers of all channels, in Redis: one hash a channel holds everything, so that its deletion by hand is a complete reset.

A breaker that is not there is closed.  What is no breaker, because somebody typed something, is deleted and told.

A breaker's *generation* is a number that grows with each of its changes, also across a deletion, for it is made of the time.  A permit
carries it, so that the outcome of a call that began before a change is nobody's business any more.
"""

from __future__ import annotations

import json
import math

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from celery_obs.clock import Clock, wall
from celery_obs.vocabulary.circuit_breaker import STATES, BreakerState
from celery_obs.vocabulary.policies import BreakerPolicy

from . import hashes, keys
from .channels import Channels
from .scripts import TIME, Call, Prepared, Script, Scripts, call, text


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
        channel: Whom to call.

        generation: Of the breaker that gave it; 0 where none did, because the channel has none, or because Redis is away.

        probe: Number of the probe that this call is; 0 where it is an ordinary one.
    """

    channel: str
    generation: int = 0
    probe: int = 0


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

        retry_after: Seconds until asking again may help; None where nobody knows, as the breaker is held open by hand.

        transition: The change that this very call made, which nobody else was told of.

        garbage: Whether what lay in the key was no breaker and has been deleted.
    """

    permit: Permit | None
    retry_after: float | None = 0.0
    transition: Transition | None = None
    garbage: bool = False


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
local numbers = {'generation', 'failures', 'successes', 'probes_from', 'forced', 'probe', 'probe_until', 'left_at'}

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

local function open_up(b, now, timeout, forced, actor, ttl)
  local from = b.state
  local left_at = from == 'closed' and now or b.left_at
  redis.call('HSET', key, 'state', 'open', 'generation', math.max(now, b.generation + 1), 'successes', 0, 'opened_at', now,
    'probes_from', timeout < 0 and -1 or now + timeout, 'forced', forced, 'probe_until', 0, 'left_at', left_at,
    'changed_at', now, 'changed_by', actor)
  if timeout < 0 then redis.call('PERSIST', key) else keep(ttl + math.floor(timeout / 1000)) end
  return from
end

local function close(b, now, actor, ttl)
  local open_for = b.left_at > 0 and math.max(0, now - b.left_at) or 0
  redis.call('HSET', key, 'state', 'closed', 'generation', math.max(now, b.generation + 1), 'failures', 0, 'successes', 0,
    'probes_from', 0, 'forced', 0, 'probe_until', 0, 'left_at', 0, 'changed_at', now, 'changed_by', actor)
  keep(ttl)
  return open_for
end

local function answer(allowed, generation, probe, retry, from, to, open_for)
  return {allowed, generation, probe, retry, from, to, open_for, garbage}
end
"""
"""
An answer is a list: allowed, generation, probe, microseconds to wait (-1 for ever), state before and after ('' for no change), microseconds open, garbage.
"""

_QUICK_CHECK: Final = """
local quick = redis.pcall('HMGET', KEYS[1], 'state', 'generation')
if quick[1] == 'closed' then
  local generation = tonumber(quick[2])
  if generation and generation >= 1 and generation < 9e15 and redis.call('PTTL', KEYS[1]) > ARGV[3] / 2 then return generation end
end
"""
"""
What nearly every check finds, before anything else is looked at: a closed breaker.
"""

_QUICK_RECORD: Final = """
if ARGV[7] == 'success' then
  local quick = redis.pcall('HMGET', KEYS[1], 'state', 'failures', 'generation')
  if quick[1] == 'closed' and quick[2] == '0' and quick[3] == ARGV[5] then return 0 end
end
"""
"""
What nearly every record finds: a call that went well, and a breaker that knows of no failure.
"""

_CHECK: Final = """
local timeout, probe_timeout, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local b = load()
if not b then
  redis.call('HSET', key, 'state', 'closed', 'generation', now, 'failures', 0)
  keep(ttl)
  if garbage == 0 then return now end
  return answer(1, now, 0, 0, '', '', -1)
end
if b.state == 'closed' then
  keep(ttl)
  return b.generation
end
local function probe(generation, from)
  redis.call('HSET', key, 'probe', b.probe + 1, 'probe_until', now + probe_timeout)
  keep(ttl)
  return answer(1, generation, b.probe + 1, 0, from, from ~= '' and 'half_open' or '', -1)
end
if b.state == 'open' then
  if b.probes_from < 0 then return answer(0, b.generation, 0, -1, '', '', -1) end
  -- The timeout was made shorter, or the clock was set back.
  if b.forced == 0 and b.probes_from > now + timeout then
    b.probes_from = now + timeout
    redis.call('HSET', key, 'probes_from', b.probes_from)
  end
  if now < b.probes_from then return answer(0, b.generation, 0, b.probes_from - now, '', '', -1) end
  local generation = math.max(now, b.generation + 1)
  redis.call('HSET', key, 'state', 'half_open', 'generation', generation, 'successes', 0, 'forced', 0, 'changed_at', now, 'changed_by', '')
  return probe(generation, 'open')
end
if b.probe_until > now + probe_timeout then
  b.probe_until = now + probe_timeout
  redis.call('HSET', key, 'probe_until', b.probe_until)
end
if b.probe_until > now then return answer(0, b.generation, 0, b.probe_until - now, '', '', -1) end
return probe(b.generation, '')
"""

_RECORD: Final = """
local failure_threshold, success_threshold, timeout, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local generation, probe, outcome = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local b = load()
if not b then return garbage == 0 and 0 or answer(0, 0, 0, 0, '', '', -1) end
if b.generation ~= generation then return 0 end
if b.state == 'closed' then
  if outcome == 'success' and b.failures > 0 then
    redis.call('HSET', key, 'failures', 0)
  elseif outcome == 'failure' then
    redis.call('HSET', key, 'failures', b.failures + 1, 'last_failure_at', now)
    keep(ttl)
    if b.failures + 1 >= failure_threshold then
      return answer(0, 0, 0, 0, open_up(b, now, timeout, 0, '', ttl), 'open', -1)
    end
  end
  return 0
end
if b.state ~= 'half_open' or b.probe ~= probe or b.probe_until == 0 then return 0 end
if outcome == 'failure' then
  redis.call('HSET', key, 'failures', b.failures + 1, 'last_failure_at', now)
  return answer(0, 0, 0, 0, open_up(b, now, timeout, 0, '', ttl), 'open', -1)
end
if outcome == 'success' and b.successes + 1 >= success_threshold then
  return answer(0, 0, 0, 0, 'half_open', 'closed', close(b, now, '', ttl))
end
redis.call('HSET', key, 'probe_until', 0, 'successes', b.successes + (outcome == 'success' and 1 or 0))
return 0
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
        self._redis = redis
        self._clock = clock
        self._scripts = Scripts(redis)
        self._check = Script(_QUICK_CHECK + now + _LOAD + _CHECK)
        self._record = Script(_QUICK_RECORD + now + _LOAD + _RECORD)
        self._force = Script(now + _LOAD + _FORCE)
        self._prepared: dict[tuple[str, BreakerPolicy], tuple[Call, Prepared]] = {}

    # -- for those who call -------------------------------------------------------------------------------------------

    def check(self, channel: str, policy: BreakerPolicy) -> Checked:
        """
        Ask whether *channel* may be called now.
        """
        wanted, _ = self._prepared.get((channel, policy)) or self._prepare(channel, policy)
        answer = self._scripts.run(wanted)
        if isinstance(answer, int):
            return Checked(Permit(channel, answer))
        return _checked(channel, answer)

    def record(self, permit: Permit, policy: BreakerPolicy, outcome: Outcome) -> Checked:
        """
        Tell what became of a call; a permit of an earlier generation changes nothing.
        """
        _, prepared = self._prepared.get((permit.channel, policy)) or self._prepare(permit.channel, policy)
        answer = self._scripts.run(prepared.with_more(permit.generation, permit.probe, outcome))
        return _NOTHING if isinstance(answer, int) else _checked(permit.channel, answer)

    def _prepare(self, channel: str, policy: BreakerPolicy) -> tuple[Call, Prepared]:
        key, timeout, ttl = keys.breaker(channel), _micro(policy.timeout), _TTL * 1000
        check = call(self._check, key, timeout, _micro(policy.probe_timeout), ttl)
        record = Prepared(self._record, key, policy.failure_threshold, policy.success_threshold, timeout, ttl, more=3)
        if len(self._prepared) >= _MOST_PACKED:
            self._prepared.clear()
        self._prepared[channel, policy] = check, record
        return check, record

    # -- for those who operate ----------------------------------------------------------------------------------------

    def force_open(self, channel: str, *, actor: str = "", seconds: float | None = None) -> Checked:
        """
        Let no call through, until somebody closes it, or for so many *seconds*, after which probes decide.

        A breaker that is held open for ever has no TTL: whoever opened it closes it.
        """
        return self._by_hand(channel, "open", actor, -1 if seconds is None else _micro(seconds))

    def force_close(self, channel: str, *, actor: str = "") -> Checked:
        """
        Let all calls through again, and start counting at 0.
        """
        return self._by_hand(channel, "closed", actor, 0)

    def reset(self, channel: str) -> Checked:
        """
        Forget the breaker, as its deletion by hand does.
        """
        return self._by_hand(channel, "gone", "", 0)

    def _by_hand(self, channel: str, target: str, actor: str, micro: int) -> Checked:
        answer = self._scripts.run(call(self._force, keys.breaker(channel), target, micro, actor[:_LONGEST_ACTOR], _TTL * 1000))
        if target != "gone":
            Channels(self._redis, clock=self._clock).touch([channel])  # What somebody operates is seen, also when nobody calls it.
        return _checked(channel, answer)

    # -- for those who look -------------------------------------------------------------------------------------------

    def states(self, channels: Iterable[str]) -> Mapping[str, BreakerView]:
        """
        Return the breakers of *channels* in one round trip (one for each node of a Redis Cluster); those that are not there are closed.

        Where there is none of ours, it is the one that somebody `show`-ed.
        """
        from redis.exceptions import ResponseError

        asked = list(dict.fromkeys(channels))
        if not asked:
            return {}
        with self._redis.pipeline(transaction=False) as pipe:
            for channel in asked:
                pipe.hgetall(keys.breaker(channel))
            pipe.hgetall(keys.BREAKERS)
            # What is no hash makes its own command fail, and the next check deletes it.
            answers = pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not (isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer)):
                raise answer
        *ours, shown = ({} if isinstance(answer, Exception) else answer for answer in answers)
        foreign = _foreign(shown, now=self._clock())
        return {channel: _view(hash_) if hash_ else foreign.get(channel, _CLOSED) for channel, hash_ in zip(asked, ours, strict=True)}

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


_LONGEST_ACTOR: Final = 200
_NOTHING: Final = Checked(None)
_CLOSED: Final = BreakerView()


def _micro(seconds: float) -> int:
    return round(seconds * _MICRO)


def _checked(channel: str, answer: Any) -> Checked:
    allowed, generation, probe, retry, before, after, open_for, garbage = answer
    transition = None
    if before:
        transition = Transition(_state(text(before)), _state(text(after)), open_for / _MICRO if open_for >= 0 else None)
    return Checked(
        Permit(channel, generation, probe) if allowed else None, None if retry < 0 else retry / _MICRO, transition, garbage=bool(garbage)
    )


def _state(word: str) -> BreakerState:
    return next((state for state in STATES if state == word), "closed")


def _view(written: Mapping[Any, Any]) -> BreakerView:
    """
    Read a breaker's hash, which may be anybody's.
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
    return number if abs(number) < 9e15 else None  # noqa: PLR2004 -- what Lua counts without loss.


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
