"""
What integration tests share: a Redis of their own, and workers on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from celery import Celery

from celery_obs.demo.provider.zoo import Zoo
from tests.clients import _clients_of_a_module_are_closed, _clients_of_a_test_are_closed, client_of  # noqa: F401 -- used by being here.
from tests.servers import RedisServer
from tests.workers import Metrics, Worker


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """
    A Redis for the tests of one module.
    """
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Celery]:
    """
    An app that sends tasks and has none of our receivers.
    """
    with client_of(redis_server.url) as app:
        yield app


@pytest.fixture(scope="module")
def open_zoo() -> Iterator[Zoo]:
    """
    The token endpoints of the tests of one module.
    """
    with Zoo() as zoo:
        yield zoo


@pytest.fixture
def zoo(open_zoo: Zoo) -> Zoo:
    """
    Token endpoints that have not been asked yet.
    """
    open_zoo.ledger.clear()
    return open_zoo


@pytest.fixture
def worker(redis_server: RedisServer, tmp_path: Path) -> Iterator[Worker]:
    """
    A prefork worker with two processes, not yet started.
    """
    worker = Worker("--concurrency=2", redis=redis_server.url, folder=tmp_path)
    worker.redis.flushall()
    try:
        yield worker
    finally:
        worker.kill()
        worker.redis.close()


@pytest.fixture
def metrics(worker: Worker) -> Metrics:
    """
    What the sidecar would show of the worker.
    """
    worker.metrics_dir.mkdir(parents=True, exist_ok=True)
    return Metrics(worker.metrics_dir)
