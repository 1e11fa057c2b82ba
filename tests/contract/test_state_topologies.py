"""
What the cluster shares works on every kind of Redis: a single one, one behind Sentinel, and a Redis Cluster, and again by itself after each broke.
"""

from __future__ import annotations

import threading
import time

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.breakers.state import Breakers
from celery_obs.areas.channels.connections.fact_writer import ConnectionFactWriter
from celery_obs.areas.channels.connections.state import Connection, Drift, Facts, TokenExpiry
from celery_obs.areas.channels.errors import RateLimitError
from celery_obs.areas.channels.overview import OverviewReader
from celery_obs.areas.channels.pauses.state import Pauses
from celery_obs.areas.channels.policies import PRESETS, BreakerPolicy, RateLimit, policies
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.areas.channels.rate_limits.state import Count, RateLimits
from celery_obs.areas.channels.reconciliation.state import Pending, PendingConnection, PendingDay
from celery_obs.areas.channels.state import Channels
from celery_obs.areas.channels.syncs.turns import Turns
from celery_obs.areas.channels.tokens.api import RedisTokens, Token
from celery_obs.areas.channels.webhooks.state import Deliveries
from celery_obs.areas.queues.announcements import QueueAnnouncement
from celery_obs.clock import wall
from celery_obs.runtime.announce import Announcer
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings, load
from celery_obs.state import keys, removal
from celery_obs.state.audit import Audit
from celery_obs.state.connection import connect
from celery_obs.state.lease import Lease
from celery_obs.state.locks import Flight, Flights, Landing
from celery_obs.testing import FakeClock, RaisingErrors
from tests.servers import RedisCluster, RedisSentinel, RedisServer, wait_until
from tests.shared_state import audited, write_syncs
from tests.tokens import KEY


pytestmark = pytest.mark.integration

CHANNELS = ("airbnb", "booking", "a channel with 'quotes'\n", "ünï")
CONNECTIONS = tuple(f"c-{number}" for number in range(20))
TWO_AN_HOUR = policies({"*": {"rate_limits": "2/1h"}})["*"].rate_limits


class Topology(NamedTuple):
    """
    A kind of Redis.

    Attributes:
        url: How we get there.

        disturb: Breaks it, and returns when it should work again.
    """

    url: str
    disturb: Callable[[], None]


class Watched:
    """
    A client that counts the scripts that were run.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self.scripts = 0

    def eval(self, *arguments: Any) -> Any:
        answer = self._redis.eval(*arguments)
        self.scripts += 1
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)


@pytest.fixture(scope="module", params=["standalone", "sentinel", "cluster"])
def topology(request: pytest.FixtureRequest) -> Iterator[Topology]:
    """
    Each kind of Redis in turn.
    """
    with ExitStack() as running:
        if request.param == "standalone":
            server = running.enter_context(RedisServer())
            yield Topology(server.url, server.restart)
        elif request.param == "sentinel":
            sentinel = running.enter_context(RedisSentinel(sentinels=1))
            yield Topology(sentinel.url, sentinel.fail_over)
        else:
            cluster = running.enter_context(RedisCluster())
            yield Topology(cluster.url, cluster.lose_a_master)


@pytest.fixture
def redis(topology: Topology) -> Iterator[Any]:
    """
    Our own client of an empty Redis.
    """
    client: Any = connect(topology.url)
    client.flushall()
    yield client
    client.close()


def test_all_keys_of_ours_are_found_and_removed(redis: Any) -> None:
    """
    Thousands of them, those that people type included, on every kind of Redis; what others have there stays, and twice is once.
    """
    for number in range(1500):
        redis.set(f"celery_obs:once:x:{number}", "1")
    Channels(redis).touch(CHANNELS)
    for channel in CHANNELS:
        redis.hset(keys.breaker(channel), "state", "open")
        redis.set(keys.paused(channel), "true")
        redis.rpush(keys.rate_limit(channel, "c 1"), 1)
    theirs = ("theirs", "circuit_breaker:other:state", "rate_limit:other:x", "celery_obs_theirs")
    for key in theirs:
        redis.set(key, "x")

    channels = removal.channels_of(redis)
    counts = removal.count_keys(redis, channels)

    of_channels = {name: len(CHANNELS) for name in ("circuit_breaker", "channel_manager", "rate_limit")}
    assert {"celery_obs": 1501, **of_channels} == counts
    assert sum(counts.values()) == removal.remove_keys(redis, channels)
    assert 0 == removal.remove_keys(redis, channels)
    assert set(theirs) == {key.decode() for key in redis.scan_iter()}


def test_a_rate_limit_is_kept_shown_and_cleared(redis: Any) -> None:
    """
    Two of three calls are allowed, for each connection of each channel; the exporter can read how many; an operator lets them call again.
    """
    limits = RateLimits(redis)

    for channel in CHANNELS:
        answers = [[limits.take(channel, name, TWO_AN_HOUR).retry_after for _ in range(3)] for name in CONNECTIONS]
        assert all(first == second == 0 < third <= 3601 for first, second, third in answers)
        limits.use(channel, CONNECTIONS[0], TWO_AN_HOUR, configured_as="*")

    asked = {(channel, CONNECTIONS[0]): Count(2, 2) for channel in CHANNELS}
    assert asked == limits.counts()
    assert len(CHANNELS) == limits.export(time.time())
    assert dict.fromkeys(asked, (2, 2)) == OverviewReader(redis).read().rate_limits
    assert [len(CONNECTIONS)] * len(CHANNELS) == [limits.clear(channel) for channel in CHANNELS]
    assert limits.take("airbnb", CONNECTIONS[0], TWO_AN_HOUR).retry_after == 0


def test_a_call_is_looked_for_and_given_back(redis: Any) -> None:
    """
    To look takes nothing, and what is given back is another caller's.
    """
    limits = RateLimits(redis)
    taken = [limits.take("airbnb", "", TWO_AN_HOUR) for _ in range(2)]

    assert limits.peek("airbnb", "", TWO_AN_HOUR).retry_after > 0
    limits.give_back("airbnb", "", taken[0])

    assert [0, 0] == [limits.peek("airbnb", "", TWO_AN_HOUR).retry_after for _ in range(2)]
    assert limits.count("airbnb").used == 0, "Its limits are not configured."
    assert redis.llen(keys.rate_limit("airbnb")) == 1


def test_buckets_costs_and_what_channels_say_are_one_script_each(redis: Any) -> None:
    """
    A bucket and what lies beside a list are in the list's slot, and are cleared with it.
    """
    limits, bucket = RateLimits(redis), RateLimit(requests=1, seconds=3600.0, algorithm="leaky_bucket", burst=3)

    for channel in CHANNELS:
        both = (*TWO_AN_HOUR, bucket)
        assert limits.take(channel, "c-1", both, cost=2).retry_after == 0
        assert limits.take(channel, "c-1", both).retry_after > 0
        limits.learn(channel, "c-2", left=1, seconds=60.0)
        assert [0, True] == [limits.take(channel, "c-2", both).retry_after, limits.take(channel, "c-2", both).retry_after > 50]
        assert limits.clear(channel) == 2
        assert limits.take(channel, "c-2", both, cost=2).retry_after == 0


def test_breakers_of_endpoints_and_windows_work(redis: Any) -> None:
    """
    Each in a hash of its own, found by who looks at the channel, closed together.
    """
    breakers, policy = Breakers(redis), BreakerPolicy(failure_rate=0.5, minimum_calls=2, per="endpoint")

    for channel in CHANNELS:
        for _ in range(2):
            checked = breakers.check(channel, policy, "/prices/{id}")
            assert checked.permit is not None
            found = breakers.record(checked.permit, policy, "failure")
        assert found.transition is not None
        breakers.note(channel, "/prices/{id}", found.transition.to_state)
        breakers.tell(channel, left=0, seconds=60.0)
        assert breakers.check(channel, policy).advertised

    assert {"open"} == {view.state for view in breakers.states(CHANNELS).values()}
    for channel in CHANNELS:
        breakers.force_close(channel)
        assert breakers.check(channel, policy, "/prices/{id}").permit is not None
    assert {} == breakers.scopes()


def test_turns_are_given_out_one_after_the_other(redis: Any) -> None:
    """
    As far apart as they are asked for, up to the longest wait.
    """
    turns = Turns(redis)

    given = [turns.take("limit:airbnb:c-1", after=1.0, spacing=0.5, longest=2.2) for _ in range(4)]

    assert [True, True, True, False] == [each is not None for each in given]
    assert given[:3] == pytest.approx([1.0, 1.5, 2.0], abs=0.3)


def test_the_library_limits_counts_on_it(redis: Any) -> None:
    """
    Its moving window works with our storage, whatever Redis that is.
    """
    from limits import parse
    from limits.strategies import MovingWindowRateLimiter

    from celery_obs.areas.channels.rate_limits.limits_storage import RedisTimeStorage

    limiter, limit = MovingWindowRateLimiter(RedisTimeStorage(redis)), parse("2/minute")

    assert [True, True, False] == [limiter.hit(limit, "a", "b") for _ in range(3)]
    assert limiter.get_window_stats(limit, "a", "b").remaining == 0
    limiter.clear(limit, "a", "b")
    assert limiter.test(limit, "a", "b")


def test_channels_are_remembered_until_unused(redis: Any) -> None:
    """
    The sweep forgets those that were not used since.
    """
    clock = FakeClock(1000.0)
    channels = Channels(redis, clock=clock)

    channels.touch(CHANNELS)
    clock.advance(10)
    channels.touch(["airbnb", "x" * 10_000])

    assert tuple(sorted(CHANNELS)) == channels.known()
    assert len(CHANNELS) - 1 == channels.forget_unused(1010.0)
    assert ("airbnb",) == channels.known()


def test_channels_are_paused_and_go_on(redis: Any) -> None:
    """
    All at once, or one by one.
    """
    pauses = Pauses(redis)
    for channel in CHANNELS:
        pauses.pause(channel, actor="me", reason="maintenance", seconds=60)

    assert set(CHANNELS) == pauses.paused([*CHANNELS, "vrbo"]).keys()
    assert pauses.resume("airbnb")
    assert (False, True) == (pauses.is_paused("airbnb"), pauses.is_paused("booking"))


def test_workers_announce_their_queues(topology: Topology, redis: Any) -> None:
    """
    By the same URL as everything else.
    """
    announcer = Announcer(topology.url, say=lambda: {"work": QueueAnnouncement(seen=wall())}, on_error=RaisingErrors())
    announcer.start()
    try:
        wait_until(lambda: redis.hexists(keys.QUEUES, "work"), what="the queue to be announced")
    finally:
        announcer.stop()


def test_facts_are_written_and_read(redis: Any) -> None:
    """
    Everything about every connection, and nothing of one that was forgotten.
    """
    facts = Facts(redis)
    facts.register(Connection(name, "airbnb", "active", 1.0) for name in CONNECTIONS)
    write_syncs(redis, succeeded={"c-1": 5.0}, failed={"c-2": 1})
    facts.token_stored("c-3", TokenExpiry(9.0, 3.0))
    facts.reconciled("c-4", "airbnb", Drift(1, 365, 7.0))
    facts.refresh_began("c-5", at=3.0)

    seen = facts.snapshot()
    facts.forget(CONNECTIONS[1:])

    assert set(CONNECTIONS) == seen.connections.keys()
    assert ({"c-1": 5.0}, {"c-2": 1}, {"airbnb": 7.0}) == (seen.last_syncs, seen.errors, seen.last_runs)
    assert ({"c-3": TokenExpiry(9.0, 3.0)}, {"c-4": Drift(1, 365, 7.0)}) == (seen.tokens, seen.drift)
    assert (["c-0"], {}) == (list(facts.connections()), facts.refreshes())


def test_tokens_are_kept_and_replaced(topology: Topology, redis: Any) -> None:
    """
    A newer token is not overwritten, what could not be stored elsewhere is kept beside it, and replicas are waited for on the token's own node.
    """
    vault = RedisTokens(redis, [KEY])
    for connection in CONNECTIONS:
        first, second, third = (Token(access_token=f"at-{number}", refresh_token=f"{connection}-{number}") for number in range(3))
        vault.put(connection, first)
        (_, version) = vault.read(connection) or (None, None)

        assert vault.replace(connection, second, version)
        assert not vault.replace(connection, third, version)
        assert second == vault.get(connection)
        vault.park(connection, third, instead_of=second)
        assert (third, None) == (vault.parked(connection, instead_of=second), vault.parked(connection, instead_of=first))
        assert int("sentinel" in topology.url) == vault.replicated(
            connection, second, replicas=1, within=0.2 if "sentinel" in topology.url else 0.001
        )
        assert vault.replicated(connection, third, replicas=1, within=0.001) is None

    assert len(CONNECTIONS) == vault.rotate(CONNECTIONS).rotated
    Facts(redis).forget(CONNECTIONS)
    assert [None] * len(CONNECTIONS) == [vault.get(connection) for connection in CONNECTIONS]


def test_facts_about_connections_are_written(redis: Any) -> None:
    """
    What tasks said of their syncs arrives.
    """
    writer = ConnectionFactWriter(redis, on_drop=lambda: pytest.fail("A fact was given up."))
    writer.errored("c-1")
    writer.synced("c-2", at=4.0)

    assert writer.flush(within=5)
    assert ({b"c-1": b"1"}, {b"c-2": b"4.0"}) == (redis.hgetall(keys.ERRORS), redis.hgetall(keys.LAST_SYNCS))


def test_one_of_many_does_it(redis: Any) -> None:
    """
    The others take its result.
    """
    go_on, watched = threading.Event(), Watched(redis)

    def work(flight: Flight) -> str:
        assert go_on.wait(10)
        return "done"

    with ThreadPoolExecutor(3) as pool:
        landings = [pool.submit(Flights(watched).fly, "refresh c-1", work, wait=10) for _ in range(3)]  # type: ignore[arg-type]  # It is one.
        wait_until(lambda: watched.scripts == 3, what="all of them to have asked")
        go_on.set()

    assert sorted([Landing("done", True), *[Landing("done", False)] * 2]) == sorted(landing.result() for landing in landings)


def test_one_of_many_holds_the_lease(redis: Any) -> None:
    """
    It leaves it to the next one.
    """
    first, second = Lease(redis, period=1.0), Lease(redis, period=1.0)
    first.attempt()
    second.attempt()
    assert (True, False) == (first.holds(), second.holds())

    first.stop()
    second.attempt()

    wait_until(second.holds, what="the second to hold the lease")
    assert not first.holds()


def test_what_operators_did_is_written_down(redis: Any) -> None:
    """
    The newest first.
    """
    audit = Audit(redis)
    audit.write("pause", actor="me", reason="a\nb", channel="airbnb")
    audit.write("resume", actor="me", reason="done", channel="airbnb")

    assert ["resume", "pause"] == [entry["action"] for entry in audited(redis)]


def test_what_is_left_to_be_settled_is_listed(redis: Any) -> None:
    """
    Until it is settled.
    """
    pending = Pending(redis)
    entries = [
        PendingConnection(name, "airbnb", 1, {"mismatch": 1}, (PendingDay("2030-01-01", "mismatch", "1", None),), 5.0)
        for name in CONNECTIONS
    ]
    for entry in entries:
        pending.put(entry)
    pending.remove(*CONNECTIONS[2:])

    assert dict(zip(CONNECTIONS[:2], entries, strict=False)) == pending.all()


def test_a_breaker_opens_shows_and_closes(redis: Any) -> None:
    """
    For each channel alone.
    """
    breakers, policy = Breakers(redis), PRESETS["fitbit"]
    for _ in range(policy.failure_threshold):
        permit = breakers.check("airbnb", policy).permit
        assert permit is not None
        breakers.record(permit, policy, "failure")
    breakers.force_open("booking", actor="me")
    Channels(redis).touch(CHANNELS)

    assert breakers.check("airbnb", policy).permit is None
    assert ["open", "open", "closed", "closed"] == [breakers.states(CHANNELS)[channel].state for channel in CHANNELS]
    assert len(CHANNELS) == breakers.export(time.time())
    assert {"airbnb": "open", "booking": "open"}.items() <= OverviewReader(redis).read().breakers.items()
    breakers.force_close("airbnb")
    breakers.reset("booking")
    assert ["closed"] * 4 == [breakers.states(CHANNELS)[channel].state for channel in CHANNELS]


def test_it_works_again_by_itself_after_redis_broke(topology: Topology, redis: Any, tmp_path: Path) -> None:
    """
    A server dies while everybody calls: no caller hears of it, the calls go through, and the limit is kept again when Redis is back.
    """
    told: list[str] = []
    settings: Settings = load(
        {"celery_obs": {"metrics_dir": str(tmp_path), "redis_url": topology.url, "channels": {"*": {"rate_limits": "3/1h"}}}}, {}, {}
    )
    made = engine.Engine(hub=Hub(on_error=lambda error, *, component: told.append(component)), settings=settings)
    engine.connect(lambda: made)
    stop, slowest, allowed = threading.Event(), [0.0], [0]

    def call() -> None:
        while not stop.wait(0.01):
            began = time.monotonic()
            try:
                rate_limiter.acquire("airbnb", "c-1")
                allowed[0] += 1
            except RateLimitError:
                pass
            slowest[0] = max(slowest[0], time.monotonic() - began)

    with ThreadPoolExecutor(1) as pool:
        try:
            calling = pool.submit(call)
            wait_until(lambda: allowed[0] == 3, what="the limit to be used up")
            topology.disturb()
            wait_until(lambda: _refuses("airbnb", "c-1"), what="the limit to be kept again")
        finally:
            stop.set()
            engine.disconnect()
        calling.result()

    assert {"rate_limiter"} >= set(told)
    assert slowest[0] < 5
    write_syncs(redis, succeeded={"c-1": 1.0})
    Channels(redis).touch(["airbnb"])
    Audit(redis).write("pause", actor="me", reason="")
    assert OverviewReader(redis).read().channels == ("airbnb",)


def _refuses(channel: str, connection_id: str) -> bool:
    try:
        rate_limiter.acquire(channel, connection_id)
    except RateLimitError:
        return True
    return False


def test_deliveries_are_remembered_and_objects_keep_their_order(redis: Any) -> None:
    """
    What was done is done, what failed is new, and an event that was overtaken is stale; what is none of ours stands in no way.
    """
    known = Deliveries(redis)
    redis.set(keys.newest("webhook.airbnb", "b-7"), "another's")

    assert ["new", "held"] == [known.claim("webhook.airbnb", "evt-1", hold=60)[0] for _ in range(2)]
    known.finish("webhook.airbnb", "evt-1", ttl=60)
    assert ("done", "") == known.claim("webhook.airbnb", "evt-1", hold=60)

    def claim(at: float, token: str) -> str:
        return known.claim_object("webhook.airbnb", "b-7", at=at, token=token, hold=60)

    assert ["newest", "held", "newest"] == [claim(1.0, "one"), claim(2.0, "two"), claim(1.0, "one")]
    known.release_object("webhook.airbnb", "b-7", token="one")
    assert "newest" == claim(2.0, "two")
    known.finish_object("webhook.airbnb", "b-7", at=2.0, token="two", ttl=60)
    assert ["stale", "newest"] == [claim(1.0, "one"), claim(2.0, "three")]
    assert 0 < redis.pttl(keys.newest("webhook.airbnb", "b-7")) <= 60_000
