"""
The demo, as somebody runs it who wants to see what there is: every metric of the channel manager's document, its health check, and its procedures.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.error
import urllib.request

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from prometheus_client.parser import text_string_to_metric_families

from celery_obs.demo.accounts import CHANNELS
from tests.conftest import find_server
from tests.servers import free_port
from tests.workers import Process


pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "scripts" / "daily-health-check.sh"
PATIENCE = 90.0


class Wanted(NamedTuple):
    """
    What has to be seen of a metric: its labels, and some label values with a number above zero.
    """

    labels: frozenset[str]
    seen: Mapping[str, set[str]]


def wanted(*labels: str, **seen: set[str]) -> Wanted:
    """
    Say what has to be seen.
    """
    return Wanted(frozenset(labels), seen)


ALL = set(CHANNELS)
SYNCS = {"availability_export", "reservation_import"}

CONTRACT: Mapping[str, Wanted] = {
    "channel_sync_total": wanted(
        "channel_type",
        "sync_type",
        "direction",
        "status",
        channel_type=ALL,
        sync_type=SYNCS,
        direction={"outbound", "inbound"},
        status={"success", "failure", "partial", "retry"},
    ),
    "channel_sync_duration_seconds_bucket": wanted("channel_type", "sync_type", "le", channel_type=ALL, sync_type=SYNCS),
    "channel_sync_records_total": wanted(
        "channel_type", "sync_type", "result", channel_type=ALL, result={"created", "updated", "failed", "skipped"}
    ),
    "channel_sync_in_progress": wanted("channel_type", "sync_type"),
    "channel_api_requests_total": wanted(
        "channel_type",
        "endpoint",
        "method",
        "status_code",
        channel_type=ALL,
        endpoint={"/listings/{id}/calendar"},
        method={"GET", "PUT"},
        status_code={"200", "429", "503"},
    ),
    "channel_api_latency_seconds_bucket": wanted("channel_type", "endpoint", "le", channel_type=ALL),
    "channel_api_errors_total": wanted("channel_type", "error_type", error_type={"rate_limit", "server_error", "circuit_breaker"}),
    "channel_rate_limit_requests_total": wanted("channel_type", "result", channel_type=ALL, result={"allowed", "denied"}),
    "channel_rate_limit_current_count": wanted("channel_type", "connection_id", channel_type=ALL, connection_id={"airbnb-1"}),
    "channel_rate_limit_wait_seconds_bucket": wanted("channel_type", "le", channel_type=ALL),
    "channel_circuit_breaker_state": wanted("channel_type", channel_type={"expedia"}),
    "channel_circuit_breaker_transitions_total": wanted(
        "channel_type",
        "from_state",
        "to_state",
        channel_type={"expedia"},
        from_state={"closed", "open", "half_open"},
        to_state={"closed", "open"},
    ),
    "channel_circuit_breaker_rejections_total": wanted("channel_type", channel_type={"expedia"}),
    "channel_webhook_received_total": wanted(
        "channel_type", "event_type", channel_type=ALL, event_type={"reservation_created", "calendar_changed", "unverified"}
    ),
    "channel_webhook_processed_total": wanted(
        "channel_type", "status", channel_type=ALL, status={"success", "duplicate", "invalid_signature", "error"}
    ),
    "channel_webhook_processing_seconds_bucket": wanted("channel_type", "le", channel_type=ALL),
    "channel_token_expires_at_timestamp": wanted("channel_type", "connection_id", channel_type=ALL, connection_id={"airbnb-1"}),
    "channel_token_refresh_total": wanted("channel_type", "status", channel_type=ALL, status={"success", "refused"}),
    "channel_connections_total": wanted("channel_type", "status", channel_type=ALL, status={"active", "paused", "error", "disconnected"}),
    "channel_connection_last_sync_timestamp": wanted("channel_type", "connection_id", channel_type=ALL, connection_id={"airbnb-1"}),
    "channel_connection_error_count": wanted("channel_type", "connection_id"),
    "channel_conflicts_total": wanted("conflict_type", "channel_type", conflict_type={"availability_mismatch"}, channel_type={"airbnb"}),
    "channel_conflicts_resolved_total": wanted("conflict_type", "resolution", resolution={"local_wins", "manual"}),
    "channel_conflicts_requiring_review": wanted("conflict_type"),
    # Not in its list of metrics, but in its alerts and procedures.
    "channel_rate_limit_max": wanted("channel_type", channel_type=ALL),
    "channel_reconciliation_drift_days": wanted("channel_type", "connection_id", connection_id={"airbnb-1"}),
    "channel_connection_created_at": wanted("channel_type", "connection_id", channel_type=ALL),
    "channel_paused": wanted("channel_type", channel_type={"booking_com"}),
    "channel_double_bookings_detected_total": wanted("channel_type"),
    "channel_token_lifetime_seconds": wanted("channel_type", "connection_id", channel_type=ALL),
}
"""
Every metric of the document, with its labels, and what has to be above zero at some moment.
"""


class Demo:
    """
    A running demo, and everything that was ever above zero on its page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.sightings: dict[str, set[frozenset[tuple[str, str]]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.process = Process(
            [sys.executable, "-m", "celery_obs.cli", "demo", f"--port={self.port}", f"--dir={folder}"],
            log=folder / "demo.log",
            environ={"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)},
        )

    def start(self) -> None:
        """
        Start, and begin to look.
        """
        self.process.start()
        self._thread.start()

    def stop(self) -> int:
        """
        End it as Ctrl-C does; return its exit code.
        """
        self._stop.set()
        self._thread.join(10)
        code = self.process.stop(within=60)
        self.process.kill()
        return code

    def scrape(self) -> str:
        """
        Return the page.
        """
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:  # noqa: S310 -- our own.
            return str(answer.read().decode())

    def values(self, name: str, **labels: str) -> list[float]:
        """
        Return the samples of *name* that have *labels*, now.
        """
        return [
            sample.value
            for family in text_string_to_metric_families(self.scrape())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def missing(self) -> list[str]:
        """
        Tell what of the contract was not seen yet.
        """
        return [problem for name, what in CONTRACT.items() for problem in self._problems(name, what)]

    def _problems(self, name: str, what: Wanted) -> Iterator[str]:
        sets = [dict(each) for each in self.sightings.get(name, ())]
        if not sets:
            yield f"{name} above zero"
        elif any(frozenset(each) != what.labels for each in sets):
            yield f"{name} with exactly the labels {sorted(what.labels)}"
        for label, values in what.seen.items():
            lacking = values - {each.get(label) for each in sets}
            if lacking:
                yield f"{name} with {label} {sorted(lacking)}"

    def _look(self) -> None:
        while not self._stop.wait(0.3):
            try:
                families = list(text_string_to_metric_families(self.scrape()))
            except OSError:
                continue
            for family in families:
                for sample in family.samples:
                    if sample.value > 0:
                        self.sightings.setdefault(sample.name, set()).add(frozenset(sample.labels.items()))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """
    One demo for all tests of this file.
    """
    find_server("redis-server")
    made = Demo(tmp_path_factory.mktemp("demo"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_every_metric_and_label_of_the_contract_shows_something(demo: Demo) -> None:
    """
    Within ninety seconds of the demo, with numbers above zero.
    """
    began = time.monotonic()

    def is_complete() -> bool:
        assert demo.process.is_alive(), demo.process.tail()
        return not demo.missing()

    while not is_complete() and time.monotonic() - began < PATIENCE:
        time.sleep(0.5)

    assert "" == "\n".join(demo.missing())
