"""
Connections: which accounts we keep in sync.

They are known from calls of `register_connection`, or from an object of the application's, the setting ``connection_source``.
"""

from __future__ import annotations

import contextlib

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.errors import UnknownConnectionError
from celery_obs.areas.channels.sources import named
from celery_obs.areas.channels.times import time_of
from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime.hub import guarded
from celery_obs.vocabulary.spec import is_utf8

from .metrics import STATUSES, ConnectionStatus
from .state import Connection, Facts


if TYPE_CHECKING:
    from redis import Redis


__all__ = [
    "Connection",
    "ConnectionSource",
    "RedisConnections",
    "checked",
    "find_connection",
    "forget_connection",
    "register_connection",
    "set_connection_status",
    "source_of",
]


_LONGEST: Final = 200


class ConnectionSource(Protocol):
    """
    A source of all connections, for applications that keep a table of them.

    Since 0.1.
    """

    def connections(self) -> Iterable[Connection]:
        """
        Go through all connections, each once, in any order; it may be a generator over a table of any length.

        A connection that is no longer among them is forgotten after the setting ``connection_grace``.
        ``active`` does not take back the ``error`` of a connection whose token was refused: a refresh that succeeds does,
        or `set_connection_status`.
        """


class RedisConnections:
    """
    The built-in source: those that were registered, and not forgotten since.

    Args:
        redis: A client.
    """

    def __init__(self, redis: Redis) -> None:
        self._facts = Facts(redis)

    def connections(self) -> Iterator[Connection]:
        """
        Go through all of them.
        """
        yield from self._facts.connections().values()


def source_of(engine: engines.Engine) -> ConnectionSource | None:
    """
    Return the source that the setting ``connection_source`` names; the built-in one by default, None without Redis.

    Raises:
        ConfigurationError: if what it names is not there, or is no source.
    """
    if engine.settings.connection_source is not None:
        source: ConnectionSource = named("connection_source", engine.settings.connection_source, "connections")
        return source
    return None if engine.redis is None else RedisConnections(engine.redis)


def find_connection(engine: engines.Engine, connection_id: str) -> Connection:
    """
    Return what is known of a connection.

    Raises:
        UnknownConnectionError: if that is nothing.
    """
    found = None if engine.redis is None else Facts(engine.redis).connection(connection_id)
    if found is None:
        message = (
            f"There is no connection {connection_id[:_LONGEST]!r}. Expected the id of one that was registered, "
            "or that the setting connection_source returned at the last census (celery call take_census)."
        )
        raise UnknownConnectionError(message)
    return found


# --- in this process --------------------------------------------------------------------------------------------------------------


def register_connection(
    connection_id: str,
    channel_type: str,
    *,
    status: ConnectionStatus = "active",
    created_at: float | datetime | str | None = None,
    url_parameters: Mapping[str, str] | None = None,
) -> None:
    """
    Register a connection, or update it.  Costs one round trip to Redis; without Redis it is skipped, and counted.

    Args:
        connection_id: Its name, any text.

        channel_type: The channel.

        status: active, paused, error or disconnected.

        created_at: When the customer connected it: seconds since the epoch, a datetime with a time zone, or ISO 8601.

        url_parameters: What is filled into the channel's token URL, such as ``{"shop": "acme"}``; None leaves what is known as it is.

    Raises:
        ValueError, TypeError: if *status* is another word, the name is empty, *created_at* is not a time, or *url_parameters* not a dict of texts.

    Since 0.1.
    """
    _check(connection_id, status)
    if not _are_texts(url_parameters):
        message = (
            f"The url_parameters of connection {connection_id[:_LONGEST]!r} are wrong. Expected a dict such as {{'shop': 'acme'}}, or None."
        )
        raise ValueError(message)
    since = time_of(created_at, "created_at", of="connection")
    _tell(lambda facts: facts.register([Connection(connection_id, channel_type, status, since, url_parameters)]))


def set_connection_status(connection_id: str, status: ConnectionStatus) -> None:
    """
    Set the status of a connection.  Cost and errors as `register_connection`.

    Since 0.1.
    """
    _check(connection_id, status)
    _tell(lambda facts: facts.set_status(connection_id, status))


def forget_connection(connection_id: str) -> None:
    """
    Remove a connection and all its data, its token included.  Cost and errors as `register_connection`.

    Since 0.1.
    """
    _check(connection_id, "active")
    _tell(lambda facts: facts.forget([connection_id]))


def _check(connection_id: Any, status: str) -> None:
    if not _is_text(connection_id):
        message = f"The connection's id is {repr(connection_id)[:_LONGEST]}. Expected a text that is not empty."
        raise ValueError(message)
    if status not in STATUSES:
        message = f"The status of connection {connection_id[:_LONGEST]!r} is {status!r}. Expected one of: {', '.join(STATUSES)}."
        raise ValueError(message)


def _tell(write: Callable[[Facts], object]) -> None:
    engine = engines.current()
    if engine.redis is None:
        return
    with guarded(engine.hub.on_error, "sync.connections"):  # The next census, or the next call, repairs it.
        write(Facts(engine.redis))


def checked(connection: Any) -> Connection:
    """
    Return what a source gave if it is a connection.

    Raises:
        ConfigurationError: if it is another thing.
    """
    if isinstance(connection, Connection):
        texts: tuple[Any, ...] = (connection.connection_id, connection.channel_type)
        well = all(_is_text(text) for text in texts) and connection.status in STATUSES
        if well and _are_texts(connection.url_parameters):
            with contextlib.suppress(TypeError, ValueError):
                return connection._replace(created_at=time_of(connection.created_at, "created_at", of="connection"))
    message = (
        f"The setting connection_source gave {repr(connection)[:_LONGEST]}. Expected each to be a celery_obs.Connection with a connection_id, "
        f"a channel_type, a status out of: {', '.join(STATUSES)}, a created_at that is a time or None, and url_parameters that are a dict of texts or None."
    )
    raise ConfigurationError(message)


def _are_texts(parameters: Any) -> bool:
    return parameters is None or (isinstance(parameters, Mapping) and all(_is_text(text) for pair in parameters.items() for text in pair))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and is_utf8(value)
