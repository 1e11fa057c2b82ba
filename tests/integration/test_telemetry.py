"""
What lies under deploy/otel, loki and tempo: made of parts that there are, and of one mind with what the workers send and Grafana asks for.
"""

from __future__ import annotations

import os
import re
import subprocess

from pathlib import Path

import httpx
import pytest
import yaml

from tests.clients import client_of
from tests.composed import DEPLOY, ROOT, SERVICES, collector, loaded
from tests.otlp import Collector
from tests.servers import RedisServer, free_port, wait_until
from tests.workers import Process, Worker


pytestmark = pytest.mark.integration


# --- the collector ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contrib", [False, True], ids=["core", "contrib"])
def test_pipelines_are_made_of_parts_that_there_are(contrib: bool) -> None:
    """
    Each part of a pipeline is configured, memory is guarded first and pieces are gathered last.
    """
    config = collector(contrib=contrib)

    assert {"traces", "logs"} == config["service"]["pipelines"].keys()
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= config[kind].keys()
        assert ("memory_limiter", "batch") == (pipeline["processors"][0], pipeline["processors"][-1])
    assert set(config["service"]["extensions"]) == config["extensions"].keys()


def test_the_core_file_needs_core_parts_only() -> None:
    """
    Any distribution of the collector has them, by these names.
    """
    config = collector(contrib=False)
    parts = {name.split("/")[0] for kind in ("receivers", "processors", "exporters", "extensions") for name in config[kind]}

    assert {"otlp", "memory_limiter", "batch", "otlp_grpc", "otlp_http", "debug", "zpages"} == parts


def test_lines_are_read_where_workers_write_them() -> None:
    """
    The collector reads the files that worker and beat are told to write, and calls them by the name under which these trace.
    """
    config = collector()["receivers"]["file_log"]
    [naming] = [operator for operator in config["operators"] if operator["type"] == "regex_parser"]

    for name in ("worker", "beat"):
        [file] = [Path(word.removeprefix("--logfile=")) for word in SERVICES[name]["command"] if word.startswith("--logfile=")]
        assert file.match(config["include"][0])
        found = re.match(naming["regex"], file.name.replace("%h", SERVICES[name]["hostname"]))
        assert found is not None
        assert SERVICES[name]["environment"]["OTEL_SERVICE_NAME"] == found["service_name"]
        assert f"logs:{file.parent}" in SERVICES[name]["volumes"]
        assert f"logs:{file.parent}" in SERVICES["otel-collector"]["volumes"]
    assert [f"logs:{SERVICES['log-rotation']['command'][0]}"] == SERVICES["log-rotation"]["volumes"]


def test_the_facts_that_are_read_off_a_line_are_in_it() -> None:
    """
    Every field that the collector takes from a line is one that our lines have, by the reference.
    """
    text = (DEPLOY / "otel/contrib.yml").read_text()
    asked = set(re.findall(r"attributes\.line\??\.(\w+)", text))
    known = set(re.findall(r"`(\w+)`", (ROOT / "docs/reference/logs.md").read_text()))

    assert {"timestamp", "level", "trace_id", "span_id"} == asked
    assert asked <= known


def test_loki_labels_lines_by_what_is_asked_for() -> None:
    """
    service_name, by which Grafana and the runbooks ask, is a label; and whatever is one is bounded.
    """
    labels = [
        name
        for rule in loaded(DEPLOY / "loki/loki.yml")["limits_config"]["otlp_config"]["resource_attributes"]["attributes_config"]
        if rule["action"] == "index_label"
        for name in rule["attributes"]
    ]
    asked = {
        label
        for path in [*(ROOT / "docs").rglob("*.md"), DEPLOY / "grafana/provisioning/datasources/celery-obs.yml"]
        for label in re.findall(r"\{(\w+)=\"[^}]*\"\} \| json", path.read_text())
    }

    assert ["service.name", "deployment.environment.name"] == labels
    assert {"service_name"} == asked


@pytest.mark.parametrize(
    ("secret", "rest"),
    [
        ("Bearer abc.def-123456", ""),
        ("https://api.example.com/v1?api_key=s3cr3t&page=2", "&page=2"),
        ("redis://:hunter2@redis:6379/0", "redis:6379/0"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", ""),
    ],
)
def test_secrets_on_the_spans_of_others_are_masked(secret: str, rest: str) -> None:
    """
    What looks like a password is blocked by its value, whatever the attribute's name; what is around it stays.
    """
    blocked = collector()["processors"]["redaction"]["blocked_values"]
    masked = secret
    for pattern in blocked:
        masked = re.sub(pattern, "****", masked)

    assert "****" in masked
    assert masked.endswith(rest)
    assert not any(word in masked for word in ("abc.def", "s3cr3t", "hunter2", "eyJ"))


@pytest.mark.parametrize(
    "harmless", ["demo.fast", "https://api.example.com/listings/7/calendar?start=2026-01-02", "redis", "process demo.fast"]
)
def test_what_is_no_secret_stays(harmless: str) -> None:
    """
    Names, places and queries without secrets are not touched.
    """
    assert not [pattern for pattern in collector()["processors"]["redaction"]["blocked_values"] if re.search(pattern, harmless)]


def test_traces_that_matter_are_always_kept() -> None:
    """
    Whatever part of the others is kept: failed, exhausted, retried and slow ones are, by the attributes that our spans have.
    """
    policies = {policy["name"]: policy for policy in collector()["processors"]["tail_sampling"]["policies"]}
    attributes = {policy[policy["type"]]["key"] for policy in policies.values() if policy["type"].endswith("_attribute")}

    assert ["failed", "retries-exhausted", "retried", "slow", "some-of-the-rest"] == list(policies)
    assert all(f"`{name}`" in (ROOT / "docs/how-to/trace-your-tasks.md").read_text() for name in attributes)
    assert 100 == policies["some-of-the-rest"]["probabilistic"]["sampling_percentage"]


OTELCOL = os.environ.get("CELERY_OBS_TESTS_OTELCOL", "")
"""
The path of a collector, of any distribution.  Hardly any machine has one, so that without it its tests are skipped in CI, too.
"""

needs_collector = pytest.mark.skipif(not OTELCOL, reason="This test needs a collector: CELERY_OBS_TESTS_OTELCOL=/path/of/otelcol.")


@needs_collector
def test_a_collector_accepts_the_core_file() -> None:
    """
    It finds every part, and knows every key of them.
    """
    done = subprocess.run([OTELCOL, "validate", "--config", DEPLOY / "otel/collector.yml"], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr


@needs_collector
def test_a_span_of_a_worker_comes_through_the_collector(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    What a worker sends to the shipped receivers is at the other end of the shipped processors, and the collector counts it.
    """
    http, grpc, zpages, telemetry = (free_port() for _ in range(4))
    with Collector() as behind:
        other = {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{http}"}, "grpc": {"endpoint": f"127.0.0.1:{grpc}"}}}},
            "exporters": {"otlp_http/test": {"endpoint": behind.url}},
            "extensions": {"zpages": {"endpoint": f"127.0.0.1:{zpages}"}},
            "service": {
                "pipelines": {"traces": {"exporters": ["otlp_http/test"]}},
                "telemetry": {"metrics": {"readers": [{"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": telemetry}}}}]}},
            },
        }
        (tmp_path / "other.yml").write_text(yaml.safe_dump(other))
        command = [OTELCOL, "--config", str(DEPLOY / "otel/collector.yml"), "--config", str(tmp_path / "other.yml")]
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{http}",
            "OTEL_SERVICE_NAME": "worker",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        with (
            Process(command, log=tmp_path / "otelcol.log", environ={}),
            Worker("--concurrency=1", redis=redis_server.url, folder=tmp_path, **environ),
        ):
            client_of(redis_server.url).send_task("observed.succeed")

            span = behind.one("process observed.succeed")

            wait_until(lambda: "otelcol_exporter_sent_spans" in httpx.get(f"http://127.0.0.1:{telemetry}/metrics", trust_env=False).text)
    assert "worker" == span.resource["service.name"]


# --- those who keep it --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loki", "tempo"])
def test_what_is_kept_lies_on_a_volume_and_not_for_ever(name: str) -> None:
    """
    Every path of its data is below the volume, it has an end, and it sends no usage reports.
    """
    text = (DEPLOY / name / f"{name}.yml").read_text()
    [volume] = [mount.split(":")[1] for mount in SERVICES[name]["volumes"] if mount.startswith(f"{name}:")]
    paths = re.findall(r"(?:path|directory|path_prefix|_path): (/\S+)", text)

    assert paths
    assert all(path.startswith(volume) for path in paths)
    assert re.search(r"(?:retention_period|block_retention): \d+h", text)
    assert "reporting_enabled: false" in text
