"""
The doctor: what it finds, and what it advises.
"""

from __future__ import annotations

import json
import os
import socket
import time

from pathlib import Path
from types import SimpleNamespace

from celery import Celery
from click.testing import CliRunner

from celery_obs.areas.sidecar.metrics import DROPPED, INTERNAL_ERRORS, LABELS_FOLDED
from celery_obs.areas.tasks.metrics import PUBLISHED, QUEUE_WAIT, STARTED
from celery_obs.cli.doctor import Finding, Surroundings, doctor, examine, examine_numbers
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.state.broker import of_url
from celery_obs.vocabulary.spec import Metric
from tests.unit.cli.test_probe import beat


def findings(metrics_dir: Path, *, redis: str | None = None, broker: str | None = None, extras: bool = True) -> dict[str, Finding]:
    """
    Examine, and return the findings by name.
    """
    surroundings = Surroundings(metrics_dir, redis, of_url(broker) if broker else None)
    return {finding.name: finding for finding in examine(surroundings, installed=lambda module: extras)}


def closed_port() -> int:
    """
    Return a port on which no process listens.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_usable_directory_is_ok_and_a_file_in_its_place_is_not(tmp_path: Path) -> None:
    """
    The directory is the first thing that goes wrong.
    """
    (tmp_path / "file").touch()

    assert "OK" == findings(tmp_path)["metrics directory"].verdict
    assert ("FAIL", True) == ((found := findings(tmp_path / "file")["metrics directory"]).verdict, "is not a directory" in found.text)


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """
    Asking only looks: nothing is there afterwards, and the advice says who makes it.
    """
    asked = tmp_path / "nowhere" / "x"

    result = CliRunner().invoke(doctor, ["--metrics-dir", str(asked)])

    assert (0, False) == (result.exit_code, asked.parent.exists())
    assert f"--   metrics directory: {asked} does not exist. A worker makes it when it starts" in result.output


def test_a_planted_directory_is_told(tmp_path: Path) -> None:
    """
    The doctor refuses what a worker would refuse.
    """
    planted = tmp_path / f"celery_obs-{os.geteuid()}"
    planted.mkdir(mode=0o700)
    planted.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nothing")

    assert "is writable by others" in findings(planted)["metrics directory"].text
    assert "is a dangling symbolic link" in findings(link)["metrics directory"].text


def recorded(tmp_path: Path, *counts: tuple[Metric, tuple[str, ...], int]) -> dict[str, Finding]:
    """
    Record *counts* as a worker does, and return what the doctor says of them.
    """
    recorder = Recorder(tmp_path, identify=lambda: Identity(node="w@host", role="worker", number=0))
    for metric, values, count in counts:
        recorder.count(metric, values, count)
    recorder.close()
    return {finding.name: finding for finding in examine_numbers(tmp_path)}


def test_errors_of_ours_are_told(tmp_path: Path) -> None:
    """
    What was kept from the tasks is not kept from who asks, each with what to do.
    """
    found = recorded(tmp_path, (INTERNAL_ERRORS, ("beat.freshness",), 20), (DROPPED, ("no_room",), 3), (LABELS_FOLDED, ("x_total",), 1))

    assert ("FAIL", True) == ((told := found["internal errors"]).verdict, told.text.startswith("20 in beat.freshness since"))
    assert ("FAIL", True) == ((told := found["dropped"]).verdict, told.text.startswith("3 in no_room since"))
    assert ("FAIL", True) == ((told := found["folded labels"]).verdict, "label_limit" in told.text)


def test_publishers_that_are_not_observed_are_told(tmp_path: Path) -> None:
    """
    A task that runs and that no process was seen to publish comes from a program without us; one with a waiting time or a publish does not.
    """
    started = [(STARTED, (task, "q"), 2) for task in ("from_web", "from_beat", "from_afar")]

    found = recorded(tmp_path, *started, (PUBLISHED, ("from_beat", "q"), 2), (QUEUE_WAIT, ("from_afar", "q"), 1))["publishers"]

    assert ("FAIL", True) == (found.verdict, found.text.startswith("no observed process publishes from_web. "))
    assert "celery_obs.setup(app)" in found.text


def test_a_machine_without_numbers_has_no_publishers_to_miss(tmp_path: Path) -> None:
    """
    Nothing is said where no task ran.
    """
    assert "publishers" not in recorded(tmp_path, (INTERNAL_ERRORS, ("x",), 1))


def test_servers_that_do_not_answer_are_told_without_their_password(tmp_path: Path) -> None:
    """
    The advice names the address and hides the secret.
    """
    url = f"redis://:hunter2@127.0.0.1:{closed_port()}/0"

    found = findings(tmp_path, redis=url, broker=url)

    for name in ("redis", "broker"):
        assert "FAIL" == found[name].verdict
        assert "redis://:***@127.0.0.1" in found[name].text
        assert "hunter2" not in found[name].text


def test_an_unknown_transport_is_told(tmp_path: Path) -> None:
    """
    A URL of nonsense is a finding, not a crash.
    """
    found = findings(tmp_path, redis="nonsense", broker="pigeon://loft")

    assert ("FAIL", "FAIL") == (found["broker"].verdict, found["redis"].verdict)


def test_nodes_are_told_with_their_age(tmp_path: Path) -> None:
    """
    A line per node: fine, stale, or not ready.
    """
    beat(tmp_path, "a@host")
    beat(tmp_path, "b@host", age=90)
    beat(tmp_path, "c@host", role="beat", ready=False)

    found = findings(tmp_path)

    assert "OK" == found["worker a@host"].verdict
    assert "which is too long" in found["worker b@host"].text
    assert "not ready" in found["beat c@host"].text


def test_a_node_tells_its_version(tmp_path: Path) -> None:
    """
    Mixed versions in one directory are visible.
    """
    file = beat(tmp_path)
    file.write_text(json.dumps({"pid": 1, "ready": True, "role": "worker", "version": "9.9"}))
    os.utime(file, (time.time(), time.time()))

    assert "celery_obs 9.9" in findings(tmp_path)["worker w@host"].text


def test_a_missing_extra_is_named_with_its_command(tmp_path: Path) -> None:
    """
    What is not installed is no failure, and one line away.
    """
    found = findings(tmp_path, extras=False)["extra exporter"]

    assert "--" == found.verdict
    assert "pip install 'celery_obs[exporter]'" in found.text


def test_the_command_takes_its_urls_from_the_app(tmp_path: Path) -> None:
    """
    ``celery -A proj obs doctor`` needs no options.
    """
    url = f"redis://127.0.0.1:{closed_port()}/0"
    app = Celery("shop", broker=url, set_as_current=False)
    app.conf.celery_obs = {"metrics_dir": str(tmp_path)}

    result = CliRunner().invoke(doctor, [], obj=SimpleNamespace(app=app))

    assert 1 == result.exit_code
    assert f"OK   metrics directory: {tmp_path}" in result.output
    assert f"FAIL broker: cannot connect to {url}" in result.output


def test_without_servers_there_is_nothing_to_fail(tmp_path: Path) -> None:
    """
    What was not asked for does not count against the machine.
    """
    result = CliRunner().invoke(doctor, ["--metrics-dir", str(tmp_path)])

    assert 0 == result.exit_code
    assert "--   broker: not checked" in result.output


def test_a_node_that_ran_out_of_room_is_told_with_the_setting_and_the_number(tmp_path: Path) -> None:
    """
    The doctor says which limit is too low and what would be enough.
    """
    (tmp_path / "w@h.v1").mkdir()
    (tmp_path / "w@h.v1" / "shortage").write_text('{"setting": "lane_limit", "given": 1000, "needed": 5800}\n')

    found = findings(tmp_path)["room of w@h"]

    assert "FAIL" == found.verdict
    assert "lane_limit is 1000, and at least 5800 are needed" in found.text
