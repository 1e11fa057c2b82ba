"""
Announcements: workers and publishers tell the cluster, through Redis, which queues they know and how their broker stores them.

A thread of its own does it, with short timeouts: whatever Redis does, the process does not wait.
"""

from __future__ import annotations

import contextlib
import threading

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from celery_obs.areas.queues.announcements import (
    DEFAULT_PRIORITY_STEPS,
    DEFAULT_SEPARATOR,
    DEFAULT_UNACKED_KEY,
    QueueAnnouncement,
    decode_queue,
    encode_queue,
)
from celery_obs.areas.queues.metrics import shared_label
from celery_obs.clock import wall
from celery_obs.compat.celery import queues_of
from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime.hub import guarded
from celery_obs.state.broker import Broker, of_app
from celery_obs.state.connection import connect
from celery_obs.state.keys import PUBLISHED, QUEUES, QUEUES_TTL

from .hub import OnError


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Announcer", "announcements", "publishers_announcer"]


_PERIOD: Final = 30.0
_PUBLISHERS_PERIOD: Final = 300.0
_SOON: Final = 2.0
"""
Seconds after which a publisher looks again: by then it has published to more queues than the first.
"""
_TIDY_EVERY: Final = 20
_TEMPORARY_FOR: Final = 600.0
"""
Seconds after which the announcement of a queue that lived no longer than its worker is taken out, where the worker did not do so itself.
"""


def announcements(worker: Any, *, now: float) -> dict[str, QueueAnnouncement]:
    """
    Return what there is to say of the queues that *worker* serves, by their names.
    """
    return _announcements_of(worker.app, worker.app.amqp.queues.consume_from.items(), now=now, write=False)


def _known(apps: Iterable[Any], *, now: float) -> dict[str, QueueAnnouncement]:
    """
    Return what publishers of *apps* can say; nothing of queues that only their consumer can name.
    """
    found: dict[str, QueueAnnouncement] = {}
    for app in apps:
        queues = [(name, queue) for name, queue in list(queues_of(app).items()) if not shared_label(queue)]
        if queues:
            found.update(_announcements_of(app, queues, now=now, write=True))
    return found


def _announcements_of(app: Any, queues: Iterable[tuple[str, Any]], *, now: float, write: bool) -> dict[str, QueueAnnouncement]:
    options = dict(app.conf.broker_transport_options or {})
    steps = options.get("priority_steps")
    broker = ""
    with contextlib.suppress(ConfigurationError):
        broker = of_app(app, write=write).name
    return {
        str(getattr(queue, "name", None) or name): QueueAnnouncement(
            seen=now,
            exchange=getattr(queue.exchange, "name", "") or "",
            label=shared_label(queue),
            broker=broker,
            priority_steps=tuple(steps) if steps else DEFAULT_PRIORITY_STEPS,
            sep=options.get("sep", DEFAULT_SEPARATOR),
            global_keyprefix=options.get("global_keyprefix", ""),
            unacked_key=options.get("unacked_key", DEFAULT_UNACKED_KEY),
        )
        for name, queue in queues
    }


def publishers_announcer(redis: str | Broker, apps: Iterable[Any], *, on_error: OnError) -> Announcer:
    """
    Make the announcer of a process that publishes.
    """
    return Announcer(redis, say=lambda: _known(apps, now=wall()), on_error=on_error, key=PUBLISHED, periods=(_SOON, _PUBLISHERS_PERIOD))


class Announcer:
    """
    Announce queues again and again until told to stop.

    Args:
        redis: Where: a URL, or the broker itself.

        say: Returns what there is to say now.

        on_error: Hears of failures; they are expected when Redis is away.

        key: The hash to write.

        periods: Seconds until the next time, the last of them from then on.
    """

    def __init__(
        self,
        redis: str | Broker,
        *,
        say: Callable[[], Mapping[str, QueueAnnouncement]],
        on_error: OnError,
        key: str = QUEUES,
        periods: tuple[float, ...] = (_PERIOD,),
    ) -> None:
        self._redis = redis
        self._say = say
        self._on_error = on_error
        self._key = key
        self._periods = periods
        self._temporary: set[str] = set()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """
        Begin.

        All that the thread will need is imported here, before it runs: a worker forks its beat and its pool's processes at any time,
        and a child that was forked in the middle of an import waits for its end for ever.
        """
        import encodings.idna  # noqa: F401, PLC0415 -- looking up a host's name imports it.

        client = connect(self._redis)
        pool = getattr(client, "connection_pool", None)  # A cluster's client has none of its own.
        if pool is not None:
            pool.make_connection()
        self._thread = threading.Thread(target=self._run, args=(client,), name="celery_obs.announce", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """
        Stop soon; what is under way is not waited for.
        """
        self._stopped.set()

    def join(self, *, within: float) -> None:
        """
        Give the thread up to *within* seconds to say its last word.
        """
        if self._thread is not None:
            self._thread.join(within)

    def _run(self, client: Redis) -> None:
        times = 0
        while not self._stopped.is_set():
            self._try(self._announce, client)
            if times % _TIDY_EVERY == 0:
                self._try(self._tidy, client)
            self._stopped.wait(self._periods[min(times, len(self._periods) - 1)])
            times += 1
        self._try(self._withdraw, client)
        client.close()

    def _try(self, step: Callable[[Redis], None], client: Redis) -> None:
        with guarded(self._on_error, "worker.announce"):
            step(client)

    def _announce(self, client: Redis) -> None:
        announced = self._say()
        with client.pipeline(transaction=False) as pipe:
            for name, announcement in announced.items():
                pipe.hset(self._key, name, encode_queue(announcement))
            pipe.expire(self._key, QUEUES_TTL)
            pipe.execute()
        self._temporary |= {name for name, announcement in announced.items() if announcement.label}

    def _withdraw(self, client: Redis) -> None:
        """
        Take out what ends with this process; of what stays, a publisher says the last that it knows.
        """
        if self._temporary:
            client.hdel(self._key, *self._temporary)
        if self._key == PUBLISHED:
            self._announce(client)

    def _tidy(self, client: Redis) -> None:
        """
        Take out what others did not take out themselves.
        """
        now = wall()
        entries: Mapping[bytes, bytes] = client.hgetall(self._key)  # type: ignore[assignment]  # Typed for asyncio as well.
        old = [name for name, written in entries.items() if _is_over(decode_queue(written.decode(errors="replace")), now)]
        if old:
            client.hdel(self._key, *old)


def _is_over(announcement: QueueAnnouncement | None, now: float) -> bool:
    return announcement is not None and now - announcement.seen > (_TEMPORARY_FOR if announcement.label else QUEUES_TTL)
