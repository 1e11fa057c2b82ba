"""
Which errors say that our own rules held a call back, and what a task takes along while it waits.
"""

from __future__ import annotations

from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.errors import ApiError, CircuitOpenError, HeldBackTooLongError, LimitReachedError, RateLimitError, held_back
from celery_obs.areas.channels.syncs.waiting import Held


class GroupError(Exception):
    """
    As Python 3.11's groups of exceptions have their members.
    """

    def __init__(self, *exceptions: Exception) -> None:
        super().__init__("a group")
        self.exceptions = exceptions


def from_(cause: BaseException) -> Exception:
    error = RuntimeError("a client's own")
    error.__cause__ = cause
    return error


OPEN, USED_UP = CircuitOpenError("open", retry_after=2.0), LimitReachedError("used up", retry_after=9.0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OPEN, OPEN),
        (from_(USED_UP), USED_UP),
        (from_(from_(OPEN)), OPEN),
        (GroupError(OPEN, from_(USED_UP)), USED_UP),
        (GroupError(OPEN, ApiError("503")), None),
        (RateLimitError("429"), None),
        (HeldBackTooLongError("too long"), None),
        (ValueError("a bug"), None),
        (None, None),
    ],
    ids=repr,
)
def test_a_refusal_of_our_own_is_found_under_what_was_raised_from_it(error: BaseException | None, expected: object) -> None:
    """
    Also in groups where nothing else went wrong; a channel's own 429 is none.
    """
    assert expected is held_back(error)


def test_a_cause_that_goes_round_ends() -> None:
    """
    Any code may set a cause.
    """
    first, second = RuntimeError(), RuntimeError()
    first.__cause__, second.__cause__ = second, first

    assert held_back(first) is None


@given(st.floats(0, 1e10), st.integers(0, 10**6), st.text(max_size=20), st.floats(0, 1e10), st.floats(0, 1e5))
def test_what_a_task_takes_along_comes_back_as_it_was(since: float, times: int, line: str, turn: float, spacing: float) -> None:
    """
    Through a message header.
    """
    held = Held(since, times, line, turn, spacing)

    assert held == Held.of(held.as_header())


@given(
    st.none()
    | st.text()
    | st.lists(st.none() | st.text() | st.floats() | st.integers() | st.booleans(), max_size=6)
    | st.dictionaries(st.text(), st.text())
)
def test_a_header_of_a_stranger_is_none_of_ours_or_makes_sense(written: Any) -> None:
    """
    Any client may publish a message.
    """
    held = Held.of(written)

    assert held.since >= 0
    assert held.times >= 0
