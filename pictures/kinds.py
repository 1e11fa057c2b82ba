"""
The five pictures: a number now, a course, a list, a state over time, a comparison now; each drawn where it belongs on a sheet.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Final, NamedTuple

from matplotlib.axes import Axes

from .asking import Moment
from .contents import CALCS, Column, Course, cell, last, listed, periods
from .pages import Panel
from .sheet import BORDER, COLOURS, FAINT, GRID, PANEL, SERIES, TEXT, Sheet, width_of
from .units import lines, written


__all__ = ["DRAWN", "Area", "bars", "draw_table", "stat", "timeline", "timeseries"]


_LINE: Final = 17.0
"""
The height of a line of a legend, in pixels.
"""

_LEGEND: Final = 0.38
"""
How much of a panel its legend may take; the rest is scrolled to.
"""

_ROW: Final = 27.0
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
        sheet.text(middle, area.y + area.height * (0.6 if named else 0.5), shown.text, size=size, colour=COLOURS[shown.colour], align="center")
        if named:
            sheet.text(middle, area.y + area.height * 0.2, course.name, size=11, align="center", most=width - 8)


# -- a course -----------------------------------------------------------------------------------------------------------


def timeseries(sheet: Sheet, area: Area, panel: Panel, found: Sequence[Course], moment: Moment) -> None:
    """
    Draw the courses, and the legend below.
    """
    low, high = _bounds(panel, found)
    marks = lines(low, high, panel.look.unit)
    texts = [written(_rounded(mark), panel.look.unit) for mark in marks]
    left = max(width_of(text, 10) for text in texts) + 8
    legend = _legend_height(area, panel, found)
    axes = sheet.axes(area.x + left, area.y + 4, area.width - left - 6, area.height - legend - 24, label=panel.title)
    axes.set_facecolor("none")
    axes.set_xlim(moment.start, moment.end)
    axes.set_ylim(marks[0], marks[-1] if marks[-1] > marks[0] else marks[0] + 1)
    axes.set_yticks(marks, texts)
    _hours(axes, moment)
    axes.grid(color=GRID, linewidth=0.6)
    axes.tick_params(length=0, labelsize=7.2, labelcolor=FAINT, pad=3)
    for edge in axes.spines.values():
        edge.set_visible(False)
    below = [0.0] * len(moment.times)
    for place, course in enumerate(found):
        colour = colour_of(place, course, panel)
        values = list(course.values)
        if panel.stacked:
            values = [under + (0 if math.isnan(value) else value) for under, value in zip(below, values, strict=True)]
        axes.fill_between(moment.times, below if panel.stacked else marks[0], values, color=colour, alpha=panel.fill, linewidth=0)
        axes.plot(moment.times, values, color=colour, linewidth=1, label=course.name, marker=".", markersize=3, markevery=_lonely(values))
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


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _lonely(values: Sequence[float]) -> list[int]:
    """
    Find points without neighbours: no line shows them.
    """
    around = [math.nan, *values, math.nan]
    return [
        place for place, value in enumerate(values) if not math.isnan(value) and math.isnan(around[place]) and math.isnan(around[place + 2])
    ]


def _hours(axes: Axes, moment: Moment) -> None:
    every = next(step for step in (60, 120, 300, 600, 900, 1800, 3600, 10800, 21600, 86400, 604800, math.inf) if moment.end - moment.start <= step * 7)
    first = math.ceil(moment.start / every) if math.isfinite(every) else 0
    times = [number * every for number in range(first, int(moment.end // every) + 1)] if math.isfinite(every) else []
    shape = "%H:%M" if moment.end - moment.start < 2 * 86400 else "%m/%d"
    axes.set_xticks(times, [datetime.fromtimestamp(time, tz=timezone.utc).strftime(shape) for time in times])


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
        sheet.text(end, area.y + _LINE / 2, title + mark, size=10, colour=COLOURS["blue"], align="right")
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
            sheet.text(ends[0] - 74 if ends else area.right, y, more, size=10, colour=FAINT, align="right")
        for (_, calculate), end in zip(calcs, ends, strict=True):
            value = calculate(course.values)
            sheet.text(end, y, "" if math.isnan(value) else written(value, panel.look.unit), size=10, align="right")


# -- a list -------------------------------------------------------------------------------------------------------------


def draw_table(sheet: Sheet, area: Area, panel: Panel, columns: Sequence[Column]) -> None:
    """
    Write the columns, each as wide as Grafana has it: all the same.
    """
    room = int(area.height // _ROW) - 1
    width = area.width / max(len(columns), 1)
    for place, column in enumerate(columns):
        end = area.x + width * (place + 1) - 10
        start = area.x + width * place + 8
        align: Callable[[bool], tuple[float, str]] = lambda is_number, end=end, start=start: (end, "right") if is_number else (start, "left")
        x, side = align(column.is_number)
        sort = column.title == panel.table.sort_by
        title = column.title + ((" ↓" if panel.table.descending else " ↑") if sort else "")
        sheet.text(x, area.y + _ROW / 2, title, size=11, colour=COLOURS["blue"], align=side, most=width - 16)
        for line, shown in enumerate(column.cells[:room]):
            y = area.y + _ROW * (line + 1.5)
            sheet.text(x, y, shown.text, size=11, colour=COLOURS[shown.colour], align=side, most=width - 16)
    shown_lines = min(room, max((len(column.cells) for column in columns), default=0))
    for line in range(1, shown_lines + 1):
        sheet.line(area.x, area.y + _ROW * line, area.width)
    hidden = max((len(column.cells) for column in columns), default=0) - room
    if hidden > 0:
        sheet.text(area.right - 6, area.y + area.height - 3, f"+{hidden} more", size=10, colour=FAINT, align="right")


# -- a state over time --------------------------------------------------------------------------------------------------


def timeline(sheet: Sheet, area: Area, panel: Panel, found: Sequence[Course], moment: Moment) -> None:
    """
    Draw a bar for each series, with a colour and a word for each state.
    """
    left = min(max(width_of(course.name, 10) for course in found) + 10, area.width * 0.3)
    axes = sheet.axes(area.x + left, area.y, area.width - left - 6, area.height - 18, label=panel.title)
    axes.set_facecolor("none")
    axes.set_xlim(moment.start, moment.end)
    axes.set_ylim(len(found), 0)
    axes.set_yticks([])
    _hours(axes, moment)
    axes.tick_params(length=0, labelsize=7.2, labelcolor=FAINT, pad=3)
    for edge in axes.spines.values():
        edge.set_visible(False)
    pixels = (area.width - left - 6) / (moment.end - moment.start)
    row = (area.height - 18) / len(found)
    for place, course in enumerate(found):
        sheet.text(area.x + left - 6, area.y + row * (place + 0.5), course.name, size=10, align="right", most=left - 8)
        for period in periods(course.values):
            shown = cell(period.value, panel.look_of(course.name))
            start, length = moment.start + period.first * moment.step, (period.after - period.first) * moment.step
            length = min(length, moment.end - start)
            axes.barh(place + 0.5, length, left=start, height=0.8, color=COLOURS[shown.colour], alpha=0.8, edgecolor=PANEL, linewidth=0.5)
            if width_of(shown.text, 10) + 8 < length * pixels:
                axes.text(start + 4 / pixels, place + 0.5, shown.text, fontsize=7.2, color=PANEL, va="center_baseline", clip_on=True)


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
        sheet.text(area.x + left - 8, y, course.name, size=11, align="right", most=left - 10)
        sheet.box(area.x + left, y - row * 0.35, room, row * 0.7, BORDER)
        sheet.box(area.x + left, y - row * 0.35, room * part, row * 0.7, COLOURS[shown.colour], alpha=0.8)
        sheet.text(area.right - 4, y, shown.text, size=14, colour=COLOURS[shown.colour], align="right")


DRAWN: Final[Mapping[str, Callable[[Sheet, Area, Panel, Sequence[Course], Moment], None]]] = {
    "stat": stat,
    "timeseries": timeseries,
    "state-timeline": timeline,
    "bargauge": bars,
}
"""
What draws a kind of panel; tables are drawn of columns, by `draw_table`.
"""
