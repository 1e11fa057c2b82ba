"""
Queues on any other transport of kombu's that can tell the size of one without making it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from celery_obs.compat.kombu import knows_queues, knows_size
from celery_obs.exceptions import ConfigurationError
from celery_obs.state.broker import Broker, reason_of
from celery_obs.telemetry.redaction import reason

from . import QueueReading
from .passive import LOOKS, known_queue


__all__ = ["GenericProbe"]


CONNECT_TIMEOUT: Final = 0.5

_BLIND: Final = frozenset({"kombu.transport.confluentkafka", "kombu.transport.gcpubsub"})
"""
Transports that know the size of those queues only that their own process consumes.
"""
_LOOKING: Final[Mapping[str, Mapping[str, Any]]] = {"kombu.transport.pgmq": {"init_extension": False}}
"""
Transport options with which a transport makes nothing when it connects.
"""


class GenericProbe:
    """
    Asks through kombu's virtual transports, never with a method that makes what it does not find.

    Raises:
        ConfigurationError: if the transport's packages are missing, or if it is none that can tell.
    """

    def __init__(self, broker: Broker) -> None:
        from kombu.transport.virtual import Channel

        try:
            self._connection: Any = broker.connection(connect_timeout=CONNECT_TIMEOUT)
            transport = self._connection.get_transport_cls()
        except (ImportError, AttributeError, KeyError, NameError) as error:
            message = f"The broker URL {broker.shown!r} needs a kombu transport that cannot be loaded: {reason(error, broker.url)}. Install the packages that kombu names for it."
            raise ConfigurationError(message) from error
        except ValueError as error:
            message = (
                f"The broker URL {broker.shown!r} cannot be read: {reason_of(error, broker)}. "
                "Expected scheme://user:password@host:port/name; write / @ : ; ? # % and spaces in a password as %2F %40 %3A %3B %3F %23 %25 %20."
            )
            raise ConfigurationError(message) from None
        channel: Any = getattr(transport, "Channel", None)
        is_virtual = isinstance(channel, type) and issubclass(channel, Channel)
        module = str(getattr(channel, "__module__", ""))
        self._look: Callable[[Any, str], QueueReading | None] = LOOKS.get(module, known_queue)
        can_tell = is_virtual and module not in _BLIND and knows_size(channel, Channel)
        if can_tell and self._look is known_queue:
            can_tell = knows_queues(channel, Channel)
        if not can_tell:
            message = (
                f"The broker URL {broker.shown!r} has a transport that cannot count the messages of a queue without creating it. "
                "Leave out --broker-url to go without queue metrics."
            )
            raise ConfigurationError(message)
        if module in _LOOKING:
            self._connection = broker.connection(connect_timeout=CONNECT_TIMEOUT, transport_options=_LOOKING[module])
        self._channel: Any = None

    def probe(self, queues: Collection[str]) -> Mapping[str, QueueReading]:
        """
        Read *queues*; see :class:`~celery_obs.exporter.probes.QueueProbe`.
        """
        try:
            if self._channel is None:
                self._channel = self._connect().channel()
            found = {queue: self._look(self._channel, queue) for queue in queues}
        except BaseException:
            self.close()
            raise
        return {queue: reading for queue, reading in found.items() if reading is not None}

    def close(self) -> None:
        """
        Drop the connection.
        """
        self._channel = None
        with suppress(Exception):
            self._connection.collect(CONNECT_TIMEOUT)

    def _connect(self) -> Any:
        tries = max(1, len(self._connection.alt or ()))
        return self._connection.ensure_connection(max_retries=tries, interval_start=0, interval_step=0, timeout=tries * 2 * CONNECT_TIMEOUT)
