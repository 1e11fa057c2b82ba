"""
An area can go: without its folder and its line of the registry the package imports, observes an app, serves a page and generates its rules.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

from pathlib import Path
from typing import Any

import pytest

from celery_obs.areas import AREAS, Area
from celery_obs.areas.catalogue import catalogue


ROOT = Path(__file__).parents[3]

REMOVABLE = ("webhooks", "tokens", "conflicts", "reconciliation")

FACES = {"webhooks": "celery_obs.sync.webhooks", "tokens": "celery_obs.settings.oauth"}
"""
What is about the area alone: its public face, and its settings.
"""

PROGRAM = """
import json, pkgutil, sys, warnings
from importlib import import_module
from pathlib import Path

warnings.simplefilter("ignore")
out = Path(sys.argv[1])
import celery_obs

import celery
app = celery.Celery("shop", broker="memory://")
celery_obs.setup(app, redis_url=None, metrics_dir=str(out / "metrics"))

broken = {}
for module in pkgutil.walk_packages(celery_obs.__path__, "celery_obs."):
    if not module.name.endswith(("__main__", ".autoload")):
        try:
            import_module(module.name)
        except ImportError as error:
            broken[module.name] = str(error)

from starlette.testclient import TestClient
from celery_obs.areas import optional
from celery_obs.exporter.app import create_app
from celery_obs.exporter.scrape import InternalErrors, Runner
from celery_obs.exporter.server import Options, build_collectors

def nothing():
    connections, channels = optional("connections", "state"), optional("channels", "overview")
    snapshot = connections.Snapshot(
        connections={}, last_syncs={}, errors={}, tokens={}, drift={}, last_runs={"airbnb": 1.0}, reviews={"price": 2}
    )
    return channels.Overview(snapshot=snapshot, channels=("airbnb",), breakers={}, pauses={}, rate_limits={})

overview = nothing if optional("channels", "overview") is not None else None
errors = InternalErrors()
with TestClient(create_app(Runner(build_collectors(Options(metrics_dir=out), errors, overview=overview), errors), overview=overview)) as client:
    page, landing = client.get("/metrics"), client.get("/")

from click.testing import CliRunner
from celery_obs.cli import obs
done = CliRunner().invoke(obs, ["generate", "--channels", "--out", str(out / "monitoring")])
answer = {
    "where": celery_obs.__file__, "broken": broken, "generated": done.exit_code, "output": done.output,
    "page": page.text, "statuses": [page.status_code, landing.status_code],
}
print(json.dumps(answer))
"""


def area(name: str) -> Area:
    """
    Return the area of that name.
    """
    [found] = [each for each in AREAS if each.name == name]
    return found


def house_without(folder: Path, *names: str) -> Path:
    """
    Copy the package, and take these areas out: the folder, and the line of the registry.
    """
    package = folder / "celery_obs"
    shutil.copytree(ROOT / "celery_obs", package)  # What Python has compiled goes along, and need not be compiled again.
    registry = package / "areas/__init__.py"
    text = registry.read_text()
    for name in names:
        shutil.rmtree(folder / area(name).package.replace(".", "/"), ignore_errors=True)  # That of all channels is around others.
        text, count = re.subn(rf'^    _ours\("{name}".*\),\n', "", text, flags=re.MULTILINE)
        assert 1 == count
    registry.write_text(text)
    return folder


def run(folder: Path, *command: str) -> str:
    """
    Run a program in that house; return what it says.
    """
    done = subprocess.run(
        [sys.executable, *command], check=False, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def metrics_of(name: str) -> set[str]:
    """
    Return the names of an area's metrics.
    """
    part = area(name).part("metrics")
    return set() if part is None else set(catalogue([part]))


@pytest.mark.parametrize("name", REMOVABLE)
def test_the_package_works_without_an_area(tmp_path: Path, name: str) -> None:
    """
    All else is imported, observed, served and written, and nothing that is written asks for a metric that is gone.
    """
    house = house_without(tmp_path / "house", name)

    answer: dict[str, Any] = json.loads(run(house, "-c", PROGRAM, str(tmp_path)).splitlines()[-1])

    assert str(house / "celery_obs/__init__.py") == answer["where"]
    broken = {module for module in answer["broken"] if not module.startswith("celery_obs.demo.")}  # It shows all areas.
    assert broken == {FACES[name]} if name in FACES else not broken, answer["broken"]
    assert [200, 200] == answer["statuses"]
    assert 0 == answer["generated"], answer["output"]
    made = {path: path.read_text() for path in (tmp_path / "monitoring/deploy").rglob("*") if path.is_file()}
    asked = {(path.name, metric) for metric in metrics_of(name) for path, text in made.items() if re.search(rf"\b{metric}\b", text)}
    assert set() == asked
    assert not any(metric in answer["page"] for metric in metrics_of(name))


def test_the_package_works_without_channels(tmp_path: Path) -> None:
    """
    The sync engine goes as a whole: what is left is what every app has, and nothing that is written is about channels.
    """
    of_channels = [each.name for each in AREAS if each.is_about_channels]
    house = house_without(tmp_path / "house", *of_channels)

    answer: dict[str, Any] = json.loads(run(house, "-c", PROGRAM, str(tmp_path)).splitlines()[-1])

    faces = ("celery_obs.demo.", "celery_obs.sync.", "celery_obs.settings.oauth")
    assert not [module for module in answer["broken"] if not module.startswith(faces)], answer["broken"]
    assert [200, 200] == answer["statuses"]
    assert 0 == answer["generated"], answer["output"]
    rules = "".join(path.read_text() for path in (tmp_path / "monitoring/deploy").rglob("*") if path.is_file())
    assert not [metric for name in of_channels for metric in metrics_of(name) if re.search(rf"\b{metric}\b", rules)]
    assert "channel_" not in answer["page"]


def house_with_tests(folder: Path, name: str) -> Path:
    """
    Copy the package and its tests, and take an area out with those tests that are about it.
    """
    house = house_without(folder, name)
    shutil.copytree(ROOT / "tests", house / "tests")
    for place in ("pyproject.toml", "docs", "deploy"):
        (house / place).symlink_to(ROOT / place)
    gone = area(name).package
    for path in (house / "tests/unit").rglob("test_*.py"):
        text = path.read_text()
        if gone in text or "house_with_tests" in text:
            path.unlink()
    return house


_OF_ALL = (
    "test_catalogue.py::test_the_catalogue_holds_every_name_of_the_contract",
    "channels/test_collector.py::test_everything_that_is_known_is_shown",
    "channels/test_collector.py::test_beyond_the_limit_the_worst_is_shown_and_told",
    "channels/test_presence.py::test_each_setting_about_channels_says_that_there_are_some",
    "channels/test_presence.py::test_who_schedules_our_tasks_has_them",
)
"""
Tests of what all areas show, set or schedule together, each area's part by its text: with one gone they say too much.
"""


def test_the_tests_of_other_areas_pass_without_one(tmp_path: Path) -> None:
    """
    What an area is tested with needs no other area that can go.
    """
    house = house_with_tests(tmp_path / "house", "webhooks")
    chosen = [
        "areas/channels/test_collector.py",
        "areas/channels/test_retries.py",
    ]

    said = run(house, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/unit/{each}" for each in chosen))

    assert " passed" in said


@pytest.mark.faults
@pytest.mark.parametrize("name", REMOVABLE)
def test_all_tests_of_other_areas_pass_without_one(tmp_path: Path, name: str) -> None:
    """
    All of them, but those of what all areas do together.
    """
    house = house_with_tests(tmp_path / "house", name)

    said = run(
        house,
        "-m",
        "pytest",
        "-q",
        "-n2",
        "-p",
        "no:cacheprovider",
        "tests/unit/areas",
        *(f"--deselect=tests/unit/areas/{each}" for each in _OF_ALL),
    )

    assert " passed" in said
