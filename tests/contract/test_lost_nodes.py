"""
Breakers and limits when a node of Redis is lost: calls go through and are counted, and what was kept is kept.
"""

from __future__ import annotations

import threading

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.errors import CircuitOpenError, RateLimitError
from celery_obs.areas.channels.policies import policies
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.clock import wall
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.state import keys
from tests.servers import RedisCluster, RedisSentinel, wait_until


if TYPE_CHECKING:
    from typing_extensions import Self


pytestmark = pytest.mark.integration


class Process:
    """
    What one process of the user's has: an engine, and a count of what was kept from the user.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._errors: Counter[int] = Counter()  # By thread: each is told of its own calls.
        channels = policies({"*": {"circuit_breaker": {"failure_threshold": 2, "timeout": 300}, "rate_limits": "3/300s"}})
        self.engine = engine.Engine(
            hub=Hub(on_error=self._count), settings=Settings(metrics_dir=folder, redis_url=url, channels=channels), clock=wall
        )

    def _count(self, error: Exception, *, component: str) -> None:
        self._errors[threading.get_ident()] += 1

    @property
    def errors(self) -> int:
        return sum(self._errors.values())

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
            before = self._errors[threading.get_ident()]
            try:
                ask(channel)
            except (CircuitOpenError, RateLimitError):
                refusals += 1
            else:
                assert self._errors[threading.get_ident()] > before, "A call went through, and no event told of it."
        return refusals == 2


def test_a_failover_forgets_nothing_that_the_replica_has(tmp_path: Path) -> None:
    """
    The master is killed: what goes through meanwhile is counted, and then breaker and limit are what they were, by themselves.
    """
    with RedisSentinel() as sentinel, Process(sentinel.url, tmp_path) as process:
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


def test_a_lost_node_of_a_cluster_costs_its_own_channels_and_comes_back(tmp_path: Path) -> None:
    """
    Calls of channels on that node go through and are counted; when it is back, empty, its breakers and limits begin anew.
    """
    with RedisCluster() as cluster, Process(cluster.url, tmp_path) as process:
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
