"""
What a team has otherwise: thresholds, waiting times and severities of alerts, read from a file; the defaults stay where the alerts are.
"""

from __future__ import annotations

import dataclasses

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from celery_obs.exceptions import ConfigurationError

from .rules import SEVERITIES, Alert, Group, Override, Severity
from .thresholds import Threshold, is_duration
from .yaml_reader import Reader, compose, did_you_mean


__all__ = ["NOTHING", "Changes", "read_changes"]


_KEYS: Final = ("threshold", "min_events", "for", "severity", "enabled", "except")
_NUMBERS: Final = ("threshold", "min_events", "enabled")
_RENAMED: Final = {"least_events": "min_events"}
_SEVERITIES: Final[Mapping[str, Severity]] = {severity: severity for severity in SEVERITIES}


class Changes(NamedTuple):
    """
    Alerts that a team has otherwise.

    Attributes:
        changed: By name, what replaces the attributes of an `Alert`.

        off: Those that it does not have at all.

        source: The file that says so; empty for none.
    """

    changed: Mapping[str, Mapping[str, Any]]
    off: frozenset[str]
    source: str

    def of(self, alert: Alert) -> Alert | None:
        """
        Return *alert* as the team has it; None if it does not.
        """
        if alert.name in self.off:
            return None
        return dataclasses.replace(alert, **self.changed.get(alert.name, {}))

    def within(self, alerts: Iterable[Alert]) -> tuple[Alert, ...]:
        """
        Return those of *alerts* that the team has, as it has them.
        """
        return tuple(ours for alert in alerts if (ours := self.of(alert)) is not None)

    def in_group(self, group: Group) -> Group:
        """
        Return *group* with its alerts as the team has them.
        """
        rules = [self.of(rule) if isinstance(rule, Alert) else rule for rule in group.rules]
        return dataclasses.replace(group, rules=tuple(rule for rule in rules if rule is not None))

    def sources(self, source: str) -> str:
        """
        Add the file to the *source* of a generated one.
        """
        return f"{source} and {self.source}" if self.source else source


NOTHING: Final = Changes({}, frozenset(), "")
"""
As it comes.
"""


def read_changes(path: Path, alerts: Iterable[Alert]) -> Changes:
    """
    Read a file of changes to *alerts*.

    Raises:
        ConfigurationError: naming the file, the line, what is there and what is expected.

        MissingExtraError: if what reads YAML is not installed.
    """
    reader = Reader(path)
    known = {alert.name: alert for alert in alerts}
    top = reader.mapping(
        compose(path, what="changes of alerts", option="--alerts", expected="the key alerts"), ("alerts",), needed=("alerts",)
    )
    changed: dict[str, Mapping[str, Any]] = {}
    off = set()
    for key, node in reader.pairs(top["alerts"]):
        name = reader.text(key)
        if name not in known:
            hint = did_you_mean(name, known) or " They are listed in docs/reference/alerts.md."
            reader.refuse(key, f"There is no alert {name!r}.{hint}")
        # In YAML, "CeleryPoolSaturated: off" is all that needs to be said.
        if node.id == "scalar" or not _enabled(reader, fields := reader.mapping(node, _KEYS, renamed=_RENAMED)):
            if node.id == "scalar" and reader.switch(node):
                reader.refuse(node, f"The alert {name} is switched on already. Expected off, or {', '.join(_KEYS)} below it.")
            off.add(name)
            continue
        changed[name] = _change(reader, known[name], fields)
        reader.checked(key, lambda: dataclasses.replace(known[name], **changed[name]))  # noqa: B023 -- called at once.
    return Changes(changed, frozenset(off), path.name)


def _enabled(reader: Reader, fields: Mapping[str, Any]) -> bool:
    return "enabled" not in fields or reader.switch(fields["enabled"])


def _change(reader: Reader, alert: Alert, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    change: dict[str, Any] = {}
    if "threshold" in fields:
        change["threshold"] = _threshold(reader, alert, fields["threshold"])
    if "min_events" in fields:
        change["min_events"] = _min_events(reader, alert, fields["min_events"])
    if "for" in fields:
        change["for_"] = _duration(reader, fields["for"])
    if "severity" in fields:
        change["severity"] = _severity(reader, fields["severity"])
    if "except" in fields:
        change["overrides"] = tuple(_override(reader, alert, node) for node in reader.sequence(fields["except"]))
    return change


def _override(reader: Reader, alert: Alert, node: Any) -> Override:
    if not alert.by:
        reader.refuse(node, f"The alert {alert.name} cannot have overrides: its result has no labels.")
    fields = reader.mapping(node, (*alert.by, *_NUMBERS), renamed=_RENAMED)
    where = {label: _values(reader, fields[label]) for label in alert.by if label in fields}
    numbers = [key for key in _NUMBERS if key in fields]
    if not where or not numbers:
        lacks, ways = (("for whom", alert.by), ("what is different", _NUMBERS))[bool(where)]
        reader.refuse(node, f"An override of {alert.name} does not say {lacks}. Expected one or more of {', '.join(ways)}.")
    return Override(
        where=where,
        threshold=_threshold(reader, alert, fields["threshold"]) if "threshold" in fields else None,
        min_events=_min_events(reader, alert, fields["min_events"]) if "min_events" in fields else None,
        enabled=_enabled(reader, fields),
    )


def _values(reader: Reader, node: Any) -> tuple[str, ...]:
    values = reader.sequence(node) if node.id == "sequence" else [node]
    if not values:
        reader.refuse(node, "Expected at least one value here.")
    return tuple(reader.text(value) for value in values)


def _threshold(reader: Reader, alert: Alert, node: Any) -> Threshold:
    default = alert.threshold
    if default is None:
        reader.refuse(node, f"The alert {alert.name} has no threshold to change. Its duration can be changed, with for.")
    text = reader.text(node)
    try:
        return default.parsed(text)
    except ConfigurationError as error:
        reader.refuse(node, f"The threshold of {alert.name}: {error} By default it is {default.spoken}.")


def _min_events(reader: Reader, alert: Alert, node: Any) -> int:
    if alert.min_events is None:
        reader.refuse(node, f"The alert {alert.name} has no min_events: it is not a ratio of events.")
    return reader.whole_number(node)


def _duration(reader: Reader, node: Any) -> str:
    text = reader.text(node)
    if not is_duration(text):
        reader.refuse(node, f"There is {text!r}. Expected a duration such as 90s, 15m or 1h30m; 0m for at once.")
    return text


def _severity(reader: Reader, node: Any) -> Severity:
    text = reader.text(node)
    if text not in _SEVERITIES:
        reader.refuse(node, f"There is no severity {text!r}. Expected {', '.join(SEVERITIES)}.{did_you_mean(text, SEVERITIES)}")
    return _SEVERITIES[text]
