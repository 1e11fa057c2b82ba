"""
The contributors' page: its map is the house, and what it names is there.
"""

from __future__ import annotations

import re

from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
PATHS = sorted(
    {
        path
        for path in re.findall(r"`([\w./*-]+)`", PAGE)
        if path.partition("/")[0] in {"celery_obs", "docs", "tests", "deploy", ".", "pyproject.toml", "constraints.txt", "tox.ini"}
    }
)


def folders_of_the_map() -> set[str]:
    """
    Return the folders in the drawn tree, as paths.
    """
    above: list[str] = []
    found = set()
    for line in PAGE.partition("```\ncelery_obs/")[2].partition("```")[0].splitlines()[1:]:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth - 1 :] = [name.rstrip("/")]
        found.add("/".join(above))
    return found


def test_the_map_has_every_folder() -> None:
    """
    One line a folder, no folder without one, and none that is gone.
    """
    package = ROOT / "celery_obs"
    there = {path.parent.relative_to(package).as_posix() for path in package.rglob("*.py")} - {"."}

    assert there == folders_of_the_map()


def test_unit_tests_have_the_folders_of_the_package() -> None:
    """
    What is tested is found by its place; the pictures lie beside the package.
    """
    tests = ROOT / "tests" / "unit"
    there = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("*.py")} - {".", "pictures"}

    assert there <= folders_of_the_map()


def test_the_page_names_places_for_more_than_ten_changes() -> None:
    """
    Each row says where, and what belongs to it.
    """
    rows = re.findall(r"^\| (?!I want|-)(.+) \| (.+) \| (.+) \|$", PAGE.partition("## Where do I change X?")[2], re.MULTILINE)

    assert len(rows) > 10
    assert all("`" in where for _, where, _ in rows)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_that_the_page_names_is_there(path: str) -> None:
    """
    A file that moves takes the page along.
    """
    assert list(ROOT.glob(path.removeprefix("./")))
