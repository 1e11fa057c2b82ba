"""
All rules together: what only shows when they are side by side is refused here, with the file and the line to go to.
"""

from __future__ import annotations

import functools

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.exceptions import ConfigurationError

from . import alerts, recording, slo
from .dashboards.model import Dashboard
from .dashboards.third_party import MET_OUTSIDE
from .links import Links
from .names import Known, known_series, unknown
from .objectives import DEFAULT, Objective, read
from .packs import aliases
from .rules import Alert, Group, Record
from .shipped import alerts_in, is_about_channels


__all__ = ["RUNBOOKS", "defined", "everything", "known_to", "refuse_missing_runbooks", "refuse_the_same_twice", "refuse_unknown_names"]


RUNBOOKS: Final = Path("docs") / "runbooks"
"""
Where the runbooks are, in this project.
"""

_PACKAGE: Final = Path(__file__).parents[1]


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


def known_to(groups: Iterable[Group], objectives: Iterable[Objective]) -> Known:
    """
    Return all that a query may ask for: the catalogue, metrics of others, those of the objectives, and what *groups* record.

    What aliases record is not among it: they are off until somebody loads them.  What our own objectives record is, for the page about
    objectives and the runbooks ask for it whichever a team has.
    """
    off = {group.name for group in aliases.groups()}
    of_objectives = [each.events.metric for each in objectives] + [each.events.bad_metric for each in objectives if each.events.bad_metric]
    records = [
        rule for group in (*groups, *slo.groups(read())) if group.name not in off for rule in group.rules if isinstance(rule, Record)
    ]
    return known_series((*CATALOGUE.values(), *MET_OUTSIDE.values(), *of_objectives), records)


def refuse_unknown_names(groups: Iterable[Group], known: Known, *, pages: Iterable[Dashboard] = (), runbooks: Path | None = None) -> None:
    """
    Refuse whatever asks for a metric or a label that nobody makes.

    Args:
        known: What may be asked for.

        pages: Dashboards, whose panels ask.

        runbooks: The folder of the runbooks, whose queries people paste.

    Raises:
        ConfigurationError: naming what asks, its place, and what is nearest.
    """
    for asks, place, query in (*_of_rules(groups), *_of_pages(pages), *_of_runbooks(runbooks)):
        for problem in unknown(query, known):
            places = "; ".join(place())
            message = f"{asks}{f' ({places})' if places else ''} {problem}"
            raise ConfigurationError(message)


_Asking: TypeAlias = tuple[str, Callable[[], list[str]], str]


def _of_rules(groups: Iterable[Group]) -> Iterator[_Asking]:
    for group in groups:
        for rule in group.rules:
            kind = "alert" if isinstance(rule, Alert) else "recording rule"
            yield f"The {kind} {rule.name}", functools.partial(defined, rule.name), rule.expr


def _of_pages(pages: Iterable[Dashboard]) -> Iterator[_Asking]:
    for page in pages:
        for panel in page.panels():
            for query in panel.queries:
                yield f"The panel {panel.title!r} of {page.uid}", functools.partial(defined, panel.title, "title"), query.expr


def _of_runbooks(folder: Path | None) -> Iterator[_Asking]:
    for path in sorted(folder.glob("*.md")) if folder is not None else ():
        language = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.startswith("```"):
                language = "" if language else line[3:]
            elif language == "promql":
                yield f"{path}, line {number},", list, line


def refuse_missing_runbooks(names: Iterable[str], folder: Path) -> None:
    """
    Refuse alerts that lead to no page.

    Args:
        folder:
            Where the runbooks are; where it is not there, somebody keeps them elsewhere.
            Where it has pages and none about channels, `celery-obs deploy` wrote it without, and none of those is asked for.

    Raises:
        ConfigurationError: naming the alert, its place and the file that is missing.
    """
    if not folder.is_dir():
        return
    pages = {path.stem for path in folder.glob("*.md")}
    of_channels = _alerts_about_channels()
    without_channels = bool(pages) and not pages & of_channels
    for name in names:
        if without_channels and name in of_channels:
            continue
        page = folder / f"{name}.md"
        if not page.is_file():
            places = f" ({'; '.join(found)})" if (found := defined(name)) else ""
            message = f"The alert {name}{places} has no runbook: {page} is missing. Write one with the sections of the others, titled by what one sees."
            raise ConfigurationError(message)


def _alerts_about_channels() -> set[str]:
    return {name for output in alerts.build(Links()) if is_about_channels(output.path) for name in alerts_in(output.text)}


def defined(name: str, key: str = "name") -> list[str]:
    """
    Return the files and lines of this package that give something the *name*, or whatever the *key* is.
    """
    return [
        f"{path}, line {number}"
        for path, lines in _sources().items()
        for number, line in enumerate(lines, start=1)
        if f'{key}="{name}"' in line
    ]


@functools.cache
def _sources() -> Mapping[str, list[str]]:
    return {
        path.relative_to(_PACKAGE.parent).as_posix(): path.read_text(encoding="utf-8").splitlines()
        for room in ("areas", "rules")
        for path in sorted((_PACKAGE / room).rglob("*.py"))
    }


def _what(rule: Alert | Record) -> str:
    labels = ", ".join(f"{label}={value}" for label, value in sorted(rule.labels.items()))
    with_labels = f" with {labels}" if labels else ""
    kind = "alerts are called" if isinstance(rule, Alert) else "recorded series are called"
    return f"{kind} {rule.name}{with_labels}"
