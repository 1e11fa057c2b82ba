"""
What we assume of kombu's channels holds on the version that is installed.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kombu import Connection
from kombu.transport.memory import Channel as MemoryChannel
from kombu.transport.virtual import Channel

from celery_obs.compat import kombu as compat


def test_a_channel_that_counts_and_knows_overrides_the_base() -> None:
    """
    The memory transport can tell, and the base of all cannot.
    """
    assert compat.knows_size(MemoryChannel, Channel)
    assert compat.knows_queues(MemoryChannel, Channel)
    assert not compat.knows_size(Channel, Channel)
    assert not compat.knows_queues(Channel, Channel)


def test_a_queue_is_counted_and_not_made() -> None:
    """
    A queue with a message has the size one, and one that does not exist is not made.
    """
    with Connection("memory://") as connection:
        with connection.SimpleQueue("compat") as queue:
            queue.put("message")
        channel = connection.channel()
        assert compat.size(channel, "compat") == 1
        assert compat.has_queue(channel, "compat")
        assert not compat.has_queue(channel, "compat-missing")
        channel.queue_delete("compat")


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("etcd", ["_has_queue", "_size"]),
        ("zookeeper", ["_has_queue", "_size"]),
        ("pyro", ["_has_queue", "_size"]),
        ("filesystem", ["_size", "data_folder_in", "control_folder"]),
        ("consul", ["_size", "_key_prefix"]),
        ("sqlalchemy", ["_engine_from_config", "queue_cls", "message_cls"]),
        ("SQS", ["_resolve_queue_url", "canonical_queue_name", "sqs"]),
        ("mongodb", ["_open", "messages_collection", "routing_collection"]),
        ("azureservicebus", ["_size"]),
        ("azurestoragequeues", ["entity_name", "queue_name_prefix", "queue_service"]),
    ],
)
def test_a_channel_has_what_is_asked_of_it(module: str, names: list[str]) -> None:
    """
    Each transport has the methods and names that its way of looking goes by.
    """
    spec = importlib.util.find_spec(f"kombu.transport.{module}")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())  # Most clients are not installed.
    (channel,) = (each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == "Channel")
    there = {each.name for each in ast.walk(channel) if isinstance(each, ast.FunctionDef)}
    there |= {each.id for each in ast.walk(channel) if isinstance(each, ast.Name)} | {
        each.attr for each in ast.walk(channel) if isinstance(each, ast.Attribute)
    }
    assert [name for name in names if name not in there] == []


def test_an_sqs_queue_is_addressed_and_forgotten() -> None:
    """
    The address is the one in the cache, from which it can be taken out.
    """
    sqs: Any = pytest.importorskip("kombu.transport.SQS")
    assert hasattr(sqs.Channel, "_queue_cache")
    known = {"compat": "http://queue"}
    parts = {
        "_queue_cache": known,
        "canonical_queue_name": lambda _, name: name,
        "_update_queue_cache": lambda *_: None,
        "predefined_queues": {},
    }
    kind: Any = type("Channel", (sqs.Channel,), parts)
    channel = kind.__new__(kind)
    assert compat.sqs_url(channel, "compat") == "http://queue"

    compat.forget_sqs_url(channel, "compat")

    assert compat.sqs_url(channel, "compat") is None


def test_consul_has_a_queue_under_its_key() -> None:
    """
    The key is that under which the transport puts a new queue.
    """
    consul: Any = importlib.import_module("kombu.transport.consul")
    channel = consul.Channel.__new__(consul.Channel)
    assert compat.consul_key(channel, "compat") == f"{channel.prefix}/compat"
    assert "self._key_prefix(queue)" in inspect.getsource(consul.Channel._new_queue)


def test_the_sql_transport_makes_its_engine_without_tables() -> None:
    """
    The engine is for the database that the URL names.
    """
    pytest.importorskip("sqlalchemy")
    with Connection("sqla+sqlite:///:memory:") as connection:
        engine = compat.sql_engine(connection.channel())
    assert engine.url.get_backend_name() == "sqlite"


def test_a_mongodb_channel_opens_its_database_without_arguments() -> None:
    """
    What opens it can be called with nothing but the channel.
    """
    spec = importlib.util.find_spec("kombu.transport.mongodb")
    assert spec is not None
    assert spec.origin is not None
    (opens,) = (
        each for each in ast.walk(ast.parse(Path(spec.origin).read_text())) if isinstance(each, ast.FunctionDef) and each.name == "_open"
    )
    assert len(opens.args.args) - 1 == len(opens.args.defaults)
    assert compat.mongo_database(SimpleNamespace(_open=lambda: "database")) == "database"
