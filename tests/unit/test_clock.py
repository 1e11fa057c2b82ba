"""
Jitter: what spreads pauses leaves the program's own random numbers alone.
"""

from __future__ import annotations

import ast
import random

from pathlib import Path

import celery_obs

from celery_obs.areas.channels.retries import PRESETS
from celery_obs.clock import between


PACKAGE = Path(celery_obs.__file__).parent
OF_AN_OWN_GENERATOR = {"Random", "SystemRandom"}


def drawn_in(source: str) -> set[str]:
    """
    Return what a module takes of ``random``.
    """
    nodes = list(ast.walk(ast.parse(source))) if "random" in source else []
    taken = {
        each.attr for each in nodes if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "random"
    }
    return taken | {alias.name for each in nodes if isinstance(each, ast.ImportFrom) and each.module == "random" for alias in each.names}


def test_it_is_in_the_range_and_not_always_the_same() -> None:
    """
    Both ends are met in the middle, too.
    """
    found = {between(2.0, 3.0) for _ in range(100)}

    assert len(found) > 1
    assert all(2.0 <= number <= 3.0 for number in found)


def test_the_programs_random_numbers_go_on_as_they_were_seeded() -> None:
    """
    A program that has seeded them gets the same ones with us.
    """
    before = random.getstate()

    between(0.0, 1.0)
    PRESETS["critical"].delay(1)

    assert before == random.getstate()


def test_no_module_draws_from_the_programs_random_numbers() -> None:
    """
    What is drawn comes from a generator of our own; the demo is a program itself.
    """
    modules = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "demo"]

    drawing = {path.name: found for path in modules if (found := drawn_in(path.read_text(encoding="utf-8")) - OF_AN_OWN_GENERATOR)}

    assert len(modules) > 100
    assert {} == drawing
