"""
What the tests of breakers and limits share: an engine on a real Redis that tells what it hears.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from redis import Redis

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.breakers.events import CircuitChanged, CircuitRejected
from celery_obs.areas.channels.policies import policies
from celery_obs.areas.channels.rate_limits.events import RateLimitChecked, RateLimitWaited
from celery_obs.clock import Clock, wall
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from tests.servers import RedisServer


if TYPE_CHECKING:
    from typing_extensions import Self


class Stage:
    """
    An engine, all that it says, and all that it keeps from its users.

    Args:
        url: Of Redis; None for a process that has none.

        channels: The setting.
    """

    def __init__(self, url: str | None, folder: Path, *, channels: Mapping[str, Any], clock: Clock = wall) -> None:
        self.events: list[Any] = []
        self.errors: list[tuple[str, Exception]] = []
        hub = Hub(on_error=lambda error, *, component: self.errors.append((component, error)))
        for event_type in (CircuitChanged, CircuitRejected, RateLimitChecked, RateLimitWaited):
            hub.subscribe(event_type, self.events.append)
        settings = Settings(metrics_dir=folder, redis_url=url, channels=policies(channels))
        self.engine = engine.Engine(hub=hub, settings=settings, clock=clock)

    def heard(self, event_type: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, event_type)]

    def __enter__(self) -> Self:
        engine.connect(lambda: self.engine)
        return self

    def __exit__(self, *_: object) -> None:
        engine.disconnect()
        if self.engine.redis is not None:
            self.engine.redis.close()


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """
    An empty Redis.
    """
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client
