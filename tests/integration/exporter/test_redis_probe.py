"""
The Redis probe on a real Redis, with queues and messages made by kombu.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from kombu import Exchange, Queue

from celery_obs.exporter.discovery import Discovery
from celery_obs.exporter.probes import QueueReading
from celery_obs.exporter.probes.redis import RedisProbe, connect
from celery_obs.state import keys
from celery_obs.state.announcements import QueueAnnouncement, encode_queue

from ...servers import RedisServer, kombu_connection


pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture(autouse=True)
def opened() -> Iterator[list[Any]]:
    """
    Close what a test connects.
    """
    yield _OPENED
    while _OPENED:
        _OPENED.pop().close()


_OPENED: list[Any] = []


def _connect(url: str) -> Any:
    _OPENED.append(client := connect(url))
    return client


def _probe(server: RedisServer, **options: Any) -> RedisProbe:
    return RedisProbe(_connect(server.url), announced=dict, transport_options=options)


def _read(server: RedisServer, queue: str = "q", **options: Any) -> QueueReading:
    return _probe(server, **options).probe([queue])[queue]


def _publish(connection: Any, queue: str = "q", *, priority: int = 0, stamp: float | None = None, **more: Any) -> None:
    headers = {"task": "t", "id": "1", "argsrepr": "()", **({} if stamp is None else {"celery_obs_published": stamp}), **more.pop("headers", {})}
    with connection.Producer() as producer:
        producer.publish([[], {}, {}], exchange=more.pop("exchange", ""), routing_key=queue, headers=headers, priority=priority, **more)


def test_depth_by_priority_step(server: RedisServer, client: Any) -> None:
    """
    Messages of a priority count in the step that kombu put them in, and all of them in the depth.
    """
    steps = {"priority_steps": [0, 2, 5], "sep": ":"}
    with kombu_connection(server.url, **steps) as connection:
        for priority in (0, 1, 2, 4, 9):
            _publish(connection, priority=priority)

    found = _read(server, **steps)

    assert 5 == found.depth
    assert {0: 2, 2: 2, 5: 1} == found.by_priority


def test_an_announcement_says_how_keys_are_spelled(server: RedisServer, client: Any) -> None:
    """
    Steps, separator and key prefix that workers announce in Redis are used, without any option of ours.
    """
    options: dict[str, Any] = {"priority_steps": [0, 7], "sep": "|", "global_keyprefix": "site-a:"}
    with kombu_connection(server.url, **options) as connection:
        _publish(connection, priority=9)
    announcement = QueueAnnouncement(seen=1.0, priority_steps=(0, 7), sep="|", global_keyprefix="site-a:")
    client.hset(keys.QUEUES, "q", encode_queue(announcement))
    client.hset(keys.QUEUES, "broken", "{")
    names = Discovery(client=_connect(server.url))

    names.refresh()
    found = RedisProbe(_connect(server.url), announced=names.announced).probe(names.names())

    assert ("q",) == names.names()
    assert {0: 0, 7: 1} == found["q"].by_priority


def test_names_are_remembered_when_redis_forgot_them(server: RedisServer, client: Any) -> None:
    """
    A queue stays known to an exporter that has once heard of it.
    """
    client.hset(keys.QUEUES, "q", encode_queue(QueueAnnouncement(seen=1.0)))
    names = Discovery(["given"], client=_connect(server.url))
    names.refresh()

    client.flushall()
    names.refresh()

    assert ("given", "q") == names.names()


def test_an_empty_queue_is_known_by_its_binding_whatever_its_exchange(server: RedisServer, client: Any) -> None:
    """
    A declared queue that has no messages, bound to an exchange of another name and under a prefix, is there with depth 0.
    """
    options = {"global_keyprefix": "site[a]*:"}
    with kombu_connection(server.url, **options) as connection:
        Queue("q", Exchange("other"), routing_key="r")(connection.default_channel).declare()

    found = _probe(server, **options).probe(["q", "never"])

    assert {"q"} == set(found)
    assert 0 == found["q"].depth


def test_unacked_messages_are_counted_by_queue(server: RedisServer, client: Any) -> None:
    """
    Messages that a consumer holds count under their queue, also when they came through an exchange with a routing key of its own.
    """
    with kombu_connection(server.url) as connection:
        direct = Queue("q", Exchange("q"), routing_key="q")(connection.default_channel)
        routed = Queue("routed", Exchange("routed"), routing_key="some.key")(connection.default_channel)
        direct.declare()
        routed.declare()
        for _ in range(3):
            _publish(connection)
        _publish(connection, queue="some.key", exchange="routed")
        assert all([direct.get(), direct.get(), routed.get()])

        found = _probe(server).probe(["q", "routed", "never"])

        assert (1, 2) == (found["q"].depth, found["q"].unacked)
        assert (0, 1) == (found["routed"].depth, found["routed"].unacked)


def test_many_unacked_messages_are_read_page_by_page(server: RedisServer, client: Any) -> None:
    """
    More than a page of them, large ones too, are counted exactly.
    """
    client.rpush("q", "x")
    entry = '["%s", "", "q"]'
    with client.pipeline() as pipe:
        for number in range(1203):
            pipe.hset("unacked", f"tag-{number}", entry % ("x" * 10))
        for number in range(3):
            pipe.hset("unacked", f"large-{number}", entry % ("x" * 9_000_000))
        pipe.execute()

    assert 1206 == _read(server).unacked


def test_too_many_unacked_messages_are_not_counted_and_said_once(server: RedisServer, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """
    Beyond the limit the number is absent rather than dear.
    """
    client.rpush("q", "x")
    client.hset("unacked", mapping={f"tag-{number}": "x" for number in range(20_001)})
    probe = _probe(server)

    with caplog.at_level(logging.WARNING):
        found = [probe.probe(["q"])["q"] for _ in range(2)]

    assert [None, None] == [reading.unacked for reading in found]
    assert 1 == len(caplog.records)


def test_the_oldest_message_is_the_next_to_be_delivered(server: RedisServer, client: Any) -> None:
    """
    The age comes from the publish stamp of the message that waits longest, over all priorities.
    """
    now = time.time()
    with kombu_connection(server.url) as connection:
        _publish(connection, stamp=now - 100, priority=3)
        _publish(connection, stamp=now - 10, priority=3)
        _publish(connection, stamp=now - 50)

    assert now - 100 == _read(server).oldest_due_at


def test_an_eta_counts_from_when_it_is_due(server: RedisServer, client: Any) -> None:
    """
    A message published long ago with an ETA has waited since the ETA.
    """
    now = float(int(time.time()))
    eta = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(now - 5))
    with kombu_connection(server.url) as connection:
        _publish(connection, stamp=now - 3600, headers={"eta": eta})

    assert now - 5 == _read(server).oldest_due_at


def test_a_message_without_our_stamp_has_no_age(server: RedisServer, client: Any) -> None:
    """
    What a publisher without celery_obs sent is counted, and its age is not guessed.
    """
    with kombu_connection(server.url) as connection:
        _publish(connection, headers={"argsrepr": '("\\"celery_obs_published\\": 1700000000.0, ",)'})

    assert _read(server).oldest_due_at is None


def test_a_huge_message_is_not_transferred(server: RedisServer, client: Any) -> None:
    """
    Of a message of 20 MB the probe fetches some kilobytes, and still finds the stamp.
    """
    stamp = time.time() - 7
    with kombu_connection(server.url) as connection, connection.Producer() as producer:
        producer.publish("x" * 20_000_000, exchange="", routing_key="q", headers={"task": "t", "celery_obs_published": stamp})
    before = client.info("stats")["total_net_output_bytes"]

    found = _read(server)

    assert stamp == found.oldest_due_at
    assert client.info("stats")["total_net_output_bytes"] - before < 200_000


def test_without_the_right_to_run_scripts_depths_are_still_read(server: RedisServer, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """
    A user who may not EVAL sees depths; age and unacknowledged messages are absent, and the log says once what to allow.
    """
    client.acl_setuser("reader", enabled=True, passwords=["+pw"], categories=["+@all"], commands=["-eval"], keys=["*"])
    with kombu_connection(server.url) as connection:
        _publish(connection, stamp=time.time())
    probe = RedisProbe(_connect(f"redis://reader:pw@127.0.0.1:{server.port}/0"), announced=dict)

    with caplog.at_level(logging.WARNING):
        found = [probe.probe(["q"])["q"] for _ in range(2)]

    assert [QueueReading(depth=1, by_priority={0: 1, 3: 0, 6: 0, 9: 0})] * 2 == found
    assert 1 == len(caplog.records)
    assert "+eval" in caplog.text


def test_it_recovers_by_itself_when_redis_comes_back() -> None:
    """
    While Redis is down the probe raises quickly; the first question after its return is answered.
    """
    with RedisServer() as server:
        probe = _probe(server)
        with redis.Redis(port=server.port) as client:
            client.rpush("q", "x")
        assert 1 == probe.probe(["q"])["q"].depth

        server.kill()
        begin = time.monotonic()
        with pytest.raises(redis.ConnectionError):
            probe.probe(["q"])
        assert time.monotonic() - begin < 1
        server.start()

        assert {} == probe.probe(["q"])


def test_a_hanging_redis_is_given_up_after_a_second(server: RedisServer, client: Any) -> None:
    """
    A server that accepts and does not answer costs a second, not for ever.
    """
    probe = _probe(server)
    probe.probe(["q"])

    with server.hanging():
        begin = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            probe.probe(["q"])

    assert time.monotonic() - begin < 2
