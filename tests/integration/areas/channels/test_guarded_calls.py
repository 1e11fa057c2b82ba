"""
API calls with the real breaker and the real limiter, in a real Redis.
"""

from __future__ import annotations

import contextlib

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redis import Redis

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.api_calls.api import api_call
from celery_obs.areas.channels.api_calls.events import ApiCallFinished
from celery_obs.areas.channels.breakers.events import CircuitChanged
from celery_obs.areas.channels.errors import ApiError, CircuitOpenError, RateLimitError
from celery_obs.areas.channels.policies import policies
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.testing import RaisingErrors
from tests.servers import RedisServer, wait_until


pytestmark = pytest.mark.integration

CHANNELS = policies(
    {
        "airbnb": {"circuit_breaker": {"failure_threshold": 3, "success_threshold": 1, "timeout": 0.2}},
        "booking": {"circuit_breaker": "off", "rate_limits": "2/1h"},
    }
)


@pytest.fixture
def heard(redis_server: RedisServer, tmp_path: Path) -> Iterator[list[Any]]:
    """
    What happens in a process whose channels have a breaker and a limit.
    """
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    events: list[Any] = []
    hub = Hub(on_error=RaisingErrors())
    for event_type in (ApiCallFinished, CircuitChanged):
        hub.subscribe(event_type, events.append)
    made = engine.Engine(hub=hub, settings=Settings(metrics_dir=tmp_path, redis_url=redis_server.url, channels=CHANNELS))
    engine.connect(lambda: made)
    yield events
    engine.disconnect()
    assert made.redis is not None
    made.redis.close()


def ask(channel: str, status: int) -> None:
    with contextlib.suppress(ApiError), api_call(channel, "/x", "GET", connection_id="c-1") as call:
        call.response(status)


def changes(heard: list[Any]) -> list[str]:
    return [event.to_state for event in heard if isinstance(event, CircuitChanged)]


def test_failures_of_the_channel_open_its_breaker_and_an_answer_closes_it(heard: list[Any]) -> None:
    """
    Three 5xx open it; then no call is made, which counts as an error of its own kind; after the timeout one probe finds the channel well.
    """
    for _ in range(3):
        ask("airbnb", 503)
    with pytest.raises(CircuitOpenError) as caught, api_call("airbnb", "/x", "GET"):
        pytest.fail("The channel was called.")

    assert ("circuit_breaker", "none") == (heard[-1].error_type, heard[-1].status_code)
    assert caught.value.retry_after is not None

    def is_closed() -> bool:
        with contextlib.suppress(CircuitOpenError):
            ask("airbnb", 401)
        return "closed" in changes(heard)

    wait_until(is_closed, what="the breaker to close")
    assert ["open", "half_open", "closed"] == changes(heard)


@pytest.mark.parametrize("status", [401, 404, 422, 429])
def test_a_refusal_does_not_open_the_breaker(heard: list[Any], status: int) -> None:
    """
    A channel that answers is there, whatever it says.
    """
    for _ in range(10):
        ask("airbnb", status)

    assert [] == changes(heard)


def test_the_limit_of_the_channel_holds(heard: list[Any]) -> None:
    """
    Beyond the limit the channel is not called, and the error says when it may be.
    """
    for _ in range(2):
        ask("booking", 200)

    with pytest.raises(RateLimitError) as caught:
        ask("booking", 200)

    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after < 3601
    assert 2 == len(heard)
