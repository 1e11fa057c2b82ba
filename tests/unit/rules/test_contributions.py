"""
Dashboards about several areas: what areas give stands where it belongs, and an area that is not there leaves no gap.
"""

from __future__ import annotations

from collections.abc import Collection

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas import parts
from celery_obs.rules.dashboards import contributions
from celery_obs.rules.dashboards.contributions import completed
from celery_obs.rules.dashboards.model import Column, Contribution, Dashboard, Panel, Query, Row


GIVERS = {area.name: part for area, part in parts("panels")}
SKELETONS = tuple(page for _, part in parts("dashboards") for page in part.DASHBOARDS)


def panel(title: str, *columns: str) -> Panel:
    """
    Make a panel; with *columns*, a table.
    """
    queries = tuple(Query(expr="up", legend=legend) for legend in columns or ("up",))
    return Panel(kind="table" if columns else "stat", title=title, question="Is it up?", queries=queries)


def page(*rows: Row) -> Dashboard:
    """
    Make a dashboard.
    """
    return Dashboard(uid="celery-tasks", title="A page", question="Is it up?", rows=rows)


def shown(made: Dashboard) -> list[tuple[str, str, str]]:
    """
    Return what is on a dashboard, in reading order: row, panel and column.
    """
    return [(row.title, each.title, query.legend) for row in made.rows for each in row.panels for query in each.queries]


def titles(made: Dashboard) -> list[tuple[str, str]]:
    """
    Return the panels on a dashboard, in reading order.
    """
    return [(row.title, each.title) for row in made.rows for each in row.panels]


def without(names: Collection[str], made: Dashboard) -> Dashboard:
    """
    Complete a dashboard as it is where the areas of these names are not there.
    """
    there = [part for name, part in GIVERS.items() if name not in names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contributions, "_PANELS", tuple(each for part in there for each in getattr(part, "PANELS", ())))
        patch.setattr(contributions, "_COLUMNS", tuple(each for part in there for each in getattr(part, "COLUMNS", ())))
        return completed(made)


def test_what_areas_give_stands_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever the order in which the areas are met, between the dashboard's own panels and the table's own columns.
    """
    monkeypatch.setattr(
        contributions,
        "_PANELS",
        (
            Contribution("celery-tasks", "Summary", 3, panel("fourth")),
            Contribution("celery-tasks", "Summary", 0, panel("first")),
            Contribution("celery-queues", "Summary", 0, panel("elsewhere")),
            Contribution("celery-tasks", "A new row", 0, panel("last")),
        ),
    )
    monkeypatch.setattr(contributions, "_COLUMNS", (Column("celery-tasks", "second", 1, Query(expr="up", legend="b")),))

    made = completed(page(Row("Empty", ()), Row("Summary", (panel("second", "a", "c"), panel("third")))))

    assert [
        ("Summary", "first", "up"),
        ("Summary", "second", "a"),
        ("Summary", "second", "b"),
        ("Summary", "second", "c"),
        ("Summary", "third", "up"),
        ("Summary", "fourth", "up"),
        ("A new row", "last", "up"),
    ] == shown(made)


@given(gone=st.sets(st.sampled_from(sorted(GIVERS))), skeleton=st.sampled_from(SKELETONS))
def test_an_area_that_is_not_there_leaves_no_gap(gone: set[str], skeleton: Dashboard) -> None:
    """
    Whichever areas are missing, no row is empty, and the dashboard's own panels and those of the other areas are there, each in their order.
    """
    own, everything = titles(skeleton), titles(completed(skeleton))
    theirs = [each for each in everything if each not in own]

    left = without(gone, skeleton)

    assert all(row.panels for row in left.rows)
    assert own == [each for each in titles(left) if each in own]
    assert [each for each in titles(left) if each not in own] == [each for each in theirs if each in titles(left)]
    given = [each for name, part in GIVERS.items() if name not in gone for each in getattr(part, "PANELS", ())]
    assert {each.panel.title for each in given if each.dashboard == skeleton.uid} <= {each.title for each in left.panels()}


def test_each_panel_that_an_area_gives_is_shown_once() -> None:
    """
    No area gives to a dashboard or a table that is not there.
    """
    from celery_obs.rules.dashboards.pages import DASHBOARDS

    known = [(made.uid, each.title) for made in DASHBOARDS for each in made.panels()]
    for part in GIVERS.values():
        assert {(each.dashboard, each.panel.title) for each in getattr(part, "PANELS", ())} <= set(known)
        assert {(each.dashboard, each.panel) for each in getattr(part, "COLUMNS", ())} <= set(known)
