"""
Facts about connections reach Redis without a task that waits for it.
"""

from __future__ import annotations

import os
import time

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from celery_obs.areas.channels.connections.fact_writer import ConnectionFactWriter
from celery_obs.state import keys
from celery_obs.state.connection import connect
from tests.servers import RedisServer, Relay, free_port, wait_until


pytestmark = pytest.mark.integration


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """
    An empty Redis.
    """
    client = Redis.from_url(redis_server.url, decode_responses=True)
    client.flushall()
    yield client
    client.close()


class Drops:
    """
    Counts what was given up.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


MakeWriter = Callable[..., ConnectionFactWriter]


@pytest.fixture
def drops() -> Drops:
    """
    How many facts the writer of this test gave up.
    """
    return Drops()


@pytest.fixture
def make(redis_server: RedisServer, drops: Drops) -> Iterator[MakeWriter]:
    """
    Make a writer on the test's Redis, or on *url*.
    """
    clients = []

    def make_writer(url: str = redis_server.url, **options: Any) -> ConnectionFactWriter:
        clients.append(connect(url))
        return ConnectionFactWriter(clients[-1], on_drop=drops, **{"pause": 0.01, **options})

    yield make_writer
    for client in clients:
        client.close()


def test_facts_are_written_soon(make: MakeWriter, redis: Redis) -> None:
    """
    A success clears the row of failures and says when; a failure lengthens the row.
    """
    writer = make()

    writer.errored("c-1")
    writer.synced("c-1", at=100.5)
    for _ in range(3):
        writer.errored("c-2")

    wait_until(lambda: redis.hget(keys.ERRORS, "c-2") == "3" and redis.hlen(keys.LAST_SYNCS), what="the facts")
    assert ({"c-1": "100.5"}, {"c-2": "3"}) == (redis.hgetall(keys.LAST_SYNCS), redis.hgetall(keys.ERRORS))


def test_nobody_waits_for_a_redis_that_is_away(make: MakeWriter, drops: Drops) -> None:
    """
    Telling facts takes no time while Redis is away; what is beyond the limit, and what is left at the end, is dropped and counted.
    """
    writer = make(f"redis://127.0.0.1:{free_port()}/0", most=10)

    began = time.perf_counter()
    for number in range(100):
        writer.errored(f"c-{number}")
    took = time.perf_counter() - began

    assert took < 0.5
    assert 90 == drops.count
    assert not writer.flush(within=1.0)
    assert 100 == drops.count


def test_facts_survive_an_outage(make: MakeWriter, redis: Redis, redis_server: RedisServer) -> None:
    """
    What was told while Redis could not be written is written when it can be again, older facts under newer ones.
    """
    with Relay(0) as relay:  # Where nothing listens.
        writer = make(relay.url)
        writer.errored("c-1")
        wait_until(lambda: relay.asked, what="a write to fail")
        writer.errored("c-1")

        relay.to = redis_server.port

        wait_until(lambda: redis.hget(keys.ERRORS, "c-1") == "2", within=20, what="the facts")


@pytest.mark.parametrize("answers", [1, 2, 3])
def test_a_failure_whose_answer_is_lost_is_stored_once(make: MakeWriter, redis: Redis, redis_server: RedisServer, answers: int) -> None:
    """
    Redis stops between the deed and the answer: what it has done is not done again, and what was told meanwhile is.
    """
    with Relay(redis_server.port) as relay:
        writer = make(relay.url, pause=60)
        writer.errored("c-1")
        assert writer.flush(within=1.0)  # It has connected.
        relay.loses = answers

        writer.errored("c-1")
        writer.errored("c-2")
        writer.synced("c-3", at=5.0)
        assert not any(writer._send() for _ in range(answers))
        writer.errored("c-1")
        writer.errored("c-3")

        assert writer.flush(within=1.0)

    assert {"c-1": "3", "c-2": "1", "c-3": "1"} == redis.hgetall(keys.ERRORS)
    assert {"c-3": "5.0"} == redis.hgetall(keys.LAST_SYNCS)


@pytest.mark.parametrize(("key", "stored"), [(keys.LAST_SYNCS, {"c-1": "6"}), (keys.ERRORS, {})], ids=["last_sync", "errors"])
def test_a_key_of_a_wrong_type_costs_its_own_facts(make: MakeWriter, redis: Redis, drops: Drops, key: str, stored: dict[str, str]) -> None:
    """
    They are dropped and told, the others are written once, and nothing is tried again.
    """
    redis.set(key, "in the way")
    refusals: list[Exception] = []
    writer = make(pause=60, on_refusal=refusals.append)
    for _ in range(6):
        writer.errored("c-1")
    if key == keys.LAST_SYNCS:
        writer.synced("c-2", at=7.0)

    assert writer.flush(within=1.0)
    assert writer.flush(within=1.0)

    redis.delete(key)
    assert writer.flush(within=1.0)
    assert stored == redis.hgetall(keys.ERRORS)
    assert (1, 1) == (drops.count, len(refusals))
    assert all(key in str(error) and "WRONGTYPE" in str(error) for error in refusals)


def test_a_count_that_is_no_number_costs_its_own_fact(make: MakeWriter, redis: Redis, drops: Drops) -> None:
    """
    The other connections' failures are written.
    """
    redis.hset(keys.ERRORS, "c-1", "many")
    writer = make(pause=60)
    writer.errored("c-1")
    writer.errored("c-2")

    assert writer.flush(within=1.0)

    assert {"c-1": "many", "c-2": "1"} == redis.hgetall(keys.ERRORS)
    assert 1 == drops.count


def test_a_flush_leaves_nothing_behind(make: MakeWriter, redis: Redis) -> None:
    """
    A process that ends writes first.
    """
    writer = make(pause=60)
    writer.synced("c-1", at=1.0)

    assert writer.flush(within=1.0)

    assert "1.0" == redis.hget(keys.LAST_SYNCS, "c-1")


def test_a_child_writes_its_own_facts_alone(make: MakeWriter, redis: Redis) -> None:
    """
    What waits in the parent is written by the parent, once; a child has a thread of its own.
    """
    writer = make(pause=0.2)
    writer.errored("c-1")

    pid = os.fork()
    if pid == 0:
        writer.after_fork()
        writer.errored("c-2")
        os._exit(0 if writer.flush(within=1.0) else 1)
    assert 0 == os.waitpid(pid, 0)[1]

    wait_until(lambda: redis.hlen(keys.ERRORS) == 2, what="both facts")
    assert {"c-1": "1", "c-2": "1"} == redis.hgetall(keys.ERRORS)


def test_half_a_character_does_not_hold_up_the_others(make: MakeWriter, redis: Redis, drops: Drops) -> None:
    """
    A connection id that Redis cannot be told of is dropped and counted.
    """
    writer = make()

    writer.errored("c-\udc80")
    writer.errored("'\"\n" + "x" * 10_000)

    assert writer.flush(within=1.0)
    assert (1, 1) == (drops.count, redis.hlen(keys.ERRORS))


@given(facts=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans()), min_size=1), cuts=st.sets(st.integers(0, 20), max_size=3))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_melting_facts_changes_nothing(make: MakeWriter, redis: Redis, facts: list[tuple[str, bool]], cuts: set[int]) -> None:
    """
    However facts are gathered into batches, Redis holds what it would hold if each had been written when it was told.
    """
    redis.flushall()
    writer = make(pause=60)
    last: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, (connection, succeeded) in enumerate(facts):
        if succeeded:
            writer.synced(connection, at=float(number))
            last[connection] = repr(float(number))
            failed.pop(connection, None)
        else:
            writer.errored(connection)
            failed[connection] = str(int(failed.get(connection, 0)) + 1)
        if number in cuts:
            writer.flush(within=1.0)

    assert writer.flush(within=1.0)
    assert (last, failed) == (redis.hgetall(keys.LAST_SYNCS), redis.hgetall(keys.ERRORS))
