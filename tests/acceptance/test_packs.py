"""
The examples of areas as distributions of their own: installed with pip, they are counted, shown and written beside ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from pathlib import Path
from typing import Any

import pytest


pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"

PROGRAM = """
import json, sys
from pathlib import Path

import celery, celery_obs
from click.testing import CliRunner
from newsletters.events import NewsletterDelivered

folder = Path(sys.argv[1])
celery_obs.setup(celery.Celery("publishing", broker="memory://"), redis_url=None, metrics_dir=str(folder / "metrics"))
for status in ("success", "success", "failure"):
    celery_obs.emit(NewsletterDelivered(status))

from celery_obs.exporter.scrape import InternalErrors, Runner
from celery_obs.exporter.server import Options, build_collectors
from celery_obs.exporter.app import create_app
from starlette.testclient import TestClient
from celery_obs.cli import obs

collectors = build_collectors(Options(metrics_dir=folder / "metrics", scope="worker"), InternalErrors())
with TestClient(create_app(Runner(collectors, InternalErrors()))) as client:
    page, landing = client.get("/metrics").text, client.get("/").text
done = CliRunner().invoke(obs, ["generate", "--out", str(folder / "monitoring"), "--channels"])
print(json.dumps({"page": page, "landing": landing, "code": done.exit_code, "output": done.output}))
"""


def install(example: str, into: Path) -> None:
    """
    Install an example as pip does.
    """
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(into)]
    done = subprocess.run([*command, str(EXAMPLES / example)], check=False, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_newsletters_are_counted_shown_and_alerted_on(tmp_path: Path) -> None:
    """
    One distribution brings the number, its recording rule, alert, runbook, panel and section of the page.
    """
    install("publishing", tmp_path / "installed")
    path = os.pathsep.join([str(tmp_path / "installed"), str(ROOT)])

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )

    assert 0 == done.returncode, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert 'publishing_newsletter_deliveries_total{status="success"} 2' in answer["page"]
    assert "<h2>Newsletters</h2>" in answer["landing"]
    assert 0 == answer["code"], answer["output"]
    made = tmp_path / "monitoring"
    assert "record: publishing_newsletter_failure:ratio_rate5m" in (made / "deploy/prometheus/rules/recording.yml").read_text()
    assert "alert: NewslettersFail" in (made / "deploy/prometheus/rules/alerts-newsletters.yml").read_text()
    assert "## Escalation" in (made / "docs/runbooks/NewslettersFail.md").read_text()
    assert "Share of newsletters that fail" in (made / "deploy/grafana/dashboards/celery-obs-business.json").read_text()
