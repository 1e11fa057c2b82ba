"""
A page is read from the file that Grafana loads, and asked as Grafana asks.
"""

from __future__ import annotations

import json
import re

from pathlib import Path
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.rules.dashboards.model import Dashboard, Row, placed
from celery_obs.rules.dashboards.pages import DASHBOARDS, FOLDER
from pictures.asking import Moment, filled
from pictures.pages import Page, read


ROOT = Path(__file__).parents[3]


def shipped(uid: str) -> Path:
    """
    Return the file of a page.
    """
    return ROOT / FOLDER / f"{uid}.json"


def changed(tmp_path: Path, **changes: Any) -> Path:
    """
    Write a shipped page with a changed first panel.
    """
    model = json.loads(shipped("celery-beat").read_text())
    model["panels"][1] |= changes
    path = tmp_path / "page.json"
    path.write_text(json.dumps(model))
    return path


@pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: page.uid)
def test_what_is_read_is_what_was_meant(page: Dashboard) -> None:
    """
    Every panel is where it was laid out, with its queries, its title and its kind.
    """
    found = read(shipped(page.uid))

    meant = [(item.what, item.place) for item in placed(page)]
    assert [(what.kind, what.title, place) for what, place in meant if not isinstance(what, Row)] == [
        (panel.kind, panel.title, panel.place) for panel in found.panels
    ]
    assert [(what.title, place) for what, place in meant if isinstance(what, Row)] == [tuple(heading) for heading in found.headings]
    assert [[query.expr for query in panel.queries] for panel in page.panels()] == [
        [target.expr for target in panel.targets] for panel in found.panels
    ]
    assert [variable.name for variable in page.variables] == [variable.name for variable in found.variables]


def test_a_column_has_its_own_look() -> None:
    """
    What a table says of one column holds for that one, and the panel's look for the others.
    """
    [table] = [panel for panel in overview().panels if panel.kind == "table"]

    assert ("none", "closed", True) == (
        table.look_of("Status").unit,
        table.look_of("Status").words["0"].text,
        table.look_of("Status").tinted,
    )
    assert ("short", False) == (table.look_of("Channel").unit, table.look_of("Channel").tinted)
    assert ("none", table.look.steps) == (table.look_of("Running").unit, table.look_of("Running").steps)


def test_what_a_file_does_not_say_grafana_assumes(tmp_path: Path) -> None:
    """
    Without thresholds a number is red from 80 on, and without a unit it is short.
    """
    bare = read(changed(tmp_path, fieldConfig={"defaults": {}})).panels[0]

    assert [("green", float("-inf")), ("red", 80.0)] == [(step.colour, step.value) for step in bare.look.steps]
    assert ("short", None) == (bare.look.unit, bare.look.minimum)


def test_another_kind_of_panel_is_refused(tmp_path: Path) -> None:
    """
    What cannot be drawn is named, with what can.
    """
    with pytest.raises(ValueError, match=r"page\.json .* is a heatmap, and only stat, timeseries, .* can be drawn"):
        read(changed(tmp_path, type="heatmap"))


@pytest.mark.parametrize(("text", "problem"), [("{}", "has no 'panels'"), ("[1]", "no dashboard"), ("{", "no dashboard")])
def test_what_is_no_dashboard_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """
    The file is named, and where a good one comes from.
    """
    path = tmp_path / "page.json"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"page\.json is no dashboard.*Expected what celery-obs generate writes") as caught:
        read(path)
    assert problem in str(caught.value)


def test_variables_are_filled_in() -> None:
    """
    A window of rates spans four scrapes, the range is the whole time, and choices stand in the place of their names.
    """
    moment = Moment(0.0, 900.0, 15.0)

    assert 'rate(x{job=~"a|b"}[60s]) / increase(x[900s])' == filled(
        'rate(x{job=~"$job"}[$__rate_interval]) / increase(x[$__range])', moment, {"job": "a|b"}
    )
    with pytest.raises(ValueError, match=r"Nothing is chosen for \$jobb in 'x\{job=\"\$jobb\"\}'\. Expected one of: .*job"):
        filled('x{job="$jobb"}', moment, {"job": "a"})


@given(st.floats(60, 90 * 86400), st.sampled_from([1.0, 5.0, 15.0, 60.0]))
def test_any_zoom_has_few_points_and_wide_rates(span: float, every: float) -> None:
    """
    From a minute to months: no more points than a panel has pixels, none closer than scrapes, and four of these in each rate.
    """
    moment = Moment(1_700_000_000.0, 1_700_000_000.0 + span, every)
    [window] = re.findall(r"\d+", filled("$__rate_interval", moment, {}))

    assert len(moment.times) <= 401
    assert moment.step >= every
    assert int(window) >= 4 * every
    assert int(window) >= moment.step


def overview() -> Page:
    """
    Return the page with most kinds of panels.
    """
    return read(shipped("channel-manager-overview"))


def test_every_page_has_its_picture() -> None:
    """
    Each dashboard of the reference can be looked at, no picture of an old one lies about, and none is large.
    """
    pictures = {path.stem: path.stat().st_size for path in (ROOT / "docs/dashboards").glob("*")}

    assert {page.uid for page in DASHBOARDS} == set(pictures)
    assert max(pictures.values()) < 200_000
