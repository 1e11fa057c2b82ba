"""
All rules together: what only shows when they are side by side is refused here, with the file and the line to go to.
"""

from __future__ import annotations

import functools

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from celery_obs.exceptions import ConfigurationError

from . import alerts, aliases, recording, slo
from .objectives import DEFAULT, read
from .rules import Alert, Group, Record


__all__ = ["RUNBOOKS", "defined", "everything", "refuse_missing_runbooks", "refuse_the_same_twice"]


RUNBOOKS: Final = Path("docs") / "runbooks"
"""
Where the runbooks are, in this project.
"""

_HERE: Final = Path(__file__).parent


def everything(objectives: Path = DEFAULT) -> tuple[Group, ...]:
    """
    Return the groups of all files.

    Args:
        objectives: The file of objectives.
    """
    return (*recording.GROUPS, *alerts.groups(), *slo.groups(read(objectives)), *aliases.groups())


def refuse_the_same_twice(groups: Iterable[Group], where: Callable[[str], list[str]] | None = None) -> None:
    """
    Refuse two groups, two alerts or two recorded series that nobody could tell apart.

    Args:
        where: Says where a name is defined; in this package, if nothing else is said.

    Raises:
        ConfigurationError: naming both places.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        found[f"groups are called {group.name}"].append(group.name)
        for rule in group.rules:
            found[_what(rule)].append(rule.name)
    for what, names in found.items():
        if len(names) > 1:
            places = (where or defined)(names[0])
            message = f"Two {what}{': ' if places else ''}{'; '.join(places)}. Prometheus would keep one of them and say so in its log only: give one of them another name."
            raise ConfigurationError(message)


def refuse_missing_runbooks(names: Iterable[str], folder: Path) -> None:
    """
    Refuse alerts that lead to no page.

    Args:
        folder: Where the runbooks are; where it is not there, somebody keeps them elsewhere.

    Raises:
        ConfigurationError: naming the alert, its place and the file that is missing.
    """
    if not folder.is_dir():
        return
    for name in names:
        page = folder / f"{name}.md"
        if not page.is_file():
            places = f" ({'; '.join(found)})" if (found := defined(name)) else ""
            message = f"The alert {name}{places} has no runbook: {page} is missing. Write one with the sections of the others, titled by what one sees."
            raise ConfigurationError(message)


def defined(name: str) -> list[str]:
    """
    Return the files and lines of this package that give something the *name*.
    """
    return [
        f"{path}, line {number}"
        for path, lines in _sources().items()
        for number, line in enumerate(lines, start=1)
        if f'name="{name}"' in line
    ]


@functools.cache
def _sources() -> Mapping[str, list[str]]:
    root = _HERE.parent.parent
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8").splitlines() for path in sorted(_HERE.rglob("*.py"))}


def _what(rule: Alert | Record) -> str:
    labels = ", ".join(f"{label}={value}" for label, value in sorted(rule.labels.items()))
    with_labels = f" with {labels}" if labels else ""
    kind = "alerts are called" if isinstance(rule, Alert) else "recorded series are called"
    return f"{kind} {rule.name}{with_labels}"
