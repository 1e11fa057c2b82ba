"""
Single flight: of all callers in the cluster that want the same thing done, one does it, and the others take its result.

Everything about one flight lives under one key, so that each step is one command and Redis Cluster works::

    flying:<who>            who does it; the TTL is renewed for as long as it lives
    landed:<who>:<result>   it is done; stays for a moment, for those who waited

A leader that dies is replaced when its TTL has passed.  Only the leader changes its flight: one that was replaced no longer can.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.clock import between
from celery_obs.exceptions import CeleryObsError

from . import keys
from .scripts import text


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Flight", "FlightTimeoutError", "Flights", "Landing"]


_JOIN: Final = """
local found = redis.call('GET', KEYS[1])
if found and string.sub(found, 1, 7) == 'flying:' and found ~= ARGV[1] then
    return found
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""

_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

_LAND: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

_ABANDON: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
return redis.call('DEL', KEYS[1])
"""

_FIRST_LOOK: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
"""
Seconds between two looks of those who wait; they begin quick and become patient.
"""


class FlightTimeoutError(CeleryObsError):
    """
    Another process does it, and was not done in time; it may still finish.
    """


class Landing(NamedTuple):
    """
    How a flight ended.

    Attributes:
        result: What the leader returned.

        led: Whether the caller did it itself.
    """

    result: str
    led: bool


class Flight:
    """
    What the leader knows of its flight.
    """

    def __init__(self) -> None:
        self._gone = threading.Event()

    @property
    def is_ours(self) -> bool:
        """
        Whether, as far as we know, no other process took over.
        """
        return not self._gone.is_set()

    def lose(self) -> None:
        """
        Note that another process may lead by now.
        """
        self._gone.set()


class Flights:
    """
    Let one of many do it.

    Args:
        redis: A client of whatever kind; what it raises is raised.

        ttl: Seconds after which a leader that shows no sign of life is replaced.

        linger: Seconds for which a result stays for those who waited.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis, *, ttl: float = 15.0, linger: float = 10.0) -> None:
        self._redis = redis
        self._ttl = ttl
        self._linger = linger

    def fly(self, name: str, work: Callable[[Flight], str], *, wait: float) -> Landing:
        """
        Return the result of *work*, done by the caller or by the process that was at it already.

        Work that began before this call is good enough; work that ended before is not.
        When *work* raises, that is the caller's to handle, and one of those who wait tries next.

        Args:
            name: What is done; unchecked text.

            work: Does it.  Its result is short, holds no secret, and is what all get.

            wait: Seconds to wait for another process.

        Raises:
            FlightTimeoutError: if another process was not done in time.
        """
        key = keys.lock(name)
        me = f"flying:{uuid.uuid4().hex}"
        deadline = time.monotonic() + wait
        while True:
            leader = self._join(key, me)
            if leader is None:
                return Landing(self._lead(key, me, work), led=True)
            result = self._wait(key, leader, deadline)
            if result is not None:
                return Landing(result, led=False)

    def _join(self, key: str, me: str) -> str | None:
        """
        Take the lead, or return who has it.
        """
        try:
            return _text(self._redis.eval(_JOIN, 1, key, me, _milliseconds(self._ttl)))
        except Exception:
            # The answer may be what got lost, and not the command.
            with contextlib.suppress(Exception):
                self._redis.eval(_ABANDON, 1, key, me)
            raise

    def _wait(self, key: str, leader: str, deadline: float) -> str | None:
        """
        Wait for the result; None when the leader is gone without one.
        """
        pause = _FIRST_LOOK
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                message = "Another process is doing this and did not finish in time. Try again later; if it keeps happening, find out where that process hangs."
                raise FlightTimeoutError(message)
            time.sleep(min(left, pause * between(0.5, 1.0)))
            pause = min(2 * pause, _LONGEST_PAUSE)
            found = _text(self._redis.get(key))
            if found is None:
                return None
            state, _, rest = found.partition(":")
            if state == "landed":
                # Whichever process it was, it began after the leader that we found, or is that leader.
                return rest.partition(":")[2]

    def _lead(self, key: str, me: str, work: Callable[[Flight], str]) -> str:
        flight, done = Flight(), threading.Event()
        renewal = threading.Thread(target=self._renew, args=(key, me, flight, done), name="celery_obs.flight", daemon=True)
        renewal.start()
        try:
            result = work(flight)
        except BaseException:
            self._quietly(_ABANDON, key, me)
            raise
        finally:
            done.set()
        landed = f"landed:{me.partition(':')[2]}:{result}"
        self._quietly(_LAND, key, me, landed, _milliseconds(self._linger))
        return result

    def _quietly(self, script: str, key: str, *arguments: Any) -> None:
        """
        Tell Redis how it ended.  The work is done: when Redis is away, those who wait learn it from the TTL.
        """
        with contextlib.suppress(Exception):
            self._redis.eval(script, 1, key, *arguments)

    def _renew(self, key: str, me: str, flight: Flight, done: threading.Event) -> None:
        seen = time.monotonic()
        while not done.wait(self._ttl / 4):
            asked = time.monotonic()
            try:
                ours = bool(self._redis.eval(_RENEW, 1, key, me, _milliseconds(self._ttl)))
            except Exception:  # noqa: BLE001 -- a Redis that is away for a moment; the TTL decides.
                ours = asked - seen < self._ttl
            else:
                seen = asked
            if not ours:
                flight.lose()
                return


def _text(answer: Any) -> str | None:
    return None if answer is None else text(answer)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
