"""
Which queues there are: those given on the command line, and those that workers and publishers announce.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from celery_obs.areas.queues.announcements import QueueAnnouncement, decode_queue
from celery_obs.clock import Clock, wall
from celery_obs.state import keys


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Discovery", "QueueNames"]


MOST_QUEUES = 10_000
"""
Queue names that are read at most.
"""

FORGOTTEN_AFTER: Final = 3600.0
"""
Seconds after its last announcement for which an empty queue is still shown; one with messages stays for as long as it has some.
"""

TEMPORARY_FOR: Final = 120.0
"""
The same for a queue that lives no longer than its consumer.
"""

MISSING_FOR: Final = 120.0
"""
Seconds for which an announcement is believed that is not in Redis any more: that may have restarted with nothing stored.
"""


class QueueNames(Protocol):
    """
    Knows the queues to look at.
    """

    def refresh(self) -> None:
        """
        Learn what is new; blocks, and may raise what a Redis client raises.
        """

    def names(self) -> tuple[str, ...]:
        """
        Return all names known so far.
        """

    def label(self, queue: str) -> str:
        """
        Return the label value of a queue.
        """

    def is_current(self, queue: str) -> bool:
        """
        Tell whether a queue is to be shown though it is empty.
        """


class Discovery:
    """
    The names given at start, and what workers and publishers announce in Redis for as long as they do.

    Args:
        static: Names from ``--queues``.

        client: The Redis that they announce in; None for static names only.

        broker: The name of the broker that is asked, where there are several: what was announced for another is left out.

        others: The names of the others.
    """

    def __init__(
        self,
        static: Iterable[str] = (),
        *,
        client: Redis | None = None,
        broker: str = "",
        others: Iterable[str] = (),
        clock: Clock = wall,
    ) -> None:
        self._static = tuple(dict.fromkeys(static))
        self._client = client
        self._broker = broker
        self._others = frozenset(others) - {broker}
        self._clock = clock
        self._announced: dict[str, QueueAnnouncement] = {}
        self._found_at: dict[str, float] = {}

    def refresh(self) -> None:
        """
        Read the announcements; what is no announcement is passed over.
        """
        if self._client is None:
            return
        now = self._clock()
        found: dict[str, QueueAnnouncement] = {}
        # Workers last: they know more.
        for key, consumed in ((keys.PUBLISHED, False), (keys.QUEUES, True)):
            entries: Mapping[bytes, bytes] = self._client.hgetall(key)  # type: ignore[assignment]  # Typed for asyncio as well.
            for name, written in entries.items():
                announcement = decode_queue(written.decode(errors="replace"), consumed=consumed)
                queue = name.decode(errors="replace")
                if announcement is None or announcement.broker in self._others or (queue not in found and len(found) >= MOST_QUEUES):
                    continue
                found[queue] = announcement
        for queue, announcement in self._announced.items():
            if queue not in found and abs(now - self._found_at[queue]) < MISSING_FOR and not announcement.label:
                found[queue] = announcement
            else:
                self._found_at[queue] = now
        self._found_at = {queue: self._found_at.get(queue, now) for queue in found}
        self._announced = found

    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._static, *self._announced)))

    def announced(self) -> Mapping[str, QueueAnnouncement]:
        """
        Return the announcements known so far, by queue.
        """
        return self._announced

    def label(self, queue: str) -> str:
        announcement = self._announced.get(queue)
        return (announcement.label if announcement is not None else "") or queue

    def is_current(self, queue: str) -> bool:
        if queue in self._static:
            return True
        announcement = self._announced.get(queue)
        if announcement is None:
            return False
        return self._clock() - announcement.seen < (TEMPORARY_FOR if announcement.label else FORGOTTEN_AFTER)
