"""
What lies under deploy/ for Prometheus, Grafana and systemd: accepted by those who read it, and of one mind with the rest.
"""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess

from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_obs.rules.links import JOB
from celery_obs.rules.objectives import DEFAULT, RETENTION_DAYS, read
from tests.conftest import find_server


pytestmark = pytest.mark.integration

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
PROVISIONING = DEPLOY / "grafana/provisioning"
UNITS = sorted((DEPLOY / "systemd").iterdir())


def test_prometheus_accepts_its_configuration_and_every_rule() -> None:
    """
    promtool reads the configuration, and all files of rules that it names.
    """
    config = DEPLOY / "prometheus/prometheus.yml"
    done = subprocess.run([find_server("promtool"), "check", "config", config], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert f"{len(list((DEPLOY / 'prometheus/rules').glob('*.yml')))} rule files found" in done.stdout


def test_exporters_are_scraped_under_the_name_that_rules_know() -> None:
    """
    The job of the exporters is the one that alerts look for, and what an exporter may bring is limited.
    """
    [job] = [job for job in PROMETHEUS["scrape_configs"] if job["job_name"] == JOB]

    assert {"sample_limit", "label_limit", "body_size_limit"} <= job.keys()
    assert not job.get("honor_labels")


def test_data_are_kept_for_as_long_as_objectives_look_back() -> None:
    """
    The retention that we ship is longer than the longest period of an objective, and exemplars are stored.
    """
    [arguments] = re.findall(r'^ARGS="(.*)"$', (DEPLOY / "prometheus/default.debian").read_text(), re.MULTILINE)
    options = dict(option.removeprefix("--").split("=", 1) for option in shlex.split(arguments))

    assert int(options["storage.tsdb.retention.time"].removesuffix("d")) == RETENTION_DAYS > max(each.period_days for each in read(DEFAULT))
    assert "exemplar-storage" == options["enable-feature"]
    assert 0 < PROMETHEUS["storage"]["exemplars"]["max_exemplars"]


def test_grafana_can_go_from_each_signal_to_the_next() -> None:
    """
    Exemplars lead to traces, traces to logs and numbers, logs to traces; every way ends at a data source that there is.
    """
    sources = {source["uid"]: source for source in _provisioned("datasources")["datasources"]}
    ways = {uid: set(re.findall(r"'datasourceUid': '(\w+)'", str(source["jsonData"]))) for uid, source in sources.items()}

    assert {"prometheus": {"tempo"}, "tempo": {"loki", "prometheus"}, "loki": {"tempo"}} == ways
    assert ["trace_id"] == [way["name"] for way in sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]]
    assert ["prometheus"] == [uid for uid, source in sources.items() if source.get("isDefault")]


def test_grafana_takes_what_comes_from_its_environment_and_nothing_else() -> None:
    """
    Addresses are variables of the environment; what Grafana itself has to see of a dollar is doubled, for it would read it as a variable.
    """
    text = (PROVISIONING / "datasources/celery-obs.yml").read_text()
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))

    assert {"PROMETHEUS_URL", "TEMPO_URL", "LOKI_URL"} == set(re.findall(r"(?<!\$)\$\{?(\w+)", code))


def test_grafana_finds_a_trace_in_a_line_of_ours() -> None:
    """
    The derived field's pattern reads the trace id off a line as our JSON logs have it.
    """
    [loki] = [source for source in _provisioned("datasources")["datasources"] if source["type"] == "loki"]
    [field] = loki["jsonData"]["derivedFields"]

    for line in (
        '{"event": "task.finished", "trace_id": "0af7651916cd43dd8448eb211c80319c"}',
        '{"trace_id":"0af7651916cd43dd8448eb211c80319c"}',
    ):
        assert ["0af7651916cd43dd8448eb211c80319c"] == re.findall(field["matcherRegex"], line)


def test_dashboards_come_from_files_and_stay_as_they_are() -> None:
    """
    Grafana reads the dashboards from a folder, and they are not changed in the browser, where the change would be lost.
    """
    [provider] = _provisioned("dashboards")["providers"]

    assert ("file", False, True) == (provider["type"], provider["allowUiUpdates"], provider["disableDeletion"])


def _provisioned(what: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((PROVISIONING / what / "celery-obs.yml").read_text())
    assert 1 == tree["apiVersion"]
    return tree


def units(folder: Path) -> list[Path]:
    """
    Copy the units to *folder*, with programs that are there: systemd looks for them.
    """
    programs = folder / "bin"
    programs.mkdir()
    for name in ("celery", "celery-obs"):
        program = programs / name
        program.write_text("#!/bin/sh\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    for unit in UNITS:
        (folder / unit.name).write_text(unit.read_text().replace("/opt/app/.venv/bin", str(programs)))
    return [folder / unit.name for unit in UNITS]


def analyzed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("This test needs systemd-analyze, which containers often lack.")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_accepts_the_units_without_a_word(tmp_path: Path) -> None:
    """
    No unit has a key that systemd does not know, which it would only mention, or a value that it cannot read.
    """
    done = analyzed("verify", "--man=no", *units(tmp_path))

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("unit", "at_most"),
    [("celery-obs-exporter.service", 20), ("celery-beat.service", 20), ("celery-obs-health.service", 20), ("celery-worker@.service", 40)],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_units_may_do_little(tmp_path: Path, unit: str, at_most: int) -> None:
    """
    systemd finds a unit's exposure low: no privileges, no devices, a file system that is read only but for its own directory.
    """
    units(tmp_path)
    done = analyzed("security", "--offline=yes", f"--threshold={at_most}", tmp_path / unit)

    assert 0 == done.returncode, done.stdout[-500:]


def test_everything_on_a_machine_shares_one_directory_and_one_user() -> None:
    """
    The exporter reads what the worker and beat write: same user, same metrics directory, and each may write there.
    """
    texts = {unit.name: unit.read_text() for unit in UNITS if unit.name.startswith(("celery-worker", "celery-beat", "celery-obs-exporter"))}

    assert 3 == len(texts)
    for text in texts.values():
        assert "\nUser=celery\n" in text
        assert "CELERY_OBS_METRICS_DIR=/var/lib/celery_obs" in text
        assert re.search(r"^StateDirectory=celery_obs( |$)", text, re.MULTILINE)
