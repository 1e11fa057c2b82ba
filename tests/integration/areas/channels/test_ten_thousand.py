"""
Ten thousand tasks behind one limit, with outages in between: every one ends in success, no call is beyond the limit, and Redis is asked little.
"""

from __future__ import annotations

import heapq
import json

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from redis import Redis

from celery_obs.areas.channels.api_calls.api import api_call
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.breakers.state import Breakers
from celery_obs.areas.channels.errors import HeldBackError
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.areas.channels.rate_limits.state import RateLimits
from celery_obs.areas.channels.retries import PRESETS
from celery_obs.areas.channels.syncs.metrics import HELD_BACK
from celery_obs.areas.channels.syncs.turns import Turns
from celery_obs.areas.channels.syncs.waiting import Held, Waiting
from tests.clients import client_of
from tests.servers import RedisServer, wait_until
from tests.workers import Metrics, Worker

from .conftest import Stage


pytestmark = [pytest.mark.integration, pytest.mark.faults]

BEGIN = 1_800_000_000.0
HELD_TIME = "local now = tonumber(redis.call('GET', 'tests:now'))\n"
WORKERS = 16
NEVER_HELD = Held()


class Ready(NamedTuple):
    """
    A message in the queue.
    """

    at: float
    number: int
    task: int
    held: Held
    retries: int


class World:
    """
    Workers, a queue and a provider in simulated time, around the real limiter, breaker and lines in a real Redis.

    Args:
        stage: The process.

        redis: Its Redis.

        outages: When the provider is down, by seconds from the beginning.
    """

    def __init__(self, stage: Stage, redis: Redis, *, outages: tuple[tuple[float, float], ...]) -> None:
        engine = stage.engine
        engine.clock = lambda: self.now
        self.now = BEGIN
        self.redis = redis
        self.outages = outages
        engine.part(circuit_breaker.Guardian).breakers = Breakers(redis, clock=lambda: self.now, now=HELD_TIME)
        limiter: Any = engine.part(rate_limiter._Limiter)
        limiter._limits = RateLimits(redis, clock=lambda: self.now, now=HELD_TIME)
        limiter._clock = lambda: self.now
        self.waiting = engine.part(Waiting)
        self.waiting.turns = Turns(redis, now=HELD_TIME)
        self.waiting._clock = lambda: self.now
        self.ledger: list[float] = []
        self.queue: list[Ready] = []
        self.done = self.early = self.refusals = self.failures = self.numbers = 0
        self.last = 0.0

    def publish(self, at: float, task: int, held: Held = NEVER_HELD, retries: int = 0) -> None:
        self.numbers += 1
        heapq.heappush(self.queue, Ready(at, self.numbers, task, held, retries))

    def run(self) -> None:
        """
        Take messages when they are due and a worker is free, until there are none.
        """
        free = [BEGIN] * WORKERS
        while self.queue:
            ready = heapq.heappop(self.queue)
            self.now = max(ready.at, heapq.heappop(free))
            self.redis.set("tests:now", round(self.now * 1e6))
            heapq.heappush(free, self.now + self.attempt(ready))

    def attempt(self, ready: Ready) -> float:
        """
        Make one attempt of a task; return how long it keeps its worker.
        """
        early = self.waiting.before_its_turn(ready.held)
        if early is not None:
            self.early += 1
            self.publish(self.now + early[0], ready.task, early[1], ready.retries)
            return 0.003
        try:
            with api_call("airbnb", "/prices", "PUT") as call:
                self.ledger.append(self.now)
                if any(begin <= self.now - BEGIN < end for begin, end in self.outages):
                    message = "503 from the provider"
                    raise ConnectionError(message)
                call.response(200)
        except HeldBackError as refusal:
            self.refusals += 1
            delay, held = self.waiting.refused(refusal, ready.held)
            assert 0 <= delay <= 900
            self.publish(self.now + delay, ready.task, held, ready.retries)
            return 0.005
        except ConnectionError:
            self.failures += 1
            assert ready.retries < 5, "A task has spent its retries."
            self.publish(self.now + PRESETS["critical"].delay(ready.retries), ready.task, ready.held, ready.retries + 1)
            return 0.1
        self.done += 1
        self.last = self.now
        return 0.1


def fullest(ledger: list[float], seconds: float) -> int:
    first = most = 0
    for last, at in enumerate(ledger):
        while ledger[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_ten_thousand_tasks_behind_a_hundred_a_minute(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    In simulated time, an hour and forty minutes of it, with three outages and a breaker that half-opens in each.
    """
    policy = {"rate_limits": {"limit": "100/60s", "per": "channel"}, "circuit_breaker": {"timeout": 30}}
    with Stage(redis_server.url, tmp_path, channels={"airbnb": policy}) as stage:
        world = World(stage, redis, outages=((130.0, 230.0), (1500.0, 1510.0), (4000.0, 4300.0)))
        for task in range(10_000):
            world.publish(BEGIN + 0.001 * task, task)
        redis.config_resetstat()

        world.run()

        counted: Any = redis.info("commandstats")

    assert [] == stage.errors
    assert 10_000 == world.done
    assert fullest(world.ledger, 60.0) <= 100
    assert len(world.ledger) == 10_000 + world.failures
    asked = {name: each["calls"] for name, each in counted.items()}
    sent = asked["cmdstat_evalsha"] + asked.get("cmdstat_hmget", 0)  # Those inside the scripts among them.
    assert sent / 10_000 < 25, "Commands a task, from its first question to its success."
    assert world.refusals < 40_000
    assert world.early < 60_000
    # A hundred minutes, the outages, and a tenth more.
    assert world.last - BEGIN < 1.1 * (10_000 / 100 * 60.05 + 3 * 60 + 410)


def test_tasks_on_real_workers_behind_a_limit_with_outages_in_between(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    The same with real workers, a limit of 50 in half a second and 2,000 tasks: the time is scaled by sixty, the number of tasks by five.
    """
    channels = {"airbnb": {"rate_limits": "50/0.5s", "circuit_breaker": {"failure_threshold": 5, "timeout": 1}}}
    worker = Worker(
        "--concurrency=2",
        redis=redis_server.url,
        folder=tmp_path,
        app="limited",
        TEST_CHANNELS=json.dumps(channels),
        TEST_PREFETCH="50",
    )
    client, metrics = client_of(redis_server.url), Metrics(worker.metrics_dir)
    redis = worker.redis
    redis.flushall()
    try:
        worker.start()
        with client.producer_or_acquire() as producer:
            for number in range(2000):
                client.send_task("limited.push", args=(number,), producer=producer)
        for goal in (300, 1000):
            wait_until(partial(_are_done, redis, goal), within=120, what=f"{goal} tasks")
            redis.set("provider:down", 1, px=1500)

        wait_until(lambda: redis.hlen("done") == 2000, within=240, what="all tasks")

        ledger: Any = redis.lrange("provider:ledger", 0, -1)
        wait_until(lambda: metrics.states_of("limited.push").get("success") == 2000, what="the states")
        assert "failure" not in metrics.states_of("limited.push")
        assert fullest([int(each) / 1e6 for each in ledger], 0.47) <= 50, "Calls arrive a little later or earlier than they were allowed."
        assert (metrics.find(HELD_BACK.name, sync_type="push") or 0) < 4 * 2000
    finally:
        worker.kill()
        redis.close()


def _are_done(redis: Any, count: int) -> bool:
    return int(redis.hlen("done")) >= count
