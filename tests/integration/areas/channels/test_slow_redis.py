"""
A Redis that answers, but slowly, is treated as one that does not: no task pays for it again and again.
"""

from __future__ import annotations

import time

from collections.abc import Iterator
from pathlib import Path

import pytest

from redis import Redis

from celery_obs.areas.channels import outage
from celery_obs.areas.channels.api_calls.api import api_call
from celery_obs.areas.channels.errors import CircuitOpenError
from celery_obs.areas.channels.outage import Outage, RedisSlowError
from celery_obs.areas.channels.pauses.api import is_paused
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.areas.channels.syncs.api import sync_run
from tests.servers import RedisServer, Relay, wait_until

from .conftest import Stage


pytestmark = pytest.mark.integration

CHANNELS = {
    "airbnb": {
        "circuit_breaker": {"failure_threshold": 3, "timeout": 60},
        "rate_limits": ["1000/1m", {"limit": "5000/1m", "per": "channel"}],
    }
}


@pytest.fixture
def relay(redis_server: RedisServer, redis: Redis) -> Iterator[Relay]:
    """
    Stands before an empty Redis.
    """
    with Relay(redis_server.port) as relay:
        yield relay


@pytest.fixture
def stage(relay: Relay, tmp_path: Path) -> Iterator[Stage]:
    """
    A process that has connected, and a Redis that knows the scripts, before anything is slow.
    """
    with Stage(relay.url, tmp_path, channels=CHANNELS) as stage:
        sync_task()
        yield stage
        relay.delay = 0.0
        stage.engine.flush(within=5)


def sync_task() -> float:
    """
    Do what a sync task does that calls its channel once; return how long that took.
    """
    began = time.monotonic()
    if not is_paused("airbnb"):
        with sync_run("airbnb", "listings", connection_id="c-1"), api_call("airbnb", "/x", "GET", connection_id="c-1") as call:
            call.response(200)
    return time.monotonic() - began


def test_a_slow_redis_costs_a_task_its_budget_and_the_next_ones_nothing(relay: Relay, stage: Stage) -> None:
    """
    With 0.6 s for an answer, the task that finds out waits for one; those of the next second wait for none, and that is told.
    """
    relay.delay = 0.6
    wait_until(lambda: stage.engine.part(Outage).rests() or sync_task() > outage.SLOW, what="the gate to open")

    took = [sync_task() for _ in range(20)]

    assert max(took) < 0.3
    assert any(isinstance(error, RedisSlowError) for _, error in stage.errors)


def test_a_whole_run_with_a_slow_redis_takes_little_longer(relay: Relay, stage: Stage) -> None:
    """
    A task waits for one slow answer, or two where it has to connect first, and most wait for none.
    """
    relay.delay = 0.6
    took: list[float] = []
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        took.append(sync_task())

    assert max(took) < 1.0 + 0.6 + 0.3
    assert sum(each for each in took if each > outage.SLOW) < 3.3


def test_answers_of_medium_slowness_spend_a_budget(relay: Relay, stage: Stage) -> None:
    """
    Where no single answer takes the whole budget, a task waits for several of them, and then for none.
    """
    relay.delay = 0.2

    assert max(sync_task() for _ in range(10)) < outage.BUDGET + 0.2 + 0.2


def test_a_redis_that_is_quick_again_is_asked_again(relay: Relay, stage: Stage) -> None:
    """
    The gate closes by itself: breaker and limits hold again a few seconds later.
    """
    relay.delay = 0.6
    wait_until(lambda: stage.engine.part(Outage).rests() or sync_task() > 60, what="the gate to open")
    relay.delay = 0.0

    wait_until(lambda: sync_task() >= 0 and not stage.engine.part(Outage).rests(), what="a quick answer")
    told = len(stage.errors)
    sync_task()

    assert told == len(stage.errors)


def test_an_answer_that_came_late_still_counts(relay: Relay, stage: Stage) -> None:
    """
    What a slow Redis said is obeyed; only what would have to be asked is not.
    """
    with api_call("airbnb", "/x", "GET") as call:
        call.response(200)
    for _ in range(3):
        with api_call("airbnb", "/x", "GET") as call:
            call.response(503)
    relay.delay = 0.6

    with pytest.raises(CircuitOpenError), api_call("airbnb", "/x", "GET"):
        pytest.fail("The channel was called.")

    assert stage.engine.part(Outage).rests()
    assert 0.0 == rate_limiter.check("airbnb")


def test_a_redis_that_is_slow_from_the_beginning_costs_no_more(relay: Relay, tmp_path: Path) -> None:
    """
    A new connection takes five round trips or more, and all of them together have a time-out.
    """
    relay.delay = 0.6
    with Stage(relay.url, tmp_path, channels=CHANNELS) as stage:
        took = [sync_task() for _ in range(20)]
        relay.delay = 0.0
        stage.engine.flush(within=5)

    assert max(took) < 1.0 + 0.6 + 0.3
    assert sum(each > outage.SLOW for each in took) < 3
