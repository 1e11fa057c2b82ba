"""
The demo, as a new user runs it: every metric of channels, its health check, and its procedures.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.areas.channels.breakers.state import Breakers
from celery_obs.demo.accounts import CHANNELS
from tests.conftest import find_server
from tests.demo import Demo
from tests.servers import free_port, wait_until
from tests.workers import Process

from .conftest import complaints


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
Every metric of channels, with its labels, and what has to be above zero at some moment.
"""


class WatchedDemo(Demo):
    """
    A running demo, and everything that was ever above zero on its page.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sightings: dict[str, set[frozenset[tuple[str, str]]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def start(self) -> None:
        """
        Start, and begin to look.
        """
        super().start()
        self._thread.start()

    def stop(self) -> int:
        """
        Look no longer, and end it as Ctrl-C does; return its exit code.
        """
        self._stop.set()
        self._thread.join(10)
        return super().stop()

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
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedDemo]:
    """
    One demo for all tests of this file.
    """
    find_server("redis-server")
    made = WatchedDemo(tmp_path_factory.mktemp("demo"))
    made.start()
    try:
        yield made
    finally:
        made.stop()
        made.process.kill()


def test_every_metric_and_label_of_the_contract_shows_something(demo: WatchedDemo) -> None:
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


def test_the_page_of_a_sync_engine_passes_the_linter_and_the_parsers(demo: Demo) -> None:
    """
    Promtool complains about exempted names only, and both formats say the same to the official parsers.
    """
    text, openmetrics = demo.scrape(), demo.scrape(accept="application/openmetrics-text; version=1.0.0")
    exempt = {metric.name for metric in CATALOGUE.values() if metric.lint_exempt}

    assert [] == [line for line in complaints(find_server("promtool"), text) if line.partition(" ")[0] not in exempt]
    shown = {family.name for family in text_string_to_metric_families(text) if family.name.startswith("channel_")}
    assert shown <= {family.name for family in parse_openmetrics(openmetrics)}
    # What is counted stays; what is a state may be over.
    counted = {name.removesuffix("_total") for name in CONTRACT if name in CATALOGUE and CATALOGUE[name].kind == "counter"}
    assert counted <= shown


# --- the daily check and the emergency procedures ---------------------------------------------------------------------------------


class Prometheus(Process):
    """
    A Prometheus that scrapes one target each second.
    """

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: demo, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        super().__init__(
            [
                find_server("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            log=folder / "prometheus.log",
            environ={},
        )

    def ask(self, query: str) -> list[Any]:
        """
        Return what a query finds now.
        """
        place = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(place, timeout=5) as answer:  # noqa: S310 -- our own.
                return list(json.load(answer)["data"]["result"])
        except OSError:
            return []


@pytest.fixture(scope="module")
def prometheus(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """
    A Prometheus that has seen some syncs of the demo.
    """
    with Prometheus(tmp_path_factory.mktemp("prometheus"), demo.port) as made:
        query = 'sum(rate(channel_sync_total{status="success"}[1m]))'
        wait_until(lambda: any(float(each["value"][1]) > 0 for each in made.ask(query)), within=60, what="Prometheus to have seen syncs")
        yield made


def test_the_daily_health_check_prints_sensible_values(demo: Demo, prometheus: Prometheus) -> None:
    """
    All five questions are answered, from the exporter and from Prometheus.
    """
    for tool in ("bash", "curl", "jq"):
        find_server(tool)
    wait_until(lambda: demo.values("channel_token_expires_at_timestamp"), within=30, what="tokens to be known")

    done = subprocess.run(
        [str(SCRIPT)],
        env={**os.environ, "CELERY_OBS_URL": demo.url, "PROMETHEUS_URL": prometheus.url, "WINDOW": "1m"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    answers = dict(re.findall(r"^(\d)\. [^\n]*:\n(.*?)(?=^\d\. |\Z)", done.stdout, re.DOTALL | re.MULTILINE))
    statuses = {each["status"]: each["count"] for each in json.loads(answers["1"])}
    assert 11 == sum(statuses.values())
    assert 1 == statuses["disconnected"]
    assert set(CHANNELS) == set(re.findall(r'"channel": "(\w+)"', answers["2"]))
    assert set(re.findall(r'"state": "(\w+)"', answers["2"])) <= {"closed", "open", "half_open"}
    assert 0 < float(answers["3"]) <= 100
    assert 0 <= int(answers["4"])
    assert "airbnb-1" in re.findall(r'"connection": "([^"]+)"', answers["5"])


def test_the_health_check_says_what_it_could_not_ask(demo: Demo) -> None:
    """
    Without Prometheus the other questions are answered all the same, and the exit code tells.
    """
    for tool in ("bash", "curl", "jq"):
        find_server(tool)
    gone = f"http://127.0.0.1:{free_port()}"

    done = subprocess.run(
        [str(SCRIPT)],
        env={**os.environ, "CELERY_OBS_URL": demo.url, "PROMETHEUS_URL": gone},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 1 == done.returncode
    assert f"(no answer from {gone}/api/v1/query)" in done.stdout
    assert '"status": "active"' in done.stdout


class Hands(NamedTuple):
    """
    One way to operate on channels: what pauses, resumes, closes a breaker, opens one, and clears rate limits.
    """

    pause: Callable[[str], object]
    resume: Callable[[str], object]
    close: Callable[[str], object]
    clear: Callable[[str], object]


def by_api(demo: Demo) -> Hands:
    """
    Operate over HTTP, with the token that the demo has told.
    """
    (token,) = re.findall(r"Bearer (\S+)'", demo.process.log.read_text())

    def post(path: str) -> None:
        request = urllib.request.Request(f"{demo.url}{path}", method="POST", headers={"Authorization": f"Bearer {token}"})  # noqa: S310 -- our own.
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- our own.
            assert 200 == answer.status

    return Hands(
        *(
            lambda channel, what=what: post(f"/api/v1/channels/{channel}/{what}")
            for what in ("pause-all", "resume-all", "circuit-breaker/close", "rate-limit/clear")
        )
    )


def by_command(demo: Demo) -> Hands:
    """
    Operate with ``celery-obs``.
    """

    def run(*words: str) -> None:
        command = [sys.executable, "-m", "celery_obs.cli", *words, f"--redis-url={demo.redis_url()}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=ROOT)

    return Hands(
        lambda channel: run("channel", "pause", channel, "--reason=a test", "--actor=tests"),
        lambda channel: run("channel", "resume", channel, "--reason=a test", "--actor=tests"),
        lambda channel: run("breaker", "close", channel, "--reason=a test", "--actor=tests"),
        lambda channel: run("rate-limit", "clear", channel, "--reason=a test", "--actor=tests"),
    )


def by_redis_cli(demo: Demo) -> Hands:
    """
    Operate by the documented commands: a pause that ends, and rate limits that are found.
    """
    find_server("redis-cli")
    port = demo.redis_url().rpartition(":")[2].partition("/")[0]
    cli = f"redis-cli -p {port}"

    def run(line: str) -> None:
        subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, capture_output=True, timeout=60)

    return Hands(
        lambda channel: run(f'{cli} SET channel_manager:{channel}:paused "true" EX 3600'),
        lambda channel: run(f"{cli} DEL channel_manager:{channel}:paused"),
        lambda channel: run(f"{cli} DEL circuit_breaker:{channel}:state"),
        lambda channel: run(f"{cli} --scan --pattern 'rate_limit:{channel}:*' | xargs -r -n 500 {cli} UNLINK"),
    )


@pytest.mark.parametrize("hands_of", [by_api, by_command, by_redis_cli])
def test_the_emergency_procedures_work_in_every_way(demo: Demo, hands_of: Callable[[Demo], Hands]) -> None:
    """
    A pause is seen and holds syncs back until it is ended; a breaker held open is closed; calls that were counted are forgotten.
    """
    wait_until(lambda: 0.0 in demo.values("channel_paused", channel_type="airbnb"), within=40, what="the channel to be known")
    hands = hands_of(demo)

    hands.pause("airbnb")
    wait_until(lambda: [1.0] == demo.values("channel_paused", channel_type="airbnb"), within=20, what="the pause to be seen")
    held = sum(demo.values("channel_sync_held_back_total", channel_type="airbnb"))
    wait_until(
        lambda: sum(demo.values("channel_sync_held_back_total", channel_type="airbnb")) > held, within=20, what="a sync to be held back"
    )
    hands.resume("airbnb")
    wait_until(lambda: [0.0] == demo.values("channel_paused", channel_type="airbnb"), within=20, what="the end of the pause to be seen")

    with Redis.from_url(demo.redis_url()) as redis:
        Breakers(redis).force_open("airbnb")
        wait_until(
            lambda: [1.0] == demo.values("channel_circuit_breaker_state", channel_type="airbnb"),
            within=30,
            what="the breaker to be seen open",
        )
        hands.close("airbnb")
        wait_until(
            lambda: [0.0] == demo.values("channel_circuit_breaker_state", channel_type="airbnb"),
            within=30,
            what="the breaker to be seen closed",
        )

        counted = "rate_limit:expedia:an-account-of-this-test"
        redis.zadd(counted, {"1": 1})
        hands.clear("expedia")
        assert not redis.exists(counted)


def test_the_demo_ends_well(demo: Demo) -> None:
    """
    The last of this file: exit code 0, and nothing left of it.
    """
    assert 0 == demo.stop()
    assert "Everything is stopped." in demo.process.log.read_text()
