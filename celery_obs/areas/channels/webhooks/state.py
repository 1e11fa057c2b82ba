"""
What was delivered already: so that something that comes twice is done once, and something that failed is not taken for done.

A delivery is *held* while a worker processes it, for a short time, so that the death of that worker loses nothing;
it is *done* for a long time after that; and it is unknown again when the work failed.
"""

from __future__ import annotations

import secrets

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from celery_obs.state import keys
from celery_obs.state.scripts import TIME, text


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Deliveries", "Order", "Verdict"]


Verdict: TypeAlias = Literal["new", "held", "done"]
"""
*new*: it is ours to work on.  *held*: another worker is at it.  *done*: another worker has done it.
"""

Order: TypeAlias = Literal["newest", "held", "stale"]
"""
*newest*: nothing newer of its object was done.  *held*: another delivery about that object is being worked on.  *stale*: something newer was done.
"""

_DONE: Final = "done"

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""


_CLEAN: Final = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
    redis.call('DEL', KEYS[1])
end
"""
"""
Lua that takes away what is none of ours.
"""

_CLAIM_OBJECT: Final = (
    TIME
    + _CLEAN
    + """
local found = redis.call('HMGET', KEYS[1], 'done', 'token', 'until')
if (tonumber(found[1] or '') or -math.huge) > tonumber(ARGV[1]) then
    return 'stale'
end
if found[2] and found[2] ~= ARGV[2] and (tonumber(found[3] or '') or 0) > now then
    return 'held'
end
redis.call('HSET', KEYS[1], 'token', ARGV[2], 'until', string.format('%.0f', now + tonumber(ARGV[3]) * 1000))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 'newest'
"""
)

_SETTLE_OBJECT: Final = (
    _CLEAN
    + """
if redis.call('HGET', KEYS[1], 'token') == ARGV[2] then
    redis.call('HDEL', KEYS[1], 'token', 'until')
end
if ARGV[3] ~= '' then
    if (tonumber(redis.call('HGET', KEYS[1], 'done') or '') or -math.huge) <= tonumber(ARGV[1]) then
        redis.call('HSET', KEYS[1], 'done', ARGV[1])
    end
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
"""
)


class Deliveries:
    """
    Remember what was delivered.

    Args:
        redis: A client; every method raises what it raises.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def claim(self, kind: str, name: str, *, hold: float) -> tuple[Verdict, str]:
        """
        Take a delivery into work for at most *hold* seconds, unless another worker has it.

        Returns:
            What is known of it, and, when it is new, the token that `finish` and `release` want.
        """
        key, token = keys.once(kind, name), secrets.token_hex(16)
        for _ in range(2):
            if self._redis.set(key, token, nx=True, px=_milliseconds(hold)):
                return "new", token
            found = self._redis.get(key)
            if found is not None:
                return ("done" if found in {_DONE, _DONE.encode()} else "held"), ""
            # It went between the two commands.
        return "held", ""

    def finish(self, kind: str, name: str, *, ttl: float) -> None:
        """
        Remember for *ttl* seconds that a delivery was done.
        """
        self._redis.set(keys.once(kind, name), _DONE, px=_milliseconds(ttl))

    def release(self, kind: str, name: str, token: str) -> None:
        """
        Forget a delivery that failed, if it is still ours, so that the next attempt is new.
        """
        self._redis.eval(_RELEASE, 1, keys.once(kind, name), token)

    # -- objects ------------------------------------------------------------------------------------------------------

    def claim_object(self, kind: str, name: str, *, at: float, token: str, hold: float) -> Order:
        """
        Take an object into work for at most *hold* seconds, for what happened to it at *at*, unless something newer was done, or another is at it.
        """
        found: Any = self._redis.eval(_CLAIM_OBJECT, 1, keys.newest(kind, name), repr(at), token, _milliseconds(hold))
        answer = text(found)
        return "newest" if answer == "newest" else "held" if answer == "held" else "stale"

    def finish_object(self, kind: str, name: str, *, at: float, token: str, ttl: float) -> None:
        """
        Remember for *ttl* seconds that what happened at *at* was done.
        """
        self._redis.eval(_SETTLE_OBJECT, 1, keys.newest(kind, name), repr(at), token, _milliseconds(ttl))

    def release_object(self, kind: str, name: str, *, token: str) -> None:
        """
        Let others work on an object whose work failed.
        """
        self._redis.eval(_SETTLE_OBJECT, 1, keys.newest(kind, name), "0", token, "")


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
