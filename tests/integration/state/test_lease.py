"""
The lease on a real Redis: its scripts do what the tests' own Redis does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celery_obs.state import keys
from celery_obs.state.connection import connect
from celery_obs.state.lease import _LEAVE, _TAKE, Lease
from tests.servers import RedisServer, wait_until
from tests.unit.state.test_lease import Redis as OwnRedis


pytestmark = pytest.mark.integration


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Any]:
    """
    A client of an empty Redis.
    """
    with connect(redis_server.url) as client:
        client.flushall()
        yield client


def test_the_scripts_answer_as_the_tests_own_redis_does(redis: Any) -> None:
    """
    Taking, renewing, finding it taken, leaving and taking what is vacant.
    """
    own = OwnRedis()
    steps = [(_TAKE, "a"), (_TAKE, "a"), (_TAKE, "b"), (_LEAVE, "b"), (_LEAVE, "a"), (_TAKE, "b"), (_TAKE, "a")]

    def answer(server: Any, script: str, token: str) -> object:
        said = server.eval(script, 1, keys.LEASE, token, 60_000)
        return said if isinstance(said, int) else (said[0], said[2], said[1] > 59_000)

    assert [answer(own, *step) for step in steps] == [answer(redis, *step) for step in steps]


def test_a_lease_that_never_ends_is_made_to_end(redis: Any) -> None:
    """
    A key that was typed without a TTL blocks the exporters for one period, not for ever.
    """
    redis.set(keys.LEASE, "another")
    lease = Lease(redis, period=0.3)

    lease.start()
    try:
        assert not lease.holds()
        assert "another" == lease.holder()
        wait_until(lease.holds, what="the lease")
    finally:
        lease.stop()


def test_it_is_kept_for_longer_than_a_period_and_left_vacant(redis: Any, redis_server: RedisServer) -> None:
    """
    The thread renews it, and a clean exit leaves it to the next one.
    """
    with connect(redis_server.url) as other:
        first, second = Lease(redis, period=0.3), Lease(other, period=0.3)
        first.start()
        second.start()
        try:
            begin = first.epoch()
            renewed = first._held[2] + 0.6
            wait_until(lambda: first._held[2] > renewed, what="some renewals")
            assert begin == first.epoch()
            assert not second.holds()

            first.stop()

            assert not first.holds()
            wait_until(second.holds, what="the next one")
        finally:
            first.stop()
            second.stop()
    assert b"" == redis.get(keys.LEASE)


def test_what_cannot_be_asked_is_told_and_nothing_is_held(redis: Any) -> None:
    """
    A key of another type, such as a typo makes, is an error that is told, not a lease.
    """
    redis.hset(keys.LEASE, "a", "b")
    told: list[Exception] = []
    lease = Lease(redis, period=60, on_error=told.append)

    pause = lease.attempt()

    assert not lease.holds()
    assert 20 == pause
    assert "WRONGTYPE" in str(told[0])
