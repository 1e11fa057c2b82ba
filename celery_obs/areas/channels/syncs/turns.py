"""
Lines of tasks that come again: each gets a turn of its own, so that those who were refused in the same moment do not come back in the same moment.

A line is the time of the last turn that was given out, which moves on by a spacing.  No caller has to stand in it: what is free is taken by who comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery_obs.state import keys
from celery_obs.state.scripts import TIME, Script, Scripts, call


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Turns"]


_MICRO: Final = 1_000_000

_TURN: Final = """
local found = redis.pcall('GET', KEYS[1])
local last = type(found) == 'string' and tonumber(found) or 0
local after, spacing, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not (last > 0 and last <= now + longest) then last = 0 end
local turn = math.max(now + after, last + spacing)
if turn > now + longest then return -1 end
redis.call('SET', KEYS[1], string.format('%.0f', turn), 'PX', math.ceil((turn - now) / 1000) + 1)
return turn - now
"""


class Turns:
    """
    Give out turns.

    Args:
        redis: A client; every method raises what it raises.

        now: Lua that lets *now* be microseconds; tests have their own.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis, *, now: str = TIME) -> None:
        self._scripts = Scripts(redis)
        self._turn = Script(now + _TURN)

    def take(self, line: str, *, after: float, spacing: float, longest: float) -> float | None:
        """
        Return in how many seconds it is the caller's turn; None where the line is longer than *longest* seconds.

        Args:
            line: Its name.

            after: Seconds before which there is no sense in coming.

            spacing: Seconds between two turns.

            longest: Seconds up to which turns are given out, at least *after*.
        """
        numbers = (round(each * _MICRO) for each in (after, spacing, longest))
        found: Any = self._scripts.run(call(self._turn, keys.turns(line), *numbers))
        return None if found < 0 else found / _MICRO
