"""
Sentry's crons: what beat fires is begun, and ended by the process that ran it, or that found it lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.sentry import SentryServer
from tests.servers import RedisServer
from tests.workers import Worker, settle_at


pytestmark = pytest.mark.integration


def test_every_entry_that_fires_comes_to_an_end(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    For beat inside a worker, success, failure, success after a retry and a killed task end their check-ins, each once and as what they are.
    """
    expected = {
        "goes-well": ["in_progress", "ok"],
        "fails": ["in_progress", "error"],
        "retries": ["in_progress", "ok"],
        "is-killed": ["in_progress", "error"],
    }
    with SentryServer() as sentry:
        worker = Worker(
            *("--concurrency=2", "--beat", f"--schedule={tmp_path}/beat"),
            redis=redis_server.url,
            folder=tmp_path,
            app="reporting",
            SENTRY_DSN=sentry.dsn,
            CELERY_OBS_SENTRY_CRONS="1",
        )
        worker.redis.flushall()

        def seen() -> Mapping[str, list[str]]:
            slugs = {check_in["monitor_slug"] for check_in in sentry.check_ins()}
            # They come from several processes, so the order of arrival says nothing.
            return {
                slug: sorted((check_in["status"] for check_in in sentry.check_ins(slug)), key="in_progress ok error".index)
                for slug in slugs
            }

        with worker:
            settle_at(expected, seen, steady=1.5)
        worker.redis.close()

        for slug in expected:
            first, last = sorted(sentry.check_ins(slug), key=lambda check_in: check_in["status"] != "in_progress")
            assert first["check_in_id"] == last["check_in_id"]
            assert {"schedule": {"type": "interval", "value": 10, "unit": "minute"}, "timezone": "UTC"} == first["monitor_config"]
