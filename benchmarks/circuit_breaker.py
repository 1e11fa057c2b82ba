"""
The circuit breaker: a check and a record, each beside a bare round trip of redis-py, on one Redis over loopback, with failures in a row and with rates.

Beside it, in the same rounds, a whole call through ours, pybreaker and aiobreaker around a function that does nothing: the latter two in the memory of a
process, and pybreaker with its storage in Redis.
"""

from __future__ import annotations

import itertools
import time

from collections.abc import Callable
from pathlib import Path
from typing import Final

import redis

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.policies import policies
from celery_obs.runtime.hub import ErrorReporter, Hub
from celery_obs.settings import Settings
from tests.servers import RedisServer

from .harness import Limit, Report, in_turns


MICRO: Final = 1e6
CHANNEL: Final = "airbnb"
WINDOWED: Final = "booking"
CHANNELS: Final = {WINDOWED: {"circuit_breaker": {"failure_rate": 0.5, "slow_rate": 0.5}}}


def measure(*, quick: bool) -> Report:
    """
    Take turns on one server.
    """
    import aiobreaker
    import pybreaker

    batch, rounds = (50, 3) if quick else (500, 40)
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        sha = client.script_load("return redis.call('GET', KEYS[1])")
        hub = Hub(on_error=ErrorReporter())
        made = engine.Engine(
            hub=hub, settings=Settings(metrics_dir=Path("/nonexistent"), redis_url=server.url, channels=policies(CHANNELS))
        )
        engine.connect(lambda: made)
        permit, windowed = circuit_breaker.allow(CHANNEL), circuit_breaker.allow(WINDOWED)
        in_memory, in_redis = (
            pybreaker.CircuitBreaker(),
            pybreaker.CircuitBreaker(state_storage=pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client, namespace="bench")),
        )
        asynchronous = aiobreaker.CircuitBreaker()
        guarded = circuit_breaker.guarded(CHANNEL)(_nothing)
        variants: dict[str, Callable[[], object]] = {
            "redis-py: GET": lambda: client.get("key"),
            "redis-py: EVALSHA of a GET": lambda: client.evalsha(sha, 1, "key"),
            "breaker: check": lambda: circuit_breaker.allow(CHANNEL),
            "breaker: record": lambda: circuit_breaker.record(permit, ok=True),
            "breaker with rates: check": lambda: circuit_breaker.allow(WINDOWED),
            "breaker with rates: record": lambda: circuit_breaker.record(windowed, ok=True, duration=0.01),
            "a whole call: guarded, in Redis": guarded,
            "a whole call: pybreaker, in Redis": lambda: in_redis.call(_nothing),
            "a whole call: pybreaker, in memory": lambda: in_memory.call(_nothing),
            "a whole call: aiobreaker, in memory": lambda: asynchronous.call(_nothing),
        }
        try:
            taken = in_turns({name: _timed(work, batch) for name, work in variants.items()}, rounds=rounds)
        finally:
            engine.disconnect()
            if made.redis is not None:
                made.redis.close()
    get, evalsha, *ours = list(variants)[:6]
    return Report(
        name="circuit_breaker",
        title="asking and telling a closed breaker, µs a call",
        columns=("variant", "median", "best", "times GET", "times EVALSHA"),
        rows=[(name, taken.median(name), taken.least(name), *(taken.times(name, base) for base in (get, evalsha))) for name in variants],
        limits=[
            Limit(what=f"{name}, times {base}", measured=taken.times(name, base), bound=1.3, unit="times")
            for name, base in itertools.product(ours, (get, evalsha))
        ],
        notes=[
            f"{rounds} rounds of {batch} calls a variant, in turns.",
            "Through the public functions, with the search for the process' engine and for the policy.",
            "A breaker in the memory of a process is that process's own: it learns of an outage by failures of its own.",
        ],
        samples=taken.taken,
    )


def _nothing() -> None:
    pass


def _timed(work: Callable[[], object], batch: int) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        for _ in range(batch):
            work()
        return (time.perf_counter() - began) / batch * MICRO

    return run
