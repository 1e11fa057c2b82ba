"""
The group of commands: what it lists, what it loads, how it fails.
"""

from __future__ import annotations

import subprocess
import sys

from pathlib import Path

import click
import pytest

from click.testing import CliRunner

import celery_obs.cli

from celery_obs import __version__
from celery_obs.cli.group import COMMANDS, Target, obs
from celery_obs.exceptions import ConfigurationError


@click.command()
def refusing() -> None:
    """
    Refuse to start.
    """
    message = "The port 80 is taken. Give another one."
    raise ConfigurationError(message)


def test_the_overview_lists_all_commands_and_loads_none() -> None:
    """
    Help is quick, and works where an extra is missing.
    """
    code = "import sys; from celery_obs.cli import obs\ntry: obs(['--help'])\nexcept SystemExit: print(sorted(m for m in sys.modules if 'celery_obs.cli.' in m))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    for name in ("demo", "doctor", "exporter", "probe"):
        assert f"  {name} " in done.stdout
    assert "['celery_obs.cli.group']" == done.stdout.splitlines()[-1]


def test_the_version_is_told() -> None:
    """
    People paste it into bug reports.
    """
    assert f"celery-obs, version {__version__}\n" == CliRunner().invoke(obs, ["--version"]).output


def test_an_error_of_ours_is_one_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who made a mistake sees a sentence, not a traceback.
    """
    monkeypatch.setattr(sys.modules[__name__], "refusing", refusing)
    monkeypatch.setitem(COMMANDS, "refusing", Target(__name__, "refusing", "Refuse."))

    result = CliRunner().invoke(obs, ["refusing"])

    assert (2, "Error: The port 80 is taken. Give another one.\n") == (result.exit_code, result.stderr)


def test_an_unknown_command_is_refused() -> None:
    """
    A typo is told by name.
    """
    result = CliRunner().invoke(obs, ["exportr"])

    assert 2 == result.exit_code
    assert "exportr" in result.stderr


def test_the_probe_works_by_way_of_the_group_too(tmp_path: Path) -> None:
    """
    ``celery -A proj obs probe`` is the same probe.
    """
    result = CliRunner().invoke(obs, ["probe", "liveness", "--metrics-dir", str(tmp_path)])

    assert 1 == result.exit_code
    assert f"no heartbeat in {tmp_path}" in result.stderr


def test_celery_finds_the_group_where_the_entry_point_says() -> None:
    """
    The attribute exists, though nothing is loaded until it is asked for.
    """
    assert obs is celery_obs.cli.obs
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = celery_obs.cli.nothing
