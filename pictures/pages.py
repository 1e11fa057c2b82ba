"""
A page of Grafana's, read from its JSON: what is shown where, and what Grafana assumes where the file says nothing.
"""

from __future__ import annotations

import json
import re

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from celery_obs.rules.dashboards.model import Kind, Place


__all__ = ["Heading", "Legend", "Look", "Page", "Panel", "Step", "Table", "Target", "Variable", "Word", "read"]


class Step(NamedTuple):
    """
    From *value* upwards, the colour is *colour*.
    """

    value: float
    colour: str


class Word(NamedTuple):
    """
    What is shown in the place of a number.
    """

    text: str
    colour: str


_KINDS: Final = get_args(Kind)

_ASSUMED: Final = (Step(float("-inf"), "green"), Step(80.0, "red"))
"""
Grafana's thresholds where a panel has none: whatever it counts, from 80 on it is red.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    How numbers are shown: in which unit, colours and words.

    Attributes:
        colour: Of a series, whatever its value; empty where it has none of its own.

        tinted: Whether a cell has the colour of its value; of tables only.
    """

    unit: str = "short"
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    steps: tuple[Step, ...] = _ASSUMED
    words: Mapping[str, Word] = field(default_factory=dict)
    colour: str = ""
    tinted: bool = False


class Target(NamedTuple):
    """
    One question to Prometheus: for a course, or for what is now.
    """

    letter: str
    expr: str
    legend: str
    is_course: bool


class Legend(NamedTuple):
    """
    Whether there is one, what it tells of each series, and by which of that it is sorted.
    """

    shown: bool = False
    calcs: tuple[str, ...] = ()
    sort_by: str = ""
    descending: bool = False


class Table(NamedTuple):
    """
    What becomes of a table's columns, by the names that they have before that.
    """

    order: Mapping[str, int]
    titles: Mapping[str, str]
    hidden: frozenset[str]
    sort_by: str = ""
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """
    One panel.

    Attributes:
        looks: Of series or columns that look different, by their names, or by a pattern between slashes that is found in them.

        line: How wide a course's line is.

        fill: How much of a course's area is coloured, from 0 to 1.
    """

    kind: str
    title: str
    place: Place
    targets: tuple[Target, ...]
    look: Look
    looks: Mapping[str, Look]
    legend: Legend
    table: Table
    stacked: bool
    line: float
    fill: float
    no_value: str

    def look_of(self, name: str) -> Look:
        """
        Tell how the series or the column *name* looks.
        """
        found = (look for names, look in self.looks.items() if names == name or (names[:1] == "/" and re.search(names[1:-1], name)))
        return next(found, self.look)


class Heading(NamedTuple):
    """
    The title of a row of panels.
    """

    title: str
    place: Place


class Variable(NamedTuple):
    """
    What the reader chooses: a value of *label* of *series*, or where there are *many*, all of them, for which *everything* may be short.
    """

    name: str
    title: str
    series: str
    label: str
    many: bool
    everything: str


class Page(NamedTuple):
    """
    One dashboard.
    """

    uid: str
    title: str
    variables: tuple[Variable, ...]
    headings: tuple[Heading, ...]
    panels: tuple[Panel, ...]

    @property
    def height(self) -> int:
        """
        Tell how many of the grid's cells it is high.
        """
        places = [item.place for item in self.headings] + [item.place for item in self.panels]
        return max(place.y + place.height for place in places)


def read(path: Path) -> Page:
    """
    Read a page from the file that Grafana would load.

    Raises:
        ValueError: if it is no dashboard.
    """
    try:
        return _page(json.loads(path.read_text(encoding="utf-8")))
    except KeyError as error:
        message = f"{path} is no dashboard that can be drawn: it has no {error}. Expected what celery-obs generate writes to deploy/grafana/dashboards."
        raise ValueError(message) from error
    except (AttributeError, TypeError, ValueError) as error:
        message = (
            f"{path} is no dashboard that can be drawn: {error}. Expected what celery-obs generate writes to deploy/grafana/dashboards."
        )
        raise ValueError(message) from error


def _page(model: Mapping[str, Any]) -> Page:
    panels = [_panel(panel) for panel in model["panels"] if panel["type"] != "row"]
    headings = [Heading(row["title"], _place(row)) for row in model["panels"] if row["type"] == "row"]
    return Page(model["uid"], model["title"], tuple(_variables(model)), tuple(headings), tuple(panels))


def _variables(model: Mapping[str, Any]) -> Iterator[Variable]:
    for variable in model["templating"]["list"]:
        if variable["type"] != "query":
            continue
        series, _, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rpartition(",")
        many = bool(variable.get("includeAll"))
        yield Variable(variable["name"], variable["label"], series.strip(), label.strip(), many, variable.get("allValue") or "")


def _panel(model: Mapping[str, Any]) -> Panel:
    if model["type"] not in _KINDS:
        message = f"its panel {model['title']!r} is a {model['type']}, and only {', '.join(_KINDS)} can be drawn"
        raise ValueError(message)
    defaults, options = model["fieldConfig"]["defaults"], model.get("options", {})
    custom, look = defaults.get("custom", {}), _look(defaults, Look())
    return Panel(
        kind=model["type"],
        title=model["title"],
        place=_place(model),
        targets=tuple(Target(query["refId"], query["expr"], query["legendFormat"], query["range"]) for query in model["targets"]),
        look=look,
        looks={name: _look(changes, look) for name, changes in _overrides(model)},
        legend=_legend(options.get("legend", {})),
        table=_table(model),
        stacked=custom.get("stacking", {}).get("mode") == "normal",
        line=custom.get("lineWidth", 1),
        fill=custom.get("fillOpacity", 0) / 100,
        no_value=defaults.get("noValue", "No data"),
    )


def _place(model: Mapping[str, Any]) -> Place:
    place = model["gridPos"]
    return Place(place["x"], place["y"], place["w"], place["h"])


def _look(changes: Mapping[str, Any], base: Look) -> Look:
    colour = changes.get("color", {})
    return Look(
        unit=changes.get("unit", base.unit),
        decimals=changes.get("decimals", base.decimals),
        minimum=changes.get("min", base.minimum),
        maximum=changes.get("max", base.maximum),
        steps=tuple(_steps(changes["thresholds"])) if "thresholds" in changes else base.steps,
        words=dict(_words(changes["mappings"])) if "mappings" in changes else base.words,
        colour=colour.get("fixedColor", "") if colour.get("mode") == "fixed" else base.colour,
        tinted=changes.get("custom.cellOptions", {}).get("type") == "color-text" or base.tinted,
    )


def _steps(thresholds: Mapping[str, Any]) -> Iterator[Step]:
    for step in thresholds["steps"]:
        yield Step(float("-inf") if step["value"] is None else step["value"], step["color"])


def _words(mappings: list[Mapping[str, Any]]) -> Iterator[tuple[str, Word]]:
    for mapping in mappings:
        for value, result in mapping["options"].items():
            yield value, Word(result["text"], result["color"])


def _overrides(model: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for override in model["fieldConfig"].get("overrides", ()):
        if override["matcher"]["id"] in {"byName", "byRegexp"}:
            yield override["matcher"]["options"], {each["id"]: each["value"] for each in override["properties"]}


def _legend(model: Mapping[str, Any]) -> Legend:
    return Legend(bool(model.get("showLegend")), tuple(model.get("calcs", ())), model.get("sortBy") or "", bool(model.get("sortDesc")))


def _table(model: Mapping[str, Any]) -> Table:
    organised: Mapping[str, Any] = next((each["options"] for each in model.get("transformations", ()) if each["id"] == "organize"), {})
    sorting: Mapping[str, Any] = next(iter(model.get("options", {}).get("sortBy") or ()), {})
    hidden = frozenset(name for name, is_hidden in organised.get("excludeByName", {}).items() if is_hidden)
    return Table(
        organised.get("indexByName", {}),
        organised.get("renameByName", {}),
        hidden,
        sorting.get("displayName", ""),
        sorting.get("desc", False),
    )
