"""
Asking whether a channel is paused: remembered for a second, and never worth waiting for.
"""

from __future__ import annotations

import socket
import threading
import time

from collections.abc import Iterator
from pathlib import Path

import pytest

from redis import Redis

from celery_obs.areas.channels.engine import Engine
from celery_obs.areas.channels.pauses import api as sync_pauses
from celery_obs.areas.channels.pauses.api import PauseCheck
from celery_obs.areas.channels.pauses.state import Pauses
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.state.connection import connect
from celery_obs.testing import RaisingErrors
from tests.servers import RedisServer, wait_until


pytestmark = pytest.mark.integration


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """
    An empty Redis.
    """
    client = connect(redis_server.url)
    client.flushall()
    yield client
    client.close()


class Errors:
    """
    Keeps what it hears.
    """

    def __init__(self) -> None:
        self.heard: list[Exception] = []

    def __call__(self, error: Exception, *, component: str) -> None:
        self.heard.append(error)


def check_of(url: str, errors: Errors | None = None) -> PauseCheck:
    """
    Ask the Redis at *url*, as a process that is observed does.
    """
    hub = Hub(on_error=errors if errors is not None else RaisingErrors())
    return PauseCheck(Engine(hub=hub, settings=Settings(metrics_dir=Path("unused"), redis_url=url)))


def asked(redis: Redis) -> int:
    commands: dict[str, dict[str, int]] = redis.info("commandstats")
    return commands.get("cmdstat_exists", {}).get("calls", 0)


def test_an_answer_is_good_for_a_second(redis: Redis, redis_server: RedisServer) -> None:
    """
    A thousand tasks a second ask Redis once a second, and see a pause a second later at most.
    """
    check = check_of(redis_server.url)
    before = asked(redis)

    answers = {check.is_paused("airbnb") for _ in range(1000)}

    assert ({False}, 1) == (answers, asked(redis) - before)
    Pauses(redis).pause("airbnb", actor="ada", reason="audit")
    wait_until(lambda: check.is_paused("airbnb"), within=3, what="the pause to be seen")
    Pauses(redis).resume("airbnb")
    wait_until(lambda: not check.is_paused("airbnb"), within=3, what="the end of the pause to be seen")


@pytest.fixture
def silence() -> Iterator[str]:
    """
    The URL of something that takes connections and never answers.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_a_redis_that_hangs_holds_up_one_task_for_its_timeout_and_no_other(silence: str) -> None:
    """
    Nothing is paused while Redis cannot say so; after a failure it is not asked for some seconds.
    """
    errors = Errors()
    check = check_of(silence, errors)
    took: list[float] = []

    def ask() -> None:
        began = time.perf_counter()
        assert not check.is_paused("airbnb")
        took.append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    ask()

    assert 9 == len(took)
    assert 1 == sum(each > 0.3 for each in took)
    assert max(took) < 3.0
    assert "TimeoutError" in {type(error).__name__ for error in errors.heard}


def test_without_a_redis_nothing_is_paused() -> None:
    """
    A program that shares nothing cannot be paused.
    """
    assert not sync_pauses.is_paused("airbnb")


def test_channels_that_nobody_knows_do_not_grow_the_memory(
    redis: Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What is remembered is bounded.
    """
    monkeypatch.setattr(sync_pauses, "_MOST", 10)
    check = check_of(redis_server.url)

    for number in range(100):
        check.is_paused(f"channel-{number}")

    assert len(check._known) <= 10
