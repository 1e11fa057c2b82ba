"""
Numbers look as Grafana writes them, in every unit that a panel has.
"""

from __future__ import annotations

import itertools
import math

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.rules.dashboards.pages import DASHBOARDS
from pictures.units import UNITS, lines, written


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.0, "none", "0"),
        (-0.0, "none", "0"),
        (62.0, "none", "62"),
        (1.2345, "none", "1.23"),
        (1310.0, "short", "1.31 K"),
        (2_500_000.0, "short", "2.50 Mil"),
        (0.9995, "percentunit", "100.0%"),
        (0.806, "percentunit", "80.6%"),
        (0.07, "percentunit", "7%"),
        (1250.0, "opm", "1.25K ops/m"),
        (0.4, "reqps", "0.400 req/s"),
        (0.0, "s", "0 s"),
        (0.0632, "s", "63.2 ms"),
        (59.5, "s", "59.5 s"),
        (90.0, "s", "1.50 mins"),
        (3600.0, "s", "1 hour"),
        (129600.0, "s", "1.50 days"),
        (-12.0, "s", "-12 s"),
        (0.0, "dtdurations", "0 seconds"),
        (0.5, "dtdurations", "500 milliseconds"),
        (1.0, "dtdurations", "1 second"),
        (7199.0, "dtdurations", "1 hour"),
        (-31.0, "dtdurations", "31 seconds ago"),
        (1048576.0, "bytes", "1 MiB"),
        (1500.0, "decbytes", "1.50 kB"),
        (math.nan, "s", "NaN"),
        (math.inf, "s", "∞"),
    ],
)
def test_a_number_is_written_as_grafana_does(value: float, unit: str, expected: str) -> None:
    """
    Three digits that count, in the largest unit that is not larger than the number.
    """
    assert expected == written(value, unit)


def test_decimals_are_those_that_somebody_chose() -> None:
    """
    What is promised to two places is not rounded to three digits.
    """
    assert "99.95%" == written(0.9995, "percentunit", 2)
    assert "9" == written(9.03, "none", 0)
    assert "1.3 K" == written(1310.0, "short", 1)


def test_every_unit_of_a_panel_is_known() -> None:
    """
    No panel has a unit that cannot be drawn.
    """
    used = {panel.unit for page in DASHBOARDS for panel in page.panels()}
    used |= {query.unit for page in DASHBOARDS for panel in page.panels() for query in panel.queries if query.unit}

    assert used <= set(UNITS)


def test_an_unknown_unit_is_refused() -> None:
    """
    It is told which unit that is, and where to teach it.
    """
    with pytest.raises(ValueError, match=r"unit 'furlongs'\. Expected one of .*percentunit.*pictures\.units"):
        written(1.0, "furlongs")


@given(st.floats(-1e12, 1e12), st.sampled_from(sorted(UNITS)))
def test_any_number_fits_beside_a_panel(value: float, unit: str) -> None:
    """
    No number is long, and none has an exponent.
    """
    text = written(value, unit)

    assert len(text) <= 24
    assert "e+" not in text


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.sampled_from(["none", "s", "bytes", "percentunit"]))
def test_lines_enclose_what_is_drawn(low: float, span: float, unit: str) -> None:
    """
    Whatever the course, a few evenly spaced lines lie behind it, from at most its lowest to at least its highest value.
    """
    high = low + span
    slack = 1e-6 * (abs(low) + abs(high))

    marks = lines(low, high, unit)

    assert marks[0] <= low + slack
    assert high - slack <= marks[-1]
    assert len(marks) <= 8
    assert all(one < other for one, other in itertools.pairwise(marks))


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (0.0, 1.0, "percentunit", [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 85.0, "s", [0, 30, 60, 90]),
        (0.0, 400 * 1024.0**2, "bytes", [0, 100 * 1024**2, 200 * 1024**2, 300 * 1024**2, 400 * 1024**2]),
        (1.0, 3.0, "short", [1, 1.5, 2, 2.5, 3]),
        (7.0, 7.0, "short", [7]),
    ],
)
def test_lines_are_round_in_their_unit(low: float, high: float, unit: str, expected: list[float]) -> None:
    """
    Percents go by twenties, seconds by halves of a minute, bytes by hundreds of mebibytes.
    """
    assert expected == pytest.approx(lines(low, high, unit))
