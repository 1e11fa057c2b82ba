"""
Service level objectives, read from a file and checked: whatever cannot work is refused with its line and the reason.
"""

from __future__ import annotations

import difflib
import re

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias, cast

from celery_obs.exceptions import ConfigurationError, MissingExtraError
from celery_obs.vocabulary import CATALOGUE
from celery_obs.vocabulary.spec import Kind, Metric

from .foreign import FOREIGN
from .promql import Match, among, count_of, rate, total, within


__all__ = ["DEFAULT", "WINDOWS", "BurnWindow", "Events", "Objective", "read"]


DEFAULT: Final = Path(__file__).with_name("slo.yml")
"""
The objectives that come with the package.
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
            return total(count_of(self.metric, window, **self.every))
        return total(rate(self.metric, window, **self.every))

    def bad_of(self, window: str) -> str:
        """
        Write how many of them were bad, per second: 0, not nothing, where none was.
        """
        everything = self.all_of(window)
        if self.bad_metric is not None:
            return f"{total(rate(self.bad_metric, window))}\nor\n0 * {everything}"
        if self.bad is not None:
            return f"{total(rate(self.metric, window, **{**self.every, **self.bad}))}\nor\n0 * {everything}"
        if self.below is not None:
            good = total(within(self.metric, self.below, window, **self.every))
        else:
            good = total(rate(self.metric, window, **{**self.every, **(self.good or {})}))
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

        least_events: So many in its long window before an alert may fire.

        seed: Where it was asked for.
    """

    name: str
    description: str
    objective: Decimal
    period_days: int
    events: Events
    least_events: int
    seed: str

    @property
    def budget(self) -> Decimal:
        """
        The part of events that may be bad.
        """
        return 1 - self.objective


def read(path: Path = DEFAULT) -> tuple[Objective, ...]:
    """
    Read a file of objectives.

    Raises:
        ConfigurationError: naming the file, the line, what is there and what is expected.

        MissingExtraError: if what reads YAML is not installed.
    """
    reader = _Reader(path)
    top = reader.mapping(_compose(path), ("slos", "metrics"), needed=("slos",))
    known = {**CATALOGUE, **FOREIGN, **_declared(reader, top.get("metrics"))}
    names: dict[str, int] = {}
    objectives = []
    for node in reader.sequence(top["slos"]):
        fields = reader.mapping(node, _SLO_KEYS, needed=("name", "description", "objective", "events"))
        objective = _objective(reader, fields, known)
        line = fields["name"].start_mark.line + 1
        if objective.name in names:
            reader.refuse(
                fields["name"], f"The name {objective.name} is taken by the objective in line {names[objective.name]}. Give another one."
            )
        names[objective.name] = line
        objectives.append(objective)
    return tuple(objectives)


_SLO_KEYS: Final = ("name", "description", "objective", "period", "events", "least_events", "seed")
_EVENT_KEYS: Final = ("metric", "all", "good", "bad", "bad_metric", "below")
_METRIC_KEYS: Final = ("name", "kind", "labels", "buckets")
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_CLASS: Final = re.compile(r"[1-5]xx")
_LONGEST_DAYS: Final = 90


def _objective(reader: _Reader, fields: Mapping[str, Any], known: Mapping[str, Metric]) -> Objective:
    name = reader.text(fields["name"])
    if _NAME.fullmatch(name) is None:
        reader.refuse(fields["name"], f"The name is {name!r}. Expected lower case with dashes, such as sync-availability.")
    promised = reader.number(fields["objective"])
    if not 0 < promised < 100:  # noqa: PLR2004 -- percent.
        reason = "A promise of 100 percent has no error budget: every failure would burn it infinitely fast. Promise a little less, or alert on each failure."
        reader.refuse(
            fields["objective"], f"The objective of {name} is {promised} percent. Expected more than 0 and less than 100. {reason}"
        )
    days = reader.days(fields["period"]) if "period" in fields else 30
    objective = Objective(
        name=name,
        description=reader.text(fields["description"]),
        objective=promised / 100,
        period_days=days,
        events=_events(reader, fields["events"], known),
        least_events=int(reader.number(fields["least_events"])) if "least_events" in fields else 20,
        seed=reader.text(fields["seed"]) if "seed" in fields else "none",
    )
    for window in WINDOWS:
        burns = window.factor(days) * objective.budget
        if burns >= 1:
            reason = f"its alert on {window.long} would need {burns * 100:.4g} percent of the events to be bad, so it could never fire"
            reader.refuse(
                fields["objective"],
                f"The objective of {name} is {promised} percent over {days} days, and {reason}. Promise more, or over fewer days.",
            )
    return objective


def _events(reader: _Reader, node: Any, known: Mapping[str, Metric]) -> Events:
    fields = reader.mapping(node, _EVENT_KEYS, needed=("metric",))
    metric = reader.metric(fields["metric"], known)
    ways = [key for key in ("good", "bad", "bad_metric", "below") if key in fields]
    if len(ways) != 1:
        reader.refuse(
            node,
            f"What is good or bad is said by {' and '.join(ways) or 'nothing'}. Expected exactly one of good, bad, bad_metric and below.",
        )
    wanted: Kind = "histogram" if ways == ["below"] else "counter"
    if metric.kind != wanted:
        reader.refuse(fields["metric"], f"The metric {metric.name} is a {metric.kind}, and {ways[0]} needs a {wanted}.")
    bad_metric = reader.metric(fields["bad_metric"], known) if "bad_metric" in fields else None
    events = Events(
        metric=metric,
        every=reader.labels(fields["all"]) if "all" in fields else {},
        good=reader.labels(fields["good"]) if "good" in fields else None,
        bad=reader.labels(fields["bad"]) if "bad" in fields else None,
        bad_metric=bad_metric,
        below=float(reader.number(fields["below"])) if "below" in fields else None,
    )
    # The functions of PromQL know the catalogue: a label that is not there and a threshold between two buckets end here, with the line.
    reader.checked(node, lambda: events.bad_of("5m"))
    return events


def _declared(reader: _Reader, node: Any) -> dict[str, Metric]:
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


class _Reader:
    """
    Takes YAML's nodes apart, and refuses with the line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def refuse(self, node: Any, problem: str) -> NoReturn:
        message = f"{self._path}, line {node.start_mark.line + 1}: {problem}"
        raise ConfigurationError(message)

    def checked(self, node: Any, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except (ConfigurationError, ValueError) as error:
            message = f"{self._path}, line {node.start_mark.line + 1}: {error}"
        raise ConfigurationError(message)

    def mapping(self, node: Any, keys: tuple[str, ...], *, needed: tuple[str, ...] = ()) -> dict[str, Any]:
        found = dict(self._pairs(node))
        for key, value in found.items():
            if key not in keys:
                near = difflib.get_close_matches(key, keys, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                self.refuse(value, f"There is no key {key!r} here. Expected {', '.join(keys)}.{hint}")
        for key in needed:
            if key not in found:
                self.refuse(node, f"The key {key} is missing. Expected {', '.join(needed)}.")
        return found

    def labels(self, node: Any) -> _Labels:
        return {name: self._label(value) for name, value in self._pairs(node)}

    def _label(self, node: Any) -> str | Match:
        if isinstance(node.value, list):
            return among(*(self.text(each) for each in self.sequence(node)))
        text = self.text(node)
        return Match("=~", f"{text[0]}..") if _CLASS.fullmatch(text) else text

    def _pairs(self, node: Any) -> Iterator[tuple[str, Any]]:
        if getattr(node, "id", None) != "mapping":
            self.refuse(node, "Expected keys and values here.")
        seen = set()
        for key, value in node.value:
            name = self.text(key)
            if name in seen:
                self.refuse(key, f"The key {name} is there twice. Remove one of them.")
            seen.add(name)
            yield name, value

    def sequence(self, node: Any) -> list[Any]:
        if node.id != "sequence":
            self.refuse(node, "Expected a list here.")
        return list(node.value)

    def text(self, node: Any) -> str:
        if node.id != "scalar" or not node.value:
            self.refuse(node, "Expected a text here.")
        return str(node.value)

    def number(self, node: Any) -> Decimal:
        text = self.text(node)
        try:
            number = Decimal(text)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or number < 0:
            self.refuse(node, f"There is {text!r}. Expected a number that is not negative.")
        return number

    def days(self, node: Any) -> int:
        text = self.text(node)
        days = int(text[:-1]) if re.fullmatch(r"[0-9]{1,4}d", text, re.ASCII) else 0
        if not 1 <= days <= _LONGEST_DAYS:
            self.refuse(node, f"The period is {text!r}. Expected days, from 1d to {_LONGEST_DAYS}d.")
        return days

    def metric(self, node: Any, known: Mapping[str, Metric]) -> Metric:
        name = self.text(node)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            self.refuse(node, f"There is no metric {name!r} in the catalogue.{hint} Metrics of your own are declared under metrics.")
        return known[name]


def _compose(path: Path) -> Any:
    try:
        import yaml  # noqa: PLC0415 -- of an extra; who generates nothing does not need it.
    except ImportError as error:
        feature = "Reading a file of objectives"
        raise MissingExtraError(feature, extra="exporter") from error
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        message = f"The objectives {path} cannot be read: {reason}. Expected a YAML file; check --slo."
        raise ConfigurationError(message) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        message = f"{path}{place}: this is not YAML: {getattr(error, 'problem', None) or 'it cannot be parsed'}."
        raise ConfigurationError(message) from None
    if node is None:
        message = f"The objectives {path} are empty. Expected the key slos with a list."
        raise ConfigurationError(message)
    return node
