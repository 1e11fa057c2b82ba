"""
One waiting message: an entry of our own publishes nothing while its last message still waits for a worker.

Without that every period would add a message for as long as no worker takes any: on Redis an expired message goes only when a worker takes it.

Beat leaves a mark in Redis before it publishes; the worker that takes the message, to run it or to throw it away, removes the mark.
What is told apart, and how:

- *Still waiting*: the mark is there.  Beat publishes nothing.
- *Lost*: the mark is older than five minutes, and the broker says that the queue is empty.  Beat publishes again.
- *Lost, and the queue is never empty*: the mark goes by itself after six hours.  So a backlog without any worker gets one more message in six hours.
- *Cannot be known*: Redis does not answer within a second.  Beat publishes as if there were no mark, with the entry's expiry, and asks again a minute later.
- *Died between mark and message*: until the broker has taken the message, the mark lives for 30 seconds only.

Nothing of this is done for entries that are not ours.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from celery_obs.areas.tasks.events import TaskDiscarded
from celery_obs.clock import Clock, wall
from celery_obs.runtime.hub import OnError
from celery_obs.state import keys
from celery_obs.state.scripts import text

from .entries import PREFIX


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Claim", "Discards", "Waiting", "taken", "waiting_in"]


_LOST_AFTER: Final = 300.0
_LIMIT: Final = 6 * 3600.0
_PUBLISHING: Final = 30.0
_PAUSE: Final = 60.0

_SWAP: Final = """\
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return false
"""
"""
Put a mark in the place of another; returns the one that is there instead, if it is another than was expected.
"""


class Claim:
    """
    The right to publish, once.

    Args:
        settle: Told how that went.
    """

    def __init__(self, settle: Callable[[bool], None] | None = None) -> None:
        self._settle = settle

    def settle(self, *, published: bool) -> None:
        """
        Say whether the broker took the message.  Never raises.
        """
        if self._settle is not None:
            self._settle(published)


class Waiting:
    """
    Look after the marks.

    Args:
        redis: The cluster's state.

        ours: Names of our periodic tasks.

        depth: Returns how many messages wait where an entry publishes to; None where that cannot be known.

        on_error: Hears of a Redis that does not answer.

        clock: Tells the time.

        monotonic: Tells how much time passed.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        ours: Collection[str],
        depth: Callable[[Any], int | None],
        on_error: OnError,
        clock: Clock = wall,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._ours = frozenset(ours)
        self._depth = depth
        self._on_error = on_error
        self._clock = clock
        self._monotonic = monotonic
        self._pause_until = 0.0

    def claim(self, entry: Any) -> Claim | None:
        """
        Return a claim if *entry* may publish; None while its last message waits.  Takes no longer than a command to Redis may.

        An entry of the user's always may, also one that publishes a task of ours.
        """
        if not (str(entry.name).startswith(PREFIX) and str(entry.task) in self._ours):
            return Claim()
        if self._monotonic() < self._pause_until:
            return Claim()
        key = keys.waiting(str(entry.task))
        mark = f"{self._clock():.3f} {uuid.uuid4().hex}"
        try:
            found = self._swap(key, "", mark, _PUBLISHING)
            if found and self._is_lost(found, entry):
                found = self._swap(key, found, mark, _PUBLISHING)
        except Exception as exc:  # noqa: BLE001 -- a dead Redis must not keep beat from its work.
            self._pause(exc)
            return Claim()
        return None if found else Claim(lambda published: self._settle(key, mark, published=published))

    def _settle(self, key: str, mark: str, *, published: bool) -> None:
        try:
            self._swap(key, mark, mark if published else "", _LIMIT)
        except Exception as exc:  # noqa: BLE001 -- as above.
            self._pause(exc)

    def _swap(self, key: str, expected: str, mark: str, seconds: float) -> str:
        found: Any = self._redis.eval(_SWAP, 1, key, expected, mark, int(seconds * 1000))
        return "" if found is None else text(found) or "?"

    def _is_lost(self, mark: str, entry: Any) -> bool:
        try:
            age = self._clock() - float(mark.partition(" ")[0])
        except ValueError:  # Not written by us.
            age = _LOST_AFTER
        return age >= _LOST_AFTER and self._depth(entry) == 0

    def _pause(self, error: Exception) -> None:
        self._pause_until = self._monotonic() + _PAUSE
        self._on_error(error, component="beat.waiting")


def taken(redis: Redis | None, task: str) -> None:
    """
    Say that a worker took the waiting message of *task*.

    Raises:
        redis.RedisError: if Redis does not answer; beat finds out by itself, later.
    """
    if redis is not None:
        redis.delete(keys.waiting(task))


class Discards:
    """
    Remove the marks of messages that a worker throws away unread, because they expired or were revoked.

    Args:
        redis: The cluster's state.

        ours: Names of our periodic tasks.

    Threads: hears of it in the worker's event loop, and asks Redis in a thread: there are few such messages, one for each task at most.
    """

    def __init__(self, redis: Redis, ours: Collection[str]) -> None:
        self._redis = redis
        self._ours = frozenset(ours)

    def discarded(self, event: TaskDiscarded) -> None:
        """
        Take note of a message that was thrown away.
        """
        if event.task in self._ours:
            threading.Thread(target=self._take, args=(event.task,), name="celery_obs.waiting", daemon=True).start()

    def _take(self, task: str) -> None:
        with contextlib.suppress(Exception):  # Beat finds out by itself, later.
            taken(self._redis, task)


def waiting_in(scheduler: Any, entry: Any) -> int | None:
    """
    Return how many messages wait where *entry* publishes to, as *scheduler*'s broker says; None where it does not.

    It is asked on beat's own connection, as long after a publish as that is open: it cannot hang where a publish would not.
    """
    try:
        options = dict(entry.options or {})
        route = scheduler.app.amqp.router.route(options, entry.task, entry.args or (), entry.kwargs or {})
        queue = route.get("queue")
        # A channel of its own: the broker closes one that asks for a queue that is not there.
        with scheduler.producer.connection.channel() as channel:
            return int(channel.queue_declare(getattr(queue, "name", queue), passive=True).message_count)
    except Exception as exc:  # noqa: BLE001 -- then it cannot be known.
        # On Redis a queue is there as long as something is in it.
        return 0 if "NOT_FOUND" in str(exc) else None
