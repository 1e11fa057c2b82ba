"""
Which queues there are: those given on the command line, those that workers announced, and those seen before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from celery_obs.state import keys
from celery_obs.state.announcements import QueueAnnouncement, decode_queue


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Discovery", "QueueNames"]


MOST_QUEUES = 10_000
"""
Queue names that are remembered at most: Celery makes reply queues of random names, should somebody announce them.
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


class Discovery:
    """
    The names given at start, and everything that workers announced in Redis, remembered for the life of the process.

    Args:
        static: Names from ``--queues``.

        client: The Redis that workers announce in; None for static names only.
    """

    def __init__(self, static: Iterable[str] = (), *, client: Redis | None = None) -> None:
        self._static = tuple(dict.fromkeys(static))
        self._client = client
        self._announced: dict[str, QueueAnnouncement] = {}

    def refresh(self) -> None:
        """
        Read the announcements; what is no announcement is passed over.
        """
        if self._client is None:
            return
        entries: Mapping[bytes, bytes] = self._client.hgetall(keys.QUEUES)  # type: ignore[assignment]  # Typed for asyncio as well.
        for name, written in entries.items():
            announcement = decode_queue(written.decode(errors="replace"))
            queue = name.decode(errors="replace")
            if announcement is not None and (queue in self._announced or len(self._announced) < MOST_QUEUES):
                self._announced[queue] = announcement

    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._static, *self._announced)))

    def announced(self) -> Mapping[str, QueueAnnouncement]:
        """
        Return the announcements known so far, by queue.
        """
        return self._announced
