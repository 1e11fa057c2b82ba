"""
Comparing two sides day by day: the merge agrees with two dictionaries, holds little, and refuses what it cannot merge.
"""

from __future__ import annotations

import itertools

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.state.pending import MOST_TYPES, SAMPLE, PendingDay
from celery_obs.sync.reconciliation import CalendarError, classify, compare, merged
from celery_obs.vocabulary.spec import OTHER


START = date(2030, 1, 1)
END = START + timedelta(days=20)


def day(number: int) -> date:
    return START + timedelta(days=number)


calendars = st.dictionaries(st.integers(-5, 25).map(day), st.integers(0, 2) | st.none(), max_size=25)


@given(local=calendars, remote=calendars)
def test_the_merge_says_what_two_dictionaries_say(local: dict[date, Any], remote: dict[date, Any]) -> None:
    """
    Every day of the window that a side has comes once, in order, with what both hold.
    """
    expected = [(each, local.get(each), remote.get(each)) for each in sorted(local.keys() | remote.keys()) if START <= each < END]

    assert expected == list(merged(sorted(local.items()), iter(sorted(remote.items())), start=START, end=END))


@given(local=calendars, remote=calendars)
def test_a_comparison_counts_what_two_dictionaries_differ_in(local: dict[date, Any], remote: dict[date, Any]) -> None:
    """
    Checked and drifted days, their types and the earliest of them follow from the two sides.
    """
    days = [each for each in sorted(local.keys() | remote.keys()) if START <= each < END]
    drifted = [each for each in days if local.get(each) != remote.get(each)]

    found = compare(sorted(local.items()), sorted(remote.items()), start=START, end=END)

    assert (len(days), len(drifted)) == (found.checked, found.drifted)
    assert len(drifted) == sum(found.conflicts.values())
    assert [each.isoformat() for each in drifted[:SAMPLE]] == [each.day for each in found.sample]


def test_each_kind_of_difference_has_its_word() -> None:
    """
    A person sees which side misses the day, and what both hold.
    """
    local, remote = [(day(0), 1), (day(1), 2), (day(2), 3)], [(day(1), 5), (day(2), 3), (day(3), 4)]

    found = compare(local, remote, start=START, end=END)

    assert {"missing_remote": 1, "availability_mismatch": 1, "missing_local": 1} == found.conflicts
    assert [
        PendingDay("2030-01-01", "missing_remote", "1", None),
        PendingDay("2030-01-02", "availability_mismatch", "2", "5"),
        PendingDay("2030-01-04", "missing_local", None, "4"),
    ] == found.sample


def test_the_application_may_have_words_of_its_own() -> None:
    """
    A classification of the user's decides what differs, and what that is called.
    """

    def prices(_: date, local: Any, remote: Any) -> str | None:
        return "price_mismatch" if abs(local - remote) > 1 else None

    found = compare([(day(0), 10), (day(1), 10)], [(day(0), 11), (day(1), 12)], start=START, end=END, classify=prices)

    assert (2, {"price_mismatch": 1}) == (found.checked, found.conflicts)


def test_words_without_end_share_one() -> None:
    """
    Somebody who invents a type for each day gets a bounded number of counts.
    """
    pairs = [(day(number), number) for number in range(20)] + [(END + timedelta(days=number), number) for number in range(80)]

    found = compare(pairs, [], start=START, end=END + timedelta(days=80), classify=lambda each, *_: f"type-{each}")

    assert (MOST_TYPES, 100 - MOST_TYPES + 1) == (len(found.conflicts), found.conflicts[OTHER])


def test_no_more_than_a_day_of_each_side_is_held() -> None:
    """
    Sides are read as they are needed, in step, and no further than the window: they may be without end.
    """
    read = {"local": 0, "remote": 0}

    def endless(side: str) -> Iterator[tuple[date, int]]:
        for number in itertools.count():
            read[side] += 1
            yield day(number), number

    apart = [abs(read["local"] - read["remote"]) for _ in merged(endless("local"), endless("remote"), start=START, end=END)]

    assert (20, 0) == (len(apart), max(apart))
    assert {"local": 21, "remote": 21} == read


@given(st.lists(st.integers(0, 19).map(day), min_size=2).filter(lambda days: any(a >= b for a, b in itertools.pairwise(days))))
def test_days_that_do_not_ascend_are_refused(days: list[date]) -> None:
    """
    A day after a later one, or twice, would be compared with the wrong one; the error names the side and the day.
    """
    pairs = [(each, 1) for each in days]

    with pytest.raises(CalendarError, match=r"The remote side gave 2030-.*ascending order"):
        compare([], pairs, start=START, end=END)


@pytest.mark.parametrize("wrong", [None, 5, ("2030-01-01", 1), (datetime(2030, 1, 1, tzinfo=timezone.utc), 1), (START,), (START, 1, 2)])
def test_what_is_no_day_is_refused(wrong: Any) -> None:
    """
    The error shows what came.
    """
    with pytest.raises(CalendarError, match=r"Expected pairs of a datetime\.date and what is available"):
        compare([wrong], [], start=START, end=END)


def test_nothing_on_both_sides_is_no_difference() -> None:
    """
    A side may say that it holds nothing, instead of leaving the day out.
    """
    assert [None, "missing_local", "missing_remote"] == [classify(START, *sides) for sides in ((None, None), (None, 0), (0, None))]
