"""
What every queue probe promises, asked of each: Redis, Redis over a unix socket, RabbitMQ, and kombu's transports in memory, in files, in SQL
and on SQS, for which moto's server stands in.
"""

from __future__ import annotations

import warnings

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kombu import Exchange, Queue

from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.probes import QueueProbe, probe_for
from tests.servers import RabbitMQServer, RedisServer, kombu_connection, wait_until


pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:The ..noload..")]  # Kombu's own mapping, with SQLAlchemy 2.1.


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


@pytest.fixture(scope="module")
def sqs_place() -> Iterator[str]:
    """
    A server that speaks as Amazon's does.
    """
    server = pytest.importorskip("moto.server")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        made.start()
        yield "{}:{}".format(*made.get_host_and_port())
        made.stop()


@pytest.fixture(params=["redis", "redis socket", "rabbitmq", "rabbitmq quorum", "filesystem", "memory", "sqlalchemy", "sqs"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    kind: str = request.param
    options: dict[str, object] = {}
    if kind.startswith("redis"):
        server: RedisServer = request.getfixturevalue("redis_server")
        socket = f"redis+socket://:p%40ss@{server.socket}?virtual_host=1"
        url = socket if "socket" in kind else f"redis://:p%40ss@127.0.0.1:{server.port}/0"
    elif kind.startswith("rabbitmq"):
        url = request.getfixturevalue("rabbitmq_server").url
    elif kind == "memory":
        url = "memory://"
    elif kind == "sqlalchemy":
        url = f"sqla+sqlite:///{tmp_path / 'queues.db'}"
    elif kind == "sqs":
        url = f"sqs://key:secret@{request.getfixturevalue('sqs_place')}"
        options = {"region": "eu-west-1", "is_secure": False}
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
    node: str = request.node.name
    return "q-" + node.replace("[", "-").replace("]", "").replace(" ", "-")


def test_the_depth_is_the_number_of_waiting_messages(broker: Broker, arguments: dict[str, str], name: str) -> None:
    """
    Three messages in a declared queue are a depth of three.
    """
    broker.declare(name, **arguments)

    broker.publish(name, 3)

    wait_until(lambda: broker.probe.probe([name])[name].depth == 3, what="three messages")


def test_a_queue_that_was_never_declared_is_absent(broker: Broker, name: str) -> None:
    """
    Absent is absent, not 0; and asking does not make the queue.
    """
    assert {} == broker.probe.probe([name])
    assert {} == broker.probe.probe([name])


def test_an_empty_queue_has_depth_zero(broker: Broker, arguments: dict[str, str], name: str) -> None:
    """
    A queue that a worker declared and that no publisher has written to is there, and empty.
    """
    broker.declare(name, **arguments)

    found = broker.probe.probe(["never-declared", name])

    assert 0 == found[name].depth
    assert found[name].oldest_due_at is None


def test_looking_into_a_database_makes_neither_file_nor_table(tmp_path: Path) -> None:
    """
    Of a database that no worker has used yet, nothing is told, and nothing is written into it.
    """
    import sqlalchemy

    missing, empty = tmp_path / "missing.db", tmp_path / "empty.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{empty}")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE theirs (n INTEGER)"))

    found = [probe_for(f"sqla+sqlite:///{path}").probe(["orders"]) for path in (missing, empty)]

    assert [{}, {}] == found
    assert not missing.exists()
    assert ["theirs"] == sqlalchemy.inspect(engine).get_table_names()
    engine.dispose()


def test_looking_into_folders_makes_none(tmp_path: Path) -> None:
    """
    The file system transport's folders are made by who writes into them.
    """
    options = {
        "data_folder_in": str(tmp_path / "in"),
        "data_folder_out": str(tmp_path / "out"),
        "control_folder": str(tmp_path / "control"),
    }

    assert {} == probe_for("filesystem://", transport_options=options).probe(["orders"])
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["confluentkafka://h", "gcpubsub://projects/p"])
def test_a_transport_that_knows_only_what_it_consumes_is_refused(url: str) -> None:
    """
    Its 0 would be a wrong number.
    """
    with pytest.raises(ConfigurationError, match="cannot"):
        probe_for(url)
