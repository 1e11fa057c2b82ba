"""
What pyproject.toml says of other packages: bounds that have been tested, and a run without them.
"""

from __future__ import annotations

import configparser

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML.")

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
ALL = [*CORE, *(Requirement(text) for texts in PROJECT["optional-dependencies"].values() for text in texts)]
BOUNDED = {str(canonicalize_name(each.name)): each for each in ALL if any(part.operator == "<" for part in each.specifier)}


def pinned() -> dict[str, str]:
    """
    Return the versions that the tests run with: those of constraints.txt, or of the newest factor of tox.ini.
    """
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [line.partition(";")[0].partition("==") for line in lines if "==" in line]
    newest = {"celery": "5.7.0", "kombu": "5.7.0"}
    return {**{canonicalize_name(name): version.strip() for name, _, version in found}, **newest}


def test_what_we_reach_into_has_an_upper_bound() -> None:
    """
    A release that changes what a library does not promise to keep reaches no user before the tests have seen it.
    """
    reached = {"billiard", "celery", "kombu", "redis", "structlog", "uvicorn", "sentry-sdk", "opentelemetry-api", "opentelemetry-sdk"}

    assert reached <= BOUNDED.keys()


@pytest.mark.parametrize("name", sorted(BOUNDED.keys() & pinned().keys()))
def test_the_bound_allows_what_the_tests_run_with(name: str) -> None:
    """
    The version that is pinned for the tests is one that users get.
    """
    assert BOUNDED[name].specifier.contains(pinned()[name])


def test_the_newest_of_everything_is_tried_without_bounds() -> None:
    """
    tox -e newest-everything renews each package that has an upper bound, and no constraint holds it.
    """
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    environment = tox["testenv:newest-everything"]
    _, _, names = environment["commands_pre"].partition(" --upgrade ")

    assert set(BOUNDED) == set(names.split())
    assert "PIP_CONSTRAINT =" in environment["set_env"].splitlines()


def test_the_core_has_nothing_that_no_worker_imports() -> None:
    """
    A dependency more is a decision: it belongs here, with its reason in pyproject.toml.
    """
    assert {"billiard", "celery", "click", "kombu", "packaging", "redis", "structlog"} == {each.name for each in CORE}


def test_the_projects_pages_are_named_by_one_host() -> None:
    """
    Documentation, source, changelog and issues; before a release, all are examples, and then none is.
    """
    urls = PROJECT["urls"]

    assert {"Documentation", "Source", "Changelog", "Issues"} <= urls.keys()
    assert 1 == len({urlsplit(url).hostname.endswith(".example.com") for url in urls.values()})
    assert {"https"} == {urlsplit(url).scheme for url in urls.values()}
