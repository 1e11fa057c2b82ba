"""
The cluster's collector: ten thousand connections from a real Redis to a finished page, beside prometheus_client's way of writing the same.
"""

from __future__ import annotations

import json
import time

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from prometheus_client.core import Metric as Family

from celery_obs.areas.channels.collector import ClusterCollector
from celery_obs.areas.channels.connections.state import Connection, Facts
from celery_obs.areas.channels.overview import Overview, OverviewReader
from celery_obs.areas.channels.state import Channels
from celery_obs.exporter.exposition import render
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.state import keys
from celery_obs.state.connection import connect
from tests.servers import RedisServer

from .harness import Limit, Report, in_turns


SIZES: Final = (1_000, 10_000)
MILLI: Final = 1e3
_BATCH: Final = 1_000


def measure(*, quick: bool) -> Report:
    """
    Measure each size: reading and writing, alone and together.
    """
    rows: list[tuple[str | float, ...]] = []
    limits: list[Limit] = []
    samples: dict[str, list[float]] = {}
    for size in (100,) if quick else SIZES:
        with RedisServer() as server, connect(server.url) as redis:
            filled_at = time.time()
            fill(redis, size, now=filled_at)
            fresh = partial(OverviewReader, redis, clock=partial(float, filled_at))
            read = fresh().read
            overview = read()
            written = ClusterCollector(partial(_same, overview), folded=InternalErrors())
            together = ClusterCollector(read, folded=InternalErrors())
            taken = in_turns(
                {
                    "read": partial(_timed, read),
                    "write": partial(_timed, written.collect),
                    "first": partial(_first, fresh),
                    "both": partial(_timed, together.collect),
                    "stock": partial(_timed, partial(_stock, overview)),
                },
                rounds=2 if quick else 12,
            )
            lines = together.collect().text.count("\n")
            trips = _round_trips(redis, read)
        samples |= {f"{size} {name}": list(values) for name, values in taken.taken.items()}
        rows.append(
            (
                f"{size}",
                *(taken.median(name) for name in ("read", "write", "both")),
                taken.least("both"),
                taken.median("first"),
                taken.median("stock"),
                str(lines),
                str(trips),
            )
        )
        if size == SIZES[-1]:
            limits.append(Limit(what="10,000 connections, read and written, median", measured=taken.median("both"), bound=250.0, unit="ms"))
            limits.append(Limit(what="round trips", measured=float(trips), bound=5.0, unit="times"))
    return Report(
        name="cluster",
        title="Redis to finished text, ms",
        columns=(
            "connections",
            "read",
            "write",
            "both",
            "both, best",
            "first time",
            "prometheus_client, write only",
            "lines",
            "round trips",
        ),
        rows=rows,
        limits=limits,
        notes=[
            "Every connection has all its series: token, lifetime, last sync, errors, age, drift, rate limit.",
            "prometheus_client, write only: four of the seven families, in both formats, from what was read already.",
            "round trips: how often the client writes to its socket during one read, counted.",
        ],
        samples=samples,
    )


def fill(redis: Any, size: int, *, now: float) -> None:
    """
    Put *size* connections of eight channels into Redis, each with everything.
    """
    facts = Facts(redis)
    for start in range(0, size, _BATCH):
        ids = [f"connection-{number:06d}" for number in range(start, min(start + _BATCH, size))]
        channel = {name: f"channel-{number % 8}" for number, name in enumerate(ids)}
        facts.register(Connection(name, channel[name], "active", now - 1e6) for name in ids)
        redis.hset(keys.LAST_SYNCS, mapping={name: repr(now - 60.5) for name in ids})
        redis.hset(keys.ERRORS, mapping=dict.fromkeys(ids, 3))
        redis.hset(keys.TOKEN_EXPIRIES, mapping={name: json.dumps({"expires_at": now + 1e5, "lifetime": 3600.0}) for name in ids})
        redis.hset(keys.DRIFT, mapping={name: json.dumps({"days": 2, "checked": 365, "at": now}) for name in ids})
        counts = {json.dumps([channel[name], name]): json.dumps({"count": 7, "max": 100, "at": now}) for name in ids}
        redis.hset(keys.RATE_LIMITS, mapping=counts)
    Channels(redis).touch(f"channel-{number}" for number in range(8))


def _round_trips(redis: Any, read: Any) -> int:
    """
    Count how often the client waits for Redis during one read.
    """
    connection = redis.connection_pool.get_connection()
    trips = 0
    send = type(connection).send_packed_command

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal trips
        trips += 1
        return send(self, *arguments, **options)

    type(connection).send_packed_command = counted
    redis.connection_pool.release(connection)
    try:
        read()
    finally:
        type(connection).send_packed_command = send
    return trips


def _stock(overview: Overview) -> None:
    families = []
    for name, values in (
        ("last_sync", overview.snapshot.last_syncs),
        ("errors", overview.snapshot.errors),
        ("expires", {key: each.expires_at or 0.0 for key, each in overview.snapshot.tokens.items()}),
        ("drift", {key: each.days for key, each in overview.snapshot.drift.items()}),
    ):
        family = Family(name, name, "gauge")
        for key, value in values.items():
            family.add_sample(name, {"channel_type": overview.snapshot.connections[key].channel_type, "connection_id": key}, value)
        families.append(family)
    render(families)


def _same(overview: Overview) -> Overview:
    return overview


def _first(fresh: Callable[[], OverviewReader]) -> float:
    """
    Measure an exporter's first page, for which nothing is known yet.
    """
    collector = ClusterCollector(fresh().read, folded=InternalErrors())
    return _timed(collector.collect)


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * MILLI
