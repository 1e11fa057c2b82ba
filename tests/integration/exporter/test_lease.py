"""
Three exporters on one Redis: at every scrape at most one of them serves what the cluster shares, whatever happens to them and to Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from celery_obs.areas.channels.connections.state import Connection, Facts
from celery_obs.state.connection import connect
from tests.exporters import Exporter, as_users_run_it
from tests.servers import RedisServer


pytestmark = [pytest.mark.integration, pytest.mark.slow]

PERIOD = 1.5
EVERY = 0.1
NAMES = ("airbnb", 'quotes " and\nnewlines \\', "x" * 10_240)


@contextlib.contextmanager
def three(folder: Path, redis: RedisServer, environ: Mapping[str, str] | None = None) -> Iterator[list[Exporter]]:
    """
    Run three exporters on *redis*, which knows some connections of odd names.
    """
    with connect(redis.url) as client:
        Facts(client).register(Connection(name, "airbnb") for name in NAMES)
        client.rpush("q", "message")
    (folder / "metrics").mkdir(exist_ok=True)
    options = ("--metrics-dir", str(folder / "metrics"), "--broker-url", redis.url, "--queues", "q", "--lease-period", str(PERIOD))
    exporters: list[Exporter] = []
    try:
        # One by one, so that those that run are stopped should the next not start.
        exporters.extend(Exporter(folder / f"{number}.log", *options, environ=environ) for number in range(3))
        yield exporters
    finally:
        for exporter in exporters:
            exporter.process.send_signal(signal.SIGCONT)
            exporter.stop()


class Watch:
    """
    Scrapes all exporters at the same moment, ten times a second, and waits for none of them.
    """

    def __init__(self, exporters: list[Exporter]) -> None:
        self._exporters = exporters
        self._tasks: set[asyncio.Task[None]] = set()
        self.rounds: dict[float, set[int]] = {}

    async def run(self, script: Callable[[], Awaitable[None]]) -> None:
        """
        Watch while *script* runs, and a period longer.
        """
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=30, limits=limits, trust_env=False) as client:
            acting = asyncio.ensure_future(script())
            until = float("inf")
            while time.monotonic() < until:
                if acting.done() and until == float("inf"):
                    until = time.monotonic() + PERIOD
                now = time.monotonic()
                self.rounds[now] = set()
                self._tasks |= {asyncio.ensure_future(self._scrape(client, number, now)) for number in range(len(self._exporters))}
                await asyncio.sleep(EVERY)
            await acting
            await asyncio.gather(*self._tasks)

    async def _scrape(self, client: httpx.AsyncClient, number: int, moment: float) -> None:
        with contextlib.suppress(httpx.TransportError):
            text = (await client.get(f"{self._exporters[number].url}/metrics")).text
            serves = "\nchannel_connections_total{" in text or "\ncelery_queue_depth{" in text
            # The leader itself shows none of it while Redis or the broker does not answer.
            assert "\ncelery_obs_leader 1.0" in text or not serves
            if serves:
                self.rounds[moment].add(number)

    async def leader(self, *, but: int | None = None) -> int:
        """
        Wait for a leader, or for another one than *but*, and return its number.
        """
        begin = time.monotonic()
        while time.monotonic() < begin + 4 * PERIOD:
            for moment, leaders in list(self.rounds.items()):
                if moment >= begin and leaders - {but}:
                    return min(leaders - {but})
            await asyncio.sleep(EVERY / 2)
        return pytest.fail("No exporter serves the cluster's state.")

    def gaps(self) -> float:
        """
        Return the longest time between two rounds in which one served.
        """
        served = [moment for moment, leaders in self.rounds.items() if leaders]
        return max(later - earlier for earlier, later in pairwise(served))


def test_at_most_one_serves_whoever_dies_or_sleeps(tmp_path: Path) -> None:
    """
    The leader is killed; the next one is stopped, overslept, and goes on; the next one leaves in order: never two, and no gap of two periods.
    """
    with RedisServer() as redis, three(tmp_path, redis) as exporters:
        watch = Watch(exporters)

        async def script() -> None:
            first = await watch.leader()
            exporters[first].process.kill()
            second = await watch.leader(but=first)
            exporters[second].process.send_signal(signal.SIGSTOP)
            third = await watch.leader(but=second)
            exporters[second].process.send_signal(signal.SIGCONT)
            assert len({first, second, third}) == 3
            await asyncio.sleep(PERIOD)
            exporters[third].process.terminate()
            assert second == await watch.leader(but=third)

        asyncio.run(watch.run(script))

        assert max(map(len, watch.rounds.values())) == 1
        assert watch.gaps() <= 2 * PERIOD + 2 * EVERY
        assert all("Traceback" not in exporter.output for exporter in exporters)


@pytest.mark.faults
def test_at_most_one_serves_whatever_redis_does(tmp_path: Path) -> None:
    """
    Redis hangs for longer than the lease, and then comes back with nothing in it: never two, and soon one again.
    """
    with RedisServer() as redis, three(tmp_path, redis) as exporters:
        watch = Watch(exporters)

        async def script() -> None:
            await watch.leader()
            with redis.hanging():
                await asyncio.sleep(2 * PERIOD)
                vacated = time.monotonic()
                await asyncio.sleep(2 * EVERY)
            await watch.leader()
            assert not any(leaders for moment, leaders in watch.rounds.items() if vacated <= moment < vacated + 2 * EVERY)
            redis.kill()
            await asyncio.to_thread(redis.start)
            with connect(redis.url) as client:
                Facts(client).register([Connection("c", "airbnb")])
                client.rpush("q", "message")
            await asyncio.sleep(2 * PERIOD)
            await watch.leader()

        asyncio.run(watch.run(script))

        assert max(map(len, watch.rounds.values())) == 1


def test_the_page_of_a_large_cluster_stays_small_in_memory(tmp_path: Path) -> None:
    """
    Names of all kinds are on the page or folded, and the exporter is as small as it has to be.
    """
    with RedisServer() as redis, three(tmp_path, redis, as_users_run_it()) as exporters:
        found: dict[str, float] = {}
        for exporter in exporters:
            for _ in range(10):
                metrics = exporter.metrics()
            assert metrics["process_resident_memory_bytes"] <= 48 * 1024 * 1024
            found |= {name: value for name, value in metrics.items() if name.startswith("channel_")}
            folded = metrics.get('celery_obs_labels_folded_total{metric="channel_connection_error_count"}')
            if metrics["celery_obs_leader"]:
                assert folded

    assert 0 == found['channel_connection_error_count{channel_type="airbnb",connection_id="quotes \\" and\\nnewlines \\\\"}']
    assert 0 == found['channel_connection_error_count{channel_type="airbnb",connection_id="_other"}']
    assert 3 == found['channel_connections_total{channel_type="airbnb",status="active"}']
