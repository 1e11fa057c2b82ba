"""
The small parts of the shared state, on a real Redis: once a period, single flight, failover lists, hashes, and what is taken away.

Quick, so that they run with the unit tests; what races, hangs and dies is in `test_flights` and `test_state_topologies`.
"""

from __future__ import annotations

import threading

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from redis import ConnectionPool, Redis
from redis.exceptions import ConnectionError as CannotConnect

from celery_obs.areas.channels.connections.state import Connection, Facts
from celery_obs.areas.channels.state import Channels
from celery_obs.state import hashes, keys
from celery_obs.state.failover import FailoverPool
from celery_obs.state.locks import Flight, Flights, FlightTimeoutError, Landing
from celery_obs.state.once import is_first
from celery_obs.state.removal import channels_of, count_keys, remove_keys, running_on
from tests.servers import RedisServer, free_port, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """
    One for all of this file.
    """
    with RedisServer() as found:
        yield found


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    """
    A client of an empty one.
    """
    with Redis.from_url(server.url) as client:
        client.flushall()
        yield client


def pool_of(port: int) -> ConnectionPool:
    return ConnectionPool(host="127.0.0.1", port=port, socket_connect_timeout=0.5)


# -- once a period ----------------------------------------------------------------------------------------------------


def task(message: str | None, name: str = "channel_manager.take_census") -> Any:
    return SimpleNamespace(name=name, request=SimpleNamespace(id=message))


def test_of_two_messages_of_a_period_the_first_runs_and_runs_again_when_it_comes_back(redis: Redis) -> None:
    """
    One that was delivered again, because its worker died, is the same message.
    """
    assert is_first(redis, task("first"), 60.0)
    assert not is_first(redis, task("second"), 60.0)
    assert is_first(redis, task("first"), 60.0)
    assert is_first(redis, task("second", "channel_manager.sweep_state"), 60.0)


def test_a_message_without_an_id_is_the_same_as_no_other(redis: Redis) -> None:
    """
    Of two that nothing tells apart one runs.
    """
    assert [True, False] == [is_first(redis, task(None), 60.0) for _ in range(2)]


def test_the_next_period_is_free_before_it_begins(redis: Redis) -> None:
    """
    Two beats drift apart: the mark of a run lasts for four fifths of its period, so that the next one in turn runs.
    """
    assert is_first(redis, task("first"), 100.0)

    [key] = redis.keys("*")
    assert 79_000 < redis.pttl(key) <= 80_000


# -- single flight ----------------------------------------------------------------------------------------------------


def test_who_comes_alone_does_it_and_learns_what_came_of_it(redis: Redis) -> None:
    """
    The result lies there for a moment, for those who waited.
    """
    landing = Flights(redis).fly("refresh", lambda flight: f"done, ours: {flight.is_ours}", wait=1.0)

    assert Landing("done, ours: True", led=True) == landing
    assert str(redis.get(keys.lock("refresh"))).startswith("b'landed:")


def test_who_comes_meanwhile_gets_the_result(redis: Redis) -> None:
    """
    It does nothing itself.
    """
    began, go_on, landings = threading.Event(), threading.Event(), []

    def work(flight: Flight) -> str:
        began.set()
        assert go_on.wait(10)
        return "by the first"

    leader = threading.Thread(target=lambda: landings.append(Flights(redis).fly("refresh", work, wait=10.0)))
    leader.start()
    assert began.wait(10)
    threading.Timer(0.05, go_on.set).start()
    follower = Flights(redis).fly("refresh", lambda flight: "by the second", wait=10.0)
    leader.join(10)

    assert (Landing("by the first", led=False), [Landing("by the first", led=True)]) == (follower, landings)


def test_work_that_raises_leaves_nothing_behind(redis: Redis) -> None:
    """
    The error is the caller's, and the next one may begin at once.
    """

    def fail(flight: Flight) -> str:
        raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        Flights(redis).fly("refresh", fail, wait=1.0)

    assert Landing("at last", led=True) == Flights(redis).fly("refresh", lambda flight: "at last", wait=1.0)


def test_who_waits_for_too_long_is_told_what_to_do(redis: Redis) -> None:
    """
    The leader may still be at it.
    """
    redis.set(keys.lock("refresh"), "flying:another", px=60_000)

    with pytest.raises(FlightTimeoutError):
        Flights(redis).fly("refresh", lambda flight: "never", wait=0.1)


def test_a_leader_that_was_replaced_learns_it_and_changes_nothing(redis: Redis) -> None:
    """
    What the other one leads stays as it is.
    """

    def work(flight: Flight) -> str:
        redis.set(keys.lock("refresh"), "flying:another")
        wait_until(lambda: not flight.is_ours, what="the loss to be noticed")
        return "too late"

    assert Landing("too late", led=True) == Flights(redis, ttl=0.1).fly("refresh", work, wait=1.0)
    assert b"flying:another" == redis.get(keys.lock("refresh"))


# -- failover lists ---------------------------------------------------------------------------------------------------


def test_the_server_that_answers_is_used_and_remembered(server: RedisServer) -> None:
    """
    The first of a list is gone: the second does it, and is asked first from then on.
    """
    pool = FailoverPool([pool_of(free_port()), pool_of(server.port)])
    with Redis(connection_pool=pool) as client:
        assert client.ping()

        connection = pool.get_connection()
        assert server.port == connection.port
        assert pool.make_connection().port == server.port
        pool.release(connection)
        assert connection is pool.get_connection()
        pool.release(connection)
        pool.disconnect()


def test_a_list_that_is_gone_as_a_whole_tells_the_first_failure() -> None:
    """
    Its first server is the one that people look at first.
    """
    first, second = free_port(), free_port()

    with pytest.raises(CannotConnect, match=str(first)):
        FailoverPool([pool_of(first), pool_of(second)]).get_connection()


# -- hashes -----------------------------------------------------------------------------------------------------------


def test_what_is_exported_is_read_and_what_is_no_more_goes(redis: Redis) -> None:
    """
    Fields that are kept stay though they are not said anew; the whole outlives its exporter for minutes only.
    """
    hashes.export(redis, "h", {"a": "1", "b": "2", "gone": "3"}, keep={"a", "b", "gone"})
    hashes.export(redis, "h", {"a": "4"}, keep={"a", "b"})

    assert {"a": "4", "b": "2"} == hashes.fields(hashes.read(redis, "h"))
    assert 0 < redis.ttl("h") <= hashes.EXPORTED_FOR


def test_nothing_to_export_empties_the_hash(redis: Redis) -> None:
    """
    A hash that is empty is not there, and has no fields.
    """
    hashes.export(redis, "h", {"a": "1"}, keep={"a"})
    hashes.export(redis, "h", {}, keep=())

    assert (0, {}) == (redis.exists("h"), hashes.fields(hashes.read(redis, "h")))


def test_many_hashes_are_read_in_one_round_trip(redis: Redis) -> None:
    """
    As through a pipeline, which a Redis Cluster refuses for scripts that are called otherwise.
    """
    redis.hset("one", mapping={"a": "ä"})
    redis.hset("two", mapping={"b": ""})

    with redis.pipeline(transaction=False) as pipe:
        for key in ("one", "two", "none"):
            hashes.read(pipe, key)
        assert [{"a": "ä"}, {"b": ""}, {}] == [hashes.fields(each) for each in pipe.execute()]


def test_what_is_no_json_of_ours_is_left_out(redis: Redis) -> None:
    """
    Anything may be written there by other programs; the other fields are read all the same.
    """
    redis.hset("h", mapping={"good": '{"n": 1}', "broken": "{", "other": "[]", "two": "1,2", "deep": "[" * 50_000})

    found = hashes.Decoder(lambda data: int(data["n"]))(hashes.fields(hashes.read(redis, "h")))

    assert {"good": 1} == found


# -- what is taken away -----------------------------------------------------------------------------------------------


@pytest.fixture
def full(redis: Redis) -> Redis:
    """
    A Redis with keys of ours, of people who typed them, and of another program.
    """
    Channels(redis).touch(["airbnb"])
    Facts(redis).register([Connection("c-1", "booking")])
    for key in ("circuit_breaker:airbnb:state", "circuit_breaker:booking:search:state", "channel_manager:airbnb:paused"):
        redis.set(key, "1")
    for key in ("rate_limit:airbnb:c-1", "rate_limit:limits:window", "rate_limit:theirs:x", "circuit_breaker:theirs:state", "theirs"):
        redis.set(key, "1")
    return redis


def test_our_keys_are_found_and_those_of_another_program_are_not(full: Redis) -> None:
    """
    What is spelled as ours is ours where it names a channel that we know.
    """
    known = channels_of(full)

    assert frozenset({"airbnb", "booking"}) == known
    found = count_keys(full, known)
    ours = len(full.keys("celery_obs:*"))
    assert Counter({"celery_obs": ours, "circuit_breaker": 2, "channel_manager": 1, "rate_limit": 2}) == found


def test_our_keys_go_and_those_of_another_program_stay(full: Redis) -> None:
    """
    However many there are: more than go in one portion.
    """
    with full.pipeline(transaction=False) as pipe:
        for number in range(1_200):
            pipe.set(f"celery_obs:{number}", "x")
        pipe.execute()
    known = channels_of(full)
    before = sum(count_keys(full, known).values())

    assert before == remove_keys(full, known)
    assert {b"rate_limit:theirs:x", b"circuit_breaker:theirs:state", b"theirs"} == set(full.keys("*"))


def test_an_exporter_that_runs_is_named(redis: Redis) -> None:
    """
    The one that holds the lease.
    """
    before = running_on(redis)
    redis.set(keys.LEASE, "host-1:4711")

    assert ([], ["exporter host-1:4711"]) == (before, running_on(redis))
