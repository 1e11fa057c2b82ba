"""
What the sync engine keeps in Redis, asked of each kind: one server, a master with sentinels that fails over, a cluster of three.
"""

from __future__ import annotations

import contextlib
import threading
import time

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from redis import Redis

from celery_obs.clock import wall
from celery_obs.hub import Hub
from celery_obs.settings import Settings
from celery_obs.state import keys
from celery_obs.state.breakers import Breakers, Permit
from celery_obs.state.channels import Channels
from celery_obs.state.connection import connect
from celery_obs.state.facts import Connection, Drift, Facts, TokenExpiry
from celery_obs.state.locks import Flights
from celery_obs.state.pauses import Pauses
from celery_obs.state.pending import Pending
from celery_obs.state.rate_limits import Count, RateLimits
from celery_obs.sync import circuit_breaker, engine, rate_limiter
from celery_obs.sync.errors import CircuitOpenError, RateLimitError
from celery_obs.vocabulary.policies import BreakerPolicy, policies
from tests.servers import RedisCluster, RedisSentinel, RedisServer, wait_until


if TYPE_CHECKING:
    from typing_extensions import Self


pytestmark = pytest.mark.integration

CHANNELS = ("airbnb", "booking", "expedia", "vrbo")  # More than the cluster has nodes.
POLICY = BreakerPolicy(failure_threshold=2, success_threshold=1, timeout=0.05, probe_timeout=30.0)
LIMITED = policies({"*": {"rate_limits": "3/60s"}})


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def sentinel() -> Iterator[RedisSentinel]:
    with RedisSentinel() as sentinel:
        yield sentinel


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture(params=["server", "sentinel", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param).url
    return found


@pytest.fixture
def redis(url: str) -> Iterator[Redis]:
    client = connect(url)
    client.flushall()
    yield client
    client.close()


def test_breakers_open_probe_and_close(redis: Redis) -> None:
    """
    One key a channel: each breaker is whole on its node.
    """
    breakers = Breakers(redis)
    for channel in CHANNELS:
        permit = breakers.check(channel, POLICY).permit
        assert permit is not None
        for _ in range(2):
            changed = breakers.record(permit, POLICY, "failure").transition
        assert changed is not None
        assert breakers.check(channel, POLICY).permit is None
    for channel in CHANNELS:
        probes: list[Permit] = []
        wait_until(partial(_probe, breakers, channel, probes), what="the first probe")
        (probe,) = probes
        assert breakers.check(channel, POLICY).permit is None
        closed = breakers.record(probe, POLICY, "success").transition
        assert closed is not None
        assert ("half_open", "closed") == closed[:2]


def _probe(breakers: Breakers, channel: str, probes: list[Permit]) -> bool:
    permit = breakers.check(channel, POLICY).permit
    if permit is not None:
        probes.append(permit)
    return permit is not None


def test_breakers_are_shown_and_operated(redis: Redis) -> None:
    """
    All at once, wherever they lie.
    """
    breakers = Breakers(redis)
    for channel in CHANNELS:
        breakers.force_open(channel, actor="ada")

    assert CHANNELS == Channels(redis).known()
    assert {"open"} == {view.state for view in breakers.states(CHANNELS).values()}
    assert 4 == breakers.export(time.time())
    for channel in CHANNELS:
        breakers.reset(channel)
    assert {"closed"} == {view.state for view in breakers.states(CHANNELS).values()}


def test_limits_are_kept_counted_and_cleared(redis: Redis) -> None:
    """
    One list a channel and connection.
    """
    limits = RateLimits(redis, LIMITED)
    (limit,) = LIMITED["*"].rate_limits
    pairs = [(channel, connection) for channel in CHANNELS for connection in ("", "c-1")]
    for pair in pairs:
        assert [0, 0, 0] == [limits.acquire(*pair, limit).retry_after for _ in range(3)]
        assert limits.acquire(*pair, limit).retry_after > 50
    limits.use(pairs)

    assert {pair: Count(3, 3) for pair in pairs} == limits.counts()
    assert 8 == limits.export(time.time())
    assert [2, 2, 2, 2] == [limits.clear(channel) for channel in CHANNELS]
    assert {pair: Count(0, 3) for pair in pairs} == limits.counts()


def test_a_script_that_redis_forgot_is_sent_again(redis: Redis) -> None:
    """
    After a restart, a failover or a SCRIPT FLUSH nobody notices.
    """
    breakers = Breakers(redis)
    breakers.check("airbnb", POLICY)

    redis.script_flush()

    assert breakers.check("airbnb", POLICY).permit is not None


def test_channels_are_paused_and_go_on(redis: Redis) -> None:
    """
    Asked for several at once.
    """
    pauses = Pauses(redis)
    for channel in CHANNELS[:2]:
        pauses.pause(channel, actor="ada", reason="audit")

    assert set(CHANNELS[:2]) == set(pauses.paused(CHANNELS))
    assert [True, True, False, False] == [pauses.resume(channel) for channel in CHANNELS]


def test_facts_are_written_and_read_together(redis: Redis) -> None:
    """
    The hashes lie on different nodes, and are one snapshot all the same.
    """
    facts = Facts(redis)
    facts.register([Connection(f"c-{number}", "airbnb") for number in range(20)])
    facts.synced("c-1", at=5.0)
    facts.errored("c-2")
    facts.token_stored("c-3", TokenExpiry(10.0, 5.0))
    facts.reconciled("c-4", "airbnb", Drift(1, 365, 7.0))
    facts.forget(["c-5"])

    snapshot = facts.snapshot()

    assert 19 == len(snapshot.connections) == len(facts.connections())
    assert ({"c-1": 5.0}, {"c-2": 1}) == (snapshot.last_syncs, snapshot.errors)
    assert (TokenExpiry(10.0, 5.0), Drift(1, 365, 7.0)) == (snapshot.tokens["c-3"], snapshot.drift["c-4"])


def test_one_flies_at_a_time(redis: Redis) -> None:
    """
    The lock of a single flight is one key.
    """
    landing = Flights(redis).fly("refresh c-1", lambda _: "done", wait=1)

    assert (True, "done") == (landing.led, landing.result)


def test_what_is_pending_is_kept(redis: Redis) -> None:
    """
    The list of what reconciliation left is one hash.
    """
    assert {} == dict(Pending(redis).all())


# --- a node that is lost ----------------------------------------------------------------------------------------------------------


class Process:
    """
    What one process of the user's has: an engine, and a count of what was kept from the user.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._told: Counter[int] = Counter()  # By thread: each is told of its own calls.
        channels = policies({"*": {"circuit_breaker": {"failure_threshold": 2, "timeout": 300}, "rate_limits": "3/300s"}})
        self.engine = engine.Engine(
            hub=Hub(on_error=self._count), settings=Settings(metrics_dir=folder, redis_url=url, channels=channels), clock=wall
        )

    def _count(self, error: Exception, *, component: str) -> None:
        self._told[threading.get_ident()] += 1

    @property
    def errors(self) -> int:
        return sum(self._told.values())

    def __enter__(self) -> Self:
        engine.connect(lambda: self.engine)
        return self

    def __exit__(self, *_: object) -> None:
        engine.disconnect()
        if self.engine.redis is not None:
            self.engine.redis.close()

    def use_up(self, channel: str) -> None:
        """
        Open the breaker, and fill the limit.
        """
        for _ in range(2):
            circuit_breaker.record(circuit_breaker.allow(channel), ok=False)
        for _ in range(3):
            rate_limiter.acquire(channel)

    def is_guarded(self, channel: str) -> bool:
        """
        Tell whether breaker and limit both refuse; what goes through must have been counted.
        """
        refusals = 0
        for ask in (circuit_breaker.allow, rate_limiter.acquire):
            before = self._told[threading.get_ident()]
            try:
                ask(channel)
            except (CircuitOpenError, RateLimitError):
                refusals += 1
            else:
                assert self._told[threading.get_ident()] > before, "A call went through, and nobody was told."
        return refusals == 2


def test_a_failover_forgets_nothing_that_the_replica_has(sentinel: RedisSentinel, tmp_path: Path) -> None:
    """
    The master is killed: what goes through meanwhile is counted, and then breaker and limit are what they were, by themselves.
    """
    with contextlib.closing(connect(sentinel.url)) as client:
        client.flushall()
    with Process(sentinel.url, tmp_path) as process:
        process.use_up("airbnb")
        assert process.is_guarded("airbnb")

        over = threading.Event()

        def ask_all_the_while() -> int:
            guarded = 0
            while not over.is_set():
                guarded += process.is_guarded("airbnb")
            return guarded

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask_all_the_while)
            try:
                sentinel.fail_over()
                wait_until(lambda: process.is_guarded("airbnb"), within=15, what="breaker and limit to work again")
            finally:
                over.set()

        assert asking.result() > 0
        assert process.errors > 0


def test_a_lost_node_of_a_cluster_costs_its_own_channels_and_comes_back(cluster: RedisCluster, tmp_path: Path) -> None:
    """
    Calls of channels on that node go through and are counted; when it is back, empty, its breakers and limits begin anew.
    """
    with contextlib.closing(connect(cluster.url)) as client:
        client.flushall()
    with Process(cluster.url, tmp_path) as process:
        process.use_up("airbnb")
        assert process.is_guarded("airbnb")
        node = cluster.node_of(keys.breaker("airbnb"))

        node.kill()
        before = process.errors
        for _ in range(20):
            circuit_breaker.record(circuit_breaker.allow("airbnb"), ok=True)

        assert process.errors - before >= 20
        node.restart()
        wait_until(lambda: circuit_breaker.allow("airbnb").generation > 0, within=15, what="the breaker to be asked again")
        for _ in range(2):
            circuit_breaker.record(circuit_breaker.allow("airbnb"), ok=False)
        with pytest.raises(CircuitOpenError):
            circuit_breaker.allow("airbnb")


def test_a_cluster_that_is_not_there_yet_is_found_later(tmp_path: Path) -> None:
    """
    A worker starts before its Redis does: calls go through and are counted, and then breakers work.
    """
    cluster = RedisCluster()
    with Process(cluster.url, tmp_path) as process:
        circuit_breaker.allow("airbnb")
        assert 1 == process.errors

        with cluster:
            wait_until(lambda: circuit_breaker.allow("airbnb").generation > 0, within=15, what="the cluster to be found")
