"""
A whole page: its title, what was chosen, and every panel in its place on the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Final, NamedTuple

from celery_obs.rules.dashboards.model import WIDTH, Place

from .asking import Moment, Series
from .contents import courses, table
from .kinds import DRAWN, Area, draw_table
from .pages import Page, Panel, Target
from .sheet import BORDER, FAINT, PANEL, TEXT, Sheet, width_of


__all__ = ["Answers", "Drawn", "Picture", "draw"]


_PAGE: Final = 1120.0
_MARGIN: Final = 12.0
_GAP: Final = 8.0
_CELL: Final = 34.0
_TOP: Final = 46.0
_TITLE: Final = 28.0


class Answers(NamedTuple):
    """
    What Prometheus said to a panel's queries.
    """

    panel: Panel
    found: Mapping[Target, Sequence[Series]]


class Drawn(NamedTuple):
    """
    A panel that was drawn, and how many series or lines it shows.
    """

    title: str
    area: Area
    series: int


class Picture(NamedTuple):
    """
    A page as it can be saved, and what is on it.
    """

    sheet: Sheet
    panels: tuple[Drawn, ...]


def draw(page: Page, answers: Sequence[Answers], moment: Moment, chosen: Mapping[str, str]) -> Picture:
    """
    Draw *page* with what was answered.

    Args:
        chosen: What the reader sees as chosen for each variable.
    """
    sheet = Sheet(_PAGE, _TOP + page.height * _CELL + _MARGIN)
    _head(sheet, page, moment, chosen)
    for heading in page.headings:
        area = _area(heading.place)
        sheet.text(area.x + 4, area.y + area.height / 2, f"▾  {heading.title}", size=14, weight="bold")
    return Picture(sheet, tuple(_panel(sheet, answer, moment) for answer in answers))


def _head(sheet: Sheet, page: Page, moment: Moment, chosen: Mapping[str, str]) -> None:
    choices = [f"{each.title}: {chosen[each.name]}" for each in page.variables]
    minutes = (moment.end - moment.start) / 60
    ends = [datetime.fromtimestamp(time, tz=timezone.utc).strftime("%H:%M") for time in (moment.start, moment.end)]
    sheet.text(_MARGIN, _TOP / 2, page.title, size=18, weight="bold")
    sheet.text(
        _PAGE - _MARGIN, _TOP / 2, "     ".join([*choices, f"Last {minutes:.0f} minutes ({ends[0]} to {ends[1]} UTC)"]), size=12, colour=FAINT, align="right"
    )  # fmt: skip


def _panel(sheet: Sheet, answer: Answers, moment: Moment) -> Drawn:
    panel, area = answer.panel, _area(answer.panel.place)
    sheet.box(area.x, area.y, area.width, area.height, PANEL, edge=BORDER)
    # A screen is wider than this sheet, and has room for titles that are a little too long here.
    size = min(13.0, 13.0 * (area.width - 20) / width_of(panel.title, 13.0, "bold"))
    sheet.text(area.x + 10, area.y + _TITLE / 2 + 1, panel.title, size=size, colour=TEXT, weight="bold")
    inside = Area(area.x + 8, area.y + _TITLE, area.width - 16, area.height - _TITLE - 8)
    if panel.kind == "table":
        columns = table(answer.found, panel)
        draw_table(sheet, inside, panel, columns)
        count = max((len(column.cells) for column in columns), default=0)
    else:
        found = courses(answer.found)
        count = len(found)
        if found:
            DRAWN[panel.kind](sheet, inside, panel, found, moment)
    if not count:
        sheet.text(inside.x + inside.width / 2, inside.y + inside.height / 2, panel.no_value, size=14, colour=FAINT, align="center")
    return Drawn(panel.title, area, count)


def _area(place: Place) -> Area:
    """
    Find a place of the grid on the sheet.
    """
    column = (_PAGE - 2 * _MARGIN + _GAP) / WIDTH
    return Area(_MARGIN + place.x * column, _TOP + place.y * _CELL, place.width * column - _GAP, place.height * _CELL - _GAP)
