"""
Who is checked when: each connection once a day, at a moment of its own, and never all at once.
"""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.connections.state import Drift
from celery_obs.areas.channels.reconciliation.tasks import DAY, PERIOD, due, moment


MONDAY = 20_000 * DAY


def test_moments_are_spread_over_the_day() -> None:
    """
    Of ten thousand connections no hour has much more than its share, and each keeps its moment.
    """
    hours = [0] * 24
    for number in range(10_000):
        hours[moment(f"connection-{number}") // 3600] += 1

    assert 10_000 == sum(hours)
    assert max(hours) < 1.25 * 10_000 / 24
    assert moment("connection-1") == moment("connection-1")


def test_ten_thousand_new_connections_do_not_come_at_once() -> None:
    """
    They are caught up with at a few times a day's pace; after that, each look has its period's share.
    """
    names = [f"connection-{number}" for number in range(10_000)]
    checked: dict[str, Drift] = {}
    share = 10_000 * PERIOD / DAY
    sent = []
    for look in range(96):
        now = MONDAY + look * PERIOD
        found = due(names, checked, now=now)
        checked.update((name, Drift(0, 365, now)) for name in found)
        sent.append(len(found))

    assert set(names) == set(checked)
    assert max(sent) <= math.ceil(4 * share)
    assert max(sent[-24:]) < 2 * share


@given(st.sets(st.text(max_size=8), max_size=30), st.integers(0, 10**9))
def test_each_is_checked_once_a_day(names: set[str], seconds: int) -> None:
    """
    A look every quarter of an hour for two days finds each connection twice or, with its first check, three times; none twice within a period.
    """
    begin, checked = MONDAY + seconds, dict[str, Drift]()
    times = dict.fromkeys(names, 0)
    for look in range(192):
        now = begin + look * PERIOD
        for name in due(names, checked, now=now):
            times[name] += 1
            checked[name] = Drift(0, 0, now)

    assert set(times.values()) <= {2, 3}


def test_after_a_night_without_beat_those_come_first_that_waited_longest() -> None:
    """
    What was missed is made up for, in order.
    """
    names = [f"connection-{number}" for number in range(200)]
    checked = {name: Drift(0, 0, MONDAY - DAY - number) for number, name in enumerate(names)}

    found = due(names, checked, now=MONDAY + DAY / 2)

    assert [f"connection-{number}" for number in range(199, 149, -1)] == found


def test_a_check_in_the_future_does_not_count() -> None:
    """
    A clock that was wrong for an hour does not stop the checks for a year.
    """
    assert ["one"] == due(["one"], {"one": Drift(0, 0, MONDAY + 365 * DAY)}, now=MONDAY)
