"""
Words: what people read is in terms that an operator knows, names who is meant, and cites nothing that its reader does not have.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final


ROOT: Final = Path(__file__).parents[2]

ROOMS: Final = ("celery_obs", "deploy", "docs", "benchmarks", "pictures", "tests")
SHIPPED: Final = ("celery_obs", "deploy", "docs")

KINDS: Final = frozenset({".md", ".py", ".service", ".sh", ".timer", ".tmpl", ".txt", ".yaml", ".yml", ""})
"""
Dashboards are not among them: they are generated from the package.
"""

BANNED: Final = {
    # In two parts, so that this file does not have them either.
    **{f"{which}body": "the operator, the caller, no worker, any client" for which in ("some", "any", "no")},
    "who" + "ever": "the process that, the user who",
    "lets us not in": "rejected our credentials",
    "is none that celery_obs knows": "unknown setting, unknown environment variable",
    "wrong is this": "reason",
    "told no connections": "returned no connections",
    "workers their life": "crashed its worker",
    "what lay under": "deleted malformed data",
    "no list of times": "malformed rate-limit data",
    "is no time. expected": "invalid duration",
    "in a place of yours": "the built-in token store",
    "little of what it is asked": "cache hit ratio is low",
    "busy with all it has": "saturated",
    "blind in part": "a collector is failing",
    "does not come to an end": "hung",
    "workers throw messages": "workers are rejecting messages",
    "work lie around": "wait",
    "besides those that we know": "additional, to redact",
    "which part of the lines": "sampling rate",
    "forget what rate limits": "reset",
    "tell how the cluster is": "show cluster health",
    "overrule": "override",
}
"""
What not to write, with what to write.
"""

CITATIONS: Final = (*(f"{word} 00{number}" for word in ("seed", "seeds") for number in range(5)), "\N{SECTION SIGN}", "pitfall", "pitfalls")
"""
Papers, and sections of them: say the reason instead.
"""


def texts(rooms: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """
    Go through the texts of *rooms* in lower case, without this file, which has all that is banned.
    """
    for room in rooms:
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in KINDS and path.is_file() and path != Path(__file__) and "__pycache__" not in path.parts:
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8", errors="replace").lower()


def lines_with(words: Iterable[str], rooms: tuple[str, ...]) -> dict[str, list[str]]:
    """
    Name the lines in which one of *words* is found, each with those words.
    """
    patterns = {word: re.compile(rf"(?<!\w){re.escape(word)}" + (r"(?!\w)" if word[-1].isalnum() else "")) for word in words}
    found = {}
    for path, text in texts(rooms):
        if not any(word in text for word in patterns):  # Much quicker than to look at each line.
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if there := [word for word, pattern in patterns.items() if pattern.search(line)]:
                found[f"{path}:{number}"] = there
    return found


def test_no_text_has_a_banned_word() -> None:
    """
    Each has a better one, which the table of this test gives.
    """
    found = lines_with(BANNED, ROOMS)

    assert {} == {line: [f"{word}: rather {BANNED[word]}" for word in words] for line, words in found.items()}


def test_no_shipped_file_cites_a_paper() -> None:
    """
    A reader has none of the papers that the project began with.
    """
    assert {} == lines_with(CITATIONS, SHIPPED)
