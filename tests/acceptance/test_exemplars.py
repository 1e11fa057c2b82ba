"""
From a bucket to its trace, as a person goes: in Prometheus, with the ids that the collector has.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import urllib.parse
import urllib.request

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from celery_obs.areas.tasks.metrics import LATENCY, QUEUE_WAIT, RUNTIME
from tests.otlp import Collector
from tests.servers import free_port, missing, wait_until
from tests.workers import Process

from .conftest import Page, Stage


pytestmark = pytest.mark.integration

OPENMETRICS = "application/openmetrics-text"


class Prometheus(Process):
    """
    A Prometheus that keeps exemplars, scraping one sidecar every second.
    """

    def __init__(self, *, target: int, folder: Path) -> None:
        program = shutil.which("prometheus")
        if program is None:
            missing("prometheus")
        self.port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: celery, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        super().__init__(
            [
                program or "",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--enable-feature=exemplar-storage",
            ],
            log=folder / "prometheus.log",
            environ={},
        )

    def exemplars(self, query: str) -> list[dict[str, Any]]:
        """
        Return the exemplars of the series that *query* names; none while it starts.
        """
        now = time.time()
        asked = urllib.parse.urlencode({"query": query, "start": now - 600, "end": now + 60})
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query_exemplars?{asked}", timeout=10) as answer,
        ):
            return [exemplar for series in json.load(answer)["data"] for exemplar in series["exemplars"]]
        return []


def examples(page: Page) -> Iterator[tuple[str, str]]:
    """
    The exemplars on a page as a scraper that asks for OpenMetrics gets it: family and trace.
    """
    answer = page.exporter.get(accept=OPENMETRICS)
    for family in text_string_to_metric_families(answer.body):
        for sample in family.samples:
            if sample.exemplar is not None:
                yield family.name, sample.exemplar.labels["trace_id"]


def test_a_bucket_leads_to_the_span_of_a_task(stage: Stage) -> None:
    """
    Buckets of runtime, wait and latency name traces that the collector has, through recycled children; Prometheus keeps them.
    """
    with Collector() as collector:
        worker = stage.worker("--max-tasks-per-child=2", **collector.environ)
        page = stage.exporter()
        with Prometheus(target=page.exporter.port, folder=stage.folder) as prometheus:
            for _ in range(3):
                stage.client.send_task(
                    "observed.retry_once"
                )  # Its second message is the worker's own, so that it says when it was published.
            wait_until(lambda: prometheus.exemplars(f"{LATENCY.name}_bucket"), what="an exemplar in Prometheus")
            kept = {exemplar["labels"]["trace_id"] for exemplar in prometheus.exemplars(f"{LATENCY.name}_bucket")}
        shown = set(examples(page))
        worker.stop()
        known = {span.trace for span in collector.spans("process observed.retry_once")}

    assert kept <= known
    assert {trace for _, trace in shown} <= known
    assert {RUNTIME.name, QUEUE_WAIT.name, LATENCY.name} == {family for family, _ in shown}
    assert "trace_id" not in page.exporter.log.read_text()
