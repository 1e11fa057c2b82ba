"""
When a task comes again that one of our own rules held back: soon enough that nothing lies idle, and not all of them in the same moment.

A task that a limit or an open breaker refused takes a turn in a line in Redis, as far apart from the others as the limit allows calls.
Where there is no line, or when the turn came and another task was quicker, it is chance, over an ever longer time.
"""

from __future__ import annotations

import math

from typing import Any, Final, NamedTuple

from celery_obs.areas.channels.engine import Engine
from celery_obs.areas.channels.errors import HeldBackError
from celery_obs.areas.channels.outage import Outage
from celery_obs.clock import between
from celery_obs.state import keys

from .turns import Turns


__all__ = ["LONGEST", "Held", "Waiting"]


COMPONENT: Final = "waiting"

LONGEST: Final = 900.0
"""
Seconds that one wait lasts at most.  Brokers give a message that is not acknowledged for longer to the next worker (RabbitMQ and SQS after half an
hour, Redis after one), and a task that waits is such a message; who has to wait for longer comes in between.
"""

_LONGEST_SPREAD: Final = 60.0
_MOST_DOUBLINGS: Final = 6
_LATE: Final = 1.0


class Held(NamedTuple):
    """
    How a task was held back so far; it travels with the task.

    Attributes:
        since: When it was first, in seconds since the epoch; 0 where it never was.

        times: How often in a row it came at its turn, or by chance, and was refused again.

        line: The line in which it has a turn, or waits for one.

        turn: When that is, in seconds since the epoch; 0 where the line was too long for a turn.

        spacing: Seconds between two turns of that line.
    """

    since: float = 0.0
    times: int = 0
    line: str = ""
    turn: float = 0.0
    spacing: float = 0.0

    def as_header(self) -> list[Any]:
        """
        Return it as JSON takes it.
        """
        return list(self)

    @classmethod
    def of(cls, written: object) -> Held:
        """
        Read what `as_header` made, or anything else, which is none.
        """
        if not isinstance(written, (list, tuple)) or len(written) != len(cls._fields):
            return cls()
        since, times, line, turn, spacing = written
        numbers = (since, times, turn, spacing)
        if not isinstance(line, str) or not all(type(each) in {int, float} and 0 <= each < _NEVER for each in numbers):
            return cls()
        return cls(float(since), int(times), line, float(turn), float(spacing))


_NEVER: Final = 1e11


class Waiting:
    """
    Tell tasks when to come again.

    Args:
        made_for: The engine whose Redis has the lines.

    Threads: safe.
    """

    def __init__(self, made_for: Engine) -> None:
        self._clock = made_for.clock
        self._outage = made_for.part(Outage)
        self._hub = made_for.hub
        self._otherwise = made_for.settings.pause_retry_delay
        self.turns = Turns(made_for.redis) if made_for.redis is not None else None

    def paused(self) -> tuple[float, Held]:
        """
        Return the seconds after which a paused channel's task comes again, and what it takes along: what it waited for others is forgotten.
        """
        return self._otherwise * between(0.8, 1.2), Held()

    def refused(self, refusal: HeldBackError, held: Held) -> tuple[float, Held]:
        """
        Return the seconds after which a task that *refusal* held back comes again, and what it takes along.

        Args:
            refusal: Says from when on it may help.

            held: What it brought along.
        """
        now = self._clock()
        after = self._otherwise if refusal.retry_after is None else refusal.retry_after
        since = held.since or now
        had_its_turn = refusal.line == held.line and 0 < held.turn <= now + _LATE
        if refusal.line and not had_its_turn:
            delay = self._turn(refusal.line, after, refusal.spacing)
            if delay == math.inf:
                return _in_between(), Held(since, 0, refusal.line, 0.0, refusal.spacing)
            if delay is not None:
                return delay, Held(since, 0, refusal.line, now + delay, refusal.spacing)
        spread = min(max(1.0, refusal.spacing) * 2 ** min(held.times, _MOST_DOUBLINGS), _LONGEST_SPREAD)
        line, turn = (held.line, held.turn) if had_its_turn else ("", 0.0)
        return min(after, LONGEST - _LONGEST_SPREAD) + between(0.0, spread), Held(since, held.times + 1, line, turn, refusal.spacing)

    def before_its_turn(self, held: Held) -> tuple[float, Held] | None:
        """
        Return the same for a task whose line was too long for a turn: it takes one now, or comes again, and takes no call away from those who have theirs.

        None where it may try.
        """
        if not held.line or held.turn:
            return None
        delay = self._turn(held.line, 0.0, held.spacing)
        if delay is None or delay <= _LATE:
            return None
        return (_in_between(), held) if delay == math.inf else (delay, held._replace(turn=self._clock() + delay))

    def _turn(self, line: str, after: float, spacing: float) -> float | None:
        """
        Return the seconds until a turn; infinity where the line is too long for one, and None where Redis does not answer.
        """
        if after >= LONGEST:
            return math.inf
        turns = self.turns
        if turns is None:
            return None

        def turn() -> float:
            found = turns.take(line, after=after, spacing=max(spacing, _LEAST_SPACING), longest=LONGEST)
            return math.inf if found is None else found

        return self._outage.ask(COMPONENT, keys.turns(line), turn)


_LEAST_SPACING: Final = 0.001


def _in_between() -> float:
    return between(LONGEST / 2, LONGEST)
