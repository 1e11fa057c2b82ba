"""
What a panel shows is what Grafana makes of the same answers.
"""

from __future__ import annotations

import itertools
import math

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.rules.dashboards.model import Place
from pictures.asking import Series
from pictures.contents import Cell, Course, cell, courses, listed, periods, table
from pictures.pages import Legend, Look, Panel, Step, Table, Target, Word


ORGANISED = Table(
    order={"channel": 0, "Value #A": 1, "Value #B": 2},
    titles={"channel": "Channel", "Value #A": "State", "Value #B": "Errors"},
    hidden=frozenset({"Time"}),
    sort_by="Errors",
    descending=True,
)
STATES = Look(unit="none", words={"1": Word("open", "red")}, tinted=True)


def panel(**facts: Any) -> Panel:
    """
    Make a panel; only what the test is about is told.
    """
    common: dict[str, Any] = {
        "kind": "timeseries",
        "title": "t",
        "place": Place(0, 0, 12, 8),
        "targets": (),
        "look": Look(),
        "looks": {},
        "legend": Legend(),
        "table": Table({}, {}, frozenset()),
        "stacked": False,
        "line": 1.0,
        "fill": 0.0,
        "no_value": "no data",
    }
    return Panel(**{**common, **facts})


def target(letter: str = "A", legend: str = "{{channel}}") -> Target:
    """
    Make a query.
    """
    return Target(letter, "vector(0)", legend, is_course=True)


def series(*values: float, **labels: str) -> Series:
    """
    Make a row of an answer.
    """
    return Series(labels, values)


def test_a_legend_names_its_series() -> None:
    """
    Labels stand in the place of their names; one that is missing leaves nothing.
    """
    answers = {target(legend="{{channel}} p95 {{ lost }}"): [series(1.0, channel="airbnb")]}

    assert ["airbnb p95 "] == [course.name for course in courses(answers)]


def test_a_number_takes_the_colour_of_the_highest_step_that_it_reached() -> None:
    """
    An edge belongs to the step that begins there.
    """
    look = Look(unit="none", steps=(Step(-math.inf, "green"), Step(1.0, "yellow"), Step(10.0, "red")))

    assert ["green", "yellow", "red"] == [cell(value, look).colour for value in (0.0, 1.0, 11.0)]


def test_without_steps_grafana_has_its_own() -> None:
    """
    What says nothing of thresholds is red from 80 on, as it would be on the screen.
    """
    assert ("green", "red") == (cell(79.0, Look()).colour, cell(80.0, Look()).colour)


def test_a_word_stands_for_its_number_only() -> None:
    """
    1 is open; 0 and 1.4 are numbers.
    """
    assert [Cell("open", "red"), Cell("0", "green"), Cell("1.40", "green")] == [cell(value, STATES) for value in (1.0, 0.0, 1.4)]


def test_a_colour_of_its_own_comes_before_any_step() -> None:
    """
    Failures are red whether there are few or many.
    """
    assert "red" == cell(0.0, Look(colour="red")).colour


def test_a_table_joins_answers_on_their_labels() -> None:
    """
    A line for each channel, a column for each query, the worst first, and a blank where one query says nothing.
    """
    answers = {
        target("A"): [series(1.0, channel="airbnb"), series(0.0, channel="expedia")],
        target("B"): [series(3.0, channel="expedia"), series(7.0, channel="vrbo")],
    }

    columns = table(answers, panel(kind="table", table=ORGANISED, looks={"State": STATES}))

    assert {
        "Channel": ["vrbo", "expedia", "airbnb"],
        "State": ["", "0", "open"],
        "Errors": ["7", "3", ""],
    } == {column.title: [shown.text for shown in column.cells] for column in columns}  # fmt: skip
    assert ["Channel", "State", "Errors"] == [column.title for column in columns]
    assert [False, True, True] == [column.is_number for column in columns]


def test_only_what_is_tinted_has_a_colour_in_a_table() -> None:
    """
    Grafana writes plain numbers in the colour of text, whatever their steps.
    """
    answers = {target("A"): [series(1.0, channel="airbnb")], target("B"): [series(100.0, channel="airbnb")]}

    columns = table(answers, panel(kind="table", table=ORGANISED, looks={"State": STATES}))

    assert ["text", "red", "text"] == [column.cells[0].colour for column in columns]


def test_a_column_that_nobody_organised_is_seen() -> None:
    """
    A label that the query should have summed away is at the end of the table, as it would be on the screen.
    """
    columns = table({target(): [series(1.0, channel="airbnb", pod="p")]}, panel(kind="table", table=ORGANISED))

    assert ["Channel", "Value", "pod"] == [column.title for column in columns]


def test_a_legend_is_in_its_order() -> None:
    """
    The highest first where it says so, and what was never there last.
    """
    found = [Course("low", (1.0, 2.0)), Course("never", (math.nan, math.nan)), Course("high", (9.0, 0.0))]
    sorted_by = panel(legend=Legend(shown=True, calcs=("max",), sort_by="Max", descending=True))

    assert ["high", "low", "never"] == [course.name for course in listed(found, sorted_by)]
    assert ["low", "never", "high"] == [course.name for course in listed(found, panel())]


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, math.nan])))
def test_periods_are_what_was_there(values: list[float]) -> None:
    """
    Every point lies in one period of its value, none where there was nothing, and neighbours differ.
    """
    found = periods(values)

    drawn = {place: period.value for period in found for place in range(period.first, period.after)}
    assert drawn == {place: value for place, value in enumerate(values) if not math.isnan(value)}
    assert sum(period.after - period.first for period in found) == len(drawn)
    assert all(one.after < other.first or one.value != other.value for one, other in itertools.pairwise(found))


labels = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", "z"]), min_size=1)


@given(st.lists(labels, unique_by=lambda each: tuple(sorted(each.items()))), st.randoms())
def test_a_table_has_a_line_for_each_set_of_labels(rows: list[Mapping[str, str]], chance: Any) -> None:
    """
    In whatever order two queries answer, none of what they say is lost or doubled.
    """
    other = list(rows)
    chance.shuffle(other)
    answers = {target("A"): [Series(each, (1.0,)) for each in rows], target("B"): [Series(each, (2.0,)) for each in other]}

    columns = {column.title: column for column in table(answers, panel(kind="table"))}

    assert all(len(column.cells) == len(rows) for column in columns.values())
    assert all(shown.text == "1" for shown in (columns["Value #A"].cells if rows else ()))


def test_a_series_looks_as_its_name_or_the_end_of_it_says() -> None:
    """
    Of several series that failed, each is red.
    """
    look = panel(looks={"success": Look(colour="green"), "/: failure$/": Look(colour="red")}).look_of

    assert ["green", "red", ""] == [look(name).colour for name in ("success", "import: failure", "failure")]
