"""
Queues on RabbitMQ, asked for by passive declaration: it creates nothing, and works for classic and quorum queues alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from celery_obs.state.broker import Broker

from . import QueueReading


__all__ = ["AmqpProbe"]


CONNECT_TIMEOUT: Final = 0.5
READ_TIMEOUT: Final = 1.0
NOT_FOUND: Final = 404


class AmqpProbe:
    """
    Asks a broker that speaks AMQP 0.9.1, over one connection that is kept.

    Args:
        broker: The broker; of several servers that stand in for each other, it goes on to the next when one fails.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._connection: Any = None
        self._channel: Any = None

    def probe(self, queues: Collection[str]) -> Mapping[str, QueueReading]:
        """
        Read *queues*; see :class:`~celery_obs.exporter.probes.QueueProbe`.
        """
        try:
            found: dict[str, QueueReading] = {}
            for queue in queues:
                reading = self._read(queue)
                if reading is not None:
                    found[queue] = reading
        except BaseException:
            self.close()
            raise
        return found

    def close(self) -> None:
        """
        Drop the connection, without a word to a broker that may not be listening.
        """
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.collect(CONNECT_TIMEOUT)

    def _read(self, queue: str) -> QueueReading | None:
        from amqp.exceptions import NotFound, ResourceLocked

        channel = self._open()
        try:
            answer = channel.queue_declare(queue=queue, passive=True)
        except NotFound:
            # The broker closes the channel with its refusal.
            self._channel = None
            return None
        except ResourceLocked:
            # An exclusive queue: it exists, and only its owner may look at it.
            self._channel = None
            return None
        return QueueReading(depth=int(answer.message_count), consumers=int(answer.consumer_count))

    def _open(self) -> Any:
        if self._connection is None:
            timeouts = {"read_timeout": READ_TIMEOUT, "write_timeout": READ_TIMEOUT}
            self._connection = self._broker.connection(connect_timeout=CONNECT_TIMEOUT, heartbeat=0, transport_options=timeouts)
            # One try for each server: the next scrape is the retry.
            tries = max(1, len(self._connection.alt or ()))
            self._connection.ensure_connection(
                max_retries=tries, interval_start=0, interval_step=0, timeout=tries * (CONNECT_TIMEOUT + READ_TIMEOUT)
            )
        if self._channel is None:
            self._channel = self._connection.channel()
        return self._channel
