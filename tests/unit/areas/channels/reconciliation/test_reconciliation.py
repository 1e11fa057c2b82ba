"""
Comparing two sides day by day: the merge agrees with two dictionaries, holds little, and refuses what it cannot merge.
"""

from __future__ import annotations

import itertools

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.reconciliation.api import CalendarError, Unknown, by_windows, classify, compare, merged, today_of
from celery_obs.areas.channels.reconciliation.state import MOST_TYPES, SAMPLE, PendingDay
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
    A caller that invents a type for each day gets a bounded number of counts.
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
    pairs = [(each, number) for number, each in enumerate(days)]

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


# --- days of which a side cannot tell ---------------------------------------------------------------------------------------------

gaps = st.lists(st.tuples(st.integers(-3, 22), st.integers(1, 8)), max_size=3)


def with_gaps(calendar: dict[date, Any], places: list[tuple[int, int]]) -> tuple[list[Any], set[date]]:
    """
    Return a side that cannot tell of some stretches of days, and these days.
    """
    blind = {day(number) for first, length in places for number in range(first, first + length)}
    items: list[Any] = [(each, value) for each, value in calendar.items() if each not in blind]
    items += [Unknown(each, each + timedelta(days=1)) for each in blind]
    return sorted(items, key=lambda item: item[0]), blind


@given(truth=calendars, ours=gaps, theirs=gaps)
def test_what_a_side_cannot_tell_is_never_missing(
    truth: dict[date, Any], ours: list[tuple[int, int]], theirs: list[tuple[int, int]]
) -> None:
    """
    Two sides that hold the same do not differ, whichever stretches of the window each of them cannot see.
    """
    local, our_blind = with_gaps(truth, ours)
    remote, their_blind = with_gaps(truth, theirs)
    blind = {each for each in our_blind | their_blind if START <= each < END}

    found = compare(local, remote, start=START, end=END)

    assert ({}, 0, len(blind)) == (found.conflicts, found.drifted, found.unknown)
    assert len([each for each in truth if START <= each < END and each not in blind]) == found.checked


@given(local=calendars, remote=calendars, theirs=gaps)
def test_what_differs_where_both_can_see_is_found(local: dict[date, Any], remote: dict[date, Any], theirs: list[tuple[int, int]]) -> None:
    """
    Not seeing some days hides nothing of the others.
    """
    side, blind = with_gaps(remote, theirs)
    expected = [
        each
        for each in sorted(local.keys() | remote.keys())
        if START <= each < END and each not in blind and local.get(each) != remote.get(each)
    ]

    found = compare(sorted(local.items()), side, start=START, end=END)

    assert len(expected) == found.drifted
    assert [each.isoformat() for each in expected[:SAMPLE]] == [each.day for each in found.sample]


@given(truth=calendars, days=st.integers(1, 30), failing=st.sets(st.integers(0, 25)), beyond=st.integers(0, 3), order=st.randoms())
def test_a_calendar_that_comes_in_pages_is_the_calendar(
    truth: dict[date, Any], days: int, failing: set[int], beyond: int, order: Any
) -> None:
    """
    Pages may overlap, come unsorted, and fail; what a failed one would have held is not missing.
    """
    pages = itertools.count()

    def ask(first: date, last: date) -> list[tuple[date, Any]] | None:
        if next(pages) in failing:
            return None
        more = timedelta(days=beyond)
        found = [(each, value) for each, value in truth.items() if first - more <= each < last + more]
        order.shuffle(found)
        return found

    found = compare(sorted(truth.items()), by_windows(ask, START, END, days=days), start=START, end=END)

    assert {} == found.conflicts


def test_a_side_that_looks_ahead_for_less_than_the_window_says_where_it_ends() -> None:
    """
    A channel that tells a hundred days ahead lacks nothing of the others.
    """
    ours = [(day(number), 1) for number in range(20)]
    theirs = [*((day(number), 1) for number in range(5)), Unknown(day(5), date.max)]

    found = compare(ours, theirs, start=START, end=END)

    assert (5, 0, 15) == (found.checked, found.drifted, found.unknown)


def test_a_day_on_two_pages_is_one_day_if_both_say_the_same() -> None:
    """
    Where they do not, one of them is old, and there is no telling which.
    """
    assert 2 == compare([(day(0), 1), (day(0), 1), (day(1), 2)], [(day(0), 1), (day(1), 2)], start=START, end=END).checked
    with pytest.raises(CalendarError, match=r"2030-01-01 twice, with 1 and 2"):
        compare([(day(0), 1), (day(0), 2)], [], start=START, end=END)


@pytest.mark.parametrize("wrong", [Unknown(day(3), day(3)), Unknown(day(3), day(1)), Unknown(day(3), 5)])  # type: ignore[arg-type]  # the wrong one.
def test_a_stretch_without_days_is_refused(wrong: Unknown) -> None:
    """
    Its end is the day after its last.
    """
    with pytest.raises(CalendarError, match=r"or an Unknown with the first day"):
        compare([wrong], [], start=START, end=END)


def test_pages_of_no_days_are_refused() -> None:
    """
    They would never end.
    """
    with pytest.raises(ValueError, match="whole number above 0"):
        list(by_windows(lambda *_: [], START, END, days=0))


def test_a_day_that_ends_while_it_is_compared_is_not_missing() -> None:
    """
    Midnight passes between our side and the channel's, which has yesterday no more.
    """
    today = START

    def now() -> date:
        return today

    def remote() -> Iterator[tuple[date, int]]:
        nonlocal today
        today = day(1)
        yield from ((day(number), 1) for number in range(1, 20))

    found = compare([(day(number), 1) for number in range(20)], remote(), start=START, end=END, today=now)

    assert (19, {}) == (found.checked, found.conflicts)


# --- which day it is --------------------------------------------------------------------------------------------------------------

ZONES = sorted(
    available_timezones() & {"Pacific/Auckland", "Pacific/Apia", "America/Sao_Paulo", "Asia/Beirut", "Europe/Berlin", "Pacific/Kiritimati"}
)


@given(zone=st.sampled_from(ZONES), at=st.integers(946_684_800, 4_000_000_000))
def test_today_is_the_day_on_the_clocks_there(zone: str, at: int) -> None:
    """
    Also on days of 23 and 25 hours, on those without a midnight, and around one that was left out.
    """
    there = ZoneInfo(zone)

    today = today_of(float(at), there)

    midnight = datetime(today.year, today.month, today.day, tzinfo=there).timestamp()
    following = today + timedelta(days=1)
    next_midnight = datetime(following.year, following.month, following.day, tzinfo=there).timestamp()
    assert midnight - 3600 <= at < next_midnight + 3600
    assert today.isoformat() == datetime.fromtimestamp(at, there).strftime("%Y-%m-%d")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-04-05T00:30:00+13:00", date(2026, 4, 5)),  # A day of 25 hours there.
        ("2026-04-05T23:59:59+12:00", date(2026, 4, 5)),
        ("2026-09-27T00:00:00+12:00", date(2026, 9, 27)),  # And one of 23.
        ("2026-09-27T23:59:59+13:00", date(2026, 9, 27)),
        ("2026-11-30T11:30:00+00:00", date(2026, 12, 1)),
    ],
)
def test_today_in_auckland(at: str, expected: date) -> None:
    """
    Half of the day it is tomorrow there.
    """
    assert expected == today_of(datetime.fromisoformat(at).timestamp(), ZoneInfo("Pacific/Auckland"))
