"""
Announcements: a worker tells the cluster, through Redis, which queues it serves and how its broker stores them.

A thread of its own does it, with short timeouts: whatever Redis does, the worker does not wait.
"""

from __future__ import annotations

import threading

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from celery_obs.hub import OnError
from celery_obs.state.announcements import DEFAULT_PRIORITY_STEPS, DEFAULT_SEPARATOR, DEFAULT_UNACKED_KEY, QueueAnnouncement, encode_queue
from celery_obs.state.broker import Broker
from celery_obs.state.connection import connect
from celery_obs.state.keys import QUEUES, QUEUES_TTL


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Announcer", "announcements"]


_PERIOD: Final = 30.0


def announcements(worker: Any, *, now: float) -> dict[str, QueueAnnouncement]:
    """
    Return what there is to say of the queues that *worker* serves, by their names.
    """
    options = dict(worker.app.conf.broker_transport_options or {})
    steps = options.get("priority_steps")
    return {
        str(name): QueueAnnouncement(
            seen=now,
            exchange=getattr(queue.exchange, "name", "") or "",
            priority_steps=tuple(steps) if steps else DEFAULT_PRIORITY_STEPS,
            sep=options.get("sep", DEFAULT_SEPARATOR),
            global_keyprefix=options.get("global_keyprefix", ""),
            unacked_key=options.get("unacked_key", DEFAULT_UNACKED_KEY),
        )
        for name, queue in worker.app.amqp.queues.consume_from.items()
    }


class Announcer:
    """
    Announce queues every half minute until told to stop.

    Args:
        redis: Where: a URL, or the broker itself.

        say: Returns what there is to say now.

        on_error: Hears of failures; they are expected when Redis is away.
    """

    def __init__(self, redis: str | Broker, *, say: Callable[[], Mapping[str, QueueAnnouncement]], on_error: OnError) -> None:
        self._redis = redis
        self._say = say
        self._on_error = on_error
        self._stopped = threading.Event()

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

    def _run(self, client: Redis) -> None:
        while True:
            try:
                with client.pipeline(transaction=False) as pipe:
                    for name, announcement in self._say().items():
                        pipe.hset(QUEUES, name, encode_queue(announcement))
                    pipe.expire(QUEUES, QUEUES_TTL)
                    pipe.execute()
            except Exception as exc:  # noqa: BLE001 -- never fail the observed.
                self._on_error(exc, component="worker.announce")
            if self._stopped.wait(_PERIOD):
                client.close()
                return
