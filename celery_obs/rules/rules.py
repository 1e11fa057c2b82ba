"""
What Prometheus evaluates, as values: recording rules, alerts, and the files that they stand in.
"""

from __future__ import annotations

import json
import re

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from celery_obs.exceptions import ConfigurationError

from .links import Dashboard, Links
from .promql import indented
from .render import marked
from .thresholds import Threshold, in_words, is_duration
from .yaml_text import Tree, to_yaml


__all__ = ["SEVERITIES", "Alert", "Group", "Override", "RecordingRule", "Severity", "rule_file"]


Severity: TypeAlias = Literal["critical", "warning", "info", "none"]
"""
*critical* pages; *warning* waits for the morning; *info* is for those who look; *none* is for machines.
"""

SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info", "none")

_PLACES: Final = ("threshold", "min_events", "for")
"""
What stands in an alert's texts for its numbers, after a dollar.
"""

_NAME = re.compile(r"[A-Z][A-Za-z0-9]+")
_RECORD = re.compile(r"[a-z_]+(:[a-z0-9_]+)+|[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRule:
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


class Override(NamedTuple):
    """
    Where an alert has other numbers, or does not fire at all.

    Attributes:
        where: Labels, each with the values that are meant.

        threshold, min_events: Its numbers there; None for those that it has everywhere.

        enabled: Whether it fires there.
    """

    where: Mapping[str, tuple[str, ...]]
    threshold: Threshold | None = None
    min_events: int | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """
    An alert.

    Its numbers stand in the expression and in the texts as ``$threshold``, ``$min_events`` and ``$for``, so that what is evaluated and
    what people read cannot differ, and a team can have its own.

    Attributes:
        name: In one word; the runbook has it too.

        severity: Who has to hear of it.

        expr: PromQL with places for the numbers; its result is what the description shows.

        threshold: What the value is held against; None where it is so or not.

        min_events: How much has to have happened before a ratio means anything.

        for_: How long it has to be true before it fires.

        by: The labels of its result, those that the texts may name.

        summary: One line, the same whatever the value, but for labels.

        description: What is known, with the value.

        dashboard: The dashboard on which one sees it.

        keep_firing_for: How long it goes on after the expression ceased to be true.

        labels: More labels, for routes.

        overrides: Where it has other numbers; the first that fits counts.
    """

    name: str
    severity: Severity
    expr: str
    threshold: Threshold | None = None
    min_events: int | None = None
    for_: str = "0m"
    by: tuple[str, ...] = ()
    summary: str
    description: str
    dashboard: Dashboard
    keep_firing_for: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        """
        Refuse what would show up as an empty text at night.
        """
        if _NAME.fullmatch(self.name) is None:
            self._refuse("has an invalid name. Expected letters and digits, beginning with a capital.")
        if self.severity not in SEVERITIES:
            self._refuse(f"has the severity {self.severity!r}. Expected one of {', '.join(SEVERITIES)}.")
        if not is_duration(self.for_):
            self._refuse(f"fires after {self.for_!r}. Expected a duration such as 5m.")
        for text in (self.summary, self.description):
            for label in re.findall(r"\$labels\.(\w+)", text):
                if label not in self.by and label not in self.labels:
                    self._refuse(f"names the label {label}, which its result does not have: {', '.join(self.by) or 'it has none'}.")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for place, value in (("threshold", self.threshold), ("min_events", self.min_events)):
            if (f"${place}" in self.expr) != (value is not None):
                self._refuse(
                    f"has {'no' if value is None else 'a'} {place}, and its expression {'reads' if value is None else 'does not read'} it."
                )
            if value is None and f"${place}" in self.summary + self.description:
                self._refuse(f"names its {place}, and has none.")
        for each in self.overrides:
            for label in each.where:
                if label not in self.by:
                    self._refuse(f"has an override for a {label}, which its result does not have: {', '.join(self.by) or 'it has none'}.")

    def _refuse(self, problem: str) -> None:
        message = f"The alert {self.name} {problem}"
        raise ConfigurationError(message)

    @property
    def promql(self) -> str:
        """
        The expression, with its numbers.
        """
        everywhere = self._expr(self.threshold, self.min_events)
        if not self.overrides:
            return everywhere
        sets = [_these(each.where) for each in self.overrides]
        cases = ["\nunless ".join((f"(\n  {indented(everywhere)}\n)", *sets))]
        for number, each in enumerate(self.overrides):
            if each.enabled:
                there = self._expr(each.threshold or self.threshold, self.min_events if each.min_events is None else each.min_events)
                cases.append("\nunless ".join((f"(\n  {indented(there)}\n)\nand {sets[number]}", *sets[:number])))
        return "\nor\n".join(cases)

    def _expr(self, threshold: Threshold | None, min_events: int | None) -> str:
        numbers = {"threshold": threshold.promql if threshold else "", "min_events": str(min_events)}
        return _filled(self.expr, numbers.__getitem__)

    def annotations(self, links: Links) -> dict[str, str]:
        """
        Return what people read, and where they go from there.
        """
        return {
            "summary": self.filled_in(self.summary),
            "description": self.filled_in(self.description),
            "runbook_url": links.runbook(self.name),
            "dashboard_url": links.dashboard(self.dashboard, self.by),
        }

    def filled_in(self, text: str) -> str:
        """
        Put the numbers into a text; where some labels have others, the template chooses.
        """
        return _filled(text, self._spoken)

    def _spoken(self, place: str) -> str:
        if place == "for":
            return in_words(self.for_)
        if place == "threshold":
            everywhere = self.threshold.spoken if self.threshold else ""
            others = [each.threshold.spoken if each.threshold else everywhere for each in self.overrides]
        else:
            everywhere = str(self.min_events)
            others = [everywhere if each.min_events is None else str(each.min_events) for each in self.overrides]
        if all(other == everywhere for other in others):
            return everywhere
        cases = "{{ else ".join(f"if {_fits(each.where)} }}}}{other}" for each, other in zip(self.overrides, others, strict=True))
        return f"{{{{ {cases}{{{{ else }}}}{everywhere}{{{{ end }}}}"

    def tree(self, links: Links) -> Mapping[str, Tree]:
        """
        Return it as it stands in the file.
        """
        tree: dict[str, Tree] = {"alert": self.name, "expr": self.promql}
        if self.for_ != "0m":
            tree["for"] = self.for_
        if self.keep_firing_for:
            tree["keep_firing_for"] = self.keep_firing_for
        tree["labels"] = {"severity": self.severity, **self.labels}
        tree["annotations"] = self.annotations(links)
        return tree


def _filled(text: str, number: Callable[[str], str]) -> str:
    return re.sub(rf"\$({'|'.join(_PLACES)})\b", lambda found: number(found[1]), text)


def _these(where: Mapping[str, tuple[str, ...]]) -> str:
    """
    Write the set of series that have these labels, and what to match it by.
    """
    sets = ["vector(1)"]
    for label, values in where.items():
        # A dollar in a replacement would be read as a group.
        sets = [
            f'label_replace({inner}, "{label}", {json.dumps(value.replace("$", "$$"), ensure_ascii=False)}, "", "")'
            for inner in sets
            for value in values
        ]
    return f"on ({', '.join(where)}) ({' or '.join(sets)})"


def _fits(where: Mapping[str, tuple[str, ...]]) -> str:
    tests = [
        f"(eq $labels.{label} {' '.join(json.dumps(value, ensure_ascii=False) for value in values)})" for label, values in where.items()
    ]
    return f"and {' '.join(tests)}"


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
    rules: tuple[RecordingRule | Alert, ...]
    interval: str = "30s"

    def __post_init__(self) -> None:
        """
        Refuse what leaves gaps in the series, and alerts that cannot be told apart.
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
