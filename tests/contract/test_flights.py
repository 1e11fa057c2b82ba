"""
What single flight promises, asked of a real Redis, with threads and processes that race, hang and die.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_obs.state import keys
from celery_obs.state.locks import Flight, Flights, FlightTimeoutError, Landing
from tests.servers import RedisServer, wait_until


pytestmark = pytest.mark.integration

NAME = "refresh 'a' connection\n"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


class Work:
    """
    Work that lasts until it is let go, and counts how often it was done.
    """

    def __init__(self, result: str = "done") -> None:
        self.result = result
        self.times = 0
        self.began, self.go_on = threading.Event(), threading.Event()
        self.flight: Flight | None = None

    def __call__(self, flight: Flight) -> str:
        self.times += 1
        self.flight = flight
        self.began.set()
        assert self.go_on.wait(10)
        return self.result


def test_of_many_at_once_one_does_it_and_all_get_its_result(redis: Redis) -> None:
    """
    Forty callers make one flight.
    """
    flights, work = Flights(redis), Work("the result: of\nall")
    everybody = threading.Barrier(40)

    def call(_: int) -> Landing:
        everybody.wait(10)
        return flights.fly(NAME, work, wait=10)

    with ThreadPoolExecutor(40) as pool:
        calls = [pool.submit(call, number) for number in range(40)]
        assert work.began.wait(10)
        wait_until(lambda: redis.info("commandstats")["cmdstat_eval"]["calls"] >= 40, what="all to have joined")
        work.go_on.set()
        landings = [each.result() for each in calls]

    assert 1 == work.times
    assert 1 == sum(landing.led for landing in landings)
    assert {work.result} == {landing.result for landing in landings}


def test_what_ended_before_is_not_good_enough(redis: Redis) -> None:
    """
    A caller who comes later makes a flight of its own.
    """
    flights = Flights(redis)

    first = flights.fly(NAME, lambda _: "1", wait=1)
    second = flights.fly(NAME, lambda _: "2", wait=1)

    assert [Landing("1", led=True), Landing("2", led=True)] == [first, second]


def test_work_that_raises_is_its_callers_and_the_next_one_tries(redis: Redis) -> None:
    """
    Those who wait for a leader that failed do it themselves.
    """
    flights, leader = Flights(redis), Work()

    def fail(flight: Flight) -> str:
        leader(flight)
        raise LookupError("on purpose")

    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(flights.fly, NAME, fail, wait=10)
        assert leader.began.wait(10)
        waiting = pool.submit(flights.fly, NAME, lambda _: "mine", wait=10)
        wait_until(lambda: redis.info("commandstats").get("cmdstat_get"), what="the other one to wait")
        leader.go_on.set()

        assert Landing("mine", led=True) == waiting.result()
        with pytest.raises(LookupError, match="on purpose"):
            failing.result()


def test_nobody_waits_for_longer_than_it_said(redis: Redis) -> None:
    """
    The wait for another process is bounded.
    """
    flights, work = Flights(redis), Work()

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(flights.fly, NAME, work, wait=1)
        assert work.began.wait(10)
        with pytest.raises(FlightTimeoutError, match="Try again later"):
            flights.fly(NAME, work, wait=0.1)
        work.go_on.set()

        assert leading.result().led


def test_a_leader_that_works_for_long_keeps_the_lead(redis: Redis) -> None:
    """
    The TTL is no time limit: it is renewed for as long as the leader lives.
    """
    flights, work = Flights(redis, ttl=0.8), Work()

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(flights.fly, NAME, work, wait=1)
        assert work.began.wait(10)
        with pytest.raises(FlightTimeoutError):
            flights.fly(NAME, work, wait=1.6)
        work.go_on.set()
        assert leading.result().led

    assert 1 == work.times
    assert work.flight is not None
    assert work.flight.is_ours


def test_a_leader_that_is_killed_is_replaced(redis: Redis, redis_server: RedisServer) -> None:
    """
    Its TTL passes, and one of those who wait does it.
    """
    program = (
        "import sys, time; from redis import Redis; from celery_obs.state.locks import Flights\n"
        "Flights(Redis.from_url(sys.argv[1]), ttl=0.5).fly(sys.argv[2], lambda flight: time.sleep(60), wait=1)"
    )
    with subprocess.Popen([sys.executable, "-c", program, redis_server.url, NAME]) as leader:
        try:
            wait_until(lambda: redis.exists(keys.lock(NAME)), what="the other process to lead")
        finally:
            os.kill(leader.pid, signal.SIGKILL)

    assert Landing("mine", led=True) == Flights(redis).fly(NAME, lambda _: "mine", wait=5)


def test_a_leader_that_was_replaced_learns_it_and_changes_nothing(redis: Redis) -> None:
    """
    Only who leads may end a flight.
    """
    flights, first, second = Flights(redis, ttl=0.2), Work("first"), Work("second")

    with ThreadPoolExecutor(2) as pool:
        replaced = pool.submit(flights.fly, NAME, first, wait=1)
        assert first.began.wait(10)
        redis.delete(keys.lock(NAME))
        leading = pool.submit(Flights(redis).fly, NAME, second, wait=1)
        assert second.began.wait(10)
        wait_until(lambda: first.flight is not None and not first.flight.is_ours, what="the first to learn it")
        first.go_on.set()
        assert Landing("first", led=True) == replaced.result()

        assert str(redis.get(keys.lock(NAME))).startswith("b'flying:")
        second.go_on.set()
        assert Landing("second", led=True) == leading.result()


def test_an_answer_that_got_lost_leaves_no_lead_behind(redis: Redis) -> None:
    """
    When Redis took the lead down and its answer did not arrive, no caller has to wait for the TTL.
    """

    class Lossy:
        """
        A client whose first answer gets lost.
        """

        answers = 0

        def eval(self, *arguments: Any) -> Any:
            answer = redis.eval(*arguments)
            self.answers += 1
            if self.answers == 1:
                raise RedisConnectionError("on purpose")
            return answer

    with pytest.raises(RedisConnectionError):
        Flights(Lossy()).fly(NAME, lambda _: "never", wait=1)  # type: ignore[arg-type]  # A client that can do little.

    assert Landing("mine", led=True) == Flights(redis).fly(NAME, lambda _: "mine", wait=0.01)


def test_a_key_of_somebody_elses_making_is_no_leader(redis: Redis) -> None:
    """
    Text that is none of ours under our key does not stop us.
    """
    redis.set(keys.lock(NAME), b"\xff who are you")

    assert Landing("mine", led=True) == Flights(redis).fly(NAME, lambda _: "mine", wait=0.01)


def test_what_is_left_has_a_ttl(redis: Redis) -> None:
    """
    A flight leaves nothing for ever.
    """
    Flights(redis, linger=5).fly(NAME, lambda _: "done", wait=1)

    assert 0 < redis.pttl(keys.lock(NAME)) <= 5000
