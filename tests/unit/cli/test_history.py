"""
``celery-obs history``: what the sidecar remembers, in the terminal.
"""

from __future__ import annotations

import json
import os

from pathlib import Path

import pytest

from click.testing import CliRunner, Result

from celery_obs.cli.group import obs
from celery_obs.cli.history import _course
from celery_obs.exporter.history.declared import Name
from celery_obs.exporter.history.file import HistoryFile, moment, shape_for


STARTED = Name("celery_task_started_total", (("task", "emails.send"), ("queue", "q\x1b")), True, "last")
DEPTH = Name("celery_queue_depth", (("queue", "emails"),), False, "max")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """
    Have a history of ten seconds.
    """
    file = HistoryFile(os.open(tmp_path / "history", os.O_RDWR | os.O_CREAT), shape_for(300_000), shares=lambda group: 5)
    now = moment()
    for ago in range(10, 0, -1):
        at = now._replace(at=now.at - ago, ticks=now.ticks - ago)
        file.append(at, {STARTED: 100.0 - 2 * ago, DEPTH: float(ago)}, period=1.0)
    file.close()
    return tmp_path


def call(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(obs, ["history", "--metrics-dir", str(directory), *arguments])


def test_each_series_has_a_line_with_its_course(directory: Path) -> None:
    """
    Rates of what grows, values of all else; names that would move the cursor do not.
    """
    result = call(directory)

    assert 0 == result.exit_code, result.output
    depth, started = result.output.splitlines()
    assert "celery_queue_depth{queue=emails}  min 1, max 10, last 1" in depth
    assert "celery_task_started_total{task=emails.send, queue=q?}  min 2/s, max 2/s, last 2/s" in started
    assert "\x1b" not in result.output


def test_series_are_chosen_by_name_and_label(directory: Path) -> None:
    """
    As JSON it is what the API answers.
    """
    result = call(directory, "celery_task_*", "--label", "task=emails.*", "--since", "5s", "--json")

    told = json.loads(result.output)
    assert ["celery_task_started_total"] == [series["name"] for series in told["series"]]
    assert 5 == len(told["series"][0]["values"])
    assert "No series matches.\n" == call(directory, "nothing_*").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--since", "3h"), "Expected seconds ago as a negative number, from -7200 to -1"),
        (("--label", "colour=red"), "There is no parameter 'colour'"),
        (("--label", "task"), "Expected a label and a pattern"),
        (("--limit", "10000"), "The limit is 10000"),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_expected(directory: Path, arguments: tuple[str, ...], message: str) -> None:
    """
    A mistake ends with what was expected, and code 2.
    """
    result = call(directory, *arguments)

    assert 2 == result.exit_code
    assert message in result.output


def test_without_a_history_it_says_what_to_look_at(directory: Path) -> None:
    """
    Where no sidecar ran, and where what lies there is no history.
    """
    (directory / "history").write_bytes(b"something else")
    assert f"{directory / 'history'} is no history of celery_obs." in call(directory).output
    (directory / "history").unlink()
    assert "Does celery-obs exporter run here" in call(directory).output


def test_a_course_has_blanks_where_nothing_is_known() -> None:
    """
    Zero is a low bar, and no bar is no knowledge.
    """
    assert "▁█ ▅" == _course([0.0, 2.0, None, 1.0]).rstrip()
    assert 30 == len(_course([1.0] * 600))
