"""
What exporters and operators do with Redis works on each kind of it: one server, Sentinel, Cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from celery_obs.areas.channels.connections.state import Connection, Drift, Facts, TokenExpiry
from celery_obs.areas.channels.operations import OPERATIONS, Order, perform
from celery_obs.areas.channels.overview import OverviewReader
from celery_obs.areas.channels.reports import Reports
from celery_obs.areas.channels.state import Channels
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.tasks import marked
from celery_obs.demo.provider import Provider
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.exporter.server import Options, build_lease
from celery_obs.state import keys
from celery_obs.state.connection import connect
from celery_obs.state.lease import Lease
from tests.servers import RedisCluster, RedisSentinel, RedisServer
from tests.shared_state import audited
from tests.tokens import rig_of


pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module", params=[RedisServer, RedisSentinel, RedisCluster])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """
    Where a Redis of each kind is.
    """
    with request.param() as server:
        yield server.url


@pytest.fixture
def redis(url: str) -> Iterator[Any]:
    """
    A client of it.
    """
    client = connect(url)
    yield client
    client.close()


def test_a_lease_is_taken_kept_left_and_taken_by_another(redis: Any) -> None:
    """
    One holds it, the other sees who, and has it next.
    """
    first, second = Lease(redis, period=60), Lease(redis, period=60)

    first.attempt()
    second.attempt()
    assert (True, False, first.name) == (first.holds(), second.holds(), second.holder())
    first.attempt()
    first.stop()
    second.attempt()

    assert second.name == second._holder
    redis.delete(keys.LEASE)


def test_everything_that_was_written_is_read(redis: Any) -> None:
    """
    In a Cluster the keys lie on several nodes.
    """
    facts = Facts(redis)
    facts.register([Connection("c1", "airbnb", "active", 1.0)])
    facts.token_stored("c1", TokenExpiry(3.0, 4.0))
    facts.reconciled("c1", "airbnb", Drift(5, 6, 7.0))
    Channels(redis).touch(["airbnb", "vrbo"])

    overview, reports = OverviewReader(redis).read(), Reports(redis)

    assert (("airbnb", "vrbo"), {"c1": Drift(5, 6, 7.0)}) == (overview.channels, overview.snapshot.drift)
    assert {"airbnb": "closed", "vrbo": "closed"} == overview.breakers
    assert 1 == reports.status(limit=10)["count"]
    assert ["c1"] == [each["connection_id"] for each in reports.expiring(limit=10)]
    assert 0 == reports.pending(limit=10)["count"]


def test_the_exporter_takes_its_url(url: str) -> None:
    """
    Whatever kind it is, it can be given as --redis-url.
    """
    options = Options(redis_url=url, scope="cluster")
    lease = build_lease(options, InternalErrors())

    assert lease is not None
    lease.attempt()
    assert lease.holds()
    lease.stop()
    lease._redis.close()


def test_a_token_is_refreshed_once_and_encrypted_anew(url: str) -> None:
    """
    Of eight that ask at once one refreshes it; the marks of a scan and the encryption work wherever the keys lie.
    """
    with Provider() as provider, rig_of(url, token_url=provider.token_url) as rig:
        rig.connect("with a token", provider.accounts.authorize("with a token"))

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: tokens.refresh("with a token"), range(8)))

        assert 1 == provider.requests("/oauth/token") == len({outcome.expires_at for outcome in outcomes})
        assert (1, ()) == tokens.rotate()
        assert ["a", "b", "c"] == list(marked(rig.redis, ["a", "b", "c"], 300))
        assert [] == list(marked(rig.redis, ["a", "b", "c"], 300))
        rig.facts.forget(["with a token"])


@pytest.mark.parametrize("action", OPERATIONS)
def test_every_operation_is_done_and_written_down(redis: Any, action: str) -> None:
    """
    Each answers, and is the newest entry of the audit.
    """
    told = perform(redis, action, "airbnb", Order("jo", "a test", None))

    newest = audited(redis, 1)[0]
    assert (action, "jo", "done") == (newest["action"], newest["actor"], newest["outcome"])
    assert set(told) <= set(newest)
