"""
Looking at a queue without making it, for each of kombu's virtual transports.

Their own ``_size`` makes the queue, or its table, on half of them, and says 0 of one that does not exist on others.
Kombu has no public way for any of this: what is used of its channels is private, and stands in `celery_obs.compat.kombu`.
"""

from __future__ import annotations

import json

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from celery_obs.compat import kombu

from . import QueueReading


__all__ = ["LOOKS", "known_queue"]


def known_queue(channel: Any, queue: str) -> QueueReading | None:
    """
    Ask a transport whose ``_has_queue`` tells: memory, etcd, ZooKeeper, Pyro, PGMQ, and those of others.
    """
    return QueueReading(depth=kombu.size(channel, queue)) if kombu.has_queue(channel, queue) else None


def in_files(channel: Any, queue: str) -> QueueReading | None:
    """
    Look into the folders of the file system transport: a queue exists where an exchange is bound to it, or a message waits for it.
    """
    inbox = Path(channel.data_folder_in)
    depth = kombu.size(channel, queue) if inbox.is_dir() else 0
    return QueueReading(depth=depth) if depth or _is_bound(Path(channel.control_folder), queue) else None


def _is_bound(control: Path, queue: str) -> bool:
    for file in control.glob("*.exchange"):
        try:
            bindings = json.loads(file.read_text())
        except (OSError, ValueError):  # It is being written.
            continue
        if any(isinstance(each, list) and each and each[-1] == queue for each in bindings):
            return True
    return False


def in_sql(channel: Any, queue: str) -> QueueReading | None:
    """
    Read the SQLAlchemy transport's two tables; its own session makes them, and sqlite makes the file.
    """
    from sqlalchemy import func, inspect, select

    engine = channel.__dict__.get("celery_obs_engine")
    if engine is None:
        engine = channel.celery_obs_engine = kombu.sql_engine(channel)
    database = engine.url.database
    if engine.url.get_backend_name() == "sqlite" and database and database != ":memory:" and not Path(database).exists():
        return None
    queues, messages = channel.queue_cls.__table__, channel.message_cls.__table__
    with engine.connect() as connection:
        if not all(inspect(connection).has_table(table.name, schema=table.schema) for table in (queues, messages)):
            return None
        number = connection.execute(select(queues.c.id).where(queues.c.name == queue)).scalar()
        if number is None:
            return None
        wanted = select(func.count()).select_from(messages).where(messages.c.queue_id == number)
        waiting = connection.execute(wanted.where(messages.c.visible.is_(True))).scalar()
    return QueueReading(depth=int(waiting or 0))


def on_sqs(channel: Any, queue: str) -> QueueReading | None:
    """
    Ask Amazon SQS for a queue's attributes; ``_size`` would create it.
    """
    name = channel.canonical_queue_name(queue)
    url = kombu.sqs_url(channel, queue)
    if url is None:
        return None
    client = channel.sqs(queue=name)
    try:
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=list(_SQS_ATTRIBUTES))
    except client.exceptions.QueueDoesNotExist:
        kombu.forget_sqs_url(channel, name)  # It was deleted since.
        return None
    waiting, taken = (int(answer["Attributes"][attribute]) for attribute in _SQS_ATTRIBUTES)
    return QueueReading(depth=waiting, unacked=taken)


_SQS_ATTRIBUTES: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


def on_azure_storage(channel: Any, queue: str) -> QueueReading | None:
    """
    Ask Azure Storage Queues for a queue's properties; ``_ensure_queue`` would create it.
    """
    from azure.core.exceptions import ResourceNotFoundError

    name = channel.entity_name(channel.queue_name_prefix + queue)
    try:
        properties = channel.queue_service.get_queue_client(queue=name).get_queue_properties()
    except ResourceNotFoundError:
        return None
    return QueueReading(depth=int(properties.approximate_message_count))


def on_azure_bus(channel: Any, queue: str) -> QueueReading | None:
    """
    Ask Azure Service Bus, whose ``_size`` creates nothing and raises for a queue that does not exist.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return QueueReading(depth=kombu.size(channel, queue))
    except ResourceNotFoundError:
        return None


def in_consul(channel: Any, queue: str) -> QueueReading | None:
    """
    Ask Consul, whose ``_size`` says 0 of a queue that does not exist; its key says that it does.
    """
    _, entry = channel.client.kv.get(key=kombu.consul_key(channel, queue))
    return QueueReading(depth=kombu.size(channel, queue)) if entry is not None else None


def in_mongo(channel: Any, queue: str) -> QueueReading | None:
    """
    Read MongoDB's collections; the channel's own client makes them, with their indexes.
    """
    database = channel.__dict__.get("celery_obs_database")
    if database is None:
        database = channel.celery_obs_database = kombu.mongo_database(channel)
    depth = int(database[channel.messages_collection].count_documents({"queue": queue}))
    if not depth and database[channel.routing_collection].find_one({"queue": queue}) is None:
        return None
    return QueueReading(depth=depth)


LOOKS: Final[Mapping[str, Callable[[Any, str], QueueReading | None]]] = {
    "kombu.transport.SQS": on_sqs,
    "kombu.transport.azureservicebus": on_azure_bus,
    "kombu.transport.azurestoragequeues": on_azure_storage,
    "kombu.transport.consul": in_consul,
    "kombu.transport.filesystem": in_files,
    "kombu.transport.mongodb": in_mongo,
    "kombu.transport.sqlalchemy": in_sql,
}
"""
How to look, by the module of the transport's channel; `known_queue` for all others.
"""
