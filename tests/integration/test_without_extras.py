"""
What a plain `pip install celery_obs` is enough for: worker, beat and publisher, with and without channels.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv

from pathlib import Path

import pytest

from tests.bare import extras_only, without_extras
from tests.servers import RedisServer, wait_until
from tests.workers import Metrics, Process, settle_at


pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SHOP = """
from celery import Celery
import celery_obs

app = Celery("shop", broker={url!r})
app.conf.beat_schedule = {{"often": {{"task": "shop.order", "schedule": 1.0, "args": (1,)}}}}
celery_obs.setup(app, channels={{"acme": {{"rate_limits": "1000/1m"}}}})


@app.task
def order(number):
    return number


@app.task(base=celery_obs.SyncTask, channel_type="acme", sync_type="export", connection_argument="connection_id")
def export(connection_id):
    with celery_obs.api_call("acme", "/calendar", "PUT", connection_id=connection_id) as call:
        call.response(200)
"""


def run(environ: dict[str, str], *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """
    Run a command to its end.
    """
    return subprocess.run(command, env={**os.environ, **environ}, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_core_is_small() -> None:
    """
    What is for the exporter, the API, traces and reports, and what no worker imports, is not part of it.
    """
    absent = {"prometheus_client", "limits", "starlette", "uvicorn", "yaml", "bcrypt", "httpx", "authlib", "opentelemetry", "sentry_sdk"}

    assert absent <= extras_only()
    assert {"celery", "kombu", "billiard", "click", "redis", "structlog"}.isdisjoint(extras_only())


def check_a_shop(python: str, environ: dict[str, str], folder: Path, redis: RedisServer) -> None:
    """
    Start worker and beat, publish, and ask the doctor.
    """
    environ = {**environ, "CELERY_OBS_METRICS_DIR": str(folder / "metrics"), "CELERY_OBS_LOGS": "1"}
    environ["PYTHONPATH"] = os.pathsep.join([str(folder), environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    (folder / "shop.py").write_text(SHOP.format(url=redis.url), encoding="utf-8")
    command = [python, "-m", "celery", "-A", "shop", "worker", "-B", f"--schedule={folder}/schedule", "-l", "INFO", "-c", "1"]
    with Process(command, log=folder / "worker.log", environ=environ, cwd=folder) as worker:
        wait_until(lambda: " ready." in worker.log.read_text(), within=40, what="the worker to be ready")
        sent = run(environ, python, "-m", "celery", "-A", "shop", "call", "shop.export", "--args=[7]", cwd=folder)
        assert 0 == sent.returncode, sent.stderr
        metrics = Metrics(folder / "metrics")
        settle_at(1.0, lambda: metrics.find("celery_task_finished_total", task="shop.export", state="success"))
        assert 1.0 == metrics.find("channel_sync_total", channel_type="acme", status="success")
        wait_until(lambda: metrics.find("celery_task_finished_total", task="shop.order", state="success"), what="beat's task to be done")
        doctor = run(environ, python, "-m", "celery", "-A", "shop", "obs", "doctor", cwd=folder)

    assert "Traceback" not in doctor.stdout + doctor.stderr + worker.log.read_text()
    assert "OK   tasks" in doctor.stdout or "OK tasks" in doctor.stdout, doctor.stdout + doctor.stderr
    assert "pip install 'celery_obs[exporter]'" in doctor.stdout
    assert not metrics.find("celery_obs_internal_errors_total")


def test_worker_beat_publisher_and_doctor_need_no_extra(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    Tasks, syncs and a schedule are recorded, and the doctor reads the numbers.
    """
    check_a_shop(sys.executable, without_extras(tmp_path), tmp_path, redis_server)


@pytest.mark.parametrize(
    ("statement", "extra"),
    [
        ("import celery_obs; celery_obs.rate_limiter.limits_storage()", "limits"),
        ("from celery_obs.cli import main; import sys; sys.argv[1:] = ['exporter']; main()", "exporter"),
        ("from celery_obs.cli import main; import sys; sys.argv[1:] = ['demo']; main()", "demo"),
        ("from celery_obs.cli import main; import sys; sys.argv[1:] = ['generate', '--out', '.']; main()", "exporter"),
        ("from celery_obs.testing import ObservedSamples as Seen; Seen(__import__('pathlib').Path())('x')", "exporter"),
        (
            "from celery_obs.rules import links; from celery_obs.rules.dashboards import pages as dashboards; list(dashboards.build(links.Links()))",
            "dashboards",
        ),
    ],
)
def test_what_needs_an_extra_names_it(tmp_path: Path, statement: str, extra: str) -> None:
    """
    The message has the command that installs it.
    """
    done = run(without_extras(tmp_path), sys.executable, "-c", statement, cwd=tmp_path)

    assert done.returncode != 0
    assert f"pip install 'celery_obs[{extra}]'" in done.stderr.splitlines()[-1], done.stderr


def test_the_files_are_written_without_an_extra(tmp_path: Path) -> None:
    """
    Rules, dashboards and runbooks come ready-made: neither YAML nor the SDK of Grafana is needed.
    """
    statement = "from celery_obs.cli import main; import sys; sys.argv[1:] = ['deploy', '--out', 'out', '--channels']; main()"
    done = run(without_extras(tmp_path), sys.executable, "-c", statement, cwd=tmp_path)

    assert 0 == done.returncode, done.stderr
    assert (tmp_path / "out/deploy/grafana/dashboards/celery-queues.json").is_file()


@pytest.mark.faults
def test_a_fresh_installation_works(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    The wheel in an environment of its own, from the index, without extras: the same shop, and the files.
    """
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv/bin/python")
    installed = run({}, python, "-m", "pip", "install", "--quiet", str(ROOT), cwd=tmp_path)
    assert 0 == installed.returncode, installed.stderr
    check_a_shop(python, {}, tmp_path, redis_server)

    done = run({}, str(tmp_path / "venv/bin/celery-obs"), "deploy", "--out", str(tmp_path / "out"), cwd=tmp_path)

    assert 0 == done.returncode, done.stderr
    assert (tmp_path / "out/docs/runbooks/CeleryQueueBacklog.md").is_file()
