"""
Writes facts about connections to Redis behind the back of the task, so that no task waits for Redis.

Facts of one connection melt into one while they wait: the time of its last sync, and how many failed since.  They are written by one script, some
times a second.  While Redis is away they wait, up to a limit; what is beyond it is dropped and told.

Each fact is written once.  A batch whose answer did not arrive may have been written or not: it is sent again as it was, under the same name, and
Redis knows the names of the last minutes.  What Redis refuses, because a key is of a wrong type, is given up alone, and told.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import uuid

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.clock import Clock, wall
from celery_obs.state import keys
from celery_obs.state.scripts import text
from celery_obs.vocabulary.spec import is_utf8


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["ConnectionFactWriter"]


_MOST: Final = 1000
_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 15.0
_FAREWELL: Final = 1.0


_KNOWN_FOR: Final = 3600
"""
Seconds for which Redis knows which batch of a process it wrote last.
"""

_ONCE: Final = """
if tonumber(redis.call('GET', KEYS[2]) or '0') >= tonumber(ARGV[1]) then
  return {}
end
local refused = {}
for at = 3, #ARGV, 2 do
  local answer = 0
  if string.sub(ARGV[at + 1], 1, 1) == '=' then
    answer = redis.pcall('HDEL', KEYS[1], ARGV[at])
  end
  local failed = string.sub(ARGV[at + 1], 2)
  if failed ~= '0' and not (type(answer) == 'table' and answer.err) then
    answer = redis.pcall('HINCRBY', KEYS[1], ARGV[at], failed)
  end
  if type(answer) == 'table' and answer.err then
    refused[#refused + 1] = answer.err
  end
end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return refused
"""
"""
Write the failures of a batch, each connection's and ``=`` or ``+`` what they are now or by how much more, unless the batch was written before.

Both keys lie in one slot of a Redis Cluster.  Returned is what was refused.
"""


class _Batch(NamedTuple):
    """
    Facts that are written together.

    Attributes:
        number: By which Redis knows whether it was written.

        facts: By their connections.
    """

    number: int
    facts: dict[str, _Fact]


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


class ConnectionFactWriter:
    """
    Take facts now, write them soon.

    Args:
        redis: A client with short timeouts.

        on_drop: Is told of each fact that was given up.

        on_refusal: Hears why, where Redis refused it.

        most: Connections that may wait.

        pause: Seconds for which facts are gathered; after a failure ever more, up to a quarter of a minute.

        clock: Tells the time.

    Threads: safe.  Forks: a child begins with nothing; call `after_fork` there.  The thread is started by the first fact of a process.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        on_drop: Callable[[], object],
        on_refusal: Callable[[Exception], object] = lambda _: None,
        most: int = _MOST,
        pause: float = _PAUSE,
        clock: Clock = wall,
    ) -> None:
        self._redis = redis
        self._on_drop = on_drop
        self._on_refusal = on_refusal
        self._most = most
        self._pause = pause
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._waiting: dict[str, _Fact] = {}
        self._name = uuid.uuid4().hex
        self._number = 0
        self._unanswered: _Batch | None = None
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
            kept = len(self._waiting) + (len(self._unanswered.facts) if self._unanswered is not None else 0)
            taken = known is not None or (kept < self._most and is_utf8(connection_id))
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
            self._thread = threading.Thread(target=self._run, name="celery_obs-connection-facts", daemon=True)
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
                lost = len({*self._waiting, *(self._unanswered.facts if self._unanswered is not None else ())})
                self._waiting, self._unanswered = {}, None
            for _ in range(lost):
                self._on_drop()
        return done

    def _send(self, *, patience: float = -1) -> bool:
        """
        Write all that waits, first what may have been written without an answer; tell whether that worked.
        """
        from redis.exceptions import RedisError

        sending = self._sending
        if not sending.acquire(timeout=patience):
            return False
        try:
            while (batch := self._next()) is not None:
                try:
                    refused = self._write(batch)
                except (RedisError, OSError, ValueError):  # The last of a client that is closed meanwhile.
                    return False
                with self._lock:
                    self._unanswered = None
                for error in refused:
                    self._on_drop()
                    self._on_refusal(error)
        finally:
            sending.release()
        return True

    def _next(self) -> _Batch | None:
        with self._lock:
            if self._unanswered is None and self._waiting:
                self._number += 1
                self._unanswered = _Batch(self._number, self._waiting)
                self._waiting = {}
            return self._unanswered

    def _write(self, batch: _Batch) -> list[Exception]:
        """
        Write a batch, once or twice makes no difference; return what Redis refuses for good.
        """
        refused: list[Exception] = []
        synced = {connection: repr(fact.synced_at) for connection, fact in batch.facts.items() if fact.synced_at is not None}
        if synced:
            try:
                self._redis.hset(keys.LAST_SYNCS, mapping=synced)  # type: ignore[arg-type]  # Invariant mapping in the stubs.
            except _refusal() as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                refused += [_in_the_way(keys.LAST_SYNCS, error)] * len(synced)
        words = [
            word
            for connection, fact in batch.facts.items()
            for word in (connection, f"{'+' if fact.synced_at is None else '='}{fact.failed}")
        ]
        # The client's types know no list of errors.
        answer: Any = self._redis.eval(_ONCE, 2, keys.ERRORS, keys.written(self._name), batch.number, _KNOWN_FOR, *words)
        return refused + [_in_the_way(keys.ERRORS, error) for error in answer]


def _refusal() -> type[Exception]:
    from redis.exceptions import ResponseError

    return ResponseError


def _in_the_way(key: str, error: object) -> Exception:
    return ValueError(
        f"What happened to connections cannot be written to the key {key}: {text(error)[:200]}. Expected a hash of celery_obs; delete the key."
    )
