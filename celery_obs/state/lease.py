"""
Who of several exporters serves what the cluster shares: at every moment at most one, the holder of a lease in Redis.

The holder counts its time from before it asked, and stops a little before Redis lets go, so it need not be told that it is over:
neither a Redis that hangs, nor a process that was stopped for a while, nor a slow network makes two of them.
Where the key is gone and no exporter saw it run out, Redis may have lost it under a holder who does not know yet; then the next one waits for as long
as that one may believe.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from celery_obs.clock import Clock

from . import keys
from .scripts import text


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["PERIOD", "Lease", "steady"]


PERIOD: Final = 10.0
"""
Seconds for which a lease is given; it is renewed three times in them.
"""

_RENEWALS: Final = 3
_MARGIN: Final = 0.1
_NOT_HELD: Final = (0, 0.0, 0.0)

_TAKE: Final = """
local held = redis.call('get', KEYS[1])
if not held or held == '' or held == ARGV[1] then
  redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
  return {(not held and 'nothing') or (held == '' and 'vacant') or 'ours', 0, ARGV[1]}
end
local left = redis.call('pttl', KEYS[1])
if left < 0 then
  redis.call('pexpire', KEYS[1], ARGV[2])
  left = tonumber(ARGV[2])
end
return {'theirs', left, held}
"""
"""
Take the lease or renew it, or say whose it is and for how many milliseconds; one that never ends was typed by hand, and is made to end.
"""

_LEAVE: Final = """
if redis.call('get', KEYS[1]) == ARGV[1] then
  redis.call('set', KEYS[1], '', 'px', ARGV[2])
  return 1
end
return 0
"""
"""
Leave the lease vacant: held by none, and known to be so.
"""

log = logging.getLogger("celery_obs.exporter")


def steady() -> float:
    """
    Return seconds that go on while the machine sleeps, where the system can tell, and that cannot be set.
    """
    return time.clock_gettime(_CLOCK)


_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lease:
    """
    One contender's side of the lease.

    Args:
        redis: A client; used by this object's thread only.

        period: Seconds for which the lease is given; the same for all contenders.

        clock: Never set, never stopped.

        on_error: Told of every failed attempt.

    Attributes:
        name: Who we are to others: host, process, and something random.

    Threads: `epoch` and `holds` may be called by any, at any time, and never block.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        period: float = PERIOD,
        clock: Clock = steady,
        on_error: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.name = f"{socket.gethostname()[:200]}:{os.getpid()}:{secrets.token_hex(8)}"
        self._redis: Any = redis
        self._period = period
        self._margin = period * _MARGIN
        self._clock = clock
        self._on_error = on_error
        # One tuple, so that readers in other threads see all of it or nothing: number of the epoch, its first and its last moment.
        self._held: tuple[int, float, float] = _NOT_HELD
        self._epochs = 0
        self._is_new = True
        self._seen: tuple[float, float] | None = None
        self._holder = ""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    # -- reading ------------------------------------------------------------------------------------------------------

    def epoch(self) -> int | None:
        """
        Return the number of the epoch in which we hold the lease now; None while we do not.

        Who asks before and after a piece of work, and gets the same number, held the lease all the time.
        """
        number, since, until = self._held
        return number if since <= self._clock() < until else None

    def holds(self) -> bool:
        """
        Tell whether we hold the lease now.
        """
        return self.epoch() is not None

    def holder(self) -> str:
        """
        Return who held the lease when we last looked; empty where no holder is known.
        """
        return self.name if self.holds() else self._holder

    # -- contending ---------------------------------------------------------------------------------------------------

    def attempt(self) -> float:
        """
        Ask for the lease once, or renew it, and return after how many seconds to ask again; failures are told, not raised.
        """
        sent = self._clock()
        try:
            found, left, holder = self._redis.eval(_TAKE, 1, keys.LEASE, self.name, max(1, int(self._period * 1000)))
        except Exception as error:  # noqa: BLE001 -- a network client raises what it likes, and the lease lapses by itself.
            self._is_new, self._seen, self._holder = False, None, ""
            self._on_error(error)
            return self._period / _RENEWALS
        found, self._holder = text(found), text(holder)
        if found == "theirs":
            return self._lost(left / 1000)
        self._won(found, sent)
        self._is_new, self._seen = False, None
        return self._period / _RENEWALS

    def _lost(self, left: float) -> float:
        self._held = _NOT_HELD
        self._is_new = False
        self._seen = (self._clock(), left)
        return min(self._period / _RENEWALS, left + 0.001)

    def _won(self, found: str, sent: float) -> None:
        number, since, until = self._held
        if not (number and (found == "ours" or sent < until)):
            number = self._epochs = self._epochs + 1
            if found == "vacant":
                since = self._clock() + self._margin
            elif found == "ours" or self._is_new or self._ran_out(sent):
                since = sent
            else:
                since = self._clock() + self._period
        self._held = (number, since, sent + self._period - self._margin)

    def _ran_out(self, now: float) -> bool:
        """
        Tell whether the lease that we saw last has ended as it had to, so that its holder knows.

        Seen too long ago, it may have been renewed and lost since.
        """
        if self._seen is None:
            return False
        at, left = self._seen
        return at + left - self._margin <= now <= at + self._period / 2

    # -- for as long as the process serves ----------------------------------------------------------------------------

    def start(self) -> None:
        """
        Ask once, and go on asking in a thread.
        """
        pause = self.attempt()
        self._thread = threading.Thread(target=self._run, args=(pause,), name="celery-obs-lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """
        Hold it no longer, and tell Redis so, if it listens; the next to ask has it.
        """
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        self._held = _NOT_HELD
        try:
            self._redis.eval(_LEAVE, 1, keys.LEASE, self.name, max(1, int(self._period * 1000)))
        except Exception as error:  # noqa: BLE001 -- as above; it runs out by itself.
            self._on_error(error)

    def _run(self, pause: float) -> None:
        held = self.holds()
        self._say(held=held)
        while not self._stopped.wait(pause):
            pause = self.attempt()
            if held is not self.holds():
                held = not held
                self._say(held=held)

    def _say(self, *, held: bool) -> None:
        if held:
            log.info("This exporter serves the cluster's state from now on.")
        else:
            log.info("Another exporter serves the cluster's state: %s.", self._holder or "unknown")
