"""
The pages of the documentation, as their readers follow them: the files that they write, and the commands that they type.
"""

from __future__ import annotations

import re
import shlex
import textwrap

from collections.abc import Callable
from pathlib import Path


__all__ = ["DOCS", "commands_of", "files_of", "lines_of", "python_of", "write_files"]


DOCS = Path(__file__).parents[1] / "docs"


def files_of(page: str) -> dict[str, str]:
    """
    Return the files that *page* has its reader write, by the names in the first line of each; parts of one file follow one another.
    """
    found: dict[str, str] = {}
    for block in _blocks(page, "python"):
        name = re.match(r"# (\S+\.py)\n", block)
        if name is not None:
            found[name[1]] = found.get(name[1], "") + block
    return found


def commands_of(page: str) -> list[list[str]]:
    """
    Return the commands that *page* has its reader type, in words.
    """
    return [shlex.split(line) for line in lines_of(page)]


def lines_of(page: str) -> list[str]:
    """
    Return the same as they stand there, for a shell.
    """
    return [line for block in _blocks(page, "sh") for line in block.splitlines() if line.strip()]


def python_of(page: str) -> list[str]:
    """
    Return the pieces of Python in *page*.
    """
    return _blocks(page, "python")


def write_files(page: Path, folder: Path, *, here: Callable[[str], str] = str, keep: tuple[str, ...] = ()) -> None:
    """
    Write the files of *page* into *folder*, each changed by *here*; those named in *keep* are added to what is there.
    """
    for name, text in files_of(page.read_text(encoding="utf-8")).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if name in keep else ""
        path.write_text(before + here(text), encoding="utf-8")


def _blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]
