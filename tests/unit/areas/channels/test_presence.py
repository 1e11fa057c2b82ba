"""
Who has no channels sees none of what looks after channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery import Celery, signals
from cryptography.fernet import Fernet

import celery_obs

from celery_obs.areas.channels import presence
from celery_obs.runtime.builtin_tasks.registration import specs
from celery_obs.runtime.plugin import plugin
from celery_obs.settings import SETTINGS, load


OURS = {f"channel_manager.{spec.name}" for spec in specs()}
NO_REDIS = "redis://127.0.0.1:1/0"

VALUES: dict[str, Any] = {
    "task_namespace": "garden",
    "task_queue": "obs",
    "beat_periods": {"check_drift": 60},
    "held_back_max_age": 3600.0,
    "pause_retry_delay": 5.0,
    "token_source": "proj.tokens:SOURCE",
    "token_keys": [Fernet.generate_key().decode()],
    "oauth_clients": {"airbnb": {"token_url": "https://example.com/token", "client_id": "me"}},
    "token_refresh_ahead": 60.0,
    "token_refresh_on_get": 60.0,
    "token_replicas": 1,
    "token_replicas_timeout": 2.0,
    "channels": {"airbnb": {"rate_limits": "100/60s"}},
    "connection_source": "proj.accounts:SOURCE",
    "connection_grace": 60.0,
    "reconciliation_source": "proj.calendar:SOURCE",
    "reconciliation_days": 7,
    "reconciliation_timezone": "Pacific/Auckland",
    "client_errors": {"acme.errors.Busy": "rate_limit"},
}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """
    A shop of one task, observed.
    """
    monkeypatch.setattr("celery._state._on_app_finalizers", set())  # The tasks of other tests, which go into every app of a process.
    app = Celery("shop", broker=NO_REDIS, set_as_current=False)
    app.conf.celery_obs = {"metrics_dir": str(tmp_path)}
    celery_obs.setup(app)

    @app.task(name="shop.order", shared=False)  # type: ignore[untyped-decorator]  # Celery has no types.
    def order(number: int) -> int:
        return number

    yield app
    celery_obs.teardown()


def activate(app: Celery) -> None:
    found = plugin()
    assert found is not None
    found.activate(app)


def ours(app: Celery) -> set[str]:
    """
    Return the names of our own tasks and entries that *app* has.
    """
    return {name for name in app.tasks if name in OURS} | {name for name in app.conf.beat_schedule if name.startswith("celery_obs.")}


def test_a_shop_has_no_task_and_no_entry_of_ours(app: Celery) -> None:
    """
    An app without channels keeps its tasks and its schedule as they are.
    """
    app.finalize()

    activate(app)

    assert set() == ours(app)
    assert "shop.order" in app.tasks


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sync_task_brings_what_looks_after_channels(app: Celery, when: str) -> None:
    """
    One task that is a sync, and tokens, connections and breakers are looked after; whether it is there when the app is made final, or comes later.
    """
    signals.import_modules.send(sender=app)  # A worker or beat, for nothing else needs the entries.
    if when == "after":
        app.finalize()

    @app.task(name="shop.export", shared=False, base=celery_obs.SyncTask, channel_type="airbnb")  # type: ignore[untyped-decorator]  # Celery has no types.
    def export() -> None:
        """
        Nothing.
        """

    app.finalize()
    activate(app)

    assert OURS | {"celery_obs.take_census"} <= ours(app)


def test_who_schedules_our_tasks_has_them(app: Celery) -> None:
    """
    Entries that a team wrote itself lead to tasks that are there.
    """
    app.conf.beat_schedule = celery_obs.beat.schedule(check_drift=3600, sweep_state=None)
    app.finalize()

    activate(app)

    assert OURS <= ours(app)


def test_there_is_a_value_for_every_setting_about_channels() -> None:
    """
    The next test forgets none.
    """
    assert {each.name for each in SETTINGS if each.channels} == VALUES.keys()


@pytest.mark.parametrize("name", sorted(VALUES))
def test_each_setting_about_channels_says_that_there_are_some(name: str, tmp_path: Path) -> None:
    """
    An app that sets one has channels; ``sync_engine = False`` has the last word.
    """
    said = {"metrics_dir": str(tmp_path), name: VALUES[name]}

    assert presence.is_on(load({}, {}, said), used=False)
    assert not presence.is_on(load({}, {}, {**said, "sync_engine": False}), used=True)


def test_the_setting_alone_is_enough(tmp_path: Path) -> None:
    """
    ``sync_engine = True`` needs nothing beside it, also as an environment variable.
    """
    assert presence.is_on(load({}, {"CELERY_OBS_SYNC_ENGINE": "1"}, {"metrics_dir": str(tmp_path)}), used=False)
    assert not presence.is_on(load({}, {}, {"metrics_dir": str(tmp_path)}), used=False)


@pytest.mark.parametrize("redis_url", [None, NO_REDIS])
def test_a_redis_that_does_not_answer_knows_no_channels(redis_url: str | None, tmp_path: Path) -> None:
    """
    What is inferred stops no process.
    """
    assert not presence.are_known(load({}, {}, {"metrics_dir": str(tmp_path), "redis_url": redis_url}))
