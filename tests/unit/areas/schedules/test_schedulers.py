"""
Adapters: which scheduler is asked in which way, and how often.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from celery import Celery
from celery.beat import PersistentScheduler, ScheduleEntry, Scheduler
from celery.schedules import crontab, schedule
from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.schedules.schedulers import adapter_of, prepared, waits_for
from celery_obs.areas.schedules.schedulers.cached import DueTimes
from celery_obs.areas.schedules.schedulers.celery import is_own
from celery_obs.testing import FakeClock, RaisingErrors


class Renamed(PersistentScheduler):  # type: ignore[misc]  # Celery has no types.
    """
    A scheduler of a user's that only publishes in another way.
    """

    def send_task(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


class Choosy(Scheduler):  # type: ignore[misc]  # Celery has no types.
    """
    A scheduler of a user's that goes through its schedule only if it is its turn.
    """

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        return 5.0


class Counting(schedule):  # type: ignore[misc]  # Celery has no types.
    """
    A schedule that counts how often it is worked out.
    """

    asked = 0

    def remaining_estimate(self, last_run_at: datetime) -> Any:
        type(self).asked += 1
        return super().remaining_estimate(last_run_at)


class OddEntry(ScheduleEntry):  # type: ignore[misc]  # Celery has no types.
    """
    An entry that decides for itself when it is due.
    """

    def is_due(self) -> Any:
        return False, 5.0


def make(kind: type = Scheduler, **entries: Any) -> Any:
    app = Celery("beat", set_as_current=False, broker="memory://")
    app.conf.update(
        beat_schedule={name: {"task": "t", "schedule": due} for name, due in entries.items()}, timezone="UTC", result_expires=None
    )
    return kind(app=app)


@pytest.mark.parametrize(("kind", "expected"), [(Scheduler, True), (PersistentScheduler, True), (Renamed, True), (Choosy, False)])
def test_a_scheduler_is_known_when_it_decides_as_celerys_own_do(kind: type, expected: bool) -> None:
    """
    What a subclass changes besides makes no difference; one that decides otherwise what is due may be wrong in ways that cannot be known.
    """
    assert expected is is_own(kind)


def test_an_unknown_scheduler_is_said_once_and_tells_no_entries(caplog: pytest.LogCaptureFixture) -> None:
    """
    None is another answer than no entries.
    """
    adapter = adapter_of(make(Choosy, nightly=schedule(timedelta(days=1))), on_error=RaisingErrors())

    assert adapter.due(0.0, fired=()) is None
    assert adapter.due(1.0, fired=()) is None
    assert 1 == caplog.text.count("Choosy is unknown")


def test_what_did_not_change_is_not_worked_out_again() -> None:
    """
    A thousand entries cost their due times once, not at each firing of one of them.
    """
    scheduler = make(**{f"e{number}": Counting(timedelta(hours=1)) for number in range(100)})
    adapter = adapter_of(scheduler, on_error=RaisingErrors(), clock=FakeClock(datetime.now(timezone.utc).timestamp()))
    now = datetime.now(timezone.utc).timestamp()
    Counting.asked = 0

    for _ in range(5):
        adapter.due(now, fired=())
    scheduler.reserve(scheduler.schedule["e7"])
    adapter.due(now, fired=("e7",))

    assert 101 == Counting.asked


def test_an_entry_that_decides_for_itself_has_no_due_time() -> None:
    """
    It is in the schedule, and may skip a turn at will.
    """
    scheduler = make(plain=schedule(timedelta(hours=1)), cron=crontab())
    scheduler.schedule["odd"] = OddEntry(name="odd", task="t", schedule=schedule(timedelta(hours=1)), app=scheduler.app)

    due = adapter_of(scheduler, on_error=RaisingErrors()).due(datetime.now(timezone.utc).timestamp(), fired=())

    assert due is not None
    assert {"plain": True, "cron": True, "odd": False} == {name: at is not None for name, at in due.items()}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.floats(0, 1000)), max_size=20))
def test_a_due_time_is_never_that_of_another_version(steps: list[tuple[str, int, float]]) -> None:
    """
    Whatever changes in whatever order, what is told belongs to the entry as it is.
    """
    times = DueTimes(monotonic=lambda: 0.0)
    truth: dict[tuple[str, int], float] = {}

    for name, version, due in steps:
        expected = truth.setdefault((name, version), due)
        assert {name: expected} == times.of([(name, (version,), lambda expected=expected: expected)], now=0.0)  # type: ignore[misc]  # A lambda's default has no type.


def test_all_is_worked_out_again_within_a_minute() -> None:
    """
    A schedule may be changed in place, which no version tells.
    """
    clock = FakeClock(0.0)
    times = DueTimes(monotonic=clock)
    due = 100.0

    assert {"a": 100.0} == times.of([("a", (), lambda: due)], now=0.0)
    due = 200.0
    assert {"a": 100.0} == times.of([("a", (), lambda: due)], now=0.0)
    clock.advance(56.0)
    assert {"a": 200.0} == times.of([("a", (), lambda: due)], now=0.0)


def test_celerys_own_schedulers_wait_for_nothing_and_read_our_entries_as_they_are() -> None:
    """
    Only RedBeat has a lock, and only a database calls an option otherwise.
    """
    assert "" == waits_for(make())
    assert prepared(Scheduler, {"celery_obs.x": {"options": {"expires": 3}}}, ["celery_obs.x"]) is None
