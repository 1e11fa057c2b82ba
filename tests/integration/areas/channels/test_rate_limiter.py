"""
The rate limiter as application code has it, on a real Redis that may hang, be away, or hold what was typed by hand.
"""

from __future__ import annotations

import asyncio
import time

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_obs.areas.channels.errors import RateLimitError
from celery_obs.areas.channels.policies import RateLimit, policies
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.areas.channels.rate_limits.events import RateLimitChecked, RateLimitWaited
from celery_obs.areas.channels.rate_limits.state import Count, RateLimits
from celery_obs.areas.channels.state import Channels
from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime.announce import Announcer
from celery_obs.state import keys
from celery_obs.state.connection import connect
from celery_obs.testing import FakeClock
from tests.crew import Crew, Hammer
from tests.servers import RedisServer, free_port

from .conftest import Stage


pytestmark = pytest.mark.integration

TWO = {"airbnb": {"rate_limits": "2/1h"}}
QUICK = {"airbnb": {"rate_limits": "1/0.2s"}}
BOTH = {"airbnb": {"rate_limits": [{"limit": "2/1h"}, {"limit": "3/1h", "per": "channel"}]}}
OTHER_CLOCK = "local now = tonumber(redis.call('GET', 'clock'))\n"


@pytest.fixture
def stage(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Stage]:
    """
    A process that may call each connection of airbnb twice an hour.
    """
    with Stage(redis_server.url, tmp_path, channels=TWO) as stage:
        yield stage


def asked(times: int, connection_id: str = "c-1") -> list[bool]:
    """
    Ask so many times; tell which were allowed.
    """
    answers: list[bool] = []
    for _ in range(times):
        try:
            rate_limiter.acquire("airbnb", connection_id)
        except RateLimitError:
            answers.append(False)
        else:
            answers.append(True)
    return answers


# --- the promise ------------------------------------------------------------------------------------------------------------------


def fullest(allowed: Sequence[tuple[float, float]], seconds: float) -> int:
    """
    Return how many calls one window has held for certain: those that were asked for after it began and answered before it ended.
    """
    return max(sum(begin <= other[0] and other[1] < begin + seconds for other in allowed) for begin, _ in allowed)


def test_sixteen_processes_never_get_more_than_the_limit_in_any_window(redis_server: RedisServer, redis: Redis, tmp_path: Path) -> None:
    """
    Whether they stand in line or come again at once, and though half of their clocks are wrong by an hour.
    """
    limit, seconds = 8, 0.25
    channels = {"airbnb": {"rate_limits": f"{limit}/{seconds}s"}}

    with (
        Crew(8, Hammer, redis_server.url, str(tmp_path), channels) as right,
        Crew(8, Hammer, redis_server.url, str(tmp_path), channels, ahead=3600.0) as wrong,
        ThreadPoolExecutor(1) as other,
    ):
        waiting = other.submit(wrong.all_call, "hammer", "c-1", seconds=1.5, wait=0.5)
        found = [*right.all_call("hammer", "c-1", seconds=1.5, wait=0.0), *waiting.result()]

    allowed = sorted(call for calls in found for call in calls)
    assert fullest(allowed, seconds) <= limit
    assert len(allowed) >= 3 * limit
    assert redis.llen(keys.rate_limit("airbnb", "c-1")) <= limit, "The memory is bounded by the limit."


@given(
    windows=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 60)), min_size=1, max_size=3),
    steps=st.lists(st.tuples(st.integers(0, 40), st.just(0) | st.integers(0, 100)), max_size=25),
)
@settings(max_examples=60)
def test_a_clock_that_is_set_back_gives_nobody_more(
    redis_server: RedisServer, windows: list[tuple[int, int]], steps: list[tuple[int, int]]
) -> None:
    """
    Whatever Redis' clock does, as long as it does not run ahead, no window in true time holds more than its limit, and no caller waits for longer
    than that.
    """
    limits = tuple(RateLimit(requests=requests, seconds=float(seconds)) for requests, seconds in windows)
    truth, clock, allowed = 0, 1_000_000, list[int]()
    with Redis.from_url(redis_server.url) as redis:
        redis.flushall()
        asking = RateLimits(redis, now=OTHER_CLOCK)
        for passed, back in steps:
            truth, clock = truth + passed, max(1000, clock + passed - back)
            redis.set("clock", clock * 1_000_000)
            retry_after = asking.take("airbnb", "", limits).retry_after
            assert retry_after <= max(seconds for _, seconds in windows) + 0.05
            if not retry_after:
                allowed.append(truth)

    for requests, seconds in windows:
        assert all(last - first >= seconds for first, last in zip(allowed, allowed[requests:], strict=False))


@given(
    windows=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 60)), min_size=1, max_size=3),
    steps=st.lists(st.integers(0, 40), max_size=25),
)
@settings(max_examples=60)
def test_all_that_the_limits_allow_is_given(redis_server: RedisServer, windows: list[tuple[int, int]], steps: list[int]) -> None:
    """
    A call is refused exactly where one of the windows is full, counted by hand; and *retry_after* is when none is any more.
    """
    limits = tuple(RateLimit(requests=requests, seconds=float(seconds)) for requests, seconds in windows)
    now, allowed = 1_000_000.0, list[float]()

    def waits() -> float:
        # Each window is held five hundredths of a second longer than it is.
        free = (allowed[-requests] + seconds + 0.05 - now for requests, seconds in windows if len(allowed) >= requests)
        return max(0.0, *free, 0.0)

    with Redis.from_url(redis_server.url) as redis:
        redis.flushall()
        asking = RateLimits(redis, now=OTHER_CLOCK)
        for passed in steps:
            now += passed
            redis.set("clock", int(now * 1_000_000))
            expected = waits()
            found = asking.take("airbnb", "", limits).retry_after
            assert found == pytest.approx(expected, abs=1e-5)
            if not found:
                allowed.append(now)


def test_hours_that_change_go_on_with_the_same_count(redis: Redis) -> None:
    """
    What was called in the last minute of a generous hour counts in the first of a careful one, and the other way round.
    """
    careful, generous = RateLimit(requests=2, seconds=3600.0), RateLimit(requests=5, seconds=3600.0)
    every = (careful, generous)
    limits = RateLimits(redis)

    first = [limits.take("airbnb", "", (careful,), every).retry_after == 0 for _ in range(3)]
    then = [limits.take("airbnb", "", (generous,), every).retry_after == 0 for _ in range(4)]
    last = limits.take("airbnb", "", (careful,), every).retry_after == 0

    assert ([True, True, False], [True, True, True, False], False) == (first, then, last)


def test_a_short_window_forgets_nothing_that_a_long_one_needs(redis: Redis) -> None:
    """
    The list is as long as the highest limit, whichever holds at this hour.
    """
    short, long = RateLimit(requests=2, seconds=1.0), RateLimit(requests=5, seconds=3600.0)
    limits = RateLimits(redis, now=OTHER_CLOCK)
    allowed: list[bool] = []

    for second, held in enumerate([long, long, long, long, short, long]):
        redis.set("clock", (1_000_000 + 10 * second) * 1_000_000)
        allowed.append(limits.take("airbnb", "", (held,), (short, long)).retry_after == 0)

    assert [True, True, True, True, True, False] == allowed


# --- several limits ---------------------------------------------------------------------------------------------------------------


def test_all_limits_have_to_allow(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    A connection has its own, and all of them together have the channel's; a call that the channel refuses keeps its connection's.
    """
    with Stage(redis_server.url, tmp_path, channels=BOTH):
        assert [True, True, False] == asked(3, "c-1")
        assert [True, False] == asked(2, "c-2")
        assert [False] == asked(1, "")

    used = [redis.llen(keys.rate_limit("airbnb", name)) for name in ("c-1", "c-2", "")]
    assert [2, 1, 3] == used


def test_the_first_limit_of_a_channel_is_the_one_that_is_shown(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    A channel has one maximum on the page, so that what is compared with it counts the same.
    """
    with Stage(redis_server.url, tmp_path, channels=BOTH):
        asked(1, "c-1")

    # The exporter has not the settings of those who call.
    limits = RateLimits(redis)
    assert {("airbnb", "c-1"): Count(1, 2), ("airbnb", ""): Count(1, 3)} == limits.counts()
    assert limits.export(time.time()) == 1
    assert [b'["airbnb", "c-1"]'] == redis.hkeys(keys.RATE_LIMITS)
    assert 0 < redis.ttl(keys.RATE_LIMITS) <= 300


def test_what_asks_no_more_is_not_shown_for_ever(redis: Redis) -> None:
    """
    An hour after its last call it is gone, and with it what was exported.
    """
    clock = FakeClock(10_000.0)
    limits = RateLimits(redis, clock=clock)
    limits.use("airbnb", "c-1", policies(TWO)["airbnb"].rate_limits, configured_as="airbnb")

    assert limits.export(clock()) == 1
    clock.advance(3601)

    assert limits.export(clock()) == 0
    assert (0, 0) == (redis.exists(keys.RATE_LIMITS), redis.exists(keys.LIMITED))


# --- what callers see -------------------------------------------------------------------------------------------------------------


def test_a_refusal_says_when_to_come_again(stage: Stage) -> None:
    """
    In the exception, and in the event.
    """
    assert [True, True] == asked(2)

    with pytest.raises(RateLimitError, match=r"^The rate limit of 'airbnb' has no call left\. Expected one in 3600\.\d\d s") as caught:
        rate_limiter.acquire("airbnb", "c-1")

    assert caught.value.retry_after == pytest.approx(3600, abs=5)
    assert ["allowed", "allowed", "denied"] == [event.result for event in stage.heard(RateLimitChecked)]
    assert {("airbnb", "c-1")} == {(event.channel_type, event.connection_id) for event in stage.heard(RateLimitChecked)}
    assert [0.0] * 3 == [event.waited for event in stage.heard(RateLimitWaited)]


def test_whoever_wants_to_waits(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    Until there is a call.
    """
    with Stage(redis_server.url, tmp_path, channels=QUICK) as stage:
        rate_limiter.acquire("airbnb")
        rate_limiter.acquire("airbnb", wait=5)

    assert 0.02 < stage.heard(RateLimitWaited)[-1].waited < 5


def test_nobody_waits_in_vain(stage: Stage) -> None:
    """
    Where the time that a caller has will not do, it is told at once.
    """
    asked(2)
    began = time.monotonic()

    with pytest.raises(RateLimitError):
        rate_limiter.acquire("airbnb", "c-1", wait=5.0)

    assert time.monotonic() - began < 3


def test_an_event_loop_goes_on_while_somebody_waits(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    The asynchronous way waits as the other does, and blocks no other coroutine.
    """

    async def both() -> int:
        ticks = 0
        rate_limiter.acquire("airbnb")
        waiting = asyncio.create_task(rate_limiter.acquire_async("airbnb", wait=5))
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0.005)
        await waiting
        return ticks

    with Stage(redis_server.url, tmp_path, channels=QUICK):
        assert asyncio.run(both()) > 3


def test_looking_takes_nothing(stage: Stage) -> None:
    """
    `check` tells how long to wait, and another caller may be first.
    """
    assert [0.0] * 3 == [rate_limiter.check("airbnb", "c-1") for _ in range(3)]
    asked(2)

    assert rate_limiter.check("airbnb", "c-1") == pytest.approx(3600, abs=5)


def test_a_channel_without_a_limit_costs_nothing(tmp_path: Path) -> None:
    """
    Redis is not asked, so it may as well not be there.
    """
    office = {"limit": "1/1h", "hours": "09:00-10:00"}
    unserved = f"redis://127.0.0.1:{free_port()}/0"

    with Stage(unserved, tmp_path, channels={"booking": {"rate_limits": office}}, clock=FakeClock(0.0)) as stage:
        rate_limiter.acquire("airbnb", "c-1")
        rate_limiter.acquire("booking", "c-1")
        assert rate_limiter.check("booking") == 0

    assert ([], []) == (stage.errors, stage.events)


def test_pairs_and_channels_are_told_once_a_minute(stage: Stage, redis: Redis) -> None:
    """
    The exporter finds who asks, and a call is one round trip.
    """
    asked(1)
    redis.config_resetstat()
    asked(3)

    counted: Any = redis.info("commandstats")
    assert ({"cmdstat_evalsha"}, 3) == (
        {name for name in counted if "lindex" not in name} & {"cmdstat_evalsha", "cmdstat_eval", "cmdstat_zadd", "cmdstat_hset"},
        counted["cmdstat_evalsha"]["calls"],
    )
    assert (("airbnb",), (("airbnb", "c-1"),)) == (Channels(redis).known(), RateLimits(redis).used())


def test_a_storage_for_the_library_needs_redis(stage: Stage, tmp_path: Path) -> None:
    """
    With it, the library's own limiter counts on it; without, the message names the setting.
    """
    assert rate_limiter.limits_storage().check()

    with Stage(None, tmp_path, channels=TWO), pytest.raises(ConfigurationError, match="Expected the setting redis_url"):
        rate_limiter.limits_storage()


# --- Redis is not what it should be -----------------------------------------------------------------------------------------------


def test_a_redis_that_hangs_holds_up_one_call(stage: Stage, redis_server: RedisServer) -> None:
    """
    The first waits for its time-out, those after it do not, and all of them go through and are told.
    """
    with redis_server.hanging():
        began = time.monotonic()
        answers = asked(50)
        took = time.monotonic() - began

    assert [True] * 50 == answers
    assert took < 2.5
    assert ({"rate_limiter"}, 50) == ({component for component, _ in stage.errors}, len(stage.errors))
    assert [] == stage.heard(RateLimitChecked)


@pytest.mark.parametrize("method", ["use", "give_back"])
def test_a_refusal_stands_when_redis_goes_away_behind_it(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """
    What is told and given back after the answer changes the answer no more.
    """
    with Stage(redis_server.url, tmp_path, channels=BOTH):
        assert [True, True, True] == [*asked(2, "c-1"), *asked(1, "c-2")]

    def away(*_: Any, **__: Any) -> None:
        raise RedisConnectionError

    monkeypatch.setattr(RateLimits, method, away)
    monkeypatch.setattr(RateLimits, "takes_together", False)  # As on a Redis Cluster.
    with Stage(redis_server.url, tmp_path, channels=BOTH) as stage:
        assert [False] == asked(1, "c-2")

    assert ["rate_limiter"] <= [component for component, _ in stage.errors]


@pytest.mark.parametrize("typed", ["text", "hash", "words", "zero", "future"])
def test_what_somebody_typed_is_none_of_ours(stage: Stage, redis: Redis, typed: str) -> None:
    """
    Malformed data is deleted and told; a time that has not come counts as now.
    """
    key = keys.rate_limit("airbnb", "c-1")
    if typed == "text":
        redis.set(key, "1")
    elif typed == "hash":
        redis.hset(key, "a", "b")
    else:
        redis.lpush(key, *{"words": ["soon", "later"], "zero": ["0", "nan"], "future": ["8e15"]}[typed])

    answers = asked(3)

    assert answers == ([True, False, False] if typed == "future" else [True, True, False])
    assert ([] if typed == "future" else ["rate_limiter"]) == [component for component, _ in stage.errors]
    assert 0 < redis.ttl(key) <= 3602


HOSTILE = ["all", "", "a b", "c:1", "*", "x" * 10_000, "'; DROP", "line\nbreak", "\x00", "\ud800", "ünï", "{tag}", "[a-z]*"]


def test_no_name_is_taken_for_another(stage: Stage, redis: Redis) -> None:
    """
    Whatever connections are called, each has its own list, and none of them raises.
    """
    assert [[True, True, False]] * len(HOSTILE) == [asked(3, name) for name in HOSTILE]

    assert len(HOSTILE) == len(list(redis.scan_iter("rate_limit:airbnb:*")))
    assert len(HOSTILE) - 1 == len(RateLimits(redis).used()), "What cannot be read is not listed."
    assert [] == stage.errors


def test_clearing_a_channel_leaves_all_others(redis: Redis) -> None:
    """
    An operator's patterns are our names, not theirs.
    """
    limits, held = RateLimits(redis), policies(TWO)["airbnb"].rate_limits
    names = [name for name in HOSTILE if name]
    for name in names:
        limits.take(name, "c-1", held)

    assert [1] * len(names) == [limits.clear(name) for name in names]
    assert [] == redis.keys("rate_limit:*")


def test_a_cluster_that_is_away_is_no_reason_to_fail(tmp_path: Path) -> None:
    """
    Its client looks for it on demand, and not before.
    """
    nowhere = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    with Stage(nowhere, tmp_path, channels=TWO) as stage:
        assert [True, True, True] == asked(3)
    announcer = Announcer(nowhere, say=dict, on_error=lambda error, *, component: None)
    announcer.start()
    announcer.stop()

    assert ["rate_limiter"] * 3 == [component for component, _ in stage.errors]


@pytest.mark.parametrize(
    ("url", "nodes", "user", "password", "tls"),
    [
        ("redis+cluster://a:7000,b,[::1]:7002", [("a", 7000), ("b", 6379), ("::1", 7002)], None, None, False),
        ("valkey+cluster://me:p%40ss@a:1,b:2/0", [("a", 1), ("b", 2)], "me", "p@ss", False),
        ("rediss+cluster://:x,y@a:1,b:2?ssl_cert_reqs=none", [("a", 1), ("b", 2)], None, "x,y", True),
        ("redis+cluster://", [("127.0.0.1", 6379)], None, None, False),
    ],
)
def test_a_cluster_s_url_names_its_nodes_with_commas(url: str, nodes: list[tuple[str, int]], user: str, password: str, tls: bool) -> None:
    """
    One login for all of them, and TLS by the scheme.
    """
    client: Any = connect(url)

    options = client._options
    assert (nodes, user, password, tls) == (client._nodes, options["username"], options["password"], options.get("ssl", False))


def test_a_cluster_has_one_database() -> None:
    """
    A user who names another is told so, without a password.
    """
    with pytest.raises(ConfigurationError, match="a Redis Cluster has none but 0") as caught:
        connect("redis+cluster://:hush@a:1,b:2/3")

    assert "hush" not in str(caught.value)
