"""
Docstrings as Markdown: their paragraphs, and sections such as *Args* as lists.
"""

from __future__ import annotations

import re
import textwrap

from collections.abc import Iterator
from inspect import cleandoc
from typing import Final


__all__ = ["attributes_of", "markdown", "sentences"]


_SECTION: Final = re.compile(r"(Args|Attributes|Returns|Raises|Yields):")
_ENTRY: Final = re.compile(r"((?:\*{0,2}\w+(?:, )?)+):(?: |$)")


def markdown(text: str) -> Iterator[str]:
    """
    Go through the lines of the docstring *text*, as Markdown: one sentence a line, an empty line after each paragraph.
    """
    for heading, block in _blocks(text):
        if heading == "code":
            yield from ("```python", *block.splitlines(), "```")
        elif heading:
            yield from (f"{heading}:", "")
            for name, words in _entries(block):
                names = ", ".join(f"`{each}`" for each in name.split(", ")) + ": " if name else ""
                yield f"- {names}{sentences(words).replace(chr(10), chr(10) + '  ')}"
        else:
            yield sentences(block)
        yield ""


def attributes_of(text: str) -> tuple[str, dict[str, str]]:
    """
    Return what the docstring *text* says before its sections, and what its section *Attributes* says of each name.
    """
    said = [sentences(block) for heading, block in _blocks(text) if not heading]
    found: dict[str, str] = {}
    for heading, block in _blocks(text):
        if heading == "Attributes":
            found.update({name: sentences(words).replace("\n", " ") for names, words in _entries(block) for name in names.split(", ")})
    return "\n\n".join(said), found


def sentences(text: str) -> str:
    """
    Return *text* in Markdown, one sentence a line.
    """
    in_one_line = re.sub(r"(?<=[.?!])\n", "  ", text).replace("\n", " ")
    plain = re.sub(r":\w+:`([^`]+)`", r"`\1`", in_one_line).replace("``", "`")
    return re.sub(r"(?<=[.?!])\s{2,}(?=\S)", "\n", plain).strip()


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """
    Go through the paragraphs, each with the heading of its section: none, ``code``, or a word such as ``Raises``.
    """
    heading, lines = "", list[str]()
    for line in [*cleandoc(text).split("\n"), "."]:
        if heading and (line.startswith(" ") or not line):
            lines.append(line)
            continue
        section = _SECTION.fullmatch(line)
        if section or heading or not line or line == "::":
            yield from _block(heading, lines)
            heading, lines = (section[1] if section else "code" if line == "::" else ""), []
            if section or not line or line == "::":
                continue
        if line.endswith("::"):
            yield from _block(heading, [*lines, line[:-1]])
            heading, lines = "code", []
            continue
        lines.append(line)
    yield from _block(heading, lines[:-1])


def _block(heading: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    block = textwrap.dedent("\n".join(lines)).strip("\n")
    if block:
        yield heading, block


def _entries(block: str) -> Iterator[tuple[str, str]]:
    """
    Go through the entries of a section: the names, and the words; without names where it is one text.
    """
    name, lines = "", list[str]()
    for line in block.split("\n"):
        entry = None if line.startswith(" ") else _ENTRY.match(line)
        if entry is not None:
            if lines:
                yield name, "\n".join(lines)
            name, lines = entry[1], []
            line = line[entry.end() :]  # noqa: PLW2901 -- what is left of it.
        if line.strip():
            lines.append(line.strip())
    if lines:
        yield name, "\n".join(lines)
