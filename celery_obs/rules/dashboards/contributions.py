"""
Dashboards about several areas: each area gives the panels and columns that are about it, and one that is not there leaves no gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from celery_obs.areas import left_out_if_broken, parts

from .model import Column, Contribution, Dashboard, Panel, Row


__all__ = ["completed"]


T = TypeVar("T")


def _gathered() -> tuple[tuple[Contribution, ...], tuple[Column, ...]]:
    panels: list[Contribution] = []
    columns: list[Column] = []
    for area, part in parts("panels"):
        with left_out_if_broken(area, "panels"):
            panels.extend(getattr(part, "PANELS", ()))
            columns.extend(getattr(part, "COLUMNS", ()))
    return tuple(panels), tuple(columns)


_PANELS, _COLUMNS = _gathered()


def completed(page: Dashboard) -> Dashboard:
    """
    Put what the areas give into a dashboard; a row that has no panel then is left out.
    """
    given = [each for each in _PANELS if each.dashboard == page.uid]
    rows: dict[str, tuple[Panel, ...]] = {row.title: row.panels for row in page.rows} | {
        each.row: () for each in given if all(each.row != row.title for row in page.rows)
    }
    made = []
    for title, panels in rows.items():
        placed = _placed(panels, ((each.place, each.panel) for each in given if each.row == title))
        if placed:
            made.append(Row(title, tuple(_with_columns(page.uid, panel) for panel in placed)))
    return replace(page, rows=tuple(made))


def _with_columns(uid: str, panel: Panel) -> Panel:
    given = [(each.place, each.query) for each in _COLUMNS if (each.dashboard, each.panel) == (uid, panel.title)]
    return replace(panel, queries=_placed(panel.queries, given)) if given else panel


def _placed(own: Sequence[T], given: Iterable[tuple[int, T]]) -> tuple[T, ...]:
    """
    Put each of *given* at its place among *own*, or at the end where it would stand beyond.
    """
    made = list(own)
    for place, each in sorted(given, key=lambda pair: pair[0]):
        made.insert(place, each)
    return tuple(made)
