"""
Breaker and rate limit: one question each, beside a bare round trip of redis-py and beside the library `limits`, on one Redis over loopback.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import subprocess
import tempfile
import time

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import redis

from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter

from celery_obs.hub import ErrorLog, Hub
from celery_obs.settings import Settings
from celery_obs.sync import circuit_breaker, engine, rate_limiter
from celery_obs.vocabulary.policies import policies

from .harness import Limit, Report, in_turns


MICRO: Final = 1e6
CHANNEL: Final = "airbnb"
MOST: Final = 100
"""
Calls that a window holds; both limiters are full after as many, so that half of what is measured is denied.
"""


def measure(*, quick: bool) -> Report:
    """
    Take turns on one server.
    """
    batch, rounds = (50, 3) if quick else (500, 40)
    with _server() as url, redis.Redis.from_url(url) as client:
        client.set("key", "value")
        sha = client.script_load("return redis.call('GET', KEYS[1])")
        hub = Hub(on_error=ErrorLog())
        channels = policies({CHANNEL: {"rate_limits": f"{MOST}/1s"}})
        made = engine.Engine(hub=hub, settings=Settings(metrics_dir=Path("/nonexistent"), redis_url=url, channels=channels))
        engine.connect(lambda: made)
        limiter = made.part(rate_limiter._Limiter)  # noqa: SLF001 -- a question without an exception, as the library's.
        library, item = MovingWindowRateLimiter(RedisStorage(url)), RateLimitItemPerSecond(MOST)
        permit = circuit_breaker.allow(CHANNEL)
        variants: dict[str, Callable[[], object]] = {
            "redis-py: GET": lambda: client.get("key"),
            "redis-py: EVALSHA of a GET": lambda: client.evalsha(sha, 1, "key"),
            "breaker: check": lambda: circuit_breaker.allow(CHANNEL),
            "breaker: record": lambda: circuit_breaker.record(permit, ok=True),
            "limits: moving window": lambda: library.hit(item, CHANNEL),
            "rate limit: check": lambda: limiter.ask(CHANNEL, ""),
        }
        try:
            taken = in_turns({name: _timed(work, batch) for name, work in variants.items()}, rounds=rounds)
        finally:
            engine.disconnect()
            if made.redis is not None:
                made.redis.close()
    get, evalsha, check, record, theirs, ours = variants
    return Report(
        name="channels",
        title="asking breaker and rate limit, µs a call",
        columns=("variant", "median", "best", "times GET", "times EVALSHA", "times limits"),
        rows=[
            (name, taken.median(name), taken.least(name), *(taken.times(name, base) for base in (get, evalsha, theirs)))
            for name in variants
        ],
        limits=[
            *(
                Limit(what=f"{name}, times {base}", measured=taken.times(name, base), bound=1.3, unit="times")
                for name, base in itertools.product((check, record), (get, evalsha))
            ),
            Limit(what="rate limit: check, times the library's", measured=taken.times(ours, theirs), bound=1.5, unit="times"),
        ],
        notes=[
            f"{rounds} rounds of {batch} calls a variant, in turns; a window of {MOST} calls a second, full most of the time.",
            "Through the public functions, with the search for the process' engine and the policy, and the library as its users call it.",
        ],
        samples=taken.taken,
    )


def _timed(work: Callable[[], object], batch: int) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        for _ in range(batch):
            work()
        return (time.perf_counter() - began) / batch * MICRO

    return run


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """
    Run a Redis of one's own on loopback, for the length of the block.
    """
    program = shutil.which("redis-server")
    if program is None:
        message = "This benchmark needs redis-server, which is not on PATH. Install it, or leave this benchmark out."
        raise SystemExit(message)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="obs-bench-") as folder:
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                url = f"redis://127.0.0.1:{port}/0"
                _wait_for(url)
                yield url
            finally:
                server.terminate()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 10
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return
