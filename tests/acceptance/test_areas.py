"""
An area of another distribution: the how-to's, built from the page as a reader builds it, from event to number, alert, runbook, dashboard and page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.exporters import Exporter, running
from tests.servers import RedisServer, wait_until
from tests.workers import Process


pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/add-an-area.md"
APP = """
import os
import celery
import celery_obs

app = celery.Celery("hotel", broker=os.environ["BROKER"])
app.conf.task_ignore_result = True
celery_obs.setup(app, redis_url=None)
"""
BROKEN = "raise RuntimeError('this part is broken')"


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """
    Go through the page's blocks of code: the text before each, and what is in it.
    """
    for before, _, content in re.findall(
        rf"([^`]*?(?:`[^`]+`[^`]*?)*)\n(````|```){language}\n(.*?)^\2$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    ):
        yield before.strip(), content


def build(folder: Path) -> None:
    """
    Write the files that the page shows, an app of what else it shows, and what pip would write of their distribution.
    """
    app = [APP]
    for language in ("python", "markdown"):
        for before, content in blocks(language):
            name = re.match(r"`(bookings/[\w/.]+)`", before.rpartition("\n\n")[2])
            if name is None:
                app.append(content)
                continue
            path = folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    (folder / "bookings/__init__.py").touch()
    (folder / "hotel.py").write_text("\n".join(app))
    [(_, entry)] = blocks("toml")
    info = folder / "bookings-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bookings\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        entry.replace('[project.entry-points."celery_obs.areas"]', "[celery_obs.areas]").replace('"', "")
    )


def environ_of(folder: Path, **more: str) -> dict[str, str]:
    """
    Return an environment in which that distribution is installed.
    """
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, **more}


def run(folder: Path, *command: str) -> str:
    """
    Run a Python program there; return what it says.
    """
    done = subprocess.run(
        [sys.executable, *command], check=False, cwd=folder, env=environ_of(folder), capture_output=True, text=True, timeout=120
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def sell(folder: Path, redis: RedisServer, *sources: str) -> str:
    """
    Run the tasks of the app in a worker; return what that says.
    """
    environ = environ_of(folder, BROKER=redis.url, CELERY_OBS_METRICS_DIR=str(folder / "metrics"))
    worker = Process(
        [sys.executable, "-m", "celery", "-A", "hotel", "worker", "-c", "2", "-l", "INFO"],
        log=folder / "worker.log",
        environ=environ,
        cwd=folder,
    )
    with worker:
        code = f"import hotel\nfor source in {sources!r}: hotel.take.delay(source)"
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=environ, check=True, timeout=60)
        wait_until(lambda: worker.log.read_text().count(" succeeded in ") == len(sources), within=60, what="the tasks")
        worker.stop()
    return worker.log.read_text()


def landing(exporter: Exporter) -> str:
    """
    Return the sidecar's page.
    """
    return httpx.get(f"{exporter.url}/", trust_env=False).raise_for_status().text


def test_an_area_of_one_folder_is_counted_shown_and_alerted_on(tmp_path: Path) -> None:
    """
    Its events are numbers beside ours and are heard, its facts are on the sidecar's page, its alert, runbook and dashboard are written beside ours.
    """
    build(tmp_path)
    with RedisServer() as redis:
        said = sell(tmp_path, redis, "web", "web", "desk")
    assert 2 == said.count("booked at web")

    with running(tmp_path, environ=environ_of(tmp_path)) as exporter:
        wait_until(lambda: exporter.metrics().get('property_bookings_total{source="web"}') == 2, what="the numbers")
        assert 1 == exporter.metrics()['property_bookings_total{source="desk"}']
        assert 0 == exporter.metrics()['property_bookings_total{source="walk-in"}']
        assert "<h2>Bookings</h2>" in landing(exporter)
        assert "2 bookings" in landing(exporter)

    run(tmp_path, "-m", "celery_obs.cli", "generate", "--out", "monitoring", "--runbooks-url", "https://runbooks.test")
    rules = (tmp_path / "monitoring/deploy/prometheus/rules/alerts-bookings.yml").read_text()
    assert "alert: NoBookings" in rules
    assert "https://runbooks.test/NoBookings" in rules
    assert "source:property_bookings:rate5m" in (tmp_path / "monitoring/deploy/prometheus/rules/recording.yml").read_text()
    assert "## Escalation" in (tmp_path / "monitoring/docs/runbooks/NoBookings.md").read_text()
    assert "property_bookings_total" in (tmp_path / "monitoring/deploy/grafana/dashboards/bookings.json").read_text()
    assert "Bookings in the time shown" in (tmp_path / "monitoring/deploy/grafana/dashboards/celery-obs-infrastructure.json").read_text()
    assert "property_bookings_total" in (tmp_path / "monitoring/docs/reference/metrics.md").read_text()
    assert "### `BookingTaken`" in (tmp_path / "monitoring/docs/reference/events.md").read_text()


@pytest.mark.parametrize("part", ["metrics", "recording", "events", "runtime", "page", "alerts"])
def test_a_broken_part_costs_its_area_only(tmp_path: Path, part: str) -> None:
    """
    Tasks run and are counted, the sidecar serves, and one line says what is left out.
    """
    build(tmp_path)
    (tmp_path / "bookings" / f"{part}.py").write_text(BROKEN)
    (tmp_path / "hotel.py").write_text(APP + "@app.task\ndef take(source):\n    pass\n")
    with RedisServer() as redis:
        said = sell(tmp_path, redis, "web")

    with running(tmp_path, environ=environ_of(tmp_path)) as exporter:
        wait_until(lambda: exporter.metrics().get('celery_task_started_total{task="hotel.take",queue="celery"}') == 1, what="our numbers")
        assert "celery_obs exporter" in landing(exporter)
        said += exporter.output
    if part == "alerts":
        said += run(tmp_path, "-m", "celery_obs.cli", "generate", "--out", "monitoring")
    assert "of the area 'bookings' (bookings) does not work, so it is left out. RuntimeError: this part is broken" in said
