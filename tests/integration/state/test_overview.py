"""
What the exporter reads of a real Redis, whatever lies there.
"""

from __future__ import annotations

import json

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from redis.exceptions import RedisError

from celery_obs.areas.channels.connections.state import Connection, Drift, Facts, TokenExpiry
from celery_obs.areas.channels.overview import OverviewReader, RateCount
from celery_obs.areas.channels.pauses.state import Pauses
from celery_obs.state import keys
from celery_obs.state.connection import connect
from tests.servers import RedisServer, Relay, wait_until
from tests.shared_state import write_syncs


pytestmark = pytest.mark.integration


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Any]:
    """
    A client of an empty Redis.
    """
    with connect(redis_server.url) as client:
        client.flushall()
        yield client


def test_an_empty_redis_has_nothing(redis: Any) -> None:
    """
    The first exporter of a new system shows an empty page, no error.
    """
    found = OverviewReader(redis).read()

    assert ((), {}, {}) == (found.channels, found.snapshot.connections, found.rate_limits)


def test_what_was_written_is_read_and_what_changed_is_read_again(redis: Any) -> None:
    """
    A second look shows what became of it, and nothing of what went.
    """
    facts, reader = Facts(redis), OverviewReader(redis, clock=lambda: 1000.0)
    facts.register([Connection("a", "airbnb", "active", 1.0), Connection("b", "vrbo", "paused", None)])
    write_syncs(redis, succeeded={"a": 2.0}, failed={"b": 1})
    facts.token_stored("a", TokenExpiry(3.0, 4.0))
    facts.reconciled("b", "vrbo", Drift(5, 6, 7.0))
    Pauses(redis).pause("vrbo", actor="x", reason="y")
    redis.hset(keys.RATE_LIMITS, json.dumps(["airbnb", "a"]), json.dumps({"count": 8, "max": 9, "at": 990.0}))
    redis.hset(keys.RATE_LIMITS, json.dumps(["airbnb", "old"]), json.dumps({"count": 8, "max": 9, "at": 900.0}))

    first = reader.read()
    facts.register([Connection("a", "booking", "error", 1.0)])
    facts.token_stored("a", TokenExpiry(30.0, 4.0))
    facts.forget(["b"])
    second = reader.read()

    assert ("airbnb", "vrbo") == first.channels
    assert {"a": Connection("a", "airbnb", "active", 1.0), "b": Connection("b", "vrbo", "paused", None)} == first.snapshot.connections
    assert ({"a": 2.0}, {"b": 1}, {"a": TokenExpiry(3.0, 4.0)}, {"b": Drift(5, 6, 7.0)}) == (
        first.snapshot.last_syncs,
        first.snapshot.errors,
        first.snapshot.tokens,
        first.snapshot.drift,
    )
    assert {"vrbo": ("x", "y")} == {name: (info.actor, info.reason) for name, info in first.pauses.items()}
    assert {"airbnb": "closed", "vrbo": "closed"} == first.breakers
    assert {("airbnb", "a"): RateCount(8, 9)} == first.rate_limits
    assert {"a": Connection("a", "booking", "error", 1.0)} == second.snapshot.connections
    assert {"a": TokenExpiry(30.0, 4.0)} == second.snapshot.tokens
    assert {} == second.snapshot.drift


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff\xfe", b"[", b"}{", b"1],[2", b"null", b"[]", b"{}", b"1e999", b'{"days": 1e400}', b"9" * 5000, b"[" * 100_000]
)
def test_what_is_none_of_ours_spoils_nothing(redis: Any, garbage: bytes) -> None:
    """
    A field that another program wrote is no fact, and those beside it are.
    """
    Facts(redis).register([Connection("a", "airbnb"), Connection('q"\n\\', "vrbo")])
    Facts(redis).token_stored("a", TokenExpiry(3.0, 4.0))
    for key in (
        keys.CONNECTIONS,
        keys.STATUSES,
        keys.LAST_SYNCS,
        keys.ERRORS,
        keys.TOKEN_EXPIRIES,
        keys.DRIFT,
        keys.LAST_RUNS,
        keys.REVIEWS,
    ):
        redis.hset(key, "garbage", garbage)
        redis.hset(key, b"\xff" + garbage, garbage)
    redis.hset(keys.RATE_LIMITS, garbage, garbage)

    found = OverviewReader(redis).read()

    assert {"a", 'q"\n\\'} == set(found.snapshot.connections)
    assert {"a": TokenExpiry(3.0, 4.0)} == found.snapshot.tokens
    assert {} == found.rate_limits
    assert "a" == Facts(redis).connection("a").connection_id  # type: ignore[union-attr]  # It is there.
    assert {"a", 'q"\n\\'} == set(Facts(redis).connections())


def test_those_who_ask_at_once_share_one_read(redis: Any, redis_server: RedisServer) -> None:
    """
    A hundred pages cost Redis no more than one, and each is answered.
    """
    with Relay(redis_server.port) as relay, connect(relay.url) as client, ThreadPoolExecutor(100) as threads:
        reader = OverviewReader(client)
        reader.read()
        before = relay.asked
        reader.read()
        one, before = relay.asked - before, relay.asked
        relay.delay = 0.2

        found = list(threads.map(lambda _: reader.read(), range(100)))

        assert 100 == len(found)
        assert relay.asked - before <= 2 * one


def test_a_redis_that_is_away_costs_those_who_ask_one_time_out(redis_server: RedisServer, redis: Any) -> None:
    """
    A hundred pages learn it from one attempt; a second later Redis is asked again.
    """
    with Relay(0) as relay, connect(relay.url) as client, ThreadPoolExecutor(10) as threads:
        reader = OverviewReader(client)

        failed = list(threads.map(lambda _: _fails(reader), range(100)))

        assert all(failed)
        assert relay.asked <= 2
        relay.to = redis_server.port
        wait_until(lambda: not _fails(reader), within=10, what="Redis to be asked again")


def _fails(reader: OverviewReader) -> bool:
    try:
        reader.read()
    except RedisError:
        return True
    return False
