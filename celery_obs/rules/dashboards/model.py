"""
What a dashboard is: frozen values that say what is shown, and nothing of how Grafana writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from celery_obs.rules.links import Dashboard as Uid


__all__ = [
    "WIDTH",
    "Colour",
    "Column",
    "Contribution",
    "Dashboard",
    "Kind",
    "Link",
    "Mapping",
    "Panel",
    "Place",
    "Placed",
    "Query",
    "Row",
    "Step",
    "Unit",
    "Variable",
    "placed",
]


WIDTH = 24
"""
Columns of Grafana's grid.
"""

Kind: TypeAlias = Literal["stat", "timeseries", "table", "state-timeline", "bargauge"]
"""
The five pictures that we draw: a number now, a course, a list, a state over time, a comparison now.
"""

Unit: TypeAlias = Literal[
    "short", "s", "dtdurations", "percentunit", "ops", "opm", "reqps", "bytes", "dateTimeFromNow", "none", "bool_yes_no", "decbytes"
]
"""
Grafana's names of the units that we use.
"""

Colour: TypeAlias = Literal["green", "yellow", "orange", "red", "dark-red", "blue", "light-blue", "purple", "text"]


class Step(NamedTuple):
    """
    From *value* upwards, the colour is *colour*; the first step's value is None and stands for everything below the second.
    """

    value: float | None
    colour: Colour


class Mapping(NamedTuple):
    """
    A number that stands for a word.
    """

    value: int
    text: str
    colour: Colour


class Link(NamedTuple):
    """
    A way from a value to another dashboard, with the time range kept.

    Attributes:
        title: What the reader clicks on.

        uid: Of the dashboard.

        variable: The variable to set there, from the label of the same name; empty for none.
    """

    title: str
    uid: Uid
    variable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """
    One line of PromQL.

    Attributes:
        expr: The line; Grafana's variables may stand in it.

        legend: The text of a series with its labels in double braces; the title of a column in a table.

        unit: In a table, the column's unit; the panel's where empty.

        decimals: In a table, the column's; as many as Grafana finds right where None.

        steps, mappings: In a table, the column's.

        exemplars: Whether to ask for exemplars, the way from a bucket to its trace.

        absent_where: Where this has no answer although all is well, such as ``Redis has no memory limit``; told to who looks at the panel.
            Empty where an answer is due as long as there is anything to observe.
    """

    expr: str
    legend: str
    unit: Unit | None = None
    decimals: int | None = None
    steps: tuple[Step, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    exemplars: bool = False
    absent_where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """
    One picture.

    Attributes:
        title: What it shows.

        question: What its reader asks; the panel's description begins with it.

        decimals: How many; as many as Grafana finds right where None.

        colours: Of series that mean something, by their legends, or by what comes last in them after a colon; Grafana's own go by the alphabet, so that
            failures were green.

        nothing: What is said where there is no answer.

        keys: In a table, the labels that make a line, as (label, title of the column).

        sort_by: In a table, the column with the worst at the top.

        ascending: Whether the worst is the smallest, in a table or a course.

        stacked: Whether the series add up to something.

        negative: Whether a course may go below 0.

        links: Where a click leads.
    """

    kind: Kind
    title: str
    question: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    width: int = 12
    height: int = 8
    decimals: int | None = None
    steps: tuple[Step, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    colours: tuple[tuple[str, Colour], ...] = ()
    nothing: str = "no data"
    keys: tuple[tuple[str, str], ...] = ()
    sort_by: str = ""
    ascending: bool = False
    stacked: bool = False
    negative: bool = False
    minimum: float | None = None
    maximum: float | None = None
    links: tuple[Link, ...] = ()

    def description(self) -> str:
        """
        Return what is told to who looks at it: the question, and why there may be no answer.
        """
        reasons = list(dict.fromkeys(query.absent_where for query in self.queries if query.absent_where))
        what = "Nothing" if all(query.absent_where for query in self.queries) else "Not everything"
        return " ".join([self.question, *(f"{what} is shown where {reason}." for reason in reasons)])


class Row(NamedTuple):
    """
    Panels under one heading, from left to right, as many beside each other as fit.
    """

    title: str
    panels: tuple[Panel, ...]


class Contribution(NamedTuple):
    """
    A panel that an area gives to a dashboard about several areas.

    Attributes:
        dashboard: The uid.

        row: The heading that it stands under; a row that the dashboard does not have comes last.

        place: Where it stands in the row, from 0 on, where all areas are there; where one is missing, what follows moves up.
    """

    dashboard: str
    row: str
    place: int
    panel: Panel


class Column(NamedTuple):
    """
    A column that an area gives to a table of another.

    Attributes:
        dashboard: The uid.

        panel: The title of the table.

        place: Where it stands in the table, from 0 on, where all areas are there; where one is missing, what follows moves up.
    """

    dashboard: str
    panel: str
    place: int
    query: Query


class Variable(NamedTuple):
    """
    What the reader can choose.

    Attributes:
        name: As it stands in queries, after the dollar.

        title: As the reader sees it.

        metric: Whose label values can be chosen; of the catalogue, or recorded.

        label: Which label; *name* where empty.

        many: Whether several, or all, can be chosen.
    """

    name: str
    title: str
    metric: str
    label: str = ""
    many: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """
    One page.

    Attributes:
        uid: Its address, ``/d/<uid>``: part of the contract, alerts link to it.

        title: Its name in lists.

        question: What it answers; the dashboard's description.

        since: How far it looks back at first.
    """

    uid: Uid
    title: str
    question: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    tags: tuple[str, ...] = ()
    since: str = "now-6h"

    def panels(self) -> Iterator[Panel]:
        """
        Go through the panels in reading order.
        """
        for row in self.rows:
            yield from row.panels


class Place(NamedTuple):
    """
    Where something lies on the grid.
    """

    x: int
    y: int
    width: int
    height: int


class Placed(NamedTuple):
    """
    A row's heading or a panel, with its number on the page and its place.
    """

    number: int
    what: Row | Panel
    place: Place


def placed(dashboard: Dashboard) -> Iterator[Placed]:
    """
    Lay a dashboard's rows and panels out, as one writes: left to right, then down.

    Raises:
        ValueError: if a panel is wider than the page.
    """
    number, y = 1, 0
    for row in dashboard.rows:
        yield Placed(number, row, Place(0, y, WIDTH, 1))
        number, y, x, tallest = number + 1, y + 1, 0, 0
        for panel in row.panels:
            if not 0 < panel.width <= WIDTH:
                message = f"The panel {panel.title!r} is {panel.width} columns wide. Expected 1 to {WIDTH}."
                raise ValueError(message)
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            yield Placed(number, panel, Place(x, y, panel.width, panel.height))
            number, x, tallest = number + 1, x + panel.width, max(tallest, panel.height)
        y += tallest
