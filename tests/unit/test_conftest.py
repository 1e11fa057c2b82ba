"""
The tests' own safety net.
"""

from __future__ import annotations

import os
import re

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.conftest import _find_servers, find_server, pytest_sessionfinish


def test_a_missing_server_skips_the_test_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who has no Redis can still run the rest.
    """
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match="needs no-such-server"):
        find_server("no-such-server")


def test_a_missing_server_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    CI never skips for want of a server.
    """
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="In CI a missing server is a failure"):
        find_server("no-such-server")


def test_other_servers_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A folder with another Prometheus is looked at before the machine's own.
    """
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("CELERY_OBS_TESTS_SERVERS", str(tmp_path))

    _find_servers()

    assert f"{tmp_path}{os.pathsep}/usr/bin" == os.environ["PATH"]


def test_a_folder_of_servers_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Else the machine's own would be tested, unnoticed.
    """
    monkeypatch.setenv("CELERY_OBS_TESTS_SERVERS", str(tmp_path / "none"))

    with pytest.raises(pytest.UsageError, match=r"which is no folder\. Fetch programs with \./tests/newer-servers"):
        _find_servers()


@pytest.mark.parametrize(("again", "ends"), [(0, pytest.ExitCode.OK), (2, pytest.ExitCode.OK), (3, pytest.ExitCode.TESTS_FAILED)])
def test_a_run_fails_of_three_tests_that_needed_a_second_try(again: int, ends: pytest.ExitCode) -> None:
    """
    Two may be bad luck.
    """
    reporter = SimpleNamespace(stats={"rerun": [object()] * again})
    plugins = SimpleNamespace(get_plugin={"terminalreporter": reporter}.get)
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK, config=SimpleNamespace(pluginmanager=plugins))

    pytest_sessionfinish(cast("pytest.Session", session))

    assert ends == session.exitstatus


def test_what_tox_runs_is_there() -> None:
    """
    Every file and folder of tests that the task runner names exists, in the environments that are seldom run, too.
    """
    root = Path(__file__).parents[2]
    named = set(re.findall(r"tests/[\w/-]+(?:\.py)?", (root / "tox.ini").read_text()))

    assert len(named) > 10
    assert [] == sorted(path for path in named if not (root / path).exists())
