"""
The examples of areas as distributions of their own: installed with pip, they are counted, shown and written beside ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from celery_obs.rules.yaml_text import Tree
from tests.conftest import NeedServer
from tests.rules.promtool import run_tests


pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"

PROGRAM = """
import importlib, json, sys
from pathlib import Path

import celery, celery_obs
from click.testing import CliRunner

folder, events = Path(sys.argv[1]), json.loads(sys.argv[2])
celery_obs.setup(celery.Celery("example", broker="memory://"), redis_url=None, metrics_dir=str(folder / "metrics"))
for module, name, values in events:
    celery_obs.emit(getattr(importlib.import_module(module), name)(*values))

from celery_obs.exporter.scrape import InternalErrors, Runner
from celery_obs.exporter.server import Options, build_collectors
from celery_obs.exporter.app import create_app
from starlette.testclient import TestClient
from celery_obs.cli import obs

collectors = build_collectors(Options(metrics_dir=folder / "metrics", scope="worker"), InternalErrors())
with TestClient(create_app(Runner(collectors, InternalErrors()))) as client:
    page, landing = client.get("/metrics").text, client.get("/").text
done = CliRunner().invoke(obs, ["generate", "--out", str(folder / "monitoring"), "--channels"])
from celery_obs.rules.dashboards.pages import DASHBOARDS
queries = {page.uid: [query.expr for panel in page.panels() for query in panel.queries] for page in DASHBOARDS}
print(json.dumps({"page": page, "landing": landing, "code": done.exit_code, "output": done.output, "queries": queries}), flush=True)
"""


class Answer(NamedTuple):
    """
    What a program with an example shows, and the folder with what it wrote.
    """

    page: str
    landing: str
    queries: dict[str, list[str]]
    made: Path

    def rules(self, area: str) -> str:
        """
        Return the file of an area's alerts.
        """
        return (self.made / f"deploy/prometheus/rules/alerts-{area}.yml").read_text()

    def dashboard(self, uid: str) -> str:
        """
        Return a dashboard's JSON.
        """
        return (self.made / f"deploy/grafana/dashboards/{uid}.json").read_text()


def install(example: str, into: Path) -> None:
    """
    Install an example as pip does.
    """
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(into)]
    done = subprocess.run([*command, str(EXAMPLES / example)], check=False, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr


def run_with(example: str, folder: Path, *events: tuple[str, str, list[Any]]) -> Answer:
    """
    Install an example, tell its events in a program, and return what is counted, shown and written.
    """
    install(example, folder / "installed")
    path = os.pathsep.join([str(folder / "installed"), str(ROOT)])

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), json.dumps(events)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )

    assert 0 == done.returncode, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert 0 == answer["code"], answer["output"]
    return Answer(answer["page"], answer["landing"], answer["queries"], folder / "monitoring")


def firing(answer: Answer, area: str, series: Mapping[str, str], *, after: str, names: Iterable[str]) -> None:
    """
    Have Prometheus's own tool find these alerts of an area, and no others of it, to fire for all that is scraped every minute.
    """
    rules = [answer.made / "deploy/prometheus/rules/recording.yml", answer.made / f"deploy/prometheus/rules/alerts-{area}.yml"]
    expected: list[Tree] = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)]
    test: dict[str, Tree] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": after, "exp_samples": expected if names else []}
        ],
    }
    done = run_tests(rules, [test], answer.made)
    assert 0 == done.returncode, done.stdout + done.stderr


def checked(made: Path, need_server: NeedServer) -> None:
    """
    Have Prometheus's own tool read all rules that were written.
    """
    files = sorted(map(str, (made / "deploy/prometheus/rules").glob("*.yml")))
    done = subprocess.run(
        [need_server("promtool"), "check", "rules", *files], check=False, cwd=made, capture_output=True, text=True, timeout=60
    )
    assert 0 == done.returncode, done.stdout + done.stderr


def test_newsletters_and_deliveries_are_counted_shown_and_alerted_on(tmp_path: Path, need_server: NeedServer) -> None:
    """
    One distribution brings two areas, each with its numbers, recording rules, alerts, runbooks, panels and section of the page.
    """
    answer = run_with(
        "publishing",
        tmp_path,
        *(("newsletters.events", "NewsletterDelivered", [status]) for status in ("success", "success", "failure")),
        *(("deliveries.events", "PublicationDelivered", [channel, "success"]) for channel in ("email", "chat", "chat")),
        *(("deliveries.events", "AlertDelivered", ["chat", seconds]) for seconds in (2.5, 31.0, -1.0)),
    )

    assert 'publishing_newsletter_deliveries_total{status="success"} 2' in answer.page
    assert 'publishing_deliveries_total{channel="chat",status="success"} 2' in answer.page
    assert 'publishing_alert_delivery_seconds_bucket{channel="chat",le="30.0"} 2' in answer.page
    assert 'publishing_alert_delivery_seconds_sum{channel="chat"} 33.5' in answer.page
    assert "<h2>Newsletters</h2>" in answer.landing
    assert "<h2>Deliveries</h2>" in answer.landing
    recorded = (answer.made / "deploy/prometheus/rules/recording.yml").read_text()
    assert "record: publishing_newsletter_failure:ratio_rate5m" in recorded
    assert "record: channel:publishing_delivery_failure:ratio_rate5m" in recorded
    assert "alert: NewslettersFail" in answer.rules("newsletters")
    assert 2 == answer.rules("deliveries").count("alert: ")
    for alert in ("NewslettersFail", "DeliveriesFail", "AlertsDeliveredLate"):
        assert "## Escalation" in (answer.made / f"docs/runbooks/{alert}.md").read_text()
    assert "Share of newsletters that fail" in answer.dashboard("celery-obs-business")
    assert "Alerts delivered in time" in answer.dashboard("publishing-deliveries")
    checked(answer.made, need_server)
    took, refused = (f'publishing_deliveries_total{{channel="chat",status="{status}"}}' for status in ("success", "failure"))
    soon, all_ = (
        'publishing_alert_delivery_seconds_bucket{channel="chat",le="30.0"}',
        'publishing_alert_delivery_seconds_count{channel="chat"}',
    )
    well = {took: "0+99x60", refused: "0+1x60", soon: "0+99x60", all_: "0+100x60"}
    firing(answer, "deliveries", well, after="30m", names=())
    firing(answer, "deliveries", {**well, refused: "0+9x60"}, after="30m", names=("DeliveriesFail",))
    firing(answer, "deliveries", {**well, soon: "0+80x60"}, after="30m", names=("AlertsDeliveredLate",))


def test_providers_are_counted_shown_and_alerted_on(tmp_path: Path, need_server: NeedServer) -> None:
    """
    Measurements are counted by provider, kind and outcome; alerts and panels ask for the provider's channel, too.
    """
    answer = run_with(
        "health-exchange",
        tmp_path,
        ("providers.events", "DataPointsProcessed", ["withings", "steps", "accepted", 250]),
        ("providers.events", "DataPointsProcessed", ["withings", "weight", "accepted", 3]),
        ("providers.events", "DataPointsProcessed", ["withings", "steps", "refused", 2]),
    )

    assert 'exchange_data_points_total{kind="steps",provider="withings",status="accepted"} 250' in answer.page.replace(
        'provider="withings",kind="steps",', 'kind="steps",provider="withings",'
    )
    assert "<h2>Providers</h2>" in answer.landing
    assert "253 measurements" in answer.landing
    assert 3 == answer.rules("providers").count("alert: ")
    for alert in ("ProviderSendsNothing", "ProviderDataRefused", "ProviderNearsRateLimit"):
        assert "## Escalation" in (answer.made / f"docs/runbooks/{alert}.md").read_text()
    assert "Share of measurements that are refused" in answer.dashboard("exchange-providers")
    assert any("channel_api_errors_total" in query for query in answer.queries["exchange-providers"])
    checked(answer.made, need_server)
    taken, refused = (
        f'exchange_data_points_total{{provider="withings",kind="steps",status="{status}"}}' for status in ("accepted", "refused")
    )
    limited = 'channel_api_errors_total{channel_type="withings",error_type="rate_limit"}'
    well = {taken: "0+99x600", refused: "0+1x600", limited: "0x600"}
    firing(answer, "providers", well, after="8h", names=())
    firing(answer, "providers", {**well, taken: "500x600", refused: "0x600"}, after="8h", names=("ProviderSendsNothing",))
    firing(answer, "providers", {**well, refused: "0+9x600"}, after="8h", names=("ProviderDataRefused",))
    firing(answer, "providers", {**well, limited: "0+1x600"}, after="8h", names=("ProviderNearsRateLimit",))


def test_the_business_hub_has_a_page_of_its_own(tmp_path: Path, need_server: NeedServer) -> None:
    """
    An area may be a dashboard alone: what it shows is counted by others.
    """
    answer = run_with("business-hub", tmp_path)

    page = json.loads(answer.dashboard("business-hub"))
    assert ["Requests", "Syncs", "Integrations"] == [panel["title"] for panel in page["panels"] if panel["type"] == "row"]
    assert {"Request latency", "Active syncs", "Retries in the time shown"} <= {panel["title"] for panel in page["panels"]}
    assert not (answer.made / "deploy/prometheus/rules/alerts-hub.yml").exists()
    checked(answer.made, need_server)


def test_without_the_examples_nothing_of_them_is_written() -> None:
    """
    What belongs to one system is not in what all get.
    """
    shipped = [path for folder in ("deploy/grafana", "deploy/prometheus/rules") for path in (ROOT / folder).rglob("*") if path.is_file()]
    asked = ("publishing_deliveries_total", "publishing_alert_delivery_seconds", "exchange_data_points_total", "business-hub")

    assert len(shipped) > 20
    assert [] == [(path.name, name) for path in shipped for name in asked if name in path.read_text()]
    assert "newsletter" not in (ROOT / "deploy/grafana/dashboards/celery-obs-business.json").read_text().lower()
