"""
The Redis probe on a real Redis, with queues and messages made by kombu.
"""

from __future__ import annotations

import json
import logging
import time

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import redis

from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Exchange, Queue

import celery_obs

from celery_obs.areas.queues.announcements import QueueAnnouncement, encode_queue
from celery_obs.exporter.discovery import Discovery
from celery_obs.exporter.probes import QueueReading
from celery_obs.exporter.probes.redis import CLOSELY, RedisProbe, connect
from celery_obs.state import keys
from tests.servers import RedisServer, kombu_connection


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
    headers = {
        "task": "t",
        "id": "1",
        "argsrepr": "()",
        **({} if stamp is None else {"celery_obs_published": stamp}),
        **more.pop("headers", {}),
    }
    with connection.Producer() as producer:
        producer.publish([[], {}, {}], exchange=more.pop("exchange", ""), routing_key=queue, headers=headers, priority=priority, **more)


def test_depth_by_priority_step(server: RedisServer, client: Any) -> None:
    """
    Messages of a priority count in the step that kombu put them in, and all of them in the depth.
    """
    steps: dict[str, Any] = {"priority_steps": [0, 2, 5], "sep": ":"}
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


def test_too_many_unacked_messages_are_not_counted_and_said_once(
    server: RedisServer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
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


# --- how long the queue waits ---------------------------------------------------------------------------------------------------------


def _put(client: Any, waits: Sequence[tuple[float | None, float | None]], *, now: float, queue: str = "q") -> None:
    """
    Put messages into a queue, the first one first: how long ago each was published, None for not by us, and in how many seconds it is due.
    """
    for ago, due_in in waits:
        eta = None if due_in is None else datetime.fromtimestamp(now + due_in, tz=timezone.utc).isoformat()
        stamp = {} if ago is None else {"celery_obs_published": now - ago}
        headers = {"task": "t", "id": "1", "eta": eta, "argsrepr": "()", **stamp}
        client.lpush(queue, json.dumps({"body": "W10=", "headers": headers, "properties": {"priority": 0}}))


def _oldest(server: RedisServer) -> float | None:
    return _read(server).oldest_due_at


def test_a_message_that_is_due_later_does_not_hide_those_behind_it(server: RedisServer, client: Any) -> None:
    """
    With an ETA in an hour in front, the age of the queue is that of the 20 messages behind.
    """
    now = time.time()
    _put(client, [(12.5, 3600.0), *[(12.0, None)] * 20], now=now)

    assert 12.0 == pytest.approx(now - (_oldest(server) or 0), abs=0.001)


def test_an_eta_that_has_come_counts_from_then(server: RedisServer, client: Any) -> None:
    """
    Whichever waits longer since it was due is the oldest: it need not be the one in front.
    """
    now = time.time()
    _put(client, [(90.0, -30.0), (80.0, -60.0), (50.0, None)], now=now)

    assert 60.0 == pytest.approx(now - (_oldest(server) or 0), abs=0.001)


def test_a_queue_of_what_is_not_due_yet_is_young(server: RedisServer, client: Any) -> None:
    """
    Where all that waits is due later, nothing waits too long: that is known, and told.
    """
    now = time.time()
    _put(client, [(500.0, 3600.0)] * 5, now=now)

    assert (_oldest(server) or 0) > now


def test_a_message_without_our_stamp_does_not_hide_those_behind_it(server: RedisServer, client: Any) -> None:
    """
    What another program published tells no age; the oldest one that does is what is told.
    """
    now = time.time()
    _put(client, [(None, None), (None, 5.0), (7.0, None)], now=now)

    assert 7.0 == pytest.approx(now - (_oldest(server) or 0), abs=0.001)


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_countdown_of_either_protocol_is_seen(server: RedisServer, client: Any, tmp_path: Path, protocol: int) -> None:
    """
    As an observed app publishes them: protocol 1 has the ETA in its body.
    """
    app = Celery("publisher", broker=server.url, set_as_current=False, task_protocol=protocol, task_default_queue="q")
    app.conf.celery_obs = {"metrics_dir": str(tmp_path), "errors": False}
    celery_obs.setup(app)
    try:
        app.send_task("t", countdown=3600)
        later = _oldest(server)
        before = time.time()
        app.send_task("t", ignore_result=True)
        now = _oldest(server)
    finally:
        celery_obs.teardown()
        app.close()

    assert later == pytest.approx(time.time() + 3600, abs=30)
    assert before <= (now or 0) <= time.time()


@pytest.mark.parametrize("in_front", [100, 3000])
def test_looking_for_the_oldest_is_bounded(server: RedisServer, client: Any, in_front: int) -> None:
    """
    Behind very many messages that are due later, some of the rest are looked at: the age is at least what is told, for a bounded number of looks.
    """
    now = time.time()
    _put(client, [(900.0, 3600.0)] * in_front, now=now)
    _put(client, [(600.0 - each / 100, None) for each in range(5000)], now=now)
    client.config_resetstat()

    age = now - (_oldest(server) or 0)

    assert 500.0 < age <= 600.001
    assert client.info("commandstats")["cmdstat_lindex"]["calls"] <= CLOSELY + 20


def test_large_messages_are_looked_at_a_few_only(server: RedisServer, client: Any) -> None:
    """
    So that Redis is not kept from its work; nothing is told where these are not due yet, for the rest may be.
    """
    now = time.time()
    for _ in range(50):
        eta = datetime.fromtimestamp(now + 60, tz=timezone.utc).isoformat()
        headers = {"task": "t", "eta": eta, "celery_obs_published": now}
        client.lpush("q", json.dumps({"body": "x" * 100_000, "headers": headers, "properties": {}}))
    client.config_resetstat()

    assert _oldest(server) is None
    assert 3 == client.info("commandstats")["cmdstat_lindex"]["calls"]


@given(
    st.lists(
        st.tuples(st.none() | st.integers(1, 10_000), st.none() | st.integers(-5000, 5000)),
        min_size=1,
        max_size=CLOSELY,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_oldest_of_a_short_queue_is_exact(server: RedisServer, client: Any, waits: list[tuple[int | None, int | None]]) -> None:
    """
    Whatever is mixed in a queue: of the messages with our stamp, the one that was due first is found.
    """
    now = float(round(time.time()))
    ordered = sorted(waits, key=lambda each: -(each[0] or 0))
    client.delete("q")
    _put(client, ordered, now=now)
    due = [max(now - ago, now + due_in if due_in is not None else 0.0) for ago, due_in in ordered if ago is not None]

    found = _probe(server).probe(["q"])["q"].oldest_due_at

    expected = min(due, default=None)
    if expected is not None and expected > time.time() and len(due) < len(ordered):
        expected = None  # Those without a stamp may be old.
    assert found == expected
