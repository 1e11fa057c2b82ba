"""
What programs may import: complete, documented, and listed on one page.
"""

from __future__ import annotations

import ast
import importlib
import shutil

from pathlib import Path

import pytest

import celery_obs

from celery_obs.rules import public_api
from celery_obs.rules.docstrings import markdown
from celery_obs.rules.links import Links
from celery_obs.rules.public_api import MODULES, find, names_of, parsed


PACKAGE = Path(celery_obs.__file__).parent
FACES = [shown for shown, module in MODULES.items() if shown == module and shown not in {"celery_obs", "celery_obs.testing_plugin"}]
"""
Modules that are nothing but public.
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


EVERY = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def defined_in(tree: ast.Module) -> set[str]:
    """
    Return the names without underscore that a module defines or imports from ours.
    """
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            found |= public_api._targets(node)
    return {name for name in found if not name.startswith("_")}


def imports_between_modules() -> set[tuple[str, str]]:
    """
    Return which names our modules import from which of ours.
    """
    found: set[tuple[str, str]] = set()
    for module in EVERY:
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.ImportFrom):
                source = public_api._absolute(module, node)
                found |= {(source, each.name) for each in node.names if source in EVERY and f"{source}.{each.name}" not in EVERY}
    return found


def test_all_names_what_other_modules_import() -> None:
    """
    A name that is used elsewhere is meant to be.
    """
    unnamed = {
        f"{module}: {name}" for module, name in imports_between_modules() if not name.startswith("_") and name not in names_of(module)
    }

    assert set() == unnamed


@pytest.mark.parametrize("module", FACES)
def test_a_public_module_has_no_name_that_its_all_lacks(module: str) -> None:
    """
    What autocompletion shows is what is promised.
    """
    assert set() == defined_in(parsed(module)) - set(names_of(module))


def test_every_name_in_an_all_exists_once() -> None:
    """
    ``from module import *`` works, for every module of ours.
    """
    for module in EVERY:
        names = names_of(module)
        assert len(names) == len(set(names)), module
        for name in names:
            find(module, name)


@pytest.mark.parametrize(("shown", "module"), MODULES.items())
def test_every_public_name_can_be_had_and_says_since_when(shown: str, module: str) -> None:
    """
    What is promised is there, has a docstring, and tells the version that brought it.
    """
    there = importlib.import_module(module)
    for name in names_of(module):
        assert hasattr(there, name), f"{shown}.{name}"
        found = find(module, name)
        assert found.text or name == "__version__", f"{shown}.{name} has no docstring."
        assert found.node is None or "Since 0." in found.text or name == "__version__", f"{shown}.{name} does not say since when."


@pytest.mark.parametrize(("shown", "module"), [item for item in MODULES.items() if item[0].startswith("celery_obs.")])
def test_the_page_knows_modules_by_the_names_that_programs_use(shown: str, module: str) -> None:
    """
    ``celery_obs.tokens`` is an attribute, ``celery_obs.testing`` a module; both lead where the page says.
    """
    attribute = shown.removeprefix("celery_obs.")
    there = getattr(celery_obs, attribute) if attribute in celery_obs.__all__ else importlib.import_module(shown)

    assert module == there.__name__


def test_the_page_has_each_public_name_with_its_errors() -> None:
    """
    One heading a name, the signature as it is called, and what it raises.
    """
    [page] = public_api.build(Links())

    for module in MODULES.values():
        for name in names_of(module):
            assert f"### `{name}`\n" in page.text or f"`{name}`" in page.text
    assert "setup(app: Any, **overrides: Any) -> None\n" in page.text
    assert "- `ConfigurationError`: if *overrides* hold an unknown setting" in page.text
    assert "Forks: children inherit it.\n" in page.text


def test_the_page_can_be_made_without_an_area_that_was_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What its folder defined is left out, and all else is there.
    """
    rest = shutil.copytree(PACKAGE, tmp_path / "celery_obs", ignore=shutil.ignore_patterns("__pycache__", "tokens"))
    monkeypatch.setattr(public_api, "_ROOT", rest)
    parsed.cache_clear()

    [page] = public_api.build(Links())
    parsed.cache_clear()

    assert "## `celery_obs.tokens`\n" not in page.text
    assert {"### `setup`", "### `SyncTask`", "## `celery_obs.rate_limiter`"} <= set(page.text.splitlines())


def test_a_docstring_becomes_markdown() -> None:
    """
    Sections are lists, examples are code, and each sentence has its line.
    """
    text = """
    Do it.  Twice
    in a row.

    ::

        do(it)

    Args:
        first, second: What; see :data:`THIS`.  Or
            that.

        third:
            The ``rest``.

    Raises:
        ValueError: if not.

    Since 0.1.
    """

    assert [
        "Do it.\nTwice in a row.",
        "",
        "```python",
        "do(it)",
        "```",
        "",
        "Args:",
        "",
        "- `first`, `second`: What; see `THIS`.\n  Or that.",
        "- `third`: The `rest`.",
        "",
        "Raises:",
        "",
        "- `ValueError`: if not.",
        "",
        "Since 0.1.",
        "",
    ] == list(markdown(text))
