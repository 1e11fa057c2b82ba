"""
``celery-obs attempts``: what people see.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from pathlib import Path

from click.testing import CliRunner

from celery_obs.areas.tasks.commands import attempts, simulate
from celery_obs.exceptions import ConfigurationError
from tests.unit.recorder.builders import finished, meter, recorder, started
from tests.unit.recorder.test_attempt_log import write
from tests.unit.recorder.test_ring import SMALL


RUNS = [("emails.send", "q1", "success", 1, 0), ("sync", "q2", "failure", 2, 0), ("sync", "q2", "retry", 3, 1)]


def ask(folder: Path, *arguments: str) -> str:
    """
    Run the command, and return what it prints.
    """
    result = CliRunner().invoke(attempts, [*arguments, "--metrics-dir", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_attempts_are_a_line_each_the_newest_first(tmp_path: Path) -> None:
    """
    A line has when it began, how it ended, how long it ran, what and where it was, and why it failed.
    """
    write(tmp_path, RUNS)

    lines = ask(tmp_path).splitlines()

    assert ["w@h-2", "w@h-1", "w@h-0"] == [line.split()[5] for line in lines]
    assert lines[0].split(maxsplit=2)[2] == "retry         3.00s  sync  w@h-2  q2  w@h/1  retry 1, E3, waited 200.0ms"


def test_the_story_of_an_id_begins_with_its_first_attempt(tmp_path: Path) -> None:
    """
    With an id the order is that of events.
    """
    for retries in range(2):
        at = recorder(tmp_path, attempt_bytes=SMALL)
        counting = meter(at)
        opened = started(task_id="x", retries=retries)._replace(started_at=100.0 + retries)
        counting.started(opened)
        counting.finished(finished(opened, "success" if retries else "retry", exception="" if retries else "Timeout"))
        at.close()

    assert ["retry", "success"] == [line.split()[2] for line in ask(tmp_path, "--id", "x").splitlines()]


def test_filters_narrow_what_is_shown(tmp_path: Path) -> None:
    """
    By failure, task, exception and runtime; as many as are wanted, over several pages.
    """
    write(tmp_path, RUNS)
    write(tmp_path / "many", [("sync", "q1", "success", 1, 0)] * 2500)

    assert "w@h-1" in ask(tmp_path, "--failed")
    assert len(ask(tmp_path, "--failed").splitlines()) == 1
    assert len(ask(tmp_path, "--task", "emails.*").splitlines()) == 1
    assert len(ask(tmp_path, "--exception", "E3").splitlines()) == 1
    assert len(ask(tmp_path, "--slower-than", "1.5").splitlines()) == 2
    assert len(ask(tmp_path / "many", "--limit", "2200").splitlines()) == 2200


def test_json_has_an_object_on_each_line(tmp_path: Path) -> None:
    """
    For programs, as the API has it.
    """
    write(tmp_path, RUNS)

    found = [json.loads(line) for line in ask(tmp_path, "--json", "--state", "failure").splitlines()]

    assert [("w@h-1", "E2")] == [(each["id"], each["exception"]) for each in found]


def test_nothing_found_says_why(tmp_path: Path) -> None:
    """
    No attempt that matches is something else than no attempt at all, or no directory.
    """
    missing = CliRunner().invoke(attempts, ["--metrics-dir", str(tmp_path / "no")])
    assert (
        ask(tmp_path) == f"No attempts in {tmp_path}. Workers keep them from their first task on, unless the setting attempt_bytes is 0.\n"
    )

    write(tmp_path, RUNS)

    assert ask(tmp_path, "--id", "unknown") == "No attempt matches; 3 are kept.\n"
    assert isinstance(missing.exception, ConfigurationError)
    assert "cannot be read: No such file or directory. Does a worker run here" in str(missing.exception)


def test_follow_goes_on_with_attempts_as_they_end(tmp_path: Path) -> None:
    """
    What is there is printed first, the oldest first; then each attempt once, when it ends.
    """
    write(tmp_path, RUNS)
    program = [sys.executable, "-m", "celery_obs.cli", "attempts", "--follow", "--metrics-dir", str(tmp_path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            seen = [process.stdout.readline().split()[5] for _ in RUNS]
            at = recorder(tmp_path, attempt_bytes=SMALL)
            counting = meter(at)
            for number in range(2):
                opened = started(task_id=f"new-{number}")
                counting.started(opened)
                counting.finished(finished(opened))
                seen.append(process.stdout.readline().split()[5])
        finally:
            process.kill()
    assert ["w@h-0", "w@h-1", "w@h-2", "new-0", "new-1"] == seen


def ask_what_if(folder: Path, *arguments: str) -> str:
    """
    Run the command, and return what it prints.
    """
    result = CliRunner().invoke(simulate, [*arguments, "--metrics-dir", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def busy_hour(folder: Path) -> None:
    """
    One process was at work without a break for the last 100 seconds: 100 attempts of a second each, that all had arrived at the beginning.
    """
    begin = time.time() - 120
    at = recorder(folder, attempt_bytes=1 << 20)
    counting = meter(at)
    for number in range(100):
        opened = started("sync", "q", task_id=str(number), wait=float(number))._replace(started_at=begin + number)
        counting.started(opened)
        counting.finished(finished(opened, runtime=1.0))
    at.close()


def test_what_if_there_were_more_processes(tmp_path: Path) -> None:
    """
    Twice the processes halve a backlog's waits; the model is shown beside what was measured.
    """
    busy_hour(tmp_path)

    lines = ask_what_if(tmp_path, "--queue", "q", "--processes", "+1").splitlines()
    answer = json.loads(ask_what_if(tmp_path, "--queue", "q", "--processes", "+3", "--json"))

    assert lines[0].startswith("q: 100 attempts from ")
    assert ["measured", "1", "49.00s", "94.00s", "99.00s", "100%"] == lines[2].split()
    assert ["simulated", "1", "49.00s", "94.00s", "99.00s", "100%"] == lines[3].split()
    assert ["simulated", "2", "24.00s", "47.00s", "49.00s", "100%"] == lines[4].split()
    assert len(lines) == 5
    assert (4, 24.0) == (answer["changed"]["processes"], round(answer["changed"]["longest"], 6))


def test_what_cannot_be_simulated_says_why(tmp_path: Path) -> None:
    """
    A queue without attempts, and fewer processes than one, are refused with what to do.
    """
    busy_hour(tmp_path)

    unknown = CliRunner().invoke(simulate, ["--queue", "mail", "--metrics-dir", str(tmp_path)])
    none_left = CliRunner().invoke(simulate, ["--queue", "q", "--processes", "-1", "--metrics-dir", str(tmp_path)])

    at = recorder(tmp_path / "unstamped", attempt_bytes=SMALL)
    counting = meter(at)
    opened = started(wait=None)._replace(started_at=time.time() - 9)
    counting.started(opened)
    counting.finished(finished(opened))
    unstamped = CliRunner().invoke(simulate, ["--queue", "q", "--metrics-dir", str(tmp_path / "unstamped")])

    assert str(unstamped.exception).startswith("Not known how long tasks of q waited: what publishes them has to call celery_obs.setup")
    assert "No attempt of the queue mail ended since" in str(unknown.exception)
    assert str(none_left.exception) == "1 processes ran it, so that -1 leaves none. Expected +0 or more."
