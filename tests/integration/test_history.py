"""
The history of a real worker, told by a real exporter, through the exporter's end.
"""

from __future__ import annotations

import contextlib

from pathlib import Path
from typing import Any

import httpx
import pytest

from celery_obs.exporter.history.file import moment
from celery_obs.exporter.history.sampler import read_path
from tests.clients import client_of
from tests.exporters import Exporter
from tests.servers import RedisServer, wait_until
from tests.workers import Worker


pytestmark = pytest.mark.integration


def values(exporter: Exporter, series: str, **labels: str) -> list[float | None]:
    """
    Ask for the one series of the last minutes.
    """
    found: Any = httpx.get(f"{exporter.url}/api/v1/history", params={"series": series, **labels}, trust_env=False).raise_for_status().json()
    return found["series"][0]["values"] if found["series"] else []


def counted(metrics_dir: Path) -> float:
    """
    Return how many tasks the last sample has.
    """
    with contextlib.suppress(FileNotFoundError):
        columns = read_path(metrics_dir / "history", fine=True)
        for place, row in columns.rows.items():
            if row.name.metric == "celery_task_finished_total" and ("state", "success") in row.name.labels:
                return columns.fine[-1].values[place]
    return 0.0


def unseen(metrics_dir: Path) -> float:
    """
    Return for how many periods there was no look.
    """
    last = read_path(metrics_dir / "history", fine=True).fine[-1]
    return (moment().ticks - last.at.ticks) / last.period


def test_an_exporter_that_is_killed_leaves_its_history_with_a_gap(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    What it saw before SIGKILL is told by the next one; between the two nothing is known, and what ran meanwhile belongs to no rate.
    """
    with Worker("--concurrency=2", redis=redis_server.url, folder=tmp_path, app="usage") as worker:
        options = ("--metrics-dir", str(worker.metrics_dir), "--redis-url", redis_server.url, "--broker-url", redis_server.url)
        client = client_of(redis_server.url)
        first = Exporter(tmp_path / "first.log", *options)
        second = None
        try:
            wait_until(lambda: values(first, "celery_worker_up")[-3:].count(1.0) == 3, what="three looks at the worker", within=60)
            for _ in range(20):
                client.send_task("usage.wait", ignore_result=True)
            wait_until(lambda: counted(worker.metrics_dir) == 20, what="all tasks in the history", within=60)
            seen = values(first, "celery_worker_up")
            first.process.kill()
            first.process.wait()

            for _ in range(20):
                client.send_task("usage.wait", ignore_result=True)
            wait_until(lambda: unseen(worker.metrics_dir) > 4, what="a gap that is longer than a late look", within=60)
            second = Exporter(tmp_path / "second.log", *options)
            wait_until(lambda: values(second, "celery_worker_up")[-3:].count(1.0) == 3, what="three looks at the worker", within=60)

            up = values(second, "celery_worker_up")
            wait_until(lambda: counted(worker.metrics_dir) == 40, what="all tasks in the history", within=60)
            finished = values(second, "celery_task_finished_total", task="usage.wait", state="success")
        finally:
            first.stop()
            if second is not None:
                second.stop()

    known = [place for place, value in enumerate(up) if value is not None]
    inside = up[known[0] : known[-1] + 1]
    assert len([value for value in up if value == 1.0]) >= len([value for value in seen if value is not None])
    assert None in inside
    assert set(inside) == {1.0, None}
    assert max(filter(None, finished)) > 0
    assert "Traceback" not in (tmp_path / "second.log").read_text()
