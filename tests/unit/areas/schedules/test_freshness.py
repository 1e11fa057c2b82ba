"""
Freshness: what beat fired, and what it should have.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from celery import Celery, signals
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import crontab, schedule

from celery_obs.areas.schedules import firing
from celery_obs.areas.schedules.events import BeatTicked, EntryFired, EntryScheduled
from celery_obs.areas.schedules.freshness import ScheduleWatch
from celery_obs.runtime.hub import Hub
from celery_obs.testing import FakeClock, RaisingErrors
from celery_obs.vocabulary import headers
from tests.servers import wait_until


class QuietScheduler(Scheduler):  # type: ignore[misc]  # Celery has no types.
    """
    A real scheduler that publishes to memory, but for one task whose broker is away.
    """

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        if name == "proj.broken":
            message = "the broker is away"
            raise ConnectionError(message)
        return super().send_task(name, *args, **options)


class Rig:
    """
    A watched scheduler, and what it said.
    """

    def __init__(self, **entries: Any) -> None:
        app = Celery("beat", set_as_current=False, broker="memory://")
        app.conf.update(beat_schedule={name: {"task": "proj.work", "schedule": due} for name, due in entries.items()}, timezone="UTC")
        self.scheduler = QuietScheduler(app=app, lazy=False)
        self.scheduler.schedule.pop("celery.backend_cleanup", None)
        self.clock = FakeClock(datetime.now(timezone.utc).timestamp())
        self.events: list[Any] = []
        self.sent: list[tuple[str, dict[str, Any]]] = []
        signals.before_task_publish.connect(self._stamp)
        signals.after_task_publish.connect(self._note)
        hub = Hub(on_error=RaisingErrors())
        for event_type in (BeatTicked, EntryFired, EntryScheduled):
            hub.subscribe(event_type, self.events.append)
        self.watch = ScheduleWatch(self.scheduler, hub, pulse=5.0, clock=self.clock)
        self.watch.install()

    def _stamp(self, headers: Any = None, **_: object) -> None:
        firing.stamp(headers)

    def _note(self, sender: Any = None, headers: Any = None, **_: object) -> None:
        self.sent.append((str(sender), dict(headers)))

    def of(self, event_type: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, event_type)]


def test_a_fired_entry_is_told_and_its_message_names_it() -> None:
    """
    What beat publishes carries the entry's name, so that a worker can say when it last succeeded.
    """
    rig = Rig(often=schedule(timedelta(seconds=0.001)))

    wait_until(lambda: rig.scheduler.tick() is not None and rig.of(EntryFired), what="the entry to be due")

    assert {"often"} == {event.entry for event in rig.of(EntryFired)}
    assert ("proj.work", "often") == (rig.sent[0][0], rig.sent[0][1][headers.ENTRY])


def test_the_users_own_headers_stay() -> None:
    """
    Stamping adds to an entry's headers, and leaves the schedule itself as it was.
    """
    rig = Rig(often=schedule(timedelta(seconds=0.001)))
    entry: ScheduleEntry = rig.scheduler.schedule["often"]
    entry.options["headers"] = {"mine": 1}

    rig.scheduler.apply_async(entry, advance=False)

    assert {"mine": 1, headers.ENTRY: "often"}.items() <= rig.sent[0][1].items()
    assert headers.ENTRY not in rig.scheduler.schedule["often"].options["headers"]


def test_an_entry_is_published_as_it_is() -> None:
    """
    A scheduler gets back the very entry that it fires, whatever its kind, and may still have to advance it.
    """
    rig = Rig(often=schedule(timedelta(hours=1)))
    entry: ScheduleEntry = rig.scheduler.schedule["often"]
    advanced: list[Any] = []

    def advance(one: Any) -> Any:
        advanced.append(one)
        return one

    rig.scheduler.reserve = advance
    rig.scheduler.apply_async(entry)

    assert [entry] == advanced
    assert "often" == rig.sent[0][1][headers.ENTRY]


def test_what_a_task_sends_on_the_way_is_not_the_entrys() -> None:
    """
    Only the message of the entry's own task names the entry.
    """
    rig = Rig(often=schedule(timedelta(hours=1)))
    app = rig.scheduler.app
    send = rig.scheduler.send_task

    def send_two(name: str, *args: Any, **options: Any) -> Any:
        app.send_task("proj.audit")
        return send(name, *args, **options)

    rig.scheduler.__dict__["send_task"] = send_two
    rig.scheduler.apply_async(rig.scheduler.schedule["often"])

    assert {"proj.audit": None, "proj.work": "often"} == {name: stamps.get(headers.ENTRY) for name, stamps in rig.sent}


@pytest.mark.parametrize(("due", "seconds"), [(schedule(timedelta(hours=1)), 3600), (crontab(minute="*"), 60)])
def test_when_an_entry_is_due_is_worked_out_from_its_schedule(due: Any, seconds: float) -> None:
    """
    Intervals and crontabs alike tell when they are due next.
    """
    rig = Rig(entry=due)

    rig.scheduler.tick()

    (event,) = rig.of(EntryScheduled)
    assert rig.clock.now - 5 < event.due_at <= rig.clock.now + seconds + 1


def test_a_due_time_that_moves_in_small_steps_is_followed() -> None:
    """
    An entry of every half second is due half a second later at each look: what was said last is never more than a second behind.
    """
    rig = Rig(often=schedule(timedelta(hours=1)))
    rig.watch.report()
    (first,) = rig.of(EntryScheduled)

    for _ in range(5):
        rig.scheduler.schedule["often"].last_run_at += timedelta(seconds=0.6)
        rig.watch.report()

    assert 3.0 - 1.5 < rig.of(EntryScheduled)[-1].due_at - first.due_at < 3.0 + 0.5


def test_beat_wakes_up_in_time_for_its_heartbeat() -> None:
    """
    A schedule with nothing to do for an hour does not keep beat silent for minutes.
    """
    rig = Rig(rare=schedule(timedelta(hours=1)))

    delay = rig.scheduler.tick()

    assert delay <= 5.0
    assert 1 == len(rig.of(BeatTicked))


class Untellable(schedule):  # type: ignore[misc]  # Celery has no types.
    """
    A schedule that cannot say when it is due.
    """

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        raise NotImplementedError


def test_a_schedule_that_cannot_tell_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """
    One entry of a user's own kind has no due time, which is said once and is no error of ours; the others have theirs.
    """
    rig = Rig(odd=Untellable(timedelta(hours=1)), even=schedule(timedelta(hours=2)))

    rig.watch.report()
    rig.watch.report()

    assert ["even"] == [event.entry for event in rig.of(EntryScheduled)]
    assert 1 == caplog.text.count("no due time is shown for the schedule entry 'odd'")


def test_a_broken_publish_is_not_told_as_fired() -> None:
    """
    An entry that could not be published has not fired, and beat sees its error as before.
    """
    rig = Rig(often=schedule(timedelta(seconds=0.001)))
    rig.scheduler.schedule["often"].task = "proj.broken"

    with pytest.raises(Exception, match="the broker is away"):
        rig.scheduler.apply_async(rig.scheduler.schedule["often"], advance=False)

    assert [] == rig.of(EntryFired)


def test_uninstalling_leaves_the_scheduler_as_it_was() -> None:
    """
    What was wrapped is itself again.
    """
    rig = Rig()

    rig.watch.uninstall()

    assert QuietScheduler.tick is rig.scheduler.tick.__func__
