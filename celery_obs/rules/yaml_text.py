"""
YAML, as little of it as rules need: written here, because the generator needs the standard library only and its files have to be the same everywhere.

Numbers and words stand as they are, other texts in double quotes, nearly as in JSON; texts of several lines as blocks.
"""

from __future__ import annotations

import json
import re

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, Union


__all__ = ["Tree", "to_yaml"]


Tree: TypeAlias = Union[str, int, float, bool, "Mapping[str, Tree]", "Sequence[Tree]"]
"""
What can be written: texts, numbers, booleans, and mappings and lists of them.
"""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_:.-]*[A-Za-z0-9_]|[A-Za-z_]")
_DURATION = re.compile(r"[0-9]+(ms|[smhdwy])")
_MEANS_SOMETHING_ELSE = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
_ODD = re.compile(r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def to_yaml(tree: Mapping[str, Tree]) -> str:
    """
    Write *tree* as a YAML document.
    """
    return "\n".join(_mapping(tree, "")) + "\n"


def _mapping(tree: Mapping[str, Tree], indent: str) -> Iterator[str]:
    for key, value in tree.items():
        yield from _entry(f"{indent}{_inline(key)}:", value, indent)


def _entry(head: str, value: Tree, indent: str) -> Iterator[str]:
    """
    Write what stands after *head*: on its line where it fits there, else indented below.
    """
    deeper = f"{indent}  "
    if isinstance(value, str) and _is_block(value):
        yield f"{head} |-"
        yield from (f"{deeper}{line}" if line else "" for line in value.split("\n"))
    elif isinstance(value, Mapping) and value:
        yield head
        yield from _mapping(value, deeper)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        yield head
        for item in value:
            yield from _item(item, deeper)
    else:
        yield f"{head} {_inline(value)}"


def _item(item: Tree, indent: str) -> Iterator[str]:
    """
    Write an item of a list; a mapping begins on the line of its dash.
    """
    if isinstance(item, Mapping) and item:
        lines = _mapping(item, f"{indent}  ")
        yield f"{indent}- {next(lines)[len(indent) + 2 :]}"
        yield from lines
    else:
        yield from _entry(f"{indent}-", item, indent)


def _is_block(text: str) -> bool:
    """
    Tell whether *text* reads as the lines of a block: it neither begins nor ends with white space, and holds nothing odd.
    """
    return "\n" in text and text == text.strip() and _ODD.search(text) is None


def _inline(value: Tree) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        return "[]" if isinstance(value, Sequence) else "{}"
    if _DURATION.fullmatch(value) or (_WORD.fullmatch(value) and value.lower() not in _MEANS_SOMETHING_ELSE):
        return value
    return _ODD.sub(lambda found: f"\\U{ord(found[0]):08x}", json.dumps(value, ensure_ascii=False))
