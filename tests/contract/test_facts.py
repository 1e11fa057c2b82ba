"""
Facts of connections in a real Redis: what is written is read, and what is none of ours is no fact.
"""

from __future__ import annotations

import json

from collections.abc import Iterator
from typing import Any

import pytest

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from celery_obs.areas.channels.connections.metrics import STATUSES
from celery_obs.areas.channels.connections.state import OWNED_BY_CONNECTION, Connection, Drift, Facts, TokenExpiry
from celery_obs.areas.channels.reconciliation.state import SAMPLE, Pending, PendingConnection, PendingDay, decode, encode
from celery_obs.state import keys
from tests.servers import RedisServer
from tests.shared_state import write_syncs


pytestmark = pytest.mark.integration

on_a_real_redis = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

times = st.floats(0, 1e12)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
connections = st.builds(Connection, names, names, st.sampled_from(STATUSES), st.none() | times, st.none())
garbage = st.binary(max_size=40) | st.sampled_from(
    [
        b"null",
        b"[]",
        b"{}",
        b"1e999",
        b"NaN",
        b'{"channel_type": 5}',
        b"[" * 5000,
        b'{"days": "x", "checked": 1, "at": 1}',
        b'{"days": 1, "checked": 1, "at": Infinity}',
    ]
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """
    A Redis for this module.
    """
    with RedisServer() as started:
        yield started


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    """
    An empty Redis.
    """
    with Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@on_a_real_redis
@given(connections, st.dictionaries(names, names, max_size=4))
def test_what_is_filled_into_urls_stays_until_it_is_said_anew(redis: Redis, connection: Connection, parameters: dict[str, str]) -> None:
    """
    A connection that is registered again without it keeps it, and one that is forgotten does not.
    """
    redis.flushall()
    facts = Facts(redis)

    facts.register([connection._replace(url_parameters=parameters)])
    facts.register([connection])

    assert parameters == facts.url_parameters(connection.connection_id)
    facts.forget([connection.connection_id])
    assert {} == facts.url_parameters(connection.connection_id)


@on_a_real_redis
@given(st.lists(connections, max_size=8, unique_by=lambda each: each.connection_id))
def test_connections_are_read_as_they_were_registered(redis: Redis, given: list[Connection]) -> None:
    """
    Whatever they are called, one by one and all together.
    """
    redis.flushall()
    facts = Facts(redis)

    facts.register(given)

    assert {each.connection_id: each for each in given} == facts.connections() == facts.snapshot().connections
    assert given == [facts.connection(each.connection_id) for each in given]


@on_a_real_redis
@given(connections, times, st.builds(TokenExpiry, st.none() | times, st.none() | times), st.integers(0, 4))
def test_each_fact_is_read_as_it_was_written(redis: Redis, connection: Connection, at: float, expiry: TokenExpiry, failed: int) -> None:
    """
    Syncs, errors in a row, tokens and drift of a connection, and the channel's last run.
    """
    redis.flushall()
    facts, name = Facts(redis), connection.connection_id
    facts.register([connection])
    write_syncs(redis, succeeded={name: at}, failed={name: failed})
    facts.token_stored(name, expiry)
    facts.reconciled(name, connection.channel_type, Drift(7, 365, at))

    found = facts.snapshot()

    assert {name: at} == found.last_syncs
    assert ({name: failed} if failed else {}) == found.errors
    assert {name: expiry} == found.tokens == facts.token_expiries()
    assert {name: Drift(7, 365, at)} == found.drift == facts.drifts()
    assert {connection.channel_type: at} == found.last_runs


def test_a_sync_that_succeeds_ends_the_row_of_errors(redis: Redis) -> None:
    """
    Errors are counted since the last success.
    """
    facts = Facts(redis)
    facts.register([Connection("one", "airbnb")])
    write_syncs(redis, failed={"one": 2})

    write_syncs(redis, succeeded={"one": 5.0}, failed={"one": 1})

    assert {"one": 1} == facts.snapshot().errors


def test_what_is_forgotten_is_gone_everywhere(redis: Redis) -> None:
    """
    Nothing of a connection stays, its token included, and the others keep everything.
    """
    facts = Facts(redis)
    for name in ("one", "two"):
        facts.register([Connection(name, "airbnb")])
        for key in OWNED_BY_CONNECTION:
            redis.hset(key, name, "1")
        redis.hset(keys.token(name), "token", "secret")

    facts.forget(["one"])
    facts.forget([])

    assert [[b"two"]] * len(OWNED_BY_CONNECTION) == [redis.hkeys(key) for key in OWNED_BY_CONNECTION]
    assert (0, 1) == (redis.exists(keys.token("one")), redis.exists(keys.token("two")))


def test_facts_of_nobody_are_not_shown(redis: Redis) -> None:
    """
    A fact of a connection that is not registered would be a series that never ends.
    """
    facts = Facts(redis)

    write_syncs(redis, succeeded={"stranger": 1.0})
    facts.reconciled("stranger", "airbnb", Drift(1, 1, 1.0))

    assert ({}, {}) == (facts.snapshot().last_syncs, facts.snapshot().drift)


def test_an_unknown_status_counts_as_active(redis: Redis) -> None:
    """
    A word of a later version, or one written by hand, hides no connection.
    """
    facts = Facts(redis)
    facts.register([Connection("one", "airbnb", "paused")])

    redis.hset(keys.STATUSES, "one", "napping")

    assert Connection("one", "airbnb", "active") == facts.connection("one")


@on_a_real_redis
@given(
    st.dictionaries(
        st.sampled_from([*OWNED_BY_CONNECTION, keys.LAST_RUNS, keys.REVIEWS]),
        st.dictionaries(st.binary(max_size=8), garbage, min_size=1, max_size=3),
    )
)
def test_what_is_none_of_ours_is_no_fact(redis: Redis, written: dict[str, dict[bytes, bytes]]) -> None:
    """
    Whatever was written there, everything that makes sense is read.
    """
    redis.flushall()
    facts = Facts(redis)
    for key, fields in written.items():
        redis.hset(key, mapping=fields)  # type: ignore[arg-type]  # Invariant mapping in the stubs.
    facts.register([Connection("ours", "airbnb")])
    write_syncs(redis, succeeded={"ours": 7.0})
    facts.reconciled("ours", "our channel", Drift(1, 2, 3.0))

    found = facts.snapshot()

    assert (Connection("ours", "airbnb"), 7.0, Drift(1, 2, 3.0), 3.0) == (
        found.connections["ours"],
        found.last_syncs["ours"],
        found.drift["ours"],
        found.last_runs["our channel"],
    )
    assert found.drift.keys() | found.errors.keys() | found.tokens.keys() <= found.connections.keys()
    Pending(redis).all()


# --- what is pending --------------------------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8"), max_size=100)
pending_days = st.builds(PendingDay, words, words, st.none() | words, st.none() | words)
entries = st.builds(
    PendingConnection,
    names,
    names,
    st.integers(0, 10**6),
    st.dictionaries(words, st.integers(0, 400), max_size=20),
    st.lists(pending_days, max_size=SAMPLE).map(tuple),
    times,
)


@given(entries)
def test_what_is_pending_is_read_as_it_was_written(entry: PendingConnection) -> None:
    """
    Encoding and decoding is identity for whatever is within the limits.
    """
    assert entry == decode(entry.connection_id, encode(entry))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["channel_type", "days", "conflicts", "sample", "at"]), inner)
        ),
    )
)
def test_no_other_json_is_mistaken_or_raises(value: Any) -> None:
    """
    What is none of ours is None, or makes sense.
    """
    found = decode("one", json.dumps(value))

    assert found is None or found == decode("one", encode(found)) or len(found.sample) > SAMPLE or len(found.conflicts) > 20


def test_the_list_stays_small_however_much_drifts() -> None:
    """
    Ten years of days and texts without end become one field of a few kilobytes.
    """
    day = PendingDay("2030-01-01", "x" * 10_000, "y" * 10_000, None)

    written = encode(PendingConnection("one", "airbnb", 3650, {f"type {number}": 1 for number in range(3650)}, (day,) * 3650, 1.0))

    assert len(written) < 5000
    assert 3650 == (decode("one", written) or pytest.fail("It is unreadable.")).days


def test_a_list_is_put_replaced_and_removed(redis: Redis) -> None:
    """
    A connection has one entry; others are left alone, and so is what another program wrote.
    """
    pending = Pending(redis)
    redis.hset(keys.PENDING, "stranger", "none of ours")
    old, new, other = (PendingConnection(name, "airbnb", days, {}, (), 1.0) for name, days in (("one", 1), ("one", 2), ("two", 3)))

    for entry in (old, new, other):
        pending.put(entry)
    pending.remove()

    assert {"one": new, "two": other} == pending.all()

    pending.remove("one", "unknown")

    assert {"two": other} == pending.all()
