"""
Environment variables with our prefix: what nothing reads is told, with the nearest name that is known, and stops nothing.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from celery import Celery
from click.testing import CliRunner

import celery_obs

from celery_obs.cli.group import obs
from celery_obs.runtime.plugin import plugin
from celery_obs.settings import SETTINGS, environment, load


HERE = Path(celery_obs.__file__).parent
REPOSITORY = Path(__file__).parents[3]
REPORTED = (
    "LEASE_PERIOD",
    "MULTIPROC_DIR",
    "OPERATIONS_TOKEN_FILE",
    "PROMETHEUS_URL",
    "ACTOR",
    "OUT",
    "SLO",
    "ALERTS",
    "GRAFANA_URL",
    "RUNBOOKS_URL",
)


def options(command: click.Command = obs) -> Iterator[str]:
    """
    Go through the variables of all commands, by hand.
    """
    for parameter in command.params:
        yield from [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or ()
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options(below)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """
    An app that publishes, beside variables that it does not know.
    """
    for name in (*REPORTED, "IMAGE_TAG", "LABEL_LIMTI"):
        monkeypatch.setenv(f"CELERY_OBS_{name}", "15")
    app = Celery("shop", broker="memory://", set_as_current=False)
    celery_obs.setup(app)
    app.conf.celery_obs = {"metrics_dir": str(tmp_path)}
    yield app
    celery_obs.teardown()


@pytest.mark.parametrize("variable", sorted({*(f"CELERY_OBS_{name}" for name in REPORTED), *options()}))
def test_the_option_of_a_command_is_known(variable: str) -> None:
    """
    What a command takes from the environment is no typing error, in whatever process.
    """
    assert {} == environment.unknown({variable: "15"})


def test_every_option_of_ours_has_a_variable_that_worker_and_commands_share_without_harm() -> None:
    """
    No option can be added that ends workers which share its environment: none of them is refused where it is no setting.
    """
    others = set(options()) - {setting.variable for setting in SETTINGS}

    assert load({}, {"CELERY_OBS_METRICS_DIR": "/run/obs"}, {}) == load(
        {}, dict.fromkeys(others, "x") | {"CELERY_OBS_METRICS_DIR": "/run/obs"}, {}
    )


def test_every_variable_that_the_source_names_is_known() -> None:
    """
    What is read without an option is on the list.
    """
    named = {name for path in HERE.rglob("*.py") for name in re.findall(r"(?<!_)CELERY_OBS_[A-Z_]*[A-Z]\b(?![_*…])", path.read_text())}

    assert {"CELERY_OBS_LABEL_LIMTI", "CELERY_OBS_TESTS"} >= environment.unknown(dict.fromkeys(named, "x")).keys()


def test_every_variable_that_we_ship_is_known() -> None:
    """
    Units, manifests and scripts share one environment among worker, beat, exporter and commands, and none of them complains.
    """
    shipped = [path for path in (REPOSITORY / "deploy").rglob("*") if path.is_file()]
    named = {name for path in shipped for name in re.findall(r"(?<!_)CELERY_OBS_[A-Z_]*[A-Z]\b", path.read_text(errors="replace"))}

    assert len(named) > 3
    assert {} == environment.unknown(dict.fromkeys(named, "x"))


@pytest.mark.parametrize(
    "variable",
    ["CELERY_OBS_PORT", "CELERY_OBS_SERVICE_HOST", "CELERY_OBS_PORT_19540_TCP_ADDR", "CELERY_OBS_EXPORTER_SERVICE_PORT_METRICS"],
)
def test_the_variables_of_kubernetes_services_are_no_typing_errors(variable: str) -> None:
    """
    A Service called celery-obs puts variables with our prefix into every pod.
    """
    assert {} == environment.unknown({variable: "tcp://10.0.0.1:80"})


def test_the_nearest_name_is_told_and_no_value() -> None:
    """
    The sentence has all names, the nearest that is known where one is near, and nothing that may be secret.
    """
    found = environment.unknown({"CELERY_OBS_REDIS_URI": "redis://:hunter2@h", "CELERY_OBS_IMAGE_TAG": "5", "CELERY_OBS_EMPTY": ""})

    assert (
        "unknown environment variables, without effect: CELERY_OBS_REDIS_URI (did you mean CELERY_OBS_REDIS_URL?), CELERY_OBS_IMAGE_TAG"
        == environment.advice(found)
    )


def test_a_publisher_goes_on_and_warns_once(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """
    A process that publishes is observed, whatever variables there are.
    """
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            app.send_task("shop.sell")

    found = plugin()
    assert found is not None
    assert found.settings is not None
    (line,) = [record for record in caplog.records if record.name == "celery_obs"]
    assert "celery_obs: unknown environment variables, without effect: " in line.getMessage()
    assert "CELERY_OBS_LABEL_LIMTI (did you mean CELERY_OBS_LABEL_LIMIT?)" in line.getMessage()


def test_a_publisher_with_a_wrong_value_says_so_in_one_line(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    It publishes on, is not observed, and its log has the reason once, without a traceback.
    """
    monkeypatch.setenv("CELERY_OBS_LABEL_LIMIT", "many")

    for _ in range(3):
        app.send_task("shop.sell")

    found = plugin()
    assert found is not None
    assert found.settings is None
    (line,) = [record for record in caplog.records if record.name == "celery_obs"]
    assert "celery_obs: this process is not observed. The setting label_limit is 'many' (environment variable" in line.getMessage()
    assert line.exc_info is None


def test_commands_warn_and_do_what_they_are_for(tmp_path: Path) -> None:
    """
    A command's own output stays as it is; the warning goes to standard error.
    """
    ran = CliRunner().invoke(
        obs, ["doctor"], env={"CELERY_OBS_IMAGE_TAG": "5", "CELERY_OBS_LEASE_PERIOD": "15", "CELERY_OBS_METRICS_DIR": str(tmp_path)}
    )

    assert "Warning: unknown environment variable, without effect: CELERY_OBS_IMAGE_TAG.\n" == ran.stderr
    assert "metrics directory" in ran.stdout
    assert "Warning" not in ran.stdout


def test_commands_are_loaded_only_where_a_variable_is_unknown() -> None:
    """
    A program that publishes loads no command and no command line library to find that all of its variables are settings.
    """
    program = (
        "import sys; from celery_obs.settings import environment; "
        "environment.unknown({'CELERY_OBS_METRICS_DIR': '/run/obs'}); print([name for name in sys.modules if 'click' in name or '.cli' in name])"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "[]\n" == ran.stdout
