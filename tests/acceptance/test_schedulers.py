"""
Schedules, whatever the scheduler: Celery's own, django-celery-beat's, RedBeat's, and an unknown one.
"""

from __future__ import annotations

import sys
import time

from datetime import datetime, timezone
from importlib.metadata import version

import pytest

from celery_obs.areas.schedules.metrics import ENTRY_DUE, ENTRY_LAST_FIRED, ENTRY_OVERDUE, SUCCEEDED_ENTRY
from celery_obs.areas.sidecar.metrics import INTERNAL_ERRORS
from celery_obs.cli.probe import heartbeats
from tests.servers import wait_until
from tests.workers import Metrics, settle_at

from .schedules import Schedules, says


pytestmark = pytest.mark.integration


def errors_in(metrics: Metrics) -> dict[str, float]:
    return metrics.by("component", INTERNAL_ERRORS.name)


ROWS = """
day, second = (IntervalSchedule.objects.create(every=1, period=unit) for unit in ("days", "seconds"))
def add(name, **fields):
    PeriodicTask.objects.create(name=name, task="scheduled.record", kwargs='{"entry": "%s"}' % name, **fields)
far = now + timedelta(minutes=30)
cron = CrontabSchedule.objects.create(minute="30", hour=str((now.hour + 12) % 24))
add("on time", interval=second)
add("next month", interval=second, start_time=now + timedelta(days=30))
add("next month by cron", crontab=cron, start_time=now + timedelta(days=30))
add("disabled", interval=second, enabled=False)
add("once", interval=second, one_off=True)
add("clocked", clocked=ClockedSchedule.objects.create(clocked_time=far), one_off=True)
add("twelve hours away", crontab=cron)
add("sunrise", solar=SolarSchedule.objects.create(event="solar_noon", latitude=0, longitude=0))
add("over", interval=day, expires=now - timedelta(days=1))
add("over before it is due", interval=day, expires=now + timedelta(hours=1))
add("changed", interval=day)
add("deleted", interval=second)
add("renamed", interval=second)
"""


def test_every_kind_of_row_of_a_database_scheduler_is_told_as_it_is(schedules: Schedules) -> None:
    """
    Rows that are far away are there with when they are due, none is overdue before its start, and those that will not come up again are not due; a change,
    a deletion and a new name are seen while beat runs.  Our own entries expire there, too.
    """
    started = datetime.now(timezone.utc)
    schedules.change(ROWS)
    metrics = Metrics(schedules.metrics_dir)
    schedules.worker(app="scheduled", SCHEDULER="django", DATABASE=str(schedules.database))
    schedules.beat_of("django", CHANNELS="1", CELERY_OBS_BEAT_SCHEDULE="1")
    wait_until(lambda: metrics.find(SUCCEEDED_ENTRY.name, entry="deleted"), within=30, what="a success")
    wait_until(lambda: len(schedules.times("sent", "once")) == 1, what="the one-off entry to be fired")
    settle_at(None, lambda: metrics.find(ENTRY_DUE.name, entry="once"))
    now = time.time()

    due = metrics.by("entry", ENTRY_DUE.name)
    month = 30 * 86400.0

    assert {"disabled", "over", "over before it is due", "once"}.isdisjoint(due)
    assert abs(due["next month"] - now - month) < 60
    assert abs(due["next month by cron"] - now - month) < 86400
    assert abs(due["clocked"] - now - 1800) < 60
    far = datetime.fromtimestamp(round(due["twelve hours away"]), timezone.utc)
    assert (30, (started.hour + 12) % 24) == (far.minute, far.hour)
    assert 0 < due["sunrise"] - now < 86400
    assert {} == {entry: late for entry, late in metrics.by("entry", ENTRY_OVERDUE.name).items() if late > 2.0}

    named = schedules.rows("select distinct periodic_task_name, status from django_celery_results_taskresult")
    # The header by which django-celery-results knows the entry is left alone; before 2.9 django-celery-beat did not send it as one.
    assert ("on time" if version("django-celery-beat") >= "2.9" else None, "SUCCESS") in named

    rows = dict(schedules.rows("select name, expire_seconds from django_celery_beat_periodictask where name like 'celery_obs.%'"))
    ours = {"export_breaker_states": 13, "refresh_expiring_tokens": 270, "take_census": 270, "sweep_state": 3240}
    assert {f"celery_obs.{name}": seconds for name, seconds in ours.items()} == rows
    schedules.change("""
PeriodicTask.objects.get(name="deleted").delete()
row = PeriodicTask.objects.get(name="renamed"); row.name = "new name"; row.save()
row = PeriodicTask.objects.get(name="changed"); row.interval = IntervalSchedule.objects.create(every=3, period="days"); row.save()
row = PeriodicTask.objects.get(name="on time"); row.enabled = False; row.save()
""")

    settle_at(3, lambda: round(((metrics.find(ENTRY_DUE.name, entry="changed") or 0) - time.time()) / 86400))
    wait_until(lambda: metrics.find(ENTRY_LAST_FIRED.name, entry="new name"), what="the entry's new name")
    names, gone = (ENTRY_DUE.name, ENTRY_OVERDUE.name, ENTRY_LAST_FIRED.name, SUCCEEDED_ENTRY.name), ("deleted", "renamed", "on time")
    settle_at([], lambda: [(name, entry) for name in names for entry in gone if metrics.find(name, entry=entry) is not None], steady=0)
    assert {} == errors_in(metrics)


@pytest.mark.parametrize("first", [pytest.param("celery_obs", marks=pytest.mark.faults), "redbeat"])
def test_a_beat_that_waits_for_the_lock_is_alive_and_stands_by(schedules: Schedules, first: str) -> None:
    """
    A second RedBeat beat is not restarted for ever: its heart beats, the probe says that it stands by, and it takes over when the first is gone.
    """
    one, two = schedules.folder / "one", schedules.folder / "two"
    leader = schedules.beat_of("redbeat", name="leader", metrics_dir=one, ENTRIES="{'often': 1.0}")
    of_one, of_two = Metrics(one), Metrics(two)
    wait_until(lambda: one.exists() and of_one.find(ENTRY_LAST_FIRED.name, entry="often"), within=30, what="the first to fire")
    standby = schedules.beat_of("redbeat", name="standby", metrics_dir=two, ENTRIES="{'often': 1.0}", FIRST=first)
    wait_until(lambda: two.exists() and list(two.glob("*/heartbeat")), within=30, what="a heartbeat")

    wait_until(lambda: "stands by: it waits for the lock rb::lock" in says("liveness", two)[1], what="the probe to say that it stands by")
    begun = time.time()
    wait_until(lambda: heartbeats(str(two))[0].touched_at > begun + 3, what="more beats")
    assert says("liveness", two)[0]
    assert says("readiness", two)[0]
    assert of_two.find(ENTRY_LAST_FIRED.name, entry="often") is None
    code, said = schedules.run(sys.executable, "-m", "celery_obs.cli", "doctor", f"--metrics-dir={two}", name="doctor")
    assert "stands by: it waits for the lock rb::lock, which another beat holds" in said, (code, said)

    leader.kill()

    wait_until(lambda: of_two.find(ENTRY_LAST_FIRED.name, entry="often"), within=30, what="the second to take over")
    settle_at((True, ""), lambda: (says("readiness", two)[0], says("readiness", two)[1].partition("ago.")[2]))
    assert standby.is_alive()


def test_an_unknown_scheduler_tells_what_it_fired_and_nothing_that_it_cannot_know(schedules: Schedules) -> None:
    """
    Firings and successes are shown, due times and overdue entries are not; that is said once, and nothing of ours fails.
    """
    metrics = Metrics(schedules.metrics_dir)
    schedules.worker(app="scheduled")
    beat = schedules.beat_of("odd", ENTRIES="{'often': 1.0, 'hourly': 3600.0}")
    wait_until(lambda: metrics.find(SUCCEEDED_ENTRY.name, entry="often"), within=30, what="a success")

    settle_at(
        True, lambda: abs((metrics.find(ENTRY_LAST_FIRED.name, entry="often") or 0) - schedules.times("sent", "often")[-1]) < 0.5, steady=0
    )
    assert {} == metrics.by("entry", ENTRY_DUE.name)
    assert metrics.find(ENTRY_OVERDUE.name) is None
    assert 1 == beat.log.read_text().count("scheduler scheduled.OddScheduler is unknown")
    assert {} == errors_in(metrics)


def test_a_beat_that_hangs_in_its_schedule_is_found_out(schedules: Schedules) -> None:
    """
    The heart beats by a thread, and stops when a pass through the schedule comes to no end; it beats again when beat goes on.
    """
    hang = schedules.folder / "hang"
    beat = schedules.beat_of("odd", ENTRIES="{'often': 1.0}", HANG=str(hang), CELERY_OBS_BEAT_HUNG_AFTER="2")
    wait_until(lambda: schedules.times("sent", "often"), within=30, what="beat to fire")
    wait_until(lambda: says("readiness", schedules.metrics_dir)[0], what="beat to be ready")

    hang.touch()

    wait_until(lambda: not says("liveness", schedules.metrics_dir)[0], within=20, what="liveness to say no")
    assert 1 == beat.log.read_text().count("beat has been stuck in one pass through its schedule")
    hang.unlink()
    wait_until(lambda: says("readiness", schedules.metrics_dir)[0], what="beat to go on")
