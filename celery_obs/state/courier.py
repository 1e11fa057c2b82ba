"""
The courier: carries facts about connections to Redis behind the back of the task, so that no task waits for Redis.

Facts of one connection melt into one while they wait: the time of its last sync, and how many failed since.  They are written in one pipeline,
some times a second.  While Redis is away they wait, up to a limit; what is beyond it is dropped and told.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_obs.clock import Clock, wall

from . import keys


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Courier"]


_MOST: Final = 1000
_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 15.0
_FAREWELL: Final = 1.0


class _Fact(NamedTuple):
    """
    What is new of one connection.

    Attributes:
        synced_at: When it last succeeded; None where it did not.

        failed: How often it failed since.
    """

    synced_at: float | None
    failed: int

    def then(self, later: _Fact) -> _Fact:
        """
        Return this and what came *later* as one.
        """
        return later if later.synced_at is not None else _Fact(self.synced_at, self.failed + later.failed)


class Courier:
    """
    Take facts now, write them soon.

    Args:
        redis: A client with short timeouts.

        on_drop: Is told of each fact that was given up.

        most: Connections that may wait.

        pause: Seconds for which facts are gathered; after a failure ever more, up to a quarter of a minute.

        clock: Tells the time.

    Threads: safe.  Forks: a child begins with nothing; call `after_fork` there.  The thread is started by the first fact of a process.
    """

    def __init__(
        self, redis: Redis, *, on_drop: Callable[[], object], most: int = _MOST, pause: float = _PAUSE, clock: Clock = wall
    ) -> None:
        self._redis = redis
        self._on_drop = on_drop
        self._most = most
        self._pause = pause
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._waiting: dict[str, _Fact] = {}
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """
        Begin anew in a child: what waits is the parent's to write.
        """
        self._begin()

    # -- what is told -------------------------------------------------------------------------------------------------

    def synced(self, connection_id: str, *, at: float) -> None:
        """
        Note a sync that succeeded.
        """
        self._take(connection_id, _Fact(at, 0))

    def errored(self, connection_id: str) -> None:
        """
        Note a sync that failed.
        """
        self._take(connection_id, _Fact(None, 1))

    def _take(self, connection_id: str, fact: _Fact) -> None:
        with self._lock:
            known = self._waiting.get(connection_id)
            taken = known is not None or (len(self._waiting) < self._most and _is_whole(connection_id))
            if taken:
                self._waiting[connection_id] = known.then(fact) if known is not None else fact
        if not taken:
            self._on_drop()
            return
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="celery_obs-courier", daemon=True)
            # An interpreter that ends takes no new threads: then the farewell below writes.
            with contextlib.suppress(RuntimeError):
                self._thread.start()
        atexit.register(self._take_leave, os.getpid())

    def _take_leave(self, pid: int) -> None:
        if pid == os.getpid():
            self.flush(within=_FAREWELL)

    # -- what is written ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wake, pause = self._wake, self._pause
        while True:
            wake.wait()
            time.sleep(pause)
            wake.clear()
            if self._send():
                pause = self._pause
            else:
                pause = min(2 * pause, _LONGEST_PAUSE)
                wake.set()

    def flush(self, *, within: float) -> bool:
        """
        Write what waits, at the end of a process; tell whether nothing is left.  What cannot be written is given up and told.

        Args:
            within: Seconds to wait for a write that is under way; another one takes what the client's timeouts allow.
        """
        done = self._send(patience=within)
        if not done:
            with self._lock:
                lost, self._waiting = len(self._waiting), {}
            for _ in range(lost):
                self._on_drop()
        return done

    def _send(self, *, patience: float = -1) -> bool:
        """
        Write all that waits; tell whether that worked.  What did not is put back under what came since.
        """
        from redis.exceptions import RedisError

        sending = self._sending
        if not sending.acquire(timeout=patience):
            return False
        try:
            with self._lock:
                batch, self._waiting = self._waiting, {}
            if not batch:
                return True
            try:
                self._write(batch)
            except (RedisError, OSError):
                self._put_back(batch)
                return False
        finally:
            sending.release()
        return True

    def _write(self, batch: dict[str, _Fact]) -> None:
        synced = {connection: repr(fact.synced_at) for connection, fact in batch.items() if fact.synced_at is not None}
        with self._redis.pipeline(transaction=False) as pipe:
            if synced:
                pipe.hset(keys.LAST_SYNCS, mapping=synced)  # type: ignore[arg-type]  # Invariant mapping in the stubs.
                pipe.hdel(keys.ERRORS, *synced)
            for connection, fact in batch.items():
                if fact.failed:
                    pipe.hincrby(keys.ERRORS, connection, fact.failed)
            pipe.execute()

    def _put_back(self, batch: dict[str, _Fact]) -> None:
        dropped = 0
        with self._lock:
            for connection, fact in batch.items():
                later = self._waiting.get(connection)
                if later is not None:
                    self._waiting[connection] = fact.then(later)
                elif len(self._waiting) < self._most:
                    self._waiting[connection] = fact
                else:
                    dropped += 1
        for _ in range(dropped):
            self._on_drop()


def _is_whole(connection_id: str) -> bool:
    """
    Tell whether Redis can be told of *connection_id*: half of a surrogate pair would hold up the facts of all others.
    """
    try:
        connection_id.encode()
    except UnicodeEncodeError:
        return False
    return True
