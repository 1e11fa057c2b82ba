"""
What every queue probe promises, asked of each: a fake's memory, Redis, Redis over a unix socket, RabbitMQ, and kombu's file system transport.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kombu import Exchange, Queue

from celery_obs.exporter.probes import QueueProbe, probe_for

from ..servers import RabbitMQServer, RedisServer, kombu_connection, wait_until


pytestmark = pytest.mark.integration


class Broker:
    """
    A broker with a probe that looks at it.
    """

    def __init__(self, connection: Any, url: str, **options: object) -> None:
        self.connection = connection
        self.probe: QueueProbe = probe_for(url, transport_options=options)

    def declare(self, name: str, **arguments: str) -> Queue:
        queue = Queue(name, Exchange(name), routing_key=name, queue_arguments=arguments)
        queue(self.connection.default_channel).declare()
        return queue

    def publish(self, name: str, times: int) -> None:
        with self.connection.Producer() as producer:
            for number in range(times):
                producer.publish({"n": number}, exchange="", routing_key=name)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer(password="p@ss") as server:
        yield server


@pytest.fixture(scope="module")
def rabbitmq_server() -> Iterator[RabbitMQServer]:
    with RabbitMQServer() as server:
        yield server


@pytest.fixture(params=["redis", "redis socket", "rabbitmq", "rabbitmq quorum", "filesystem"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    kind: str = request.param
    options: dict[str, object] = {}
    if kind.startswith("redis"):
        server: RedisServer = request.getfixturevalue("redis_server")
        socket = f"redis+socket://:p%40ss@{server.socket}?virtual_host=1"
        url = socket if "socket" in kind else f"redis://:p%40ss@127.0.0.1:{server.port}/0"
    elif kind.startswith("rabbitmq"):
        url = request.getfixturevalue("rabbitmq_server").url
    else:
        url = "filesystem://"
        options = {"data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path), "control_folder": str(tmp_path / "control")}
    with kombu_connection(url, **options) as connection:
        made = Broker(connection, url, **options)
        if kind.startswith("redis"):
            connection.default_channel.client.flushdb()
        yield made
        made.probe.close()
        del made


@pytest.fixture
def arguments(broker: Broker, request: pytest.FixtureRequest) -> dict[str, str]:
    return {"x-queue-type": "quorum"} if "quorum" in request.node.name else {}


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "q-" + request.node.name.replace("[", "-").replace("]", "").replace(" ", "-")


def test_the_depth_is_the_number_of_waiting_messages(broker: Broker, arguments: dict[str, str], name: str) -> None:
    """
    Three messages in a declared queue are a depth of three.
    """
    broker.declare(name, **arguments)

    broker.publish(name, 3)

    wait_until(lambda: broker.probe.probe([name])[name].depth == 3, what="three messages")


def test_a_queue_that_was_never_declared_is_absent(broker: Broker, name: str, request: pytest.FixtureRequest) -> None:
    """
    Absent is absent, not 0; and asking does not make the queue.
    """
    if "filesystem" in request.node.name:
        pytest.skip("kombu's file system transport cannot tell whether a queue exists.")

    assert {} == broker.probe.probe([name])
    assert {} == broker.probe.probe([name])


def test_an_empty_queue_has_depth_zero(broker: Broker, arguments: dict[str, str], name: str) -> None:
    """
    A queue that a worker declared and that nobody has written to is there, and empty.
    """
    broker.declare(name, **arguments)

    found = broker.probe.probe(["never-declared", name])

    assert 0 == found[name].depth
    assert found[name].oldest_due_at is None
