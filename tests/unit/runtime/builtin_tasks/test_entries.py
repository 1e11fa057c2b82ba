"""
What beat is to publish for us: every entry expires before the next one, and the user has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery import Celery, signals
from celery.beat import Scheduler

import celery_obs

from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime.builtin_tasks import registration as tasks
from celery_obs.runtime.builtin_tasks.entries import PERIODS, entries, schedule
from celery_obs.settings import load


class Calendar:
    def local(self, *_: object) -> list[Any]:
        return []

    remote = local


REDIS = "redis://127.0.0.1:1/0"


def made(tmp_path: Path, **settings: Any) -> set[str]:
    return set(entries(load({}, {}, {"metrics_dir": str(tmp_path), **settings})))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    """
    An app that has channels and is not configured yet, observed.
    """
    app = Celery("proj", set_as_current=False)
    celery_obs.setup(app)
    app.conf.celery_obs = {"metrics_dir": str(tmp_path), "redis_url": REDIS, "sync_engine": True}
    yield app
    celery_obs.teardown()


def test_each_entry_expires_before_the_next() -> None:
    """
    A message that no worker has taken in time gives way to the next one, so that none pile up.
    """
    for name, entry in schedule(queue="obs").items():
        assert 0 < entry["options"]["expires"] < entry["schedule"], name
        assert "obs" == entry["options"]["queue"]


def test_each_entry_leads_to_a_task_of_ours() -> None:
    """
    No entry is without a task, and each task is told its period as it is.
    """
    known = {f"garden.{spec.name}" for spec in tasks.specs()}

    made = schedule(task_namespace="garden", check_drift=60)

    assert {entry["task"] for entry in made.values()} <= known
    assert {"period": 60.0} == made["celery_obs.check_drift"]["kwargs"]


def test_entries_can_be_left_out_and_made_rarer() -> None:
    """
    An argument is a period; None and 0 take the entry off.
    """
    chosen = schedule(check_drift=3600, sweep_state=None, take_census=0)

    assert 3600.0 == chosen["celery_obs.check_drift"]["schedule"]
    assert {f"celery_obs.{name}" for name in PERIODS} - {"celery_obs.sweep_state", "celery_obs.take_census"} == set(chosen)


@pytest.mark.parametrize(
    ("periods", "message"),
    [
        ({"chek_drift": 5}, "Did you mean check_drift"),
        ({"x": 5}, "Expected one of"),
        ({"check_drift": "often"}, "number of seconds"),
        ({"check_drift": -1}, "number of seconds"),
    ],
)
def test_wrong_periods_are_refused(periods: dict[str, Any], message: str) -> None:
    """
    The error names the task, the value and what is expected.
    """
    with pytest.raises(ConfigurationError, match=message):
        schedule(**periods)


def test_a_wrong_period_in_the_settings_is_refused_where_a_process_starts(tmp_path: Path) -> None:
    """
    A worker does not start with a setting that would silently change nothing.
    """
    app = Celery("proj", broker="memory://", set_as_current=False)
    celery_obs.setup(app, metrics_dir=str(tmp_path), beat_periods={"chek_drift": 60})
    from celery_obs.runtime.plugin import plugin

    found = plugin()
    assert found is not None
    try:
        with pytest.raises(ConfigurationError, match="Did you mean check_drift"):
            found.activate(app)
    finally:
        celery_obs.teardown()


def test_what_has_nothing_to_do_is_not_scheduled(tmp_path: Path) -> None:
    """
    Without Redis there is no state to keep; without a source of calendars there is no drift to look for.
    """
    every = {f"celery_obs.{name}" for name in PERIODS}

    assert set() == made(tmp_path)
    assert set() == made(tmp_path, redis_url=REDIS, beat_schedule=False)
    assert every - {"celery_obs.check_drift"} == made(tmp_path, redis_url=REDIS)
    assert every == made(tmp_path, redis_url=REDIS, reconciliation_source=Calendar())
    assert every - {"celery_obs.take_census"} == made(
        tmp_path, redis_url=REDIS, reconciliation_source=Calendar(), beat_periods={"take_census": 0}
    )


def test_a_scheduler_has_our_entries_and_the_users(app: Celery) -> None:
    """
    The schedule is there when a scheduler reads it, however late the app was configured; an entry of the user's with a name of ours stays.
    """
    mine = {"task": "proj.mine", "schedule": 1.0}
    app.conf.beat_schedule = {"mine": mine, "celery_obs.sweep_state": mine}
    signals.import_modules.send(sender=app)

    found = Scheduler(app=app).schedule

    assert {"mine", "celery_obs.sweep_state", "celery_obs.take_census"} <= set(found)
    assert "proj.mine" == found["celery_obs.sweep_state"].task
    assert "channel_manager.take_census" == found["celery_obs.take_census"].task


def test_a_schedule_that_comes_after_the_app_was_final_is_merged_too(app: Celery) -> None:
    """
    Worker and beat merge again when they load the app.
    """
    app.finalize()
    app.conf.beat_schedule = {"mine": {"task": "proj.mine", "schedule": 1.0}}

    signals.import_modules.send(sender=app)

    assert {"mine", "celery_obs.take_census"} <= set(app.conf.beat_schedule)


def test_a_schedule_that_a_module_of_the_program_assigns_is_merged_too(app: Celery) -> None:
    """
    Worker and beat tell that they load the app before they import its modules; these may assign a schedule, and the app is final after that.
    """
    signals.import_modules.send(sender=app)
    app.conf.beat_schedule = {"mine": {"task": "proj.mine", "schedule": 1.0}}

    app.finalize()

    assert {"mine", "celery_obs.take_census"} <= set(app.conf.beat_schedule)


def test_merging_changes_no_other_app(app: Celery) -> None:
    """
    An app that was not set up keeps its schedule.
    """
    other = Celery("other", set_as_current=False)

    signals.import_modules.send(sender=other)
    other.finalize()

    assert {} == dict(other.conf.beat_schedule)


def test_wrong_settings_do_not_break_an_app_that_becomes_final(tmp_path: Path) -> None:
    """
    Importing an app never fails because of us; the process that starts says what is wrong.
    """
    app = Celery("proj", set_as_current=False)
    app.conf.celery_obs = {"metrics_dir": str(tmp_path), "label_limit": "many"}
    celery_obs.setup(app)
    try:
        app.finalize()
        assert {} == dict(app.conf.beat_schedule)
    finally:
        celery_obs.teardown()
