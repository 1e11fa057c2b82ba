"""
Asking whether a channel is paused: remembered for a second, and never worth waiting for.
"""

from __future__ import annotations

import socket
import threading
import time

from collections.abc import Iterator

import pytest

from redis import Redis

from celery_obs.state.connection import connect
from celery_obs.state.pauses import Pauses
from celery_obs.sync import pauses as sync_pauses
from celery_obs.sync.pauses import PauseCheck
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

    def __call__(self, error: Exception) -> None:
        self.heard.append(error)


def asked(redis: Redis) -> int:
    commands: dict[str, dict[str, int]] = redis.info("commandstats")  # type: ignore[assignment]  # of the synchronous client.
    return commands.get("cmdstat_exists", {}).get("calls", 0)


def test_an_answer_is_good_for_a_second(redis: Redis) -> None:
    """
    A thousand tasks a second ask Redis once a second, and see a pause a second later at most.
    """
    check = PauseCheck(redis, on_error=Errors())
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
    Nothing is paused while nobody can say so; after a failure nobody asks for some seconds.
    """
    errors = Errors()
    client = connect(silence)
    check = PauseCheck(client, on_error=errors)
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
    client.close()

    assert 9 == len(took)
    assert 1 == sum(each > 0.3 for each in took)
    assert max(took) < 3.0
    assert 1 == len(errors.heard)


def test_without_a_redis_nothing_is_paused() -> None:
    """
    A program that shares nothing has nobody who could pause it.
    """
    assert not sync_pauses.is_paused("airbnb")


def test_channels_that_nobody_knows_do_not_grow_the_memory(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is remembered is bounded.
    """
    monkeypatch.setattr(sync_pauses, "_MOST", 10)
    check = PauseCheck(redis, on_error=Errors())

    for number in range(100):
        check.is_paused(f"channel-{number}")

    assert len(check._known) <= 10
