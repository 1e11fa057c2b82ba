"""
kombu: the channels of its virtual transports, where a queue is looked at without being made.
"""

from __future__ import annotations

import importlib

from typing import Any


__all__ = [
    "consul_key",
    "forget_sqs_url",
    "has_queue",
    "knows_queues",
    "knows_size",
    "mongo_database",
    "size",
    "sql_engine",
    "sqs_url",
]


def knows_size(kind: Any, base: Any) -> bool:
    """
    Tell whether channels of *kind* count the messages of a queue, as their *base*, that of all virtual transports, does not.

    Assumes: a transport that counts overrides ``kombu.transport.virtual.Channel._size``.
    Seen on: kombu 5.4 to 5.7.
    Lost: no queue metrics on transports that we do not know by name; the sidecar says so when it starts.
    """
    return kind._size is not base._size


def knows_queues(kind: Any, base: Any) -> bool:
    """
    Tell whether channels of *kind* say which queues exist, as their *base* does not.

    Assumes: a transport that knows overrides ``kombu.transport.virtual.Channel._has_queue``.
    Seen on: kombu 5.4 to 5.7.
    Lost: as for `knows_size`.
    """
    return kind._has_queue is not base._has_queue


def size(channel: Any, queue: str) -> int:
    """
    Return how many messages wait in *queue*.

    Assumes: ``_size(queue)`` of a virtual channel; some make the queue, and are not asked.
    Seen on: kombu 5.4 to 5.7, with memory, filesystem, etcd, ZooKeeper, Consul, PGMQ and Azure Service Bus.
    Lost: ``celery_queue_depth`` on these transports; the sidecar counts the failures.
    """
    return int(channel._size(queue))


def has_queue(channel: Any, queue: str) -> bool:
    """
    Tell whether *queue* exists, without making it.

    Assumes: ``_has_queue(queue)`` of a virtual channel.
    Seen on: kombu 5.4 to 5.7, with memory, etcd, ZooKeeper, Pyro and PGMQ.
    Lost: ``celery_queue_depth`` on these transports; the sidecar counts the failures.
    """
    return bool(channel._has_queue(queue))


def sql_engine(channel: Any) -> Any:
    """
    Return SQLAlchemy's engine for the channel's database, without the session that makes the tables.

    Assumes: ``_engine_from_config()`` of the SQLAlchemy transport, with ``queue_cls`` and ``message_cls`` for the tables.
    Seen on: kombu 5.4 to 5.7.
    Lost: ``celery_queue_depth`` on SQL databases; the sidecar counts the failures.
    """
    return channel._engine_from_config()


def sqs_url(channel: Any, queue: str) -> str | None:
    """
    Return the address of *queue* on Amazon SQS; None where there is none.

    The two exceptions that say so are in the transport's own module up to kombu 5.4.

    Assumes: ``_resolve_queue_url(queue)`` of the SQS transport, which raises one of two exceptions for a queue that does not exist.
    Seen on: kombu 5.4 to 5.7.
    Lost: ``celery_queue_depth`` on Amazon SQS; the sidecar counts the failures.
    """
    transport = importlib.import_module("kombu.transport.SQS")
    if not hasattr(transport, "DoesNotExistQueueException"):
        transport = importlib.import_module("kombu.transport.SQS.exceptions")
    try:
        return str(channel._resolve_queue_url(queue))
    except (transport.DoesNotExistQueueException, transport.UndefinedQueueException):
        return None


def forget_sqs_url(channel: Any, name: str) -> None:
    """
    Forget the address of the queue of that canonical *name*, which was deleted since.

    Assumes: ``_queue_cache`` of the SQS transport, by canonical name.
    Seen on: kombu 5.4 to 5.7.
    Lost: a queue that is deleted and made again is not seen until the sidecar connects anew.
    """
    channel._queue_cache.pop(name, None)


def consul_key(channel: Any, queue: str) -> str:
    """
    Return the key under which Consul has *queue*.

    Assumes: ``_key_prefix(queue)`` of the Consul transport.
    Seen on: kombu 5.4 to 5.7.
    Lost: ``celery_queue_depth`` on Consul; the sidecar counts the failures.
    """
    return str(channel._key_prefix(queue))


def mongo_database(channel: Any) -> Any:
    """
    Return the channel's MongoDB database, without the client that makes collections and indexes.

    Assumes: ``_open()`` of the MongoDB transport, with ``messages_collection`` and ``routing_collection`` for the names.
    Seen on: kombu 5.4 to 5.7.
    Lost: ``celery_queue_depth`` on MongoDB; the sidecar counts the failures.
    """
    return channel._open()
