"""
Queues on any other transport of kombu's that can tell the size of one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from celery_obs.exceptions import ConfigurationError

from . import QueueReading, mask


__all__ = ["GenericProbe"]


CONNECT_TIMEOUT: Final = 0.5


class GenericProbe:
    """
    Asks through kombu's virtual transports, whose channels know ``_size`` and ``_has_queue``.

    Raises:
        ConfigurationError: if the transport's packages are missing, or if it is none that can tell.
    """

    def __init__(self, url: str, *, transport_options: Mapping[str, Any] | None = None) -> None:
        from kombu import Connection
        from kombu.transport.virtual import Channel

        self._connection: Any = Connection(url, connect_timeout=CONNECT_TIMEOUT, transport_options=dict(transport_options or {}))
        try:
            transport = self._connection.get_transport_cls()
        except (ImportError, AttributeError, KeyError) as error:
            message = f"The broker URL {mask(url)!r} needs a kombu transport that cannot be loaded: {error}. Install the packages that kombu names for it."
            raise ConfigurationError(message) from error
        channel: Any = getattr(transport, "Channel", None)
        is_virtual = isinstance(channel, type) and issubclass(channel, Channel)
        if not is_virtual or channel._size is Channel._size:  # noqa: SLF001 -- kombu has no public way.
            message = f"The broker URL {mask(url)!r} has a transport that cannot tell how many messages wait. Leave --broker-url away to go without queue metrics."
            raise ConfigurationError(message)
        self._url = url
        self._knows_queues = channel._has_queue is not Channel._has_queue  # noqa: SLF001 -- see above.
        self._channel: Any = None

    def probe(self, queues: Collection[str]) -> Mapping[str, QueueReading]:
        """
        Read *queues*; see :class:`~celery_obs.exporter.probes.QueueProbe`.
        """
        try:
            if self._channel is None:
                self._channel = self._connection.channel()
            return {queue: QueueReading(depth=int(self._channel._size(queue))) for queue in queues if self._exists(queue)}  # noqa: SLF001 -- see above.
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._channel = None
        with suppress(Exception):
            self._connection.collapse()

    def _exists(self, queue: str) -> bool:
        # What cannot tell says True; then an empty queue and none look alike, and only the depth of a known name is shown.
        return bool(self._channel._has_queue(queue)) if self._knows_queues else True  # noqa: SLF001 -- see above.
