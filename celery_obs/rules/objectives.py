"""
Service level objectives, read from a file and checked: whatever cannot work is refused with its line and the reason.
"""

from __future__ import annotations

import re
import warnings

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, cast

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.vocabulary.spec import Kind, Metric

from .promql import Match, count_of, one_of, rate, sum_by, within
from .third_party import FOREIGN
from .yaml_reader import Reader, compose, did_you_mean


__all__ = ["DEFAULT", "DEFAULT_PERIOD_DAYS", "RETENTION_DAYS", "WINDOWS", "BurnWindow", "Events", "Objective", "read"]


DEFAULT: Final = Path(__file__).with_name("slo.yml")
"""
The objectives that come with the package.
"""

DEFAULT_PERIOD_DAYS: Final = 30
"""
Over how many days something is promised, if nothing else is said.
"""

RETENTION_DAYS: Final = 45
"""
How long Prometheus keeps what it knows, as ``deploy/`` starts it; its own default of 15 is too short for an objective of a month.
"""

_HOURS: Final = {
    "5m": Decimal(5) / 60,
    "30m": Decimal("0.5"),
    "1h": Decimal(1),
    "2h": Decimal(2),
    "6h": Decimal(6),
    "1d": Decimal(24),
    "3d": Decimal(72),
}

_Labels: TypeAlias = dict[str, str | Match]


class BurnWindow(NamedTuple):
    """
    How fast is too fast: *budget* of the whole period's error budget within *long*, and still going on within *short*.
    """

    severity: str
    long: str
    short: str
    budget: Decimal

    @property
    def hours(self) -> Decimal:
        """
        The length of the long window.
        """
        return _HOURS[self.long]

    def factor(self, period_days: int) -> Decimal:
        """
        Return how many times faster than evenly the budget is burnt then.
        """
        return self.budget * period_days * 24 / self.hours


WINDOWS: Final = (
    BurnWindow("critical", "1h", "5m", Decimal("0.02")),
    BurnWindow("critical", "6h", "30m", Decimal("0.05")),
    BurnWindow("warning", "1d", "2h", Decimal("0.1")),
    BurnWindow("warning", "3d", "6h", Decimal("0.1")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """
    What is counted, and what of it is bad.

    Attributes:
        metric: A counter, or a histogram whose observations are the events.

        every: Labels of all events.

        good, bad: Labels of some; one of them for a counter, if *bad_metric* is not given.

        bad_metric: A counter of the bad ones.

        below: For a histogram, what a good observation is at most.
    """

    metric: Metric
    every: _Labels = field(default_factory=dict)
    good: _Labels | None = None
    bad: _Labels | None = None
    bad_metric: Metric | None = None
    below: float | None = None

    def all_of(self, window: str) -> str:
        """
        Write how many events there were, per second.
        """
        if self.below is not None:
            return sum_by(count_of(self.metric, window, **self.every))
        return sum_by(rate(self.metric, window, **self.every))

    def bad_of(self, window: str) -> str:
        """
        Write how many of them were bad, per second: 0, not nothing, where none was.
        """
        everything = self.all_of(window)
        if self.bad_metric is not None:
            return f"{sum_by(rate(self.bad_metric, window))}\nor\n0 * {everything}"
        if self.bad is not None:
            return f"{sum_by(rate(self.metric, window, **{**self.every, **self.bad}))}\nor\n0 * {everything}"
        if self.below is not None:
            good = sum_by(within(self.metric, self.below, window, **self.every))
        else:
            good = sum_by(rate(self.metric, window, **{**self.every, **(self.good or {})}))
        return f"{everything}\n- ({good} or 0 * {everything})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """
    One objective.

    Attributes:
        name: What the label ``slo`` holds.

        description: What is promised.

        objective: The part of events that has to be good, between 0 and 1.

        period_days: Over how many days.

        events: What is counted.

        min_events: So many in its long window before an alert may fire.

        origin: Where the promise comes from, such as a contract; empty where nothing is said.
    """

    name: str
    description: str
    objective: Decimal
    period_days: int
    events: Events
    min_events: int
    origin: str = ""

    @property
    def budget(self) -> Decimal:
        """
        The part of events that may be bad.
        """
        return 1 - self.objective

    @property
    def is_about_channels(self) -> bool:
        """
        Whether what is counted are calls, syncs or webhooks of channels.
        """
        return self.events.metric.name.startswith("channel_")


def read(path: Path = DEFAULT) -> tuple[Objective, ...]:
    """
    Read a file of objectives.

    Raises:
        ConfigurationError: naming the file, the line, what is there and what is expected.

        MissingExtraError: if what reads YAML is not installed.
    """
    reader = Reader(path)
    node = compose(path, what="objectives", option="--slo", expected="the key slos with a list")
    top = reader.mapping(node, ("slos", "metrics", "retention"), needed=("slos",))
    kept = _days(reader, top["retention"], "retention") if "retention" in top else RETENTION_DAYS
    known = {**CATALOGUE, **FOREIGN, **_declared(reader, top.get("metrics"))}
    names: dict[str, int] = {}
    objectives = []
    for node in reader.sequence(top["slos"]):
        fields = reader.mapping(node, _SLO_KEYS, needed=("name", "description", "objective", "events"), renamed=_RENAMED)
        if path == DEFAULT and reader.text(reader.mapping(fields["events"], _EVENT_KEYS, needed=("metric",))["metric"]) not in known:
            continue  # Of an area that is not there.
        objective = _objective(reader, fields, known, kept)
        line = fields["name"].start_mark.line + 1
        if objective.name in names:
            reader.refuse(
                fields["name"], f"The name {objective.name} is taken by the objective in line {names[objective.name]}. Give another one."
            )
        names[objective.name] = line
        objectives.append(objective)
    return tuple(objectives)


_SLO_KEYS: Final = ("name", "description", "objective", "period", "events", "min_events", "origin", "seed")
_RENAMED: Final = {"least_events": "min_events"}
_EVENT_KEYS: Final = ("metric", "all", "good", "bad", "bad_metric", "below")
_METRIC_KEYS: Final = ("name", "kind", "labels", "buckets")
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_CLASS: Final = re.compile(r"[1-5]xx")
_LONGEST_DAYS: Final = 90
_LONGEST_KEPT_DAYS: Final = 3660


def _objective(reader: Reader, fields: Mapping[str, Any], known: Mapping[str, Metric], kept: int) -> Objective:
    name = reader.text(fields["name"])
    if _NAME.fullmatch(name) is None:
        reader.refuse(fields["name"], f"The name is {name!r}. Expected lower case with dashes, such as sync-availability.")
    promised = reader.number(fields["objective"])
    if not 0 < promised < 100:  # noqa: PLR2004 -- percent.
        reason = "A promise of 100 percent has no error budget: every failure would burn it infinitely fast. Promise a little less, or alert on each failure."
        reader.refuse(
            fields["objective"], f"The objective of {name} is {promised} percent. Expected more than 0 and less than 100. {reason}"
        )
    days = _days(reader, fields["period"], "period") if "period" in fields else DEFAULT_PERIOD_DAYS
    if days >= kept:
        reason = f"Prometheus keeps {kept}, so its budget would silently be that of {kept} days"
        advice = f"Start Prometheus with --storage.tsdb.retention.time={days + 1}d or more and say so here with retention: {days + 1}d, or promise over fewer days."
        reader.refuse(fields.get("period", fields["name"]), f"The objective {name} looks back {days} days, and {reason}. {advice}")
    objective = Objective(
        name=name,
        description=reader.text(fields["description"]),
        objective=promised / 100,
        period_days=days,
        events=_events(reader, fields["events"], known),
        min_events=reader.whole_number(fields["min_events"]) if "min_events" in fields else 20,
        origin=_origin(reader, fields),
    )
    for window in WINDOWS:
        burns = window.factor(days) * objective.budget
        if burns >= 1:
            reason = (
                f"its alert on {window.long} would need {float(burns * 100):.4g} percent of the events to be bad, so it could never fire"
            )
            reader.refuse(
                fields["objective"],
                f"The objective of {name} is {promised} percent over {days} days, and {reason}. Promise more, or over fewer days.",
            )
    return objective


def _origin(reader: Reader, fields: Mapping[str, Any]) -> str:
    if "seed" in fields:
        line = fields["seed"].start_mark.line + 1
        warnings.warn(f"Line {line} of the objectives: the key seed is now called origin. Rename it.", FutureWarning, stacklevel=2)
    node = fields.get("origin", fields.get("seed"))
    return "" if node is None else reader.text(node)


def _events(reader: Reader, node: Any, known: Mapping[str, Metric]) -> Events:
    fields = reader.mapping(node, _EVENT_KEYS, needed=("metric",))
    metric = _metric(reader, fields["metric"], known)
    ways = [key for key in ("good", "bad", "bad_metric", "below") if key in fields]
    if len(ways) != 1:
        reader.refuse(
            node,
            f"What is good or bad is said by {' and '.join(ways) or 'nothing'}. Expected exactly one of good, bad, bad_metric and below.",
        )
    wanted: Kind = "histogram" if ways == ["below"] else "counter"
    if metric.kind != wanted:
        reader.refuse(fields["metric"], f"The metric {metric.name} is a {metric.kind}, and {ways[0]} needs a {wanted}.")
    bad_metric = _metric(reader, fields["bad_metric"], known) if "bad_metric" in fields else None
    events = Events(
        metric=metric,
        every=_labels(reader, fields["all"]) if "all" in fields else {},
        good=_labels(reader, fields["good"]) if "good" in fields else None,
        bad=_labels(reader, fields["bad"]) if "bad" in fields else None,
        bad_metric=bad_metric,
        below=float(reader.number(fields["below"])) if "below" in fields else None,
    )
    # The functions of PromQL know the catalogue: a label that is not there and a threshold between two buckets end here, with the line.
    reader.checked(node, lambda: events.bad_of("5m"))
    return events


def _declared(reader: Reader, node: Any) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for each in reader.sequence(node) if node is not None else ():
        fields = reader.mapping(each, _METRIC_KEYS, needed=("name", "kind"))
        name, kind = reader.text(fields["name"]), reader.text(fields["kind"])
        if name in CATALOGUE or name in FOREIGN or name in found:
            reader.refuse(fields["name"], f"The metric {name} is known already. Remove it here.")
        if kind not in {"counter", "histogram"}:
            reader.refuse(fields["kind"], f"The metric {name} is a {kind}. Expected counter or histogram.")
        labels = tuple(reader.text(label) for label in reader.sequence(fields["labels"])) if "labels" in fields else ()
        buckets = tuple(float(reader.number(edge)) for edge in reader.sequence(fields["buckets"])) if "buckets" in fields else ()
        found[name] = reader.checked(each, lambda: Metric(name=name, kind=cast("Kind", kind), help="?", labels=labels, buckets=buckets))  # noqa: B023 -- called at once.
    return found


def _labels(reader: Reader, node: Any) -> _Labels:
    return {reader.text(name): _label(reader, value) for name, value in reader.pairs(node)}


def _label(reader: Reader, node: Any) -> str | Match:
    if isinstance(node.value, list):
        return one_of(*(reader.text(each) for each in reader.sequence(node)))
    text = reader.text(node)
    return Match("=~", f"{text[0]}..") if _CLASS.fullmatch(text) else text


def _days(reader: Reader, node: Any, key: str) -> int:
    text = reader.text(node)
    days = int(text[:-1]) if re.fullmatch(r"[0-9]{1,4}d", text, re.ASCII) else 0
    most = _LONGEST_DAYS if key == "period" else _LONGEST_KEPT_DAYS
    if not 1 <= days <= most:
        reader.refuse(node, f"The {key} is {text!r}. Expected days, from 1d to {most}d.")
    return days


def _metric(reader: Reader, node: Any, known: Mapping[str, Metric]) -> Metric:
    name = reader.text(node)
    if name not in known:
        hint = did_you_mean(name, known)
        reader.refuse(node, f"There is no metric {name!r} in the catalogue.{hint} Metrics of your own are declared under metrics.")
    return known[name]
