"""
What Prometheus evaluates, as values: recording rules, alerts, and the files that they stand in.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from celery_obs.exceptions import ConfigurationError

from .links import DASHBOARDS, Dashboard, Links
from .render import marked
from .yaml_text import Tree, to_yaml


__all__ = ["SEVERITIES", "Alert", "Group", "Record", "Severity", "rule_file"]


Severity: TypeAlias = Literal["critical", "warning", "info", "none"]
"""
*critical* wakes somebody; *warning* waits for the morning; *info* is for those who look; *none* is for machines.
"""

SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info", "none")

_NAME = re.compile(r"[A-Z][A-Za-z0-9]+")
_RECORD = re.compile(r"[a-z_]+(:[a-z0-9_]+)+|[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    A recording rule.

    Attributes:
        name: Level, what it is, and what was done to it: ``channel_type:channel_sync:rate5m``.

        help: The question that it answers.

        expr: PromQL.

        by: The labels that its series have.

        labels: Labels that it adds.
    """

    name: str
    help: str
    expr: str
    by: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """
        Refuse a name that says nothing of its level.
        """
        if _RECORD.fullmatch(self.name) is None:
            message = f"A recording rule is called {self.name!r}. Expected level:what:operation in lower case, or the name of a metric."
            raise ConfigurationError(message)

    def tree(self, links: Links) -> Mapping[str, Tree]:
        """
        Return it as it stands in the file.
        """
        return {"record": self.name, "expr": self.expr} | ({"labels": dict(self.labels)} if self.labels else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """
    An alert.

    Attributes:
        name: In one word; the runbook has it too.

        severity: Who has to hear of it.

        expr: PromQL; its result is what the description shows.

        lasts: How long it has to be true before anybody hears of it.

        by: The labels of its result, those that the texts may name.

        summary: One line, the same whatever the value, but for labels.

        description: What is known, with the value.

        shows: The dashboard on which one sees it.

        seeds: Where it was asked for: the section of a seed and, where it has another name there, that.

        keeps_firing: How long it goes on after the expression ceased to be true.

        labels: More labels, for routes.
    """

    name: str
    severity: Severity
    expr: str
    lasts: str = "0m"
    by: tuple[str, ...] = ()
    summary: str
    description: str
    shows: Dashboard
    seeds: tuple[str, ...] = ()
    keeps_firing: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """
        Refuse what would show up as an empty text at night.
        """
        if _NAME.fullmatch(self.name) is None:
            self._refuse("has a name that is no word. Expected letters and digits, beginning with a capital.")
        if self.shows not in DASHBOARDS:
            self._refuse(f"shows the dashboard {self.shows!r}. Expected one of {', '.join(DASHBOARDS)}.")
        for text in (self.summary, self.description):
            for label in re.findall(r"\$labels\.(\w+)", text):
                if label not in self.by and label not in self.labels:
                    self._refuse(f"names the label {label}, which its result does not have: {', '.join(self.by) or 'it has none'}.")

    def _refuse(self, problem: str) -> None:
        message = f"The alert {self.name} {problem}"
        raise ConfigurationError(message)

    def annotations(self, links: Links) -> dict[str, str]:
        """
        Return what people read, and where they go from there.
        """
        return {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": links.runbook(self.name),
            "dashboard_url": links.dashboard(self.shows, self.by),
        }

    def tree(self, links: Links) -> Mapping[str, Tree]:
        """
        Return it as it stands in the file.
        """
        tree: dict[str, Tree] = {"alert": self.name, "expr": self.expr}
        if self.lasts != "0m":
            tree["for"] = self.lasts
        if self.keeps_firing:
            tree["keep_firing_for"] = self.keeps_firing
        tree["labels"] = {"severity": self.severity, **self.labels}
        tree["annotations"] = self.annotations(links)
        return tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """
    Rules that are evaluated one after the other, at one time.

    Attributes:
        name: Unique among all files.

        interval: At most two minutes: Prometheus forgets a series that is older than five.

        comment: What they are about, and where they come from.
    """

    name: str
    comment: str
    rules: tuple[Record | Alert, ...]
    interval: str = "30s"

    def __post_init__(self) -> None:
        """
        Refuse what leaves gaps in the series, and alerts that nobody can tell apart.
        """
        if self.interval not in {"15s", "30s", "1m", "2m"}:
            message = f"The group {self.name} is evaluated every {self.interval}. Expected 15s, 30s, 1m or 2m: Prometheus forgets what is older than 5m."
            raise ConfigurationError(message)

    def tree(self, links: Links) -> Mapping[str, Tree]:
        """
        Return it as it stands in the file.
        """
        return {"name": self.name, "interval": self.interval, "rules": [rule.tree(links) for rule in self.rules]}


def rule_file(source: str, groups: Iterable[Group], links: Links) -> str:
    """
    Write a file of rules.

    Args:
        source: What to change instead.
    """
    known = list(groups)
    comments = "".join(f"# {group.name}: {group.comment}\n" for group in known)
    tree: dict[str, Any] = {"groups": [group.tree(links) for group in known]}
    return marked(source, comments + to_yaml(tree))
