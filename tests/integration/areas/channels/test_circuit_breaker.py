"""
The circuit breaker as application code has it, on a real Redis that may be killed, hang, or hold what was typed by hand.
"""

from __future__ import annotations

import asyncio
import time

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pybreaker
import pytest

from celery.exceptions import Ignore, Retry
from redis import Redis

from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.breakers import pybreakers
from celery_obs.areas.channels.breakers.api import registry
from celery_obs.areas.channels.breakers.events import CircuitChanged, CircuitRejected
from celery_obs.areas.channels.breakers.state import Breakers, Permit
from celery_obs.areas.channels.errors import ApiError, AuthError, CircuitOpenError, NetworkError, RateLimitError, ValidationError
from celery_obs.areas.channels.policies import BreakerPolicy
from celery_obs.exceptions import ConfigurationError
from celery_obs.state import keys
from tests.crew import Crew, breakers_of
from tests.servers import RedisServer, wait_until

from .conftest import Stage


pytestmark = pytest.mark.integration

QUICK = {"airbnb": {"circuit_breaker": {"failure_threshold": 2, "success_threshold": 1, "timeout": 0.5, "probe_timeout": 5}}}
SLOW = {"airbnb": {"circuit_breaker": {"failure_threshold": 2, "success_threshold": 1, "timeout": 300}}}


@pytest.fixture
def stage(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Stage]:
    """
    A process whose breaker opens for a moment.
    """
    with Stage(redis_server.url, tmp_path, channels=QUICK) as stage:
        yield stage


@pytest.fixture
def slow_stage(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Stage]:
    """
    A process whose breaker stays open.
    """
    with Stage(redis_server.url, tmp_path, channels=SLOW) as stage:
        yield stage


def fail(times: int = 2) -> None:
    for _ in range(times):
        circuit_breaker.record(circuit_breaker.allow("airbnb"), ok=False)


def is_open() -> bool:
    try:
        circuit_breaker.record(circuit_breaker.allow("airbnb"), ok=None)
    except CircuitOpenError:
        return True
    return False


def test_a_breaker_opens_probes_and_closes_and_says_so_once(stage: Stage) -> None:
    """
    The way of an outage: each change is one event, with the time that the channel was away.
    """
    fail()
    with pytest.raises(CircuitOpenError, match="The circuit breaker of 'airbnb' is open, so the channel was not called"):
        circuit_breaker.allow("airbnb")
    wait_until(lambda: not is_open(), what="the first probe")
    with circuit_breaker.guard("airbnb"):
        pass

    changes = stage.heard(CircuitChanged)
    assert [("closed", "open"), ("open", "half_open"), ("half_open", "closed")] == [each[1:3] for each in changes]
    assert [None, None] == [each.open_for for each in changes[:2]]
    assert changes[2].open_for >= 0.5
    assert CircuitRejected("airbnb") in stage.events
    assert [] == stage.errors


def test_a_success_starts_the_count_of_failures_anew(stage: Stage) -> None:
    """
    Failures in a row open a breaker; now and then one does not.
    """
    for _ in range(5):
        fail(1)
        circuit_breaker.record(circuit_breaker.allow("airbnb"), ok=True)

    assert "closed" == registry.get_breaker("airbnb").state


def test_a_channel_without_a_breaker_is_always_called(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    A breaker that is switched off costs nothing.
    """
    with Stage(redis_server.url, tmp_path, channels={"airbnb": {"circuit_breaker": "off"}}):
        fail(10)

        assert Permit("airbnb") == circuit_breaker.allow("airbnb")
    assert 0 == redis.dbsize()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ApiError("x"), "failure"),
        (NetworkError("x"), "failure"),
        (ConnectionResetError(), "failure"),
        (RuntimeError("a client library's own"), "failure"),
        (ValidationError("x"), "success"),
        (AuthError("x"), "success"),
        (RateLimitError("x"), "none"),
        (CircuitOpenError("x"), "none"),
        (KeyboardInterrupt(), "none"),
        (asyncio.CancelledError(), "none"),
        (GeneratorExit(), "none"),
        (Ignore(), "none"),
        (Retry(), "none"),
        (Retry(exc=ApiError("x")), "failure"),
    ],
    ids=repr,
)
def test_an_error_says_that_the_channel_is_well_or_ill_or_nothing(error: BaseException, outcome: str) -> None:
    """
    Who answers is well, also when the answer is no.
    """
    assert outcome == circuit_breaker.outcome_of(error)


def test_a_probe_that_says_nothing_makes_room_for_the_next(stage: Stage) -> None:
    """
    A probe that was cancelled does not keep the channel closed until its time is over.
    """
    fail()
    wait_until(lambda: not is_open(), what="the first probe")

    with pytest.raises(KeyboardInterrupt), circuit_breaker.guard("airbnb"):
        raise KeyboardInterrupt

    assert not is_open()


def test_functions_and_coroutines_are_guarded_alike(slow_stage: Stage) -> None:
    """
    The decorator passes results and errors through, and an open breaker makes no call.
    """
    calls: list[str] = []

    @circuit_breaker.guarded("airbnb")
    def push(price: int) -> int:
        calls.append("push")
        if price < 0:
            raise ApiError("no")
        return price

    @circuit_breaker.guarded("airbnb")
    async def pull(price: int) -> int:
        calls.append("pull")
        await asyncio.sleep(0)
        if price < 0:
            raise ApiError("no")
        return price

    assert (3, 4) == (push(3), asyncio.run(pull(4)))
    with pytest.raises(ApiError):
        push(-1)
    with pytest.raises(ApiError):
        asyncio.run(pull(-1))
    with pytest.raises(CircuitOpenError):
        asyncio.run(pull(5))
    assert ["push", "pull", "push", "pull"] == calls


def test_a_cancelled_coroutine_gives_its_probe_back(stage: Stage) -> None:
    """
    A cancellation is no outcome, and is recorded all the same.
    """
    fail()
    wait_until(lambda: not is_open(), what="the first probe")

    async def cancelled() -> None:
        async with circuit_breaker.guard_async("airbnb"):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())

    assert not is_open()


def test_deleting_the_key_by_hand_is_a_complete_reset(stage: Stage, redis: Redis) -> None:
    """
    ``redis-cli DEL circuit_breaker:airbnb:state`` closes it, and late outcomes of calls before that do not count.
    """
    late = [circuit_breaker.allow("airbnb") for _ in range(3)]
    fail()

    redis.delete("circuit_breaker:airbnb:state")
    circuit_breaker.allow("airbnb")
    for permit in late:
        circuit_breaker.record(permit, ok=False)

    assert not is_open()


@pytest.mark.parametrize("garbage", ["string", "list", "word", "number"])
def test_what_is_no_breaker_is_deleted_and_told_and_the_task_goes_on(stage: Stage, redis: Redis, garbage: str) -> None:
    """
    Whatever was typed, the call is made, and the error is ours to count.
    """
    key = keys.breaker("airbnb")
    if garbage == "string":
        redis.set(key, "open")
    elif garbage == "list":
        redis.lpush(key, "open")
    else:
        redis.hset(key, mapping={"state": "ajar" if garbage == "word" else "open", "generation": "1e400" if garbage == "number" else "5"})

    permit = circuit_breaker.allow("airbnb")

    assert permit.generation > 0
    assert ["circuit_breaker"] == [component for component, _ in stage.errors]
    assert "Deleted a malformed circuit breaker of" in str(stage.errors[0][1])
    assert "closed" == registry.get_breaker("airbnb").state


def test_operators_see_and_change_all_breakers(stage: Stage) -> None:
    """
    What the operators of the health exchange type works as they know it.
    """
    fail()
    registry.get_breaker("booking").force_open(actor="ada")

    states = registry.get_all_states()
    assert {"airbnb": "open", "booking": "open"} == {name: info["state"] for name, info in states.items()}
    info = states["airbnb"]
    assert (2, 2026) <= (info["failure_count"], info["opened_at"].year)
    assert info["opened_at"] == info["last_failure_at"]
    assert (True, "ada") == (states["booking"]["forced"], states["booking"]["changed_by"])

    registry.force_close("airbnb")
    assert "closed" == registry.get_all_states()["airbnb"]["state"]
    registry.reset_all()
    assert {"closed"} == {info["state"] for info in registry.get_all_states().values()}
    assert ("booking", "open", "closed") == stage.heard(CircuitChanged)[-1][:3]


def test_a_breaker_that_is_held_open_lets_nobody_through_until_it_is_closed(stage: Stage, redis: Redis) -> None:
    """
    Held open by hand it has no timeout and no TTL; held for a time it probes after that.
    """
    breaker = registry.get_breaker("airbnb")

    breaker.force_open()
    with pytest.raises(CircuitOpenError, match="until it is closed by hand") as caught:
        circuit_breaker.allow("airbnb")
    assert (None, -1) == (caught.value.retry_after, redis.ttl(keys.breaker("airbnb")))

    breaker.force_open(seconds=0.5)
    assert is_open()
    wait_until(lambda: not is_open(), what="the first probe")
    assert redis.ttl(keys.breaker("airbnb")) > 6 * 24 * 3600


def test_operators_are_told_where_there_is_no_redis(tmp_path: Path) -> None:
    """
    Without Redis calls go through, and operating is refused with what to do.
    """
    with Stage(None, tmp_path, channels=QUICK) as stage:
        fail(5)

        assert [] == stage.events
        with pytest.raises(ConfigurationError, match=r"Expected celery_obs\.setup\(app\) to have been called"):
            registry.get_breaker("airbnb").force_open()


# --- a Redis that goes away -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["closed", "open", "half_open"])
def test_calls_go_through_while_redis_is_away_in_any_state(state: str, tmp_path: Path) -> None:
    """
    Redis is killed: every call goes through at once and is counted; when it is back, breakers work again.
    """
    with RedisServer() as server, Stage(server.url, tmp_path, channels=QUICK if state == "half_open" else SLOW) as stage:
        permit = circuit_breaker.allow("airbnb")
        if state != "closed":
            fail()
        if state == "half_open":
            wait_until(lambda: not is_open(), what="the first probe")
            permit = circuit_breaker.allow("airbnb")
        assert state == registry.get_breaker("airbnb").state

        server.kill()
        circuit_breaker.record(permit, ok=True)
        began = time.monotonic()
        for _ in range(100):
            with circuit_breaker.guard("airbnb"):
                pass

        assert time.monotonic() - began < 1
        assert len(stage.errors) >= 100
        assert {"circuit_breaker"} == {component for component, _ in stage.errors}

        server.restart()
        wait_until(lambda: circuit_breaker.allow("airbnb").generation > 0, what="the breaker to be asked again")
        fail()
        wait_until(is_open, what="the breaker to open")


def test_a_redis_that_hangs_slows_one_call_and_not_all(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    After the first time-out, the process does not ask for a while.
    """
    with Stage(redis_server.url, tmp_path, channels=SLOW) as stage:
        circuit_breaker.allow("airbnb")
        with redis_server.hanging():
            began = time.monotonic()
            for _ in range(50):
                circuit_breaker.record(circuit_breaker.allow("airbnb"), ok=True)
            took = time.monotonic() - began

        assert took < 2
        assert len(stage.errors) >= 50
        wait_until(lambda: circuit_breaker.allow("airbnb").generation > 0, what="the breaker to be asked again")


# --- many at once -----------------------------------------------------------------------------------------------------------------


def test_of_thirty_two_processes_one_probes(redis_server: RedisServer, redis: Redis) -> None:
    """
    However many ask at once, one call is made, one process tells of the change, and a prober that died makes room.
    """
    policy = BreakerPolicy(failure_threshold=1, success_threshold=2, timeout=0.001, probe_timeout=0.3)
    mine = Breakers(redis)
    with Crew(32, breakers_of, redis_server.url) as crew:
        crew.all_call("check", "warm", policy)
        for _ in range(10):
            mine.reset("airbnb")
            permit = mine.check("airbnb", policy).permit
            assert permit is not None
            mine.record(permit, policy, "failure")
            wait_until(lambda: time.time() > (mine.states(["airbnb"])["airbnb"].probe_at or 0), what="the time of the first probe")

            first = crew.all_call("check", "airbnb", policy)
            probes = [found.permit for found in first if found.permit is not None]
            assert 1 == len(probes)
            assert 1 == sum(found.transition is not None for found in first)

            mine.record(probes[0], policy, "success")
            second = [found.permit for found in crew.all_call("check", "airbnb", policy) if found.permit is not None]
            assert 1 == len(second)

        # The second prober of the last round never comes back.
        wait_until(lambda: mine.check("airbnb", policy).permit is not None, what="room for the next probe")
        assert mine.record(second[0], policy, "success").transition is None


def test_many_failures_at_once_open_it_once(redis_server: RedisServer, redis: Redis) -> None:
    """
    The change is told by exactly one of the processes that made it.
    """
    policy = BreakerPolicy(failure_threshold=5)
    mine = Breakers(redis)
    permit = mine.check("airbnb", policy).permit
    with Crew(4, breakers_of, redis_server.url) as crew:
        found = [each for _ in range(5) for each in crew.all_call("record", permit, policy, "failure")]

    assert 1 == sum(each.transition is not None for each in found)
    view = mine.states(["airbnb"])["airbnb"]
    assert ("open", 5) == (view.state, view.failure_count)


# --- for the exporter -------------------------------------------------------------------------------------------------------------


def test_known_breakers_are_exported_and_forgotten_ones_are_removed(stage: Stage, redis: Redis) -> None:
    """
    The hash that the exporter reads has a TTL, and holds the channels that are known.
    """
    breakers = Breakers(redis)
    fail()
    redis.hset(keys.BREAKERS, "vrbo", "{}")

    assert 1 == breakers.export(time.time())

    assert [b"airbnb"] == redis.hkeys(keys.BREAKERS)
    assert 0 < redis.ttl(keys.BREAKERS) <= 300


def test_a_breaker_of_pybreaker_is_seen(stage: Stage, redis: Redis) -> None:
    """
    Its changes are events, its state is shown beside ours, and it goes on when Redis is away.
    """
    theirs = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=0.5, name="vrbo", listeners=[pybreakers.listener()])

    def call(error: Exception | None = None) -> str:
        if error is not None:
            raise error
        return "done"

    for _ in range(2):
        with pytest.raises((ApiError, pybreaker.CircuitBreakerError)):
            theirs.call(call, ApiError("no"))
    assert "open" == Breakers(redis).states(["vrbo"])["vrbo"].state
    assert "open" == registry.get_all_states()["vrbo"]["state"]
    Breakers(redis).export(time.time())
    assert [b"vrbo"] == redis.hkeys(keys.BREAKERS)

    def works() -> bool:
        try:
            return bool(theirs.call(call) == "done")
        except pybreaker.CircuitBreakerError:
            return False

    wait_until(works, what="pybreaker's own probe")

    changes: list[Any] = stage.heard(CircuitChanged)
    assert [("closed", "open"), ("open", "half_open"), ("half_open", "closed")] == [each[1:3] for each in changes]
    assert changes[-1].open_for >= 0.5
    assert "closed" == Breakers(redis).states(["vrbo"])["vrbo"].state
