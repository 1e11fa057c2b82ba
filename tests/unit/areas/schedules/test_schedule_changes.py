"""
The watch on beat's scheduler, with a schedule that changes under it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import Celery
from celery.beat import Scheduler

from celery_obs.areas.schedules.events import EntryScheduled, ScheduleChanged
from celery_obs.areas.schedules.freshness import ScheduleWatch
from celery_obs.runtime.hub import Hub


class Heard(list[Any]):
    """
    What was said, in order.
    """


def watch(*names: str) -> tuple[Scheduler, ScheduleWatch, Heard]:
    app = Celery("beat", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {name: {"task": "some.task", "schedule": timedelta(hours=1)} for name in names}
    scheduler = Scheduler(app=app, schedule={})
    scheduler.merge_inplace(app.conf.beat_schedule)
    heard = Heard()
    hub = Hub(on_error=lambda error, **_: heard.append(error))
    hub.subscribe(ScheduleChanged, heard.append)
    hub.subscribe(EntryScheduled, heard.append)
    return scheduler, ScheduleWatch(scheduler, hub, clock=lambda: 1000.0), heard


def test_the_entries_are_said_once() -> None:
    """
    What did not change is not said again at every tick.
    """
    _, watcher, heard = watch("report")

    watcher.report()
    watcher.report()

    assert [frozenset({"report"})] == [event.entries for event in heard if isinstance(event, ScheduleChanged)]
    assert ["report"] == [event.entry for event in heard if isinstance(event, EntryScheduled)]


def test_an_entry_that_is_removed_while_beat_runs_is_said_to_be_gone() -> None:
    """
    Schedules in a database lose entries at any time; such an entry must not be overdue for ever.
    """
    scheduler, watcher, heard = watch("report", "cleanup")
    watcher.report()
    heard.clear()

    del scheduler.schedule["report"]
    watcher.report()

    assert [ScheduleChanged(frozenset({"cleanup"}), frozenset({"cleanup"}))] == heard


def test_an_entry_that_comes_back_is_due_again() -> None:
    """
    After its return its due time is said anew, for it was taken away with the entry.
    """
    scheduler, watcher, heard = watch("report")
    watcher.report()
    entry = scheduler.schedule.pop("report")
    watcher.report()
    heard.clear()

    scheduler.schedule["report"] = entry
    watcher.report()

    assert ["ScheduleChanged", "EntryScheduled"] == [type(event).__name__ for event in heard]
