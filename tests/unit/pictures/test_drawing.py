"""
Every kind of panel is drawn where it belongs, with what was answered, and nothing that was not.
"""

from __future__ import annotations

import itertools
import math

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celery_obs.rules.dashboards.model import Place
from pictures.asking import Moment, Series
from pictures.pages import Legend, Look, Page, Panel, Word
from tests.unit.pictures.test_contents import ORGANISED, panel, series, target


if TYPE_CHECKING:
    from pictures.drawing import Picture


pytest.importorskip("matplotlib", reason="matplotlib draws, and needs Python 3.11.")

MOMENT = Moment(1_700_000_000.0, 1_700_000_300.0, 15.0)
POINTS = len(MOMENT.times)
SHOWN = Legend(shown=True, calcs=("lastNotNull", "max"), sort_by="Max", descending=True)


def drawn(shown: Panel, *found: Series) -> Picture:
    """
    Draw a page of one panel.
    """
    from pictures.drawing import Answers, draw

    page = Page("uid", "A page", (), (), (shown,))
    return draw(page, [Answers(shown, {target(): found})], MOMENT, {})


def lines_of(picture: Picture) -> list[list[float]]:
    """
    Return the values that the lines of the only axes go through.
    """
    import numpy as np

    [axes] = picture.sheet.figure.axes
    return [np.asarray(line.get_ydata(), dtype=float).tolist() for line in axes.get_lines()]


def texts(picture: Picture) -> list[str]:
    """
    Return what is written beside the axes.
    """
    return [text.get_text() for text in picture.sheet.figure.texts]


def test_a_course_has_a_line_for_each_series() -> None:
    """
    Each line goes through its values, has the colour of its place in the legend, and a gap stays a gap.
    """
    picture = drawn(
        panel(title="Rates", legend=SHOWN),
        series(*[1.0] * POINTS, channel="airbnb"),
        series(*[math.nan] * 5, *[2.0] * (POINTS - 5), channel="expedia"),
    )

    [axes] = picture.sheet.figure.axes
    assert "Rates" == axes.get_label()
    assert ["airbnb", "expedia"] == [line.get_label() for line in axes.get_lines()]
    airbnb, expedia = lines_of(picture)
    assert [1.0] * POINTS == airbnb
    assert 5 == sum(map(math.isnan, expedia))
    assert ["expedia", "airbnb"] == [text for text in texts(picture) if text in {"airbnb", "expedia"}]
    assert 2 == picture.panels[0].series


def test_stacked_courses_add_up() -> None:
    """
    The upper line is the sum, also where one of them is missing.
    """
    picture = drawn(panel(stacked=True), series(*[1.0] * POINTS, channel="a"), series(math.nan, *[2.0] * (POINTS - 1), channel="b"))

    [axes] = picture.sheet.figure.axes
    assert [1.0] + [3.0] * (POINTS - 1) == lines_of(picture)[1]
    assert axes.get_ylim()[1] >= 3.0


def test_a_point_without_neighbours_is_seen() -> None:
    """
    A single value is a dot, for no line leads to it.
    """
    values = [math.nan] * POINTS
    values[3] = 1.0

    [line] = drawn(panel(), series(*values, channel="a")).sheet.figure.axes[0].get_lines()

    assert [3] == line.get_markevery()


def test_a_legend_says_what_it_does_not_show() -> None:
    """
    As on the screen only some lines are seen; here it is told how many are not.
    """
    many = [series(*[float(number)] * POINTS, channel=f"c{number}") for number in range(20)]

    shown = texts(drawn(panel(legend=SHOWN), *many))

    visible = [text for text in shown if text.startswith("c")]
    assert "c19" == visible[0]
    assert f"(+{20 - len(visible)} more)" in "".join(shown)


def test_a_stat_is_the_last_value_with_its_word() -> None:
    """
    A breaker is closed, and not 0.
    """
    look = Look(unit="none", words={"0": Word("closed", "green")})

    assert "closed" in texts(drawn(panel(kind="stat", look=look), series(0.0, channel="airbnb")))


def test_a_timeline_has_a_bar_for_each_state() -> None:
    """
    One closed, one open, one closed again: three bars, with the colours of their states.
    """
    look = Look(unit="none", words={"0": Word("closed", "green"), "1": Word("open", "red")})
    half = [0.0] * 8 + [1.0] * 5 + [0.0] * (POINTS - 13)

    [axes] = drawn(panel(kind="state-timeline", look=look), series(*half, channel="airbnb")).sheet.figure.axes

    assert 3 == len(axes.patches)
    assert 2 == len({patch.get_facecolor() for patch in axes.patches})
    assert 8 * 15.0 == axes.patches[0].get_width()  # type: ignore[attr-defined]  # They are rectangles.


def test_a_bar_is_as_long_as_its_value() -> None:
    """
    Half of the highest is half as long, from 0 where the panel says so.
    """
    from matplotlib.patches import Rectangle

    look = Look(unit="none", minimum=0.0)
    picture = drawn(panel(kind="bargauge", look=look), series(5.0, channel="a"), series(10.0, channel="b"))

    boxes = [artist for artist in picture.sheet.figure.get_children() if isinstance(artist, Rectangle)]
    bars = [box.get_width() for box in boxes if box.get_alpha() == 0.8]
    assert 2 * bars[0] == pytest.approx(bars[1])


def test_a_table_has_its_cells() -> None:
    """
    Titles, labels and numbers are there to be read.
    """
    shown = panel(kind="table", table=ORGANISED._replace(titles={"channel": "Channel", "Value": "Errors"}))

    assert {"Channel", "Errors ↓", "airbnb", "7"} <= set(texts(drawn(shown, series(7.0, channel="airbnb"))))


@pytest.mark.parametrize("kind", ["stat", "timeseries", "table", "state-timeline", "bargauge"])
def test_nothing_is_said_to_be_nothing(kind: str) -> None:
    """
    Without an answer there is the panel's own text, and neither a 0 nor an axis.
    """
    picture = drawn(panel(kind=kind, title="Empty", no_value="none counted"))

    assert ["Empty", "none counted"] == texts(picture)[-2:]
    assert [] == picture.sheet.figure.axes
    assert 0 == picture.panels[0].series


def test_panels_lie_as_on_the_grid() -> None:
    """
    Two panels of half the width lie beside each other, and the sheet is as high as the page.
    """
    from pictures.drawing import draw

    left, right = panel(title="left", place=Place(0, 0, 12, 8)), panel(title="right", place=Place(12, 0, 12, 8))
    from pictures.drawing import Answers

    page = Page("uid", "A page", (), (), (left, right))
    picture = draw(page, [Answers(left, {}), Answers(right, {})], MOMENT, {})

    one, other = (item.area for item in picture.panels)
    assert (one.y, one.width, one.height) == (other.y, other.width, other.height)
    assert one.right < other.x
    assert other.right < picture.sheet.width
    assert one.y + one.height < picture.sheet.height


def test_a_picture_is_small_and_the_same_each_time(tmp_path: Path) -> None:
    """
    It has a palette, and no date or version in it that would change with nothing else.
    """
    from PIL import Image

    for name in ("one.png", "other.png"):
        drawn(panel(legend=SHOWN), series(*[1.0] * POINTS, channel="airbnb")).sheet.save(tmp_path / name)

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert "P" == image.mode
        assert {} == {key: value for key, value in image.info.items() if key != "dpi"}


def test_a_long_text_ends_with_an_ellipsis() -> None:
    """
    What does not fit is cut to the width, and says so.
    """
    from pictures.sheet import shortened, width_of

    cut = shortened("channel_manager.refresh_single_token", 10, 80.0)

    assert cut.endswith("…")
    assert width_of(cut, 10) <= 80.0
    assert "short" == shortened("short", 10, 80.0)


@pytest.mark.parametrize("columns", [3, 6, 12, 24])
def test_times_do_not_run_into_each_other(columns: int) -> None:
    """
    Below a narrow panel stand fewer times than below a wide one, and always room for each.
    """
    picture = drawn(panel(place=Place(0, 0, columns, 8)), series(*[1.0] * POINTS, channel="airbnb"))

    [axes] = picture.sheet.figure.axes
    width = axes.get_position().width * picture.sheet.width
    ticks = axes.get_xticks()
    assert all((one - other) / (MOMENT.end - MOMENT.start) * width >= 45 for other, one in itertools.pairwise(ticks))
