"""
The page of what celery_obs assumes of other libraries, from the docstrings of `celery_obs.compat`, which are read and not imported.
"""

from __future__ import annotations

import ast
import re

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple


__all__ = ["Assumption", "assumptions", "page"]


COMPAT: Final = Path(__file__).parents[1] / "compat"

_HEAD: Final = """\
# Compatibility

What celery_obs uses of other libraries that they do not promise to keep, on which versions that was seen, and what is lost where it no longer holds.
What fails here is to cost the feature that the last column names, and never the worker.

The versions that pip may install have an upper bound for this reason; `tox -e newest-everything` runs the tests without it.
Each line has a test in `tests/unit/compat`, and the code is in `celery_obs/compat`.
"""

_PARTS: Final = re.compile(r"^Assumes: (?P<assumes>.+)\nSeen on: (?P<seen_on>.+)\nLost: (?P<lost>.+)\Z", re.MULTILINE)


class Assumption(NamedTuple):
    """
    One thing that is assumed of a library.

    Attributes:
        name: What the function or constant is called that has it.

        assumes: What is assumed.

        seen_on: On which versions.

        lost: What is lost where it fails.
    """

    name: str
    assumes: str
    seen_on: str
    lost: str


def assumptions(path: Path) -> Iterator[Assumption]:
    """
    Go through what the file at *path* assumes.

    Raises:
        ValueError: for a public function or constant whose docstring does not end with the three lines.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name, text in _documented(tree):
        found = _PARTS.search(text)
        if found is None:
            message = f"{path.name}: {name} does not end with the lines Assumes:, Seen on: and Lost:, one each."
            raise ValueError(message)
        yield Assumption(name, **found.groupdict())


def _documented(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """
    Go through the public functions, and the constants with a docstring under them, each with its text.
    """
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, ast.get_docstring(node) or ""
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_":
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield node.target.id, str(text).strip()


def page() -> str:
    """
    Write the page.
    """
    return _HEAD + "".join(_library(path) for path in sorted(COMPAT.glob("*.py")) if path.name != "__init__.py")


def _library(path: Path) -> str:
    title, _, about = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition(": ")
    rows = "".join(f"| `{each.name}` | {_cell(each.assumes)} | {each.seen_on} | {_cell(each.lost)} |\n" for each in assumptions(path))
    return f"\n## {title}\n\n{about[:1].upper()}{about[1:]}\n\n| name | assumed | seen on | lost where it fails |\n| --- | --- | --- | --- |\n{rows}"


def _cell(text: str) -> str:
    text = re.sub(r"``(.+?)``|`(.+?)`", lambda found: f"`{found[1] or found[2]}`", text).replace("|", "\\|")
    return text[:1].upper() + text[1:]
