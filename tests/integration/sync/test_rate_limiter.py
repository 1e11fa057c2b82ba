"""
The rate limiter, on a real Redis: never more than the limit in any stretch of time, whoever races, whoever's clock is wrong.
"""

from __future__ import annotations

import asyncio
import time

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from redis import Redis

from celery_obs.state import keys
from celery_obs.state.rate_limits import Count, RateLimits, limits_storage
from celery_obs.sync import rate_limiter
from celery_obs.sync.errors import RateLimitError
from celery_obs.testing import FakeClock
from celery_obs.vocabulary.policies import RateLimit, policies
from celery_obs.vocabulary.rate_limiter import RateLimitChecked, RateLimitWaited
from tests.crew import Crew, Racer
from tests.servers import RedisServer, wait_until

from .conftest import Stage


pytestmark = pytest.mark.integration

SECOND = 1_000_000
NOW = "tests:now"
HELD_TIME = f"local now = tonumber(redis.call('GET', '{NOW}'))\n"
THREE = {"airbnb": {"rate_limits": "3/60s"}}


@pytest.fixture
def stage(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Stage]:
    """
    A process that may call three times a minute.
    """
    with Stage(redis_server.url, tmp_path, channels=THREE) as stage:
        yield stage


def test_the_call_after_the_last_is_refused_with_the_time_to_ask_again(stage: Stage) -> None:
    """
    Three calls a minute are three calls a minute, and each check is an event.
    """
    for _ in range(3):
        rate_limiter.acquire("airbnb", "c-1")
    with pytest.raises(RateLimitError, match="The rate limit of 'airbnb' has no call left") as caught:
        rate_limiter.acquire("airbnb", "c-1")

    assert caught.value.retry_after == pytest.approx(60, abs=5)
    assert ["allowed"] * 3 + ["denied"] == [each.result for each in stage.heard(RateLimitChecked)]
    assert {("airbnb", "c-1")} == {each[:2] for each in stage.heard(RateLimitChecked)}
    assert [0.0] * 4 == [each.waited for each in stage.heard(RateLimitWaited)]


def test_each_connection_has_its_own_limit_unless_the_channel_has_one(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    A limit of the channel counts the calls of all its connections together.
    """
    together = {"airbnb": {"rate_limits": {"limit": "2/60s", "per": "channel"}}, "booking": {"rate_limits": "1/60s"}}
    with Stage(redis_server.url, tmp_path, channels=together):
        for connection in ("c-1", "c-2"):
            rate_limiter.acquire("booking", connection)
            rate_limiter.acquire("airbnb", connection)

        with pytest.raises(RateLimitError):
            rate_limiter.acquire("airbnb", "c-3")
    assert {b"rate_limit:airbnb:all", b"rate_limit:booking:c-1", b"rate_limit:booking:c-2"} == set(redis.scan_iter("rate_limit:*"))


def test_a_channel_without_a_limit_costs_nothing(stage: Stage, redis: Redis) -> None:
    """
    Nothing is asked and nothing is told.
    """
    rate_limiter.acquire("vrbo", wait=5)

    assert [] == [event for event in stage.events if isinstance(event, RateLimitChecked)]
    assert 0 == redis.dbsize()


def test_whoever_waits_gets_the_next_call(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    Standing in line is bounded, and measured.
    """
    with Stage(redis_server.url, tmp_path, channels={"airbnb": {"rate_limits": "1/0.1s"}}) as stage:
        rate_limiter.acquire("airbnb", wait=5)
        rate_limiter.acquire("airbnb", wait=5)
        asyncio.run(rate_limiter.acquire_async("airbnb", wait=5))

    waits = [each.waited for each in stage.heard(RateLimitWaited)]
    assert 0.0 == waits[0]
    assert all(0.05 < waited < 5 for waited in waits[1:])


def test_nobody_waits_in_vain(stage: Stage) -> None:
    """
    Where the wait would be longer than the caller has time, it is refused at once.
    """
    for _ in range(3):
        rate_limiter.acquire("airbnb")
    began = time.monotonic()

    with pytest.raises(RateLimitError):
        rate_limiter.acquire("airbnb", wait=30)

    assert time.monotonic() - began < 5


def test_business_hours_are_kept(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    At nine o'clock the smaller limit holds, and the calls of a moment ago count for it.
    """
    hours = {"airbnb": {"rate_limits": [{"limit": "2/60s", "hours": "09:00-17:00"}, "5/60s"]}}
    clock = FakeClock(1_800_000_000.0 // 86400 * 86400 + 9 * 3600 - 1)
    with Stage(redis_server.url, tmp_path, channels=hours, clock=clock) as stage:
        for _ in range(3):
            rate_limiter.acquire("airbnb")
        clock.advance(1)
        with pytest.raises(RateLimitError):
            rate_limiter.acquire("airbnb")
        assert {("airbnb", ""): Count(3, 2)} == RateLimits(redis, stage.engine.settings.channels, clock=clock).counts()

        clock.advance(8 * 3600)
        rate_limiter.acquire("airbnb")
        rate_limiter.acquire("airbnb")
        with pytest.raises(RateLimitError):
            rate_limiter.acquire("airbnb")


def test_a_wrong_clock_of_a_client_gets_no_call_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The time is Redis' own; with the clients' an hour ahead would be an empty window.
    """
    for _ in range(3):
        rate_limiter.acquire("airbnb")

    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)

    with pytest.raises(RateLimitError):
        rate_limiter.acquire("airbnb")


STEPS = st.tuples(st.sampled_from([-15, -1, 0, 1, 15, 29, 30, 60]), st.sampled_from([-1, 0, 0, 1])).map(
    lambda pair: pair[0] * SECOND + pair[1]
)
"""
Microseconds that pass; the ends of windows are where mistakes hide.
"""


@given(
    st.integers(1, 4),
    st.sampled_from([30 * SECOND, 60 * SECOND]),  # Shorter ones would expire while the test holds the time.
    st.lists(st.tuples(STEPS, st.integers(1, 3)), min_size=1, max_size=40),
)
def test_no_window_ever_holds_more_than_the_limit(redis_server: RedisServer, limit: int, window: int, steps: list[tuple[int, int]]) -> None:
    """
    Whatever is asked, and whichever way Redis' clock is set, any stretch as long as the window holds the limit at most; nobody is refused for nothing.
    """
    with Redis.from_url(redis_server.url) as redis:
        redis.flushall()
        limits = RateLimits(redis, now=HELD_TIME)
        kept: list[int] = []
        now, newest = 1_800_000_000 * SECOND, 0
        for step, amount in steps:
            now += step
            redis.set(NOW, now)
            # Redis' clock may go back; then time stands still, unless it went back by more than a window.
            seen = max(now, newest)
            if newest > now + window:
                kept, seen = [], now
            before = sum(stamp >= seen - window for stamp in kept)
            found = limits.acquire_entry("k", limit, window / SECOND, amount)

            if found.retry_after == 0:
                assert before + amount <= limit
                kept += [seen] * amount
                newest = seen
            else:
                assert before + amount > limit
            assert sum(stamp >= seen - window for stamp in kept) <= limit


def test_sixteen_processes_together_get_no_call_more(redis: Redis, redis_server: RedisServer) -> None:
    """
    The times that Redis wrote hold the limit in every window, and agree with what each process noted for itself.
    """
    limit, wide = RateLimit(requests=25, seconds=0.2), RateLimit(requests=100_000, seconds=60.0)
    with Crew(16, Racer, redis_server.url) as crew:
        crew.all_call("race", "warm", limit, (), until=0.0)
        ledgers = crew.all_call("race", "airbnb", limit, (wide,), until=time.time() + 1.6)

    written: Any = redis.lrange(keys.rate_limit("airbnb"), 0, -1)
    stamps = sorted(int(stamp) / SECOND for stamp in written)
    calls = sorted(call for ledger in ledgers for call in ledger)
    assert len(calls) == len(stamps)
    assert 25 * 4 <= len(stamps)
    assert all(later - first > 0.2 for first, later in zip(stamps, stamps[25:], strict=False))
    # No 26 calls can be shown to lie within one window by the clocks of those who made them.
    assert all(max(after for _, after in calls[at : at + 26]) - before > 0.2 for at, (before, _) in enumerate(calls[:-25]))
    assert sum(1 for ledger in ledgers if ledger) >= 2


def test_what_is_no_list_of_times_is_deleted_and_told(stage: Stage, redis: Redis) -> None:
    """
    Whatever somebody typed, the call is made, and counting starts anew.
    """
    for number, garbage in enumerate(["text", "word", "future"]):
        redis.delete("rate_limit:airbnb:all")
        if garbage == "text":
            redis.set("rate_limit:airbnb:all", "3")
        else:
            redis.rpush("rate_limit:airbnb:all", "now" if garbage == "word" else str(int(time.time() + 86400) * SECOND))

        for _ in range(3):
            rate_limiter.acquire("airbnb")

        assert number + 1 == len(stage.errors)
        assert 3 == redis.llen("rate_limit:airbnb:all")


def test_calls_go_through_while_redis_is_away(tmp_path: Path) -> None:
    """
    A limit that cannot be asked does not stop anybody, and that is counted.
    """
    with RedisServer() as server, Stage(server.url, tmp_path, channels=THREE) as stage:
        rate_limiter.acquire("airbnb")
        server.kill()
        for _ in range(20):
            rate_limiter.acquire("airbnb")

        assert ["rate_limiter"] * 20 == [component for component, _ in stage.errors]
        server.restart()

        def refused() -> bool:
            try:
                rate_limiter.acquire("airbnb")
            except RateLimitError:
                return True
            return False

        wait_until(refused, what="the limit to be kept again")


def test_clearing_a_channel_removes_its_keys_and_no_others(stage: Stage, redis: Redis) -> None:
    """
    An operator frees a channel; the scan takes as many steps as it needs.
    """
    limits = RateLimits(redis)
    limit = RateLimit(requests=1, seconds=60.0)
    for number in range(2100):
        limits.acquire("airbnb", f"c-{number}", limit)
    limits.acquire("airbnb2", "", limit)

    assert 2100 == limits.clear("airbnb")
    assert 0 == limits.clear("airbnb")
    assert [b"rate_limit:airbnb2:all"] == list(redis.scan_iter("rate_limit:*"))


def test_counts_are_exported_for_those_who_asked_of_late(redis: Redis, redis_server: RedisServer) -> None:
    """
    No key is looked for: those who ask say so, and those who stopped are forgotten.
    """
    clock = FakeClock(time.time())
    limits = RateLimits(redis, policies(THREE), clock=clock)
    (limit,) = policies(THREE)["airbnb"].rate_limits
    for connection in ("c-1", 'c "2"\n'):
        limits.use([("airbnb", connection)])
        limits.acquire("airbnb", connection, limit)
    limits.acquire("airbnb", "c-1", limit)
    redis.hset(keys.RATE_LIMITS, '["old", ""]', "{}")

    assert {("airbnb", "c-1"): Count(2, 3), ("airbnb", 'c "2"\n'): Count(1, 3)} == limits.counts()
    assert 2 == limits.export(clock())
    assert {b'["airbnb", "c-1"]', b'["airbnb", "c \\"2\\"\\n"]'} == set(redis.hkeys(keys.RATE_LIMITS))
    assert f'{{"count": 2, "max": 3, "at": {clock()}}}'.encode() == redis.hget(keys.RATE_LIMITS, '["airbnb", "c-1"]')

    clock.advance(3601)
    assert 0 == limits.export(clock())
    assert {} == limits.counts()
    assert 0 == redis.exists(keys.RATE_LIMITS, keys.LIMITED)


def test_the_library_works_on_our_storage(redis: Redis) -> None:
    """
    Whoever uses `limits` itself gets windows by Redis' clock.
    """
    strategy, item = MovingWindowRateLimiter(limits_storage(redis)), RateLimitItemPerMinute(2)

    assert [True, True, False] == [strategy.hit(item, "airbnb") for _ in range(3)]
    assert not strategy.test(item, "airbnb")
    stats = strategy.get_window_stats(item, "airbnb")
    assert 0 == stats.remaining
    assert stats.reset_time == pytest.approx(time.time() + 60, abs=5)
    strategy.clear(item, "airbnb")
    assert strategy.hit(item, "airbnb", cost=2)
    with pytest.raises(NotImplementedError, match="moving windows only"):
        FixedWindowRateLimiter(limits_storage(redis)).hit(item, "airbnb")
