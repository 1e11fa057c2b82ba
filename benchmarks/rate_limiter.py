"""
A check of the rate limit: what ``rate_limiter.acquire`` takes, beside the libraries `limits` and pyrate-limiter, on one real Redis and in memory.

Both count in the same rounds, each in lists of its own, for calls that are allowed and for calls that are refused.
"""

from __future__ import annotations

import contextlib
import time

from collections.abc import Callable
from typing import Any

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.errors import RateLimitError
from celery_obs.areas.channels.policies import policies
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.runtime.hub import ErrorReporter, Hub
from celery_obs.runtime.recording import MetricsObserver
from celery_obs.settings import Settings
from tests.servers import RedisServer

from .harness import Limit, Report, fast_folder, in_turns


MICRO = 1e6

_CHANNELS = {
    "open": {"rate_limits": "100000/1h"},
    "full": {"rate_limits": "100/1h"},
    "bucket": {"rate_limits": {"limit": "100000/1h", "algorithm": "leaky_bucket", "burst": 100000}},
    "office": {
        "rate_limits": [
            {"limit": "100000/1h", "hours": "00:00-23:59", "timezone": "Europe/Berlin"},
            "90000/2h",
            {"limit": "100000/1h", "per": "channel"},
        ]
    },
}
_LIBRARY, _OURS = "limits' moving window", "rate_limiter.acquire"


def measure(*, quick: bool) -> Report:
    """
    Measure a call that is allowed, one that is refused, and one that several limits decide about.
    """
    import limits
    import pyrate_limiter

    batch, rounds = (50, 3) if quick else (300, 60)
    with RedisServer() as server, fast_folder() as folder:
        hub = Hub(on_error=ErrorReporter())
        recorder = Recorder(folder, identify=lambda: Identity(node="bench@host", role="child", number=1, attempts=1))
        for event_type, observer in MetricsObserver(recorder, attempts=AttemptMeter(recorder)).subscriptions():
            hub.subscribe(event_type, observer)
        made = engine.Engine(hub=hub, settings=Settings(metrics_dir=folder, redis_url=server.url, channels=policies(_CHANNELS)))
        engine.connect(lambda: made)
        recorder.open()
        storage = limits.storage.RedisStorage(server.url)
        library = limits.strategies.MovingWindowRateLimiter(storage)
        counter = limits.strategies.SlidingWindowCounterRateLimiter(storage)
        memory = limits.strategies.MovingWindowRateLimiter(limits.storage.MemoryStorage())
        rates = [pyrate_limiter.Rate(100_000, pyrate_limiter.Duration.HOUR)]
        wide, narrow = limits.parse("100000/hour"), limits.parse("100/hour")
        redis: Any = made.redis
        client = storage.storage
        taken = in_turns(
            {
                "PING": _timed(redis.ping, batch, redis),
                f"{_LIBRARY}, allowed": _timed(lambda: library.hit(wide, "open", "c-1"), batch, redis),
                f"{_OURS}, allowed": _timed(lambda: rate_limiter.acquire("open", "c-1"), batch, redis),
                f"{_LIBRARY}, refused": _timed(lambda: library.hit(narrow, "full", "c-1"), batch, redis, before=100),
                f"{_OURS}, refused": _timed(lambda: _ask("full"), batch, redis, before=100),
                f"{_OURS}, three limits in two lists": _timed(lambda: rate_limiter.acquire("office", "c-1"), batch, redis),
                f"{_OURS}, a leaky bucket": _timed(lambda: rate_limiter.acquire("bucket", "c-1"), batch, redis),
                "limits' sliding window counter": _timed(lambda: counter.hit(wide, "open", "c-1"), batch, redis),
                f"{_LIBRARY}, in memory": _timed(lambda: memory.hit(wide, "open", "c-1"), batch, redis),
                "pyrate-limiter, in Redis": _timed(_pyrate(pyrate_limiter.RedisBucket.init(rates, client, "bench")), batch, redis),
                "pyrate-limiter, in memory": _timed(_pyrate(pyrate_limiter.InMemoryBucket(rates)), batch, redis),
            },
            rounds=rounds,
        )
        engine.disconnect()
        recorder.close()
        storage.storage.close()
        redis.close()
    base = "PING"
    unit = taken.median(base)
    return Report(
        name="rate_limiter",
        title="a check of a rate limit on one Redis",
        columns=("variant", "median µs", "min µs", "above PING, median µs", "above PING, min µs", "times PING"),
        rows=[taken.costs(name, base=base, unit=unit) for name in taken.taken],
        limits=[
            Limit(
                what=f"a check, {answer}, beside the library's",
                measured=taken.times(f"{_OURS}, {answer}", f"{_LIBRARY}, {answer}"),
                bound=1.5,
                unit="times",
            )
            for answer in ("allowed", "refused")
        ],
        notes=[
            f"{rounds} rounds of {batch} checks a variant, each from empty lists; metrics are recorded, in memory.",
            "The library takes the time from its callers, sends no answer but yes or no, and asks again for the time to wait.",
        ],
        samples=taken.taken,
    )


def _pyrate(bucket: Any) -> Callable[[], object]:
    from pyrate_limiter import Limiter

    limiter = Limiter(bucket)
    return lambda: limiter.try_acquire("c-1", blocking=False)


def _ask(channel: str) -> None:
    with contextlib.suppress(RateLimitError):
        rate_limiter.acquire(channel, "c-1")


def _timed(check: Callable[[], object], batch: int, redis: Any, *, before: int = 1) -> Callable[[], float]:
    """
    Return what measures one batch of checks, in microseconds a check, after so many that are not measured.
    """

    def run() -> float:
        redis.flushall()
        for _ in range(before):
            check()
        began = time.perf_counter()
        for _ in range(batch):
            check()
        return (time.perf_counter() - began) / batch * MICRO

    return run
