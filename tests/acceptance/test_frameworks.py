"""
The pages on Django, FastAPI and Flask, followed to the letter on real servers; only their addresses are other ones.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request

from pathlib import Path

import pytest

from tests.pages import DOCS, write_files
from tests.servers import free_port, wait_until
from tests.workers import Metrics, settle_at

from .conftest import Stage
from .reader import Reader


pytestmark = pytest.mark.integration

PAGES = {name: DOCS / "how-to" / f"use-with-{name}.md" for name in ("django", "fastapi", "flask")}
ORDERS = 30
REQUEST = "7d8a2c2b0b2f4b0f9d3f7a3c1c1e5f60"


SYNCS = """
import flask

from celery import shared_task

import celery_obs

from celery_obs.sync.errors import NetworkError
from celery_obs.sync.retries import RetrySchedule


@shared_task(
    base=celery_obs.SyncTask,
    bind=True,
    channel_type="airbnb",
    autoretry_for=(NetworkError,),
    retry_schedule=RetrySchedule(max_retries=3, base_delay=0.1, max_delay=0.1, backoff_factor=1, jitter=False),
)
def export(self):
    assert "shop" == flask.current_app.name
    if self.request.retries < 2:
        raise NetworkError("on purpose")
    return celery_obs.SyncResult(updated=2)
"""


COMMAND = """
from django.core.management.base import BaseCommand

from shop.tasks import order


class Command(BaseCommand):
    def handle(self, *args, **options):
        order.delay(1)
"""

TESTS = """
from django.test import SimpleTestCase

from celery_obs.runtime.plugin import plugin
from shop.tasks import order


class OrderTest(SimpleTestCase):
    def test_it(self):
        order.delay(2)
        print("metrics were in", plugin().settings.metrics_dir, flush=True)
"""


class Project:
    """
    What a reader of a page has made, with its worker.
    """

    def __init__(self, stage: Stage, page: Path, *, keep: tuple[str, ...] = ()) -> None:
        self.stage = stage
        self.reader = Reader(stage, page)
        self.reader.environ |= {"CELERY_OBS_LOGS": "1", "CELERY_OBS_LOG_FORMAT": "json"}
        write_files(page, stage.folder, here=self.reader.here, keep=keep)
        self.metrics = Metrics(stage.metrics_dir)

    def worker(self, *more: str) -> None:
        """
        Start the page's worker.
        """
        self.reader.start("celery", "worker", more=" ".join(("--concurrency=1", *more)), says=" ready.")

    def serve(self, program: str, *more: str) -> int:
        """
        Start the page's web server, and return its port.
        """
        port = free_port()
        bind = f"--bind=127.0.0.1:{port}" if program == "gunicorn" else f"--port={port}"
        self.reader.start(program, more=" ".join((bind, *more)))
        return port

    def finish(self, task: str) -> None:
        """
        Start the page's sidecar, which shows what was counted; then no command of the page is left.
        """
        self.reader.start("celery-obs", "exporter", says="Serving on")
        _, shown = self.reader.type(f"curl -fsS {self.reader.address}/metrics")
        assert re.search(
            rf'celery_task_published_total{{[^}}]*task="{task}"[^}}]*}} {self.metrics.find("celery_task_published_total", task=task)}',
            shown,
        )
        assert [] == self.reader.left()


def order(port: int, number: int, *, path: str, method: str) -> None:
    """
    Order something, with an id of the request.
    """
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path.format(number)}", method=method, headers={"X-Request-ID": REQUEST})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- as above.
        assert {"number": number} == json.loads(answer.read())


def orders(project: Project, port: int, *, task: str, path: str, method: str = "POST", before: int = 0) -> None:
    """
    Order many times, and see that each was counted where it was published, and by the worker with the time that it waited.
    """

    def serves() -> bool:
        try:
            order(port, 0, path=path, method=method)
        except OSError:
            return False
        return True

    wait_until(serves, within=30, what="the web server to serve")
    for number in range(1, ORDERS):
        order(port, number, path=path, method=method)

    find = project.metrics.find
    total = float(before + ORDERS)
    settle_at(total, lambda: find("celery_task_finished_total", task=task, state="success"))
    assert total == find("celery_task_published_total", task=task)
    assert total == find("celery_task_queue_wait_seconds_count", task=task)
    lines = [json.loads(line) for line in (project.stage.folder / "celery-worker.log").read_text().splitlines() if line.startswith("{")]
    assert ORDERS == sum(line.get("correlation_id") == REQUEST and line["event"] == "task_finished" for line in lines), json.dumps(
        lines[-1]
    )


@pytest.fixture
def django_project(stage: Stage) -> Project:
    """
    What ``django-admin startproject`` makes, and the page's files.
    """
    subprocess.run([sys.executable, "-m", "django", "startproject", "proj", "."], cwd=stage.folder, check=True, timeout=60)
    (stage.folder / "shop").mkdir()
    (stage.folder / "shop" / "__init__.py").touch()
    settings = stage.folder / "proj" / "settings.py"
    project = Project(stage, PAGES["django"], keep=("proj/settings.py",))
    settings.write_text(settings.read_text() + f"DATABASES['default']['NAME'] = {str(stage.folder / 'db.sqlite3')!r}\n")
    return project


def test_a_django_project_is_observed_by_its_settings_alone(django_project: Project) -> None:
    """
    On gunicorn, loaded before the fork and with processes that are replaced after a few requests, and on uvicorn; published on commit.
    """
    project = django_project
    project.worker()
    path, task = "/orders/{}/", "shop.tasks.order"

    port = project.serve("gunicorn", "--max-requests", "7", "--max-requests-jitter", "0")
    orders(project, port, task=task, path=path, method="GET")
    assert "Autorestarting worker after current request" in (project.stage.folder / "gunicorn.log").read_text()

    (project.stage.folder / "celery-worker.log").write_text("")
    orders(project, project.serve("uvicorn"), task=task, path=path, method="GET", before=ORDERS)
    project.reader.start("celery", "beat", says="beat: Starting")
    project.finish(task)
    text = project.metrics.text()
    assert "channel" not in text.lower()


def test_a_management_command_counts_and_a_test_run_leaves_nothing(django_project: Project) -> None:
    """
    What a command publishes is counted as what a request does; what a test publishes is not, where the project configures no directory.
    """
    project, task = django_project, "shop.tasks.order"
    commands = project.stage.folder / "shop" / "management" / "commands"
    commands.mkdir(parents=True)
    (commands / "order.py").write_text(COMMAND)
    (project.stage.folder / "shop" / "tests.py").write_text(TESTS)
    project.worker()

    for line in ("python manage.py order", "env -u CELERY_OBS_METRICS_DIR python manage.py test"):
        code, said = project.reader.type(line)
        assert 0 == code, said

    settle_at(2.0, lambda: project.metrics.find("celery_task_finished_total", task=task, state="success"))
    assert 1.0 == project.metrics.find("celery_task_published_total", task=task)
    left = Path(said.split("metrics were in ")[1].split()[0])
    assert project.stage.metrics_dir not in {left, *left.parents}
    assert not left.exists()


def test_a_fastapi_app_on_uvicorn_is_observed(stage: Stage) -> None:
    """
    Two web processes publish; each request's id is in the log lines of its tasks.
    """
    project = Project(stage, PAGES["fastapi"])
    project.worker()

    orders(project, project.serve("uvicorn"), task="shop.order", path="/orders/{}")
    project.finish("shop.order")


def test_flasks_application_factory_is_observed(stage: Stage) -> None:
    """
    Tasks run in the context of the app, as Flask's guide has it.
    """
    project = Project(stage, PAGES["flask"])
    (stage.folder / "syncs.py").write_text(SYNCS)
    project.worker("--include=syncs")

    orders(project, project.serve("gunicorn"), task="shop.order", path="/orders/{}")
    project.finish("shop.order")

    stage.client.send_task("syncs.export", (), queue="celery")
    settle_at({"retry": 2.0, "success": 1.0}, lambda: project.metrics.by("status", "channel_sync_total", sync_type="export"))
    assert 2.0 == project.metrics.find("channel_sync_records_total", result="updated")


PROGRAM = """
import django
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

settings.configure(INSTALLED_APPS=["celery_obs.django"], **{configured!r})
{before}
try:
    django.setup()
except ImproperlyConfigured as error:
    sys.exit(str(error))
{after}
from celery_obs.runtime.plugin import plugin

found = plugin()
print(sorted(app.main for app in found.apps) if found else "no plugin", settings.MIDDLEWARE)
"""


def ready(folder: Path, *, before: str = "", after: str = "", **configured: object) -> tuple[int, str]:
    """
    Start a Django program with these settings; return its exit code and what it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(configured=configured, before=before, after=after)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


MAKE_APP = "from celery import Celery; app = Celery({name!r})"


def test_the_celery_app_is_found_whenever_it_is_made(tmp_path: Path) -> None:
    """
    Before Django is ready, after that, or by its place.
    """
    (tmp_path / "told.py").write_text(MAKE_APP.format(name="told"))
    other = MAKE_APP.format(name="other")

    assert "['early']" in ready(tmp_path, before=MAKE_APP.format(name="early"))[1]
    assert "['late']" in ready(tmp_path, after=f"{MAKE_APP.format(name='late')}; app.finalize()")[1]
    assert "['told']" in ready(tmp_path, before=other, CELERY_OBS_APP="told:app")[1]
    assert "no plugin" in ready(tmp_path)[1]


def test_djangos_settings_reach_celery_however_the_project_configures_it(tmp_path: Path) -> None:
    """
    Also where Celery does not read Django's settings, or reads them under another namespace; the environment wins.
    """
    after = "from celery_obs.settings import load; print(load(app.conf, {'CELERY_OBS_GAUGE_LIMIT': '9'}, {}))"
    for before in ("", "app.config_from_object(settings, namespace='CELERY')", "app.config_from_object(settings, namespace='TASKS')"):
        code, said = ready(
            tmp_path,
            before=f"{MAKE_APP.format(name='shop')}\n{before}",
            after=after,
            CELERY_OBS={"label_limit": 77, "gauge_limit": 8},
            CELERY_OBS_LANE_LIMIT=5000,
        )

        assert 0 == code, said
        assert "label_limit=77" in said
        assert "lane_limit=5000" in said
        assert "gauge_limit=9" in said
