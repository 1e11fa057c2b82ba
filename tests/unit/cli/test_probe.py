"""
Probes: what a container asks every few seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from pathlib import Path

import pytest

from celery_obs.cli import probe
from celery_obs.cli.probe import Heartbeat, run, verdict


def beat(directory: Path, node: str = "w@host", *, ready: bool = True, role: str = "worker", age: float = 0.0) -> Path:
    """
    Write a heartbeat as a worker does.
    """
    file = directory / f"{node}.v1" / "heartbeat"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"pid": 7, "ready": ready, "role": role}) + "\n")
    touched_at = time.time() - age
    os.utime(file, (touched_at, touched_at))
    return file


def ask(directory: Path, question: str, *options: str) -> int:
    """
    Run the probe on *directory*.
    """
    return run([question, "--metrics-dir", str(directory), *options])


@pytest.mark.parametrize(
    ("age", "ready", "expected"),
    [(0.0, True, (True, True)), (0.0, False, (True, False)), (31.0, True, (False, False))],
    ids=["ready", "connecting", "stale"],
)
def test_a_node_is_live_while_it_beats_and_ready_when_it_says_so(age: float, ready: bool, expected: tuple[bool, bool]) -> None:
    """
    Liveness looks at age alone, readiness at both.
    """
    beats = [Heartbeat("w", 100.0 - age, ready, "worker", 7, {})]

    answers = tuple(verdict(question, beats, now=100.0, max_age=30.0)[0] for question in ("liveness", "readiness"))

    assert expected == answers


def test_one_stale_node_of_two_is_enough_to_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Every node of the directory has to live, and the sentence names the one that does not.
    """
    beat(tmp_path, "a@host")
    beat(tmp_path, "b@host", role="beat", age=90)

    assert 1 == ask(tmp_path, "liveness")
    assert "beat b@host (pid 7) last beat 90." in capsys.readouterr().err


def test_a_node_can_be_asked_for_by_name(tmp_path: Path) -> None:
    """
    Beside several workers a container asks about its own.
    """
    beat(tmp_path, "a@host")
    beat(tmp_path, "b@host", age=90)

    assert 0 == ask(tmp_path, "liveness", "--node", "a@host")
    assert 1 == ask(tmp_path, "liveness", "--node=c@host")


def test_the_limit_comes_from_option_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who has a slow machine allows more.
    """
    beat(tmp_path, age=50)

    assert 1 == ask(tmp_path, "liveness")
    assert 0 == ask(tmp_path, "liveness", "--max-age", "60")
    monkeypatch.setenv("CELERY_OBS_PROBE_MAX_AGE", "60")
    assert 0 == ask(tmp_path, "liveness")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"ready": true}', "null", "\udcff"])
def test_a_damaged_heartbeat_is_a_no_with_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    """
    Garbage is an answer, never a traceback.
    """
    beat(tmp_path).write_text(content, errors="surrogateescape")

    assert 1 == ask(tmp_path, "liveness")
    assert "is not a readable heartbeat" in capsys.readouterr().err


def test_no_heartbeat_at_all_is_a_no(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A worker that never started does not live.
    """
    (tmp_path / "w@host.v1").mkdir()
    (tmp_path / "something.else").mkdir()

    assert 1 == ask(tmp_path, "liveness")
    assert 1 == ask(tmp_path / "missing", "liveness")
    first, second = capsys.readouterr().err.splitlines()
    assert f"no heartbeat in {tmp_path}." in first
    assert "cannot read the metrics directory" in second


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["health"], "expected liveness or readiness, got health"),
        (["liveness", "--max-age", "soon"], "Expected a number of seconds above 0"),
        (["liveness", "--max-age"], "--max-age needs a value"),
        (["liveness", "--port", "1"], "unknown option --port"),
    ],
    ids=["question", "age", "no-value", "option"],
)
def test_wrong_usage_is_told_in_a_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A typo in a manifest exits with 2 and says what was expected.
    """
    assert 2 == run(arguments)
    assert told in capsys.readouterr().err


def test_a_probe_loads_neither_click_nor_celery(tmp_path: Path) -> None:
    """
    A probe costs a bare interpreter and little more.
    """
    beat(tmp_path)
    code = (
        "import sys; sys.argv = ['celery-obs', 'probe', 'readiness', '--metrics-dir', sys.argv[1]]\n"
        "from celery_obs.cli import main\n"
        "try: main()\n"
        "except SystemExit as left: print(left.code, sorted({'click', 'celery', 'kombu', 'redis', 'argparse', 'difflib'} & set(sys.modules)))"
    )

    # -I and -S keep start-up hooks of the environment, such as coverage's, out of the answer.
    path = str(Path(probe.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {path!r})\n{code}", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "0 []" == done.stdout.splitlines()[-1]
