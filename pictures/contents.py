"""
What a panel shows, made of the answers to its queries as Grafana makes it: names of series, words and colours of numbers, one table of several.
"""

from __future__ import annotations

import math
import re

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from .asking import Series
from .pages import Look, Panel, Table, Target
from .units import written


__all__ = ["CALCS", "Cell", "Column", "Course", "Period", "cell", "courses", "last", "listed", "periods", "table"]


class Course(NamedTuple):
    """
    A series with the name that its legend has.
    """

    name: str
    values: tuple[float, ...]


class Cell(NamedTuple):
    """
    A number as it is written, and the name of its colour.
    """

    text: str
    colour: str


class Column(NamedTuple):
    """
    A column of a table.
    """

    title: str
    cells: tuple[Cell, ...]
    is_number: bool


class Period(NamedTuple):
    """
    From the point *first* up to *after*, nothing changed.
    """

    first: int
    after: int
    value: float


def courses(answers: Mapping[Target, Sequence[Series]]) -> tuple[Course, ...]:
    """
    Name each series by its legend, with the values of its labels in the place of their names.
    """
    return tuple(Course(_named(target.legend, series.labels), series.values) for target, found in answers.items() for series in found)


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), legend)


def last(values: Iterable[float]) -> float:
    """
    Return the last value that is one; NaN where none is.
    """
    return next((value for value in reversed(tuple(values)) if not math.isnan(value)), math.nan)


def _highest(values: Iterable[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _lowest(values: Iterable[float]) -> float:
    return min((value for value in values if not math.isnan(value)), default=math.nan)


CALCS: Final = {"lastNotNull": ("Last *", last), "max": ("Max", _highest), "min": ("Min", _lowest)}
"""
What a legend may tell of a series: the title of its column, and the number.
"""


def listed(found: Sequence[Course], panel: Panel) -> tuple[Course, ...]:
    """
    Return the series in the order of the panel's legend.
    """
    by = dict(CALCS.values()).get(panel.legend.sort_by)
    if by is None:
        return tuple(found)
    return tuple(sorted(found, key=lambda course: _sortable(by(course.values)), reverse=panel.legend.descending))


def cell(value: float, look: Look) -> Cell:
    """
    Write a number with its word, if it stands for one, and its colour: the series' own, or that of the threshold it has reached.
    """
    word = look.words.get(f"{value:.0f}") if float(value).is_integer() else None
    if word:
        return Cell(word.text, word.colour)
    reached = [step.colour for step in look.steps if value >= step.value]
    return Cell(written(value, look.unit, look.decimals), look.colour or (reached[-1] if reached else "text"))


def periods(values: Sequence[float]) -> tuple[Period, ...]:
    """
    Join points that follow each other with one value; there is nothing where there was none.
    """
    found: list[Period] = []
    for place, value in enumerate(values):
        if math.isnan(value):
            continue
        if found and found[-1].after == place and found[-1].value == value:
            found[-1] = found[-1]._replace(after=place + 1)
        else:
            found.append(Period(place, place + 1, value))
    return tuple(found)


def table(answers: Mapping[Target, Sequence[Series]], panel: Panel) -> tuple[Column, ...]:
    """
    Make one table of the answers: a line for each set of labels, a column for each label and each query that was answered.
    """
    values = {target: "Value" if len(answers) == 1 else f"Value #{target.letter}" for target in answers}
    rows: dict[tuple[tuple[str, str], ...], dict[str, str | float]] = {}
    for target, found in answers.items():
        for series in found:
            labels = dict(series.labels)
            row = rows.setdefault(tuple(sorted(labels.items())), {**labels})
            row[values[target]] = series.values[-1]
    names = sorted({name for row in rows.values() for name in row} - panel.table.hidden, key=lambda name: _place(name, panel.table))
    ordered = _sorted(list(rows.values()), names, panel.table)
    return tuple(_column(name, ordered, panel) for name in names)


def _place(name: str, organised: Table) -> tuple[int, str]:
    """
    Put what has no place of its own at the end.
    """
    return organised.order.get(name, len(organised.order)), name


def _sorted(rows: list[dict[str, str | float]], names: Sequence[str], organised: Table) -> list[dict[str, str | float]]:
    by = next((name for name in names if organised.titles.get(name, name) == organised.sort_by), None)
    if by is None:
        return rows
    there = [row for row in rows if by in row]
    there.sort(key=lambda row: row[by], reverse=organised.descending)
    return there + [row for row in rows if by not in row]


def _column(name: str, rows: Sequence[Mapping[str, str | float]], panel: Panel) -> Column:
    title = panel.table.titles.get(name, name)
    look = panel.look_of(title)
    return Column(title, tuple(_cell(row.get(name, ""), look) for row in rows), any(isinstance(row.get(name), float) for row in rows))


def _cell(value: str | float, look: Look) -> Cell:
    if isinstance(value, str):
        return Cell(value, "text")
    shown = cell(value, look)
    return shown if look.tinted else shown._replace(colour="text")


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
