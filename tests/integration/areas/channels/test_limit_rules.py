"""
Costs, leaky buckets, several limits in one call, and what a channel itself says of its limits: on a real Redis.
"""

from __future__ import annotations

import contextlib
import math

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from celery_obs.areas.channels.api_calls.api import api_call
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.breakers.state import Breakers
from celery_obs.areas.channels.errors import CircuitOpenError, LimitReachedError, RateLimitError
from celery_obs.areas.channels.policies import BreakerPolicy, RateLimit
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.areas.channels.rate_limits.state import Count, RateLimits
from celery_obs.state import keys
from celery_obs.testing import FakeClock
from tests.servers import RedisCluster, RedisServer, wait_until

from .conftest import Stage


pytestmark = pytest.mark.integration

OTHER_CLOCK = "local now = tonumber(redis.call('GET', 'clock'))\n"
GUARD = 0.05


@pytest.fixture
def limited(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """
    Make a process whose channel is treated as told.
    """
    with contextlib.ExitStack() as stack:
        yield lambda **policy: stack.enter_context(Stage(redis_server.url, tmp_path, channels={"airbnb": policy}))


def refused(connection_id: str = "", *, cost: int = 1) -> float | None:
    """
    Ask for a call; return how long to wait, None where it may be made.
    """
    try:
        rate_limiter.acquire("airbnb", connection_id, cost=cost)
    except LimitReachedError as error:
        return error.retry_after
    return None


# --- costs and buckets, against a model -------------------------------------------------------------------------------------------


class Model:
    """
    Sliding windows and leaky buckets in the fewest words; times in microseconds.
    """

    def __init__(self, limits: tuple[RateLimit, ...]) -> None:
        self.limits = limits
        self.calls: list[int] = []
        self.full: dict[RateLimit, int] = {}

    def ask(self, now: int, cost: int) -> float:
        waits = [0.0]
        for limit in self.limits:
            if limit.algorithm == "sliding_window":
                if len(self.calls) + cost > limit.requests:
                    waits.append(self.calls[-(limit.requests - cost + 1)] + (limit.seconds + GUARD) * 1e6 - now)
            else:
                step = math.ceil(limit.seconds * 1e6 / limit.requests)
                full = max(self.full.get(limit, 0), now) + cost * step
                waits.append(full - limit.burst * step - now)
        if max(waits) > 0:
            return max(waits) / 1e6
        self.calls += [now] * cost
        for limit in self.limits:
            if limit.algorithm == "leaky_bucket":
                self.full[limit] = max(self.full.get(limit, 0), now) + cost * math.ceil(limit.seconds * 1e6 / limit.requests)
        return 0.0


LIMITS = st.one_of(
    st.builds(RateLimit, requests=st.integers(3, 6), seconds=st.sampled_from([5.0, 20.0, 60.0])),
    st.builds(
        RateLimit,
        requests=st.integers(1, 7),
        seconds=st.sampled_from([1.0, 10.0, 60.0]),
        algorithm=st.just("leaky_bucket"),
        burst=st.integers(3, 5),
    ),
)


@given(
    limits=st.lists(LIMITS, min_size=1, max_size=3, unique=True).map(tuple),
    steps=st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.4, 1.0, 7.5, 40.0]), st.integers(1, 3)), max_size=30),
)
@settings(max_examples=80)
def test_windows_and_buckets_do_what_a_model_of_them_does(
    redis_server: RedisServer, limits: tuple[RateLimit, ...], steps: list[tuple[float, int]]
) -> None:
    """
    Whatever calls cost and whichever limits hold together, each is allowed or refused as counted by hand, with the same time to wait.
    """
    now, model = 1_000_000_000_000, Model(limits)
    with Redis.from_url(redis_server.url) as redis:
        redis.flushall()
        asking = RateLimits(redis, now=OTHER_CLOCK)
        for passed, cost in steps:
            now += round(passed * 1e6)
            redis.set("clock", now)
            peeked = asking.peek("airbnb", "", limits, cost=cost).retry_after

            found = asking.take("airbnb", "", limits, cost=cost).retry_after

            assert pytest.approx(model.ask(now, cost), abs=1e-5) == found == pytest.approx(peeked, abs=1e-5)


@given(
    requests=st.integers(1, 50),
    seconds=st.sampled_from([1.0, 60.0]),
    burst=st.integers(1, 10),
    steps=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=60),
)
@settings(max_examples=40)
def test_a_bucket_never_lets_more_through_than_its_size_and_its_leak(
    redis_server: RedisServer, requests: int, seconds: float, burst: int, steps: list[int]
) -> None:
    """
    In no stretch of time more than the burst and what leaked out meanwhile; counted over all stretches between two calls.
    """
    limit = RateLimit(requests=requests, seconds=seconds, algorithm="leaky_bucket", burst=burst)
    now, allowed = 1_000_000_000_000, list[int]()
    with Redis.from_url(redis_server.url) as redis:
        redis.flushall()
        asking = RateLimits(redis, now=OTHER_CLOCK)
        for step in steps:
            now += step
            redis.set("clock", now)
            if not asking.take("airbnb", "", (limit,)).retry_after:
                allowed.append(now)

    for first, begin in enumerate(allowed):
        for last, end in enumerate(allowed[first:], start=1):
            assert last <= burst + (end - begin) * requests / (seconds * 1e6) + 1e-6


def test_a_cost_that_no_limit_ever_allows_is_refused_at_once(limited: Callable[..., Stage]) -> None:
    """
    It would wait for ever; the message says what may be.
    """
    limited(rate_limits=["10/1m", {"limit": "5/s", "algorithm": "leaky_bucket", "burst": 4}])

    with pytest.raises(ValueError, match="Expected a whole number from 1 to 4"):
        rate_limiter.acquire("airbnb", "c-1", cost=5)
    with pytest.raises(ValueError, match="costs 0"):
        rate_limiter.check("airbnb", "c-1", cost=0)


def test_a_call_that_costs_more_leaves_less(limited: Callable[..., Stage]) -> None:
    """
    Through api_call as well.
    """
    limited(rate_limits="10/1h")

    with api_call("airbnb", "/search", "POST", connection_id="c-1", cost=7):
        pass

    assert refused("c-1", cost=4) is not None
    assert refused("c-1", cost=3) is None


def test_a_bucket_is_shown_with_how_full_it_is(limited: Callable[..., Stage], redis: Redis) -> None:
    """
    To who looks, and after clear it is empty.
    """
    limited(rate_limits={"limit": "1/1h", "algorithm": "leaky_bucket", "burst": 3})
    assert [None, None] == [refused("c-1"), refused("c-1")]
    limits = RateLimits(redis)

    assert Count(2, 3) == limits.count("airbnb", "c-1")
    assert 0 < redis.ttl(keys.limits(keys.rate_limit("airbnb", "c-1"))) <= 2 * 3600 + 1
    limits.clear("airbnb")
    assert [None, None, None] == [refused("c-1") for _ in range(3)]


# --- several limits in one call ---------------------------------------------------------------------------------------------------


BOTH = [
    {"limit": "2/1h"},
    {"limit": "3/1h", "per": "channel"},
    {"limit": "3/1h", "algorithm": "leaky_bucket", "burst": 3, "per": "channel"},
]


def test_a_connections_limits_and_the_channels_are_one_command(limited: Callable[..., Stage], redis: Redis) -> None:
    """
    All of them allow a call in one round trip, or none counts it.
    """
    limited(rate_limits=BOTH)
    refused("c-1")
    redis.config_resetstat()

    assert [None, None, True] == [refused("c-1"), refused("c-2"), refused("c-2") is not None]

    counted: Any = redis.info("commandstats")
    assert 3 == counted["cmdstat_evalsha"]["calls"]
    used = [redis.llen(keys.rate_limit("airbnb", name)) for name in ("c-1", "c-2", "")]
    assert [2, 1, 3] == used


@pytest.mark.faults
def test_on_a_cluster_they_are_all_or_none_too(tmp_path: Path) -> None:
    """
    There they lie on several nodes, so that a call that the channel refuses gets back what the connection's list and bucket took.
    """
    limits = [{"limit": "9/1h"}, {"limit": "9/2h", "algorithm": "leaky_bucket", "burst": 9}, {"limit": "3/1h", "per": "channel"}]
    with RedisCluster() as cluster, Stage(cluster.url, tmp_path, channels={"airbnb": {"rate_limits": limits}}) as stage:
        answers = [refused("c-1") is None for _ in range(6)]
        redis: Any = stage.engine.redis

        assert [True] * 3 + [False] * 3 == answers
        assert 3 == redis.llen(keys.rate_limit("airbnb", "c-1"))
        own = stage.engine.settings.channels["airbnb"].rate_limits[:2]
        assert 0 == RateLimits(redis).peek("airbnb", "c-1", own, cost=6).retry_after
        assert 0 < RateLimits(redis).peek("airbnb", "c-1", own, cost=7).retry_after


# --- what the channel says --------------------------------------------------------------------------------------------------------


def answer(status: int, headers: dict[str, str], connection_id: str = "") -> None:
    with api_call("airbnb", "/x", "GET", connection_id=connection_id) as call:
        call.response(status, headers=headers)


WAYS = {
    "at the breaker": {},
    "beside limits of ours": {"rate_limits": {"limit": "1000/1h", "per": "channel"}},
    "without both": {"circuit_breaker": "off"},
}


@pytest.mark.parametrize("policy", WAYS.values(), ids=WAYS)
def test_what_one_process_is_told_holds_for_all(
    limited: Callable[..., Stage], redis_server: RedisServer, tmp_path: Path, policy: dict[str, Any]
) -> None:
    """
    A 429 with Retry-After that one sees has all the others wait, whether the channel has limits of ours or a breaker.
    """
    limited(**policy)
    answer(200, {})
    answer(429, {"Retry-After": "30"})

    with Stage(redis_server.url, tmp_path, channels={"airbnb": policy}) as other, pytest.raises(LimitReachedError) as caught:
        answer(200, {})

    assert caught.value.retry_after == pytest.approx(30, abs=2)
    assert [] == other.errors


@pytest.mark.parametrize("policy", WAYS.values(), ids=WAYS)
def test_what_the_channel_says_is_left_is_shared_out(limited: Callable[..., Stage], policy: dict[str, Any]) -> None:
    """
    Of three calls that are left, three are made, and the fourth waits for the channel's reset; then it goes on.
    """
    limited(**policy)
    answer(200, {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "1"})

    for _ in range(3):
        answer(200, {})
    with pytest.raises(RateLimitError) as caught:
        answer(200, {})

    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 1

    def may_go_on() -> bool:
        with contextlib.suppress(RateLimitError):
            answer(200, {})
            return True
        return False

    wait_until(may_go_on, within=3, what="the channel's reset")


def test_answers_that_overtake_each_other_never_give_more(limited: Callable[..., Stage]) -> None:
    """
    Of one window the lesser number counts, and a wait that was asked for is not shortened by an older answer.
    """
    limited()

    rate_limiter.learn("airbnb", remaining=2, reset_after=60)
    rate_limiter.learn("airbnb", remaining=5, reset_after=60)
    answer(200, {})
    answer(200, {})
    with pytest.raises(LimitReachedError):
        answer(200, {})

    rate_limiter.learn("airbnb", retry_after=90)
    rate_limiter.learn("airbnb", remaining=50, reset_after=10)
    with pytest.raises(LimitReachedError) as caught:
        answer(200, {})
    assert caught.value.retry_after == pytest.approx(90, abs=2)


def test_a_connection_that_is_told_to_wait_does_not_stop_the_others(limited: Callable[..., Stage]) -> None:
    """
    Where limits are by connection, what the channel says is taken for the connection's.
    """
    limited(rate_limits="1000/1h")
    answer(429, {"Retry-After": "30"}, "c-1")

    assert refused("c-1") == pytest.approx(30, abs=2)
    assert refused("c-2") is None


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"remaining": 3},
        {"remaining": 3, "reset_after": 0},
        {"remaining": 101, "reset_after": 60},
        {"remaining": True, "reset_after": 60},
        {"retry_after": float("nan")},
        {"retry_after": float("inf")},
        {"retry_after": -1},
    ],
    ids=str,
)
def test_what_makes_no_sense_or_no_difference_writes_nothing(limited: Callable[..., Stage], redis: Redis, said: dict[str, Any]) -> None:
    """
    Most answers say that much is left: they cost nothing.
    """
    limited()

    rate_limiter.learn("airbnb", **said)

    assert 0 == redis.dbsize()


def test_it_can_be_switched_off(limited: Callable[..., Stage]) -> None:
    """
    For channels whose headers lie.
    """
    limited(told_limits="off")

    answer(429, {"Retry-After": "30"})
    answer(200, {})


# --- what a call costs Redis ------------------------------------------------------------------------------------------------------


def test_a_call_of_a_channel_that_is_well_is_two_plain_reads(limited: Callable[..., Stage], redis: Redis) -> None:
    """
    One before it and one after it, counted by Redis itself, with what scripts call.
    """
    limited()
    answer(200, {})
    redis.config_resetstat()

    for _ in range(50):
        answer(200, {})

    counted: Any = redis.info("commandstats")
    assert {"cmdstat_hmget": 100} == {
        name: each["calls"] for name, each in counted.items() if name not in {"cmdstat_config|resetstat", "cmdstat_info"}
    }


def test_a_breaker_that_is_used_does_not_expire(redis: Redis) -> None:
    """
    Once in a while its expiry is put off, though a check is a plain read.
    """
    clock = FakeClock(0.0)
    breakers, policy = Breakers(redis, clock=clock), BreakerPolicy()
    breakers.check("airbnb", policy)
    redis.expire(keys.breaker("airbnb"), 60)

    breakers.check("airbnb", policy, keep=True)

    assert redis.ttl(keys.breaker("airbnb")) > 6 * 86400


def throttled(connection_id: str) -> None:
    with api_call("airbnb", "/x", "GET", connection_id=connection_id) as call:
        call.response(429)
        call.raise_for_status()


def test_a_refusal_of_ours_is_told_apart_from_the_channels(limited: Callable[..., Stage]) -> None:
    """
    Both are rate limits to who catches them; one of them made no call.
    """
    limited(rate_limits="1/1h", circuit_breaker={"failure_threshold": 1, "timeout": 300})
    answer(200, {}, "c-1")

    with pytest.raises(RateLimitError) as ours:
        answer(200, {}, "c-1")
    with pytest.raises(RateLimitError) as theirs:
        throttled("c-2")
    circuit_breaker.record(circuit_breaker.allow("airbnb"), ok=False)
    with pytest.raises(CircuitOpenError):
        circuit_breaker.allow("airbnb")

    assert isinstance(ours.value, LimitReachedError)
    assert not isinstance(theirs.value, LimitReachedError)
