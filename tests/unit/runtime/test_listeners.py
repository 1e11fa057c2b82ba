"""
Who listens to Celery's signals: what the doctor tells of how a worker hears of its attempts.
"""

from __future__ import annotations

import json

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery import Celery
from celery.app import trace
from celery.signals import task_postrun, task_prerun
from click.testing import CliRunner

from celery_obs.cli.doctor import doctor
from celery_obs.recorder.about import write_about
from celery_obs.runtime.listeners import how_attempts_are_heard
from celery_obs.runtime.signals import connect, disconnect
from celery_obs.settings import load
from celery_obs.telemetry.switches import about
from tests.unit.cli.test_probe import beat
from tests.unit.runtime.test_signals import Rig


@pytest.fixture(autouse=True)
def _connected() -> Iterator[None]:
    connect(Rig().receivers)
    yield
    disconnect()


def meddle(**_: Any) -> None:
    """
    Listen as another library does.
    """


def test_alone_we_are_called_by_the_tracer() -> None:
    """
    The setting is on, and no other receiver is connected.
    """
    assert {"heard_by": "tracer", "because": ""} == how_attempts_are_heard(in_tracer=True)


def test_the_setting_is_told() -> None:
    """
    Where signals are wanted, the setting that says so is named.
    """
    assert {"heard_by": "signals", "because": "call_in_tracer is off"} == how_attempts_are_heard(in_tracer=False)


@pytest.mark.parametrize("signal", [task_prerun, task_postrun], ids=["prerun", "postrun"])
def test_who_else_listens_is_named(signal: Any) -> None:
    """
    A receiver of a library or of the program has Celery dispatch the signal, to ours as well.
    """
    signal.connect(meddle)  # Weakly, as most do.
    try:
        told = how_attempts_are_heard(in_tracer=True)
    finally:
        signal.disconnect(meddle)

    assert "signals" == told["heard_by"]
    assert f"{__name__}.meddle listens to them, too" == told["because"]
    assert "tracer" == how_attempts_are_heard(in_tracer=True)["heard_by"]


def test_a_tracer_that_we_do_not_know_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Another version of Celery may not look up what it calls, and is left alone.
    """
    monkeypatch.delattr(trace, "send_postrun")

    told = how_attempts_are_heard(in_tracer=True)

    assert "signals" == told["heard_by"]
    assert "the tracer of this version of Celery" in told["because"]


def announced(metrics_dir: Path, node: str, attempts: dict[str, str] | None) -> None:
    """
    Announce as a worker does, beside a heartbeat.
    """
    beat(metrics_dir, node)
    app = Celery("shop", broker="memory://", set_as_current=False)
    settings = load({}, {}, {"metrics_dir": str(metrics_dir)})
    folder = metrics_dir / f"{node}.v1"
    folder.mkdir(exist_ok=True)
    write_about(folder, about(settings, app, {}, role="worker", node=node, attempts=attempts))


def test_the_doctor_tells_it_of_each_node(tmp_path: Path) -> None:
    """
    Nodes that hear in the same way share a line; the document has it for each.
    """
    tracer = {"heard_by": "tracer", "because": ""}
    signals = {"heard_by": "signals", "because": "shop.audit listens to them, too"}
    for node, attempts in (("a@host", tracer), ("b@host", tracer), ("c@host", signals), ("old@host", None)):
        announced(tmp_path, node, attempts)

    text = CliRunner().invoke(doctor, ["--metrics-dir", str(tmp_path)]).output
    document = json.loads(CliRunner().invoke(doctor, ["--metrics-dir", str(tmp_path), "--json"]).output)

    assert "OK   attempts: Celery's tracer calls us directly. (as a@host, b@host announced)" in text
    assert "OK   attempts: Celery's signals call us, because shop.audit listens to them, too. (as c@host announced)" in text
    assert {"a@host": tracer, "b@host": tracer, "c@host": signals, "old@host": None} == {
        node["node"]: node["announced"]["attempts"] for node in document["nodes"]
    }
    assert ["a@host, b@host", "c@host"] == [check["node"] for check in document["checks"] if check["name"] == "attempts"]


@pytest.mark.parametrize("written", ["tracer", {"heard_by": "rumour"}, {"heard_by": ["tracer"]}, {}])
def test_what_no_worker_says_is_passed_over(tmp_path: Path, written: Any) -> None:
    """
    Another version's word, or a file that went wrong, is no line.
    """
    announced(tmp_path, "w@host", written)

    done = CliRunner().invoke(doctor, ["--metrics-dir", str(tmp_path)])

    assert (0, False) == (done.exit_code, "attempts:" in done.output), done.output
