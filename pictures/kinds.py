"""
The five pictures: a number now, a course, a list, a state over time, a comparison now; each drawn where it belongs on a sheet.
"""

from __future__ import annotations

import math
import re

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Final, NamedTuple

from matplotlib.axes import Axes

from .asking import Moment
from .contents import CALCS, Cell, Column, Course, Period, cell, last, listed, periods
from .pages import Panel
from .sheet import BORDER, COLOURS, FAINT, GRID, LEFT, PANEL, RIGHT, SERIES, Align, Sheet, width_of
from .units import lines, written


__all__ = ["DRAWN", "Area", "bars", "draw_table", "stat", "timeline", "timeseries"]


_DAY: Final = 86400

_LINE: Final = 16.0
"""
The height of a line of a legend, in pixels.
"""

_LEGEND: Final = 0.4
"""
How much of a panel its legend may take; the rest is scrolled to.
"""

_ROW: Final = 25.0
"""
The height of a line of a table.
"""


class Area(NamedTuple):
    """
    Where on the sheet, in pixels.
    """

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """
        Where it ends.
        """
        return self.x + self.width


# -- a number now -------------------------------------------------------------------------------------------------------


def stat(sheet: Sheet, area: Area, panel: Panel, found: Sequence[Course], moment: Moment) -> None:
    """
    Write each series' last value, as large as there is room.
    """
    width = area.width / len(found)
    for place, course in enumerate(found):
        shown = cell(last(course.values), panel.look_of(course.name))
        middle = area.x + width * (place + 0.5)
        size = min(36.0, area.height * 0.5, 36.0 * (width - 12) / max(width_of(shown.text, 36.0), 1))
        named = len(found) > 1
        sheet.text(
            middle, area.y + area.height * (0.6 if named else 0.5), shown.text, size=size, colour=COLOURS[shown.colour], align="center"
        )
        if named:
            sheet.text(middle, area.y + area.height * 0.2, course.name, size=11, align="center", most=width - 8)


# -- a course -----------------------------------------------------------------------------------------------------------


def timeseries(sheet: Sheet, area: Area, panel: Panel, found: Sequence[Course], moment: Moment) -> None:
    """
    Draw the courses, and the legend below.
    """
    marks = lines(*_bounds(panel, found), panel.look.unit)
    texts = [_mark(mark, panel) for mark in marks]
    left = max(width_of(text, 10) for text in texts) + 8
    legend = _legend_height(area, panel, found)
    axes = sheet.axes(area.x + left, area.y + 4, area.width - left - 6, area.height - legend - 24, label=panel.title)
    axes.set_ylim(marks[0], marks[-1] if marks[-1] > marks[0] else marks[0] + 1)
    axes.set_yticks(marks, texts)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    _hours(axes, moment, area.width - left)
    below = [0.0] * len(moment.times)
    for place, course in enumerate(found):
        colour = colour_of(place, course, panel)
        values = list(course.values)
        if panel.stacked:
            values = [under + (0 if math.isnan(value) else value) for under, value in zip(below, values, strict=True)]
        axes.fill_between(moment.times, below if panel.stacked else marks[0], values, color=colour, alpha=panel.fill, linewidth=0)
        alone = _lonely(course.values)
        axes.plot(moment.times, values, color=colour, linewidth=panel.line, label=course.name, marker=".", markersize=3, markevery=alone)
        below = values if panel.stacked else below
    _legend(sheet, Area(area.x, area.y + area.height - legend, area.width, legend), panel, found)


def colour_of(place: int, course: Course, panel: Panel) -> str:
    """
    Give a series its own colour, or the next one of Grafana's.
    """
    own = panel.look_of(course.name).colour
    return COLOURS[own] if own else SERIES[place % len(SERIES)]


def _bounds(panel: Panel, found: Sequence[Course]) -> tuple[float, float]:
    if panel.stacked:
        columns = zip(*(course.values for course in found), strict=True)
        values = [sum(value for value in column if not math.isnan(value)) for column in columns]
    else:
        values = [value for course in found for value in course.values if math.isfinite(value)]
    low = panel.look.minimum if panel.look.minimum is not None else min(values, default=0.0)
    high = panel.look.maximum if panel.look.maximum is not None else max(values, default=1.0)
    if high <= low:
        high = low + (1.0 if low >= 0 else -low)
    return low, high


def _mark(value: float, panel: Panel) -> str:
    """
    Write what stands beside a line: 0.5, not 0.500.
    """
    text = written(float(f"{value:.6g}"), panel.look.unit)
    return re.sub(r"(\.\d*?)0+(?=\D|$)", lambda match: match[1].rstrip("."), text)


def _lonely(values: Sequence[float]) -> list[int]:
    """
    Find points without neighbours: no line shows them.
    """
    around = [math.nan, *values, math.nan]
    return [
        place for place, value in enumerate(values) if not math.isnan(value) and math.isnan(around[place]) and math.isnan(around[place + 2])
    ]


def _hours(axes: Axes, moment: Moment, width: float) -> None:
    """
    Let the axes span the moment, with as many round times below as there is room for in *width*, and nothing else around them.
    """
    span = moment.end - moment.start
    most = max(2, int(width // 60))
    every = next((step for step in (60, 120, 300, 600, 900, 1800, 3600, 10800, 21600, _DAY, 7 * _DAY) if span <= step * most), 28 * _DAY)
    times = [number * every for number in range(math.ceil(moment.start / every), int(moment.end // every) + 1)]
    shape = "%H:%M" if every < _DAY else "%m/%d"
    axes.set_facecolor("none")
    axes.set_xlim(moment.start, moment.end)
    axes.set_xticks(times, [datetime.fromtimestamp(time, tz=timezone.utc).strftime(shape) for time in times])
    axes.tick_params(length=0, labelsize=7.2, labelcolor=FAINT, pad=3)
    for edge in axes.spines.values():
        edge.set_visible(False)


def _legend_height(area: Area, panel: Panel, found: Sequence[Course]) -> float:
    if not panel.legend.shown:
        return 0.0
    return min(_LINE * (len(found) + 1), _LINE * math.floor(area.height * _LEGEND / _LINE)) + 2


def _legend(sheet: Sheet, area: Area, panel: Panel, found: Sequence[Course]) -> None:
    """
    Write the legend's lines, as many as fit, and how many do not.
    """
    room = round(area.height // _LINE) - 1
    if not panel.legend.shown or room < 1:
        return
    calcs = [CALCS[name] for name in panel.legend.calcs]
    ends = [area.right - 4 - 78 * place for place in reversed(range(len(calcs)))]
    sheet.text(area.x + 18, area.y + _LINE / 2, "Name", size=10, colour=COLOURS["blue"])
    for (title, _), end in zip(calcs, ends, strict=True):
        mark = "" if title != panel.legend.sort_by else " ▾" if panel.legend.descending else " ▴"
        sheet.text(end, area.y + _LINE / 2, title + mark, size=10, colour=COLOURS["blue"], align=RIGHT)
    colours = {id(course): colour_of(place, course, panel) for place, course in enumerate(found)}
    ordered = listed(found, panel)
    hidden = len(ordered) - room
    for place, course in enumerate(ordered[:room]):
        y = area.y + _LINE * (place + 1.5)
        sheet.line(area.x, y - _LINE / 2, area.width)
        sheet.box(area.x + 3, y - 2, 10, 3, colours[id(course)])
        more = f"  (+{hidden} more)" if hidden > 0 and place == room - 1 else ""
        most = (ends[0] - 78 if ends else area.right) - area.x - 18 - width_of(more, 10)
        sheet.text(area.x + 18, y, course.name, size=10, most=most)
        if more:
            sheet.text(ends[0] - 74 if ends else area.right, y, more, size=10, colour=FAINT, align=RIGHT)
        for (_, calculate), end in zip(calcs, ends, strict=True):
            value = calculate(course.values)
            sheet.text(end, y, "" if math.isnan(value) else written(value, panel.look.unit, panel.look.decimals), size=10, align=RIGHT)


# -- a list -------------------------------------------------------------------------------------------------------------


def draw_table(sheet: Sheet, area: Area, panel: Panel, columns: Sequence[Column]) -> None:
    """
    Write the columns, each as wide as what stands in it wants; a screen is wider, and Grafana can have them all the same.
    """
    room = int(area.height // _ROW) - 1
    wanted = [
        max(width_of(text, 11) for text in (f"{column.title} ↓", *(shown.text for shown in column.cells[:room]))) for column in columns
    ]
    x, spare = area.x, (area.width - sum(wanted)) / max(len(columns), 1)
    for column, width in zip(columns, wanted, strict=True):
        _column(sheet, Area(x + 6, area.y, width + spare - 12, area.height), panel, column, room)
        x += width + spare
    there = max((len(column.cells) for column in columns), default=0)
    for line in range(1, min(room, there) + 1):
        sheet.line(area.x, area.y + _ROW * line, area.width)
    if there > room:
        sheet.text(area.right - 6, area.y + area.height - 3, f"+{there - room} more", size=10, colour=FAINT, align=RIGHT)


def _column(sheet: Sheet, area: Area, panel: Panel, column: Column, room: int) -> None:
    """
    Write a column's title and as many cells as there is room for: numbers to the right, texts to the left.
    """
    align: Align = RIGHT if column.is_number else LEFT
    x = area.right if column.is_number else area.x
    arrow = (" ↓" if panel.table.descending else " ↑") if column.title == panel.table.sort_by else ""
    sheet.text(x, area.y + _ROW / 2, column.title + arrow, size=11, colour=COLOURS["blue"], align=align, most=area.width)
    for line, shown in enumerate(column.cells[:room]):
        sheet.text(x, area.y + _ROW * (line + 1.5), shown.text, size=11, colour=COLOURS[shown.colour], align=align, most=area.width)


# -- a state over time --------------------------------------------------------------------------------------------------


def timeline(sheet: Sheet, area: Area, panel: Panel, found: Sequence[Course], moment: Moment) -> None:
    """
    Draw a bar for each series, with a colour and a word for each state.
    """
    left = min(max(width_of(course.name, 10) for course in found) + 10, area.width * 0.3)
    inside = Area(area.x + left, area.y, area.width - left - 6, area.height - 18)
    axes = sheet.axes(*inside, label=panel.title)
    axes.set_ylim(len(found), 0)
    axes.set_yticks([])
    _hours(axes, moment, inside.width)
    row = inside.height / len(found)
    for place, course in enumerate(found):
        sheet.text(inside.x - 6, inside.y + row * (place + 0.5), course.name, size=10, align=RIGHT, most=left - 8)
        for period in periods(course.values):
            shown = cell(period.value, panel.look_of(course.name))
            _state(axes, period, shown, y=place + 0.5, moment=moment, pixels=inside.width / (moment.end - moment.start))


def _state(axes: Axes, period: Period, shown: Cell, *, y: float, moment: Moment, pixels: float) -> None:
    """
    Draw a period, with its word if that fits; *pixels* is the width of a second.
    """
    start = moment.start + period.first * moment.step
    length = min((period.after - period.first) * moment.step, moment.end - start)
    axes.barh(y, length, left=start, height=0.8, color=COLOURS[shown.colour], alpha=0.8, edgecolor=PANEL, linewidth=0.5)
    if width_of(shown.text, 10) + 8 < length * pixels:
        axes.text(start + 4 / pixels, y, shown.text, fontsize=7.2, color=PANEL, va="center_baseline", clip_on=True)


# -- a comparison now ---------------------------------------------------------------------------------------------------


def bars(sheet: Sheet, area: Area, panel: Panel, found: Sequence[Course], moment: Moment) -> None:
    """
    Draw a bar for each series' last value.
    """
    values = [last(course.values) for course in found]
    low = panel.look.minimum if panel.look.minimum is not None else min(values)
    high = panel.look.maximum if panel.look.maximum is not None else max(values)
    cells = [cell(value, panel.look_of(course.name)) for value, course in zip(values, found, strict=True)]
    left = min(max(width_of(course.name, 11) for course in found) + 12, area.width * 0.45)
    right = max(width_of(shown.text, 14) for shown in cells) + 12
    row = min(area.height / len(found), 44.0)
    for place, (course, value, shown) in enumerate(zip(found, values, cells, strict=True)):
        y = area.y + row * (place + 0.5)
        room = area.width - left - right
        part = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 1.0
        sheet.text(area.x + left - 8, y, course.name, size=11, align=RIGHT, most=left - 10)
        sheet.box(area.x + left, y - row * 0.35, room, row * 0.7, BORDER)
        sheet.box(area.x + left, y - row * 0.35, room * part, row * 0.7, COLOURS[shown.colour], alpha=0.8)
        sheet.text(area.right - 4, y, shown.text, size=14, colour=COLOURS[shown.colour], align=RIGHT)


DRAWN: Final[Mapping[str, Callable[[Sheet, Area, Panel, Sequence[Course], Moment], None]]] = {
    "stat": stat,
    "timeseries": timeseries,
    "state-timeline": timeline,
    "bargauge": bars,
}
"""
What draws a kind of panel; tables are drawn of columns, by `draw_table`.
"""
