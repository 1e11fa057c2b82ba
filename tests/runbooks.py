"""
What stands in the runbooks: queries to paste, and commands to type.
"""

from __future__ import annotations

import re

from collections.abc import Iterator
from pathlib import Path


__all__ = ["RUNBOOKS", "blocks", "commands", "queries", "text_of"]


RUNBOOKS = Path(__file__).parents[1] / "docs" / "runbooks"


def text_of(alert: str) -> str:
    """
    Read a runbook.
    """
    return (RUNBOOKS / f"{alert}.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> Iterator[str]:
    """
    Go through the blocks of code in one language.
    """
    yield from re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def queries(text: str) -> list[str]:
    """
    Return the queries of a runbook, which empty lines keep apart.
    """
    return [query.strip() for block in blocks(text, "promql") for query in block.split("\n\n")]


def commands(text: str) -> list[str]:
    """
    Return our commands in a runbook, in blocks and in sentences.
    """
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in [*lines, *re.findall(r"`([^`\n]+)`", text)] if line.startswith("celery-obs ")]
