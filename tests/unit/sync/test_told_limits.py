"""
What channels say of their limits in headers, in the spellings that are in use.
"""

from __future__ import annotations

from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.sync.told_limits import told_limits
from celery_obs.testing import FakeClock


NOW = 1_800_000_000.0
CLOCK = FakeClock(NOW)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "30"}, (5, 30)),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1800000060"}, (0, 60)),
        ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "1800000060000"}, (7, 60)),
        ({"X-RateLimit-Reset": "2027-01-15T08:01:00Z"}, (None, 60)),
        ({"X-Rate-Limit-Remaining": "1", "X-Rate-Limit-Reset": "1.5"}, (1, 1.5)),
        ({"RateLimit-Remaining": "12", "RateLimit-Reset": "9"}, (12, 9)),
        ({"RateLimit": "limit=100, remaining=50, reset=30"}, (50, 30)),
        ({"RateLimit": '"default";r=50;t=30'}, (50, 30)),
        ({"RateLimit": '"minute";r=50;t=30, "day";r=3;t=3600'}, (3, 3600)),
        ({"RateLimit": '"default";r=50'}, (50, None)),
        ({b"unusual": b"5"}, (None, None)),
        ({"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "soon"}, (None, None)),
        ({"X-RateLimit-Remaining": "-1"}, (None, None)),
        ({}, (None, None)),
        (None, (None, None)),
    ],
    ids=str,
)
def test_each_spelling_is_read(headers: Any, expected: tuple[int | None, float | None]) -> None:
    """
    Seconds, times since the epoch in seconds and milliseconds, and dates; what makes no sense was not said.
    """
    assert expected == told_limits(headers, clock=CLOCK)


@given(
    st.dictionaries(
        st.sampled_from(["X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit"]), st.text(max_size=40) | st.binary(max_size=40)
    )
)
def test_whatever_a_header_holds_nothing_is_raised(headers: Any) -> None:
    """
    It comes from a stranger.
    """
    remaining, reset = told_limits(headers, clock=CLOCK)

    assert remaining is None or remaining >= 0
    assert reset is None or reset >= 0
