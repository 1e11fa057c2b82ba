"""
The Redis that a broker is.
"""

from __future__ import annotations

import pytest

from celery_obs.state.connection import connect, of_broker


@pytest.mark.parametrize(
    "url",
    ["redis://h:1/0", "rediss://h", "valkey://h", "redis+socket:///run/redis.sock", "valkeys+cluster://h", "sentinel://h?master_name=m"],
)
def test_a_redis_that_is_the_broker_is_taken_as_it_is(url: str) -> None:
    """
    Every kind of Redis that can be a broker can keep what the cluster shares.
    """
    assert url == of_broker(url, {"master_name": "other"})


@pytest.mark.parametrize("url", ["amqp://h//", "memory://", "", "sqs://"])
def test_another_broker_is_no_redis(url: str) -> None:
    """
    Then nothing is shared.
    """
    assert of_broker(url, {}) is None


@pytest.mark.parametrize("url", ["sentinel://a:1;sentinel://b:2/0", "sentinel://a:1;sentinel://b:2/0?x=1"])
def test_the_name_of_the_master_comes_from_the_transport(url: str) -> None:
    """
    Celery keeps it beside the URL, and the URL alone has to do for us.
    """
    found = of_broker(url, {"master_name": "my master"})

    assert found is not None
    assert found.endswith("master_name=my+master")
    connect(found).close()
