"""
Where reports begin: in workers of Celery's test helper, too; and what those see who ask for the configuration.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from pathlib import Path

import pytest

from tests.sentry import PUBLIC_KEY, SentryServer
from tests.workers import APPS


pytestmark = pytest.mark.integration

HELPED = """
import celery, celery_obs
from celery.contrib.testing.worker import start_worker
app = celery.Celery("helped", broker="memory://", backend="cache+memory://")
celery_obs.setup(app)
@app.task(name="helped.fail")
def fail():
    raise ValueError("on purpose")
with start_worker(app, perform_ping_check=False):
    fail.delay().get(timeout=20, propagate=False)
"""


def run(*command: str, folder: Path, **environ: str) -> str:
    """
    Run a Python program to its end; return what it wrote.
    """
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "CELERY_OBS_METRICS_DIR": str(folder), **environ},
        cwd=APPS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["full", "light"])
def test_a_worker_of_celerys_test_helper_reports(mode: str, tmp_path: Path) -> None:
    """
    It sends neither celeryd_init nor worker_ready, and its consumer may have been loaded before sentry-sdk was.
    """
    with SentryServer() as sentry:
        run("-c", HELPED, folder=tmp_path, SENTRY_DSN=sentry.dsn, CELERY_OBS_SENTRY_MODE=mode)

        assert [("helped.fail", "ValueError")] == [
            (event["tags"]["task"], event["exception"]["values"][-1]["type"]) for event in sentry.events()
        ]


def test_celery_report_shows_no_secret_of_ours(tmp_path: Path) -> None:
    """
    A report that is pasted into an issue says that there is a DSN, a Redis and a key, and not what they are.
    """
    secrets = {
        "sentry_dsn": f"https://{PUBLIC_KEY}@sentry.example.com/42",
        "redis_url": "redis://:swordfish@127.0.0.1:9/0",
        "sentry_dns": "squid-7",
    }
    shown = run(
        *("-m", "celery", "-A", "reporting", "report"),
        folder=tmp_path,
        TEST_BROKER="memory://",
        TEST_LEDGER="redis://127.0.0.1:9/0",
        TEST_SETTINGS=json.dumps(secrets),
        PYTHONPATH=os.pathsep.join(sys.path),
    )

    assert ["sentry_dsn", "redis://:***@127.0.0.1:9/0"] == [name for name in ("sentry_dsn", "redis://:***@127.0.0.1:9/0") if name in shown]
    assert [] == [secret for secret in (PUBLIC_KEY, "swordfish", "squid-7") if secret in shown]
