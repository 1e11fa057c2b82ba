"""
What was delivered already: so that something that comes twice is done once, and something that failed is not taken for done.

A delivery is *held* while somebody works on it, for a short time, so that the death of that somebody loses nothing;
it is *done* for a long time after that; and it is unknown again when the work failed.
"""

from __future__ import annotations

import secrets

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from . import keys


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Deliveries", "Verdict"]


Verdict: TypeAlias = Literal["new", "held", "done"]
"""
*new*: it is ours to work on.  *held*: somebody else is at it.  *done*: somebody else has done it.
"""

_DONE: Final = "done"

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""


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
        Take a delivery into work for at most *hold* seconds, unless somebody else has it.

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


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
