"""
A program that makes its own Sentry client keeps it, and gets from us what it lacks.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from celery import Celery

from tests.sentry import SentryServer
from tests.servers import RedisServer
from tests.workers import Worker, settle_at


pytestmark = pytest.mark.integration


@pytest.mark.parametrize("moment", ["early", "late"])
def test_the_programs_client_reports_with_what_we_add(moment: str, redis_server: RedisServer, client: Celery, tmp_path: Path) -> None:
    """
    Its options and its before_send stay in force, wherever it calls sentry_sdk.init; tags, scrubbing and reports of lost attempts come on top.
    """
    with SentryServer() as theirs, SentryServer() as ours:
        # Where theirs comes late, ours is there first, and gives way.
        environ = {"SENTRY_DSN": ours.dsn} if moment == "late" else {}
        worker = Worker(
            "--concurrency=2",
            redis=redis_server.url,
            folder=tmp_path,
            app="reporting",
            TEST_OWN_SENTRY=moment,
            TEST_DSN=theirs.dsn,
            **environ,
        )
        with worker:
            for task in ("reporting.mark", "observed.kill_own_process", "observed.succeed"):
                client.send_task(task, ["a"] if task == "reporting.mark" else [])

            settle_at(
                ["observed.kill_own_process", "reporting.mark"],
                lambda: sorted(event["tags"]["task"] for event in theirs.events()),
                steady=1.0,
            )
        worker.redis.close()

        assert [] == ours.items()
        assert {("their-own", "Bearer ***")} == {(event["environment"], event["extra"]["theirs"]) for event in theirs.events()}
