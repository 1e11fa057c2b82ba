"""
No private name of another library stands outside `celery_obs.compat`.
"""

from __future__ import annotations

import ast
import re

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from celery_obs.rules.compat_page import COMPAT, assumptions


PACKAGE: Final = COMPAT.parent

OURS: Final = {
    ("recorder/slots.py", "child"): "another slot of the same class",
    ("recorder/remainder.py", "made"): "made by a class method of the same class",
    ("exporter/web_config.py", "made"): "made by a class method of the same class",
    ("areas/channels/webhooks/api.py", "hook"): "a class of the same module",
    ("testing.py", "events"): "a class of the same module",
}
"""
Where a private name is one of ours: the file and what it is asked of, with the reason.
"""

NAMED_TUPLE: Final = frozenset({"_asdict", "_field_defaults", "_fields", "_make", "_replace"})
"""
What Python documents, in spite of the underscore.
"""

BY_NAME: Final = frozenset({"attrgetter", "delattr", "getattr", "hasattr", "methodcaller", "setattr"})
_PRIVATE: Final = re.compile(r"_[A-Za-z]\w*")


def private_names(text: str) -> Iterator[tuple[int, str, str]]:
    """
    Go through the private names in a program that are asked of anything but ``self`` and ``cls``: line, what is asked, and the name.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            if _PRIVATE.fullmatch(node.attr) and ast.unparse(node.value) not in {"self", "cls"}:
                yield from _found(node.lineno, ast.unparse(node.value), [node.attr])
        elif isinstance(node, ast.Call) and _called(node.func) in BY_NAME:
            yield from _found(node.lineno, ast.unparse(node.args[0]), [name for each in node.args for name in _named(each)])
        elif isinstance(node, ast.ImportFrom) and not node.level and not (node.module or "").startswith("celery_obs"):
            yield from _found(node.lineno, node.module or "", [*(node.module or "").split("."), *(each.name for each in node.names)])
        elif isinstance(node, ast.Import):
            yield from _found(node.lineno, "import", [part for each in node.names for part in each.name.split(".")])


def _called(function: ast.expr) -> str:
    """
    Return the name of what is called, without what it is asked of.
    """
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def _named(argument: ast.expr) -> list[str]:
    """
    Return the beginning of a text, also of one that is put together.
    """
    first = argument.values[0] if isinstance(argument, ast.JoinedStr) and argument.values else argument
    return first.value.split(".") if isinstance(first, ast.Constant) and isinstance(first.value, str) else []


def _found(line: int, of: str, names: list[str]) -> Iterator[tuple[int, str, str]]:
    for name in names:
        if _PRIVATE.fullmatch(name) and name not in NAMED_TUPLE:
            yield line, of, name


def test_no_private_name_of_another_library_stands_outside_compat() -> None:
    """
    Each that is found is in the list of our own, and each line of that list is used.
    """
    used, strangers = set(), []
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        if path.parent == COMPAT or file.startswith("_shipped"):
            continue
        for line, of, name in private_names(path.read_text(encoding="utf-8")):
            if (file, of) in OURS:
                used.add((file, of))
            else:
                strangers.append(f"{file}:{line}: {name} of {of}. Put it behind a function of celery_obs/compat.")
    assert strangers == []
    assert used == set(OURS)


@pytest.mark.parametrize(
    "text",
    [
        "app._tasks",
        "self.app._tasks",
        "getattr(pool, '_pool', None)",
        "setattr(self, '_orig_run', None)",
        "getattr(schedule, f'_orig_{name}')",
        "operator.attrgetter('pool._pool')",
        "from celery import _state",
        "from celery._state import get_current_app",
        "import celery._state",
        "transport._send_envelope = None",
    ],
)
def test_every_way_to_a_private_name_is_found(text: str) -> None:
    """
    By a dot, by its name as text, and by import.
    """
    assert len(list(private_names(text))) == 1


@pytest.mark.parametrize(
    "text", ["self._mine", "cls._mine", "row._replace(a=1)", "app.__dict__", "getattr(app, 'tasks')", "from celery_obs.a import _b"]
)
def test_what_is_ours_or_public_is_left_alone(text: str) -> None:
    """
    A class's own names, what Python documents, and what has no underscore.
    """
    assert list(private_names(text)) == []


@pytest.mark.parametrize("path", [each for each in sorted(COMPAT.glob("*.py")) if each.name != "__init__.py"], ids=lambda path: path.stem)
def test_each_assumption_says_what_is_lost_and_has_a_test(path: Path) -> None:
    """
    Each public function and constant ends with the three lines that the page is made of, and is named in the tests of its library.
    """
    tests = Path(__file__).with_name(f"test_{path.stem}.py").read_text(encoding="utf-8")
    found = list(assumptions(path))
    assert found
    assert [each.name for each in found if f"compat.{each.name}" not in tests] == []
    assert [each.seen_on for each in found if not re.search(r"\d+\.\d+ to \d+\.\d+", each.seen_on)] == []


def test_an_assumption_that_says_too_little_is_refused(tmp_path: Path) -> None:
    """
    The page cannot be made of a function that does not say what is lost.
    """
    (tmp_path / "some.py").write_text('def size(x):\n    """\n    Return it.\n\n    Assumes: a.\n    """\n')
    with pytest.raises(ValueError, match=r"some\.py: size does not end"):
        list(assumptions(tmp_path / "some.py"))
