"""
Our own tasks in an app: their names, their queue, and what a bare name means.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery import Celery

import celery_obs

from celery_obs.areas.task_spec import TaskSpec
from celery_obs.areas.tasks.events import TaskFinished, TaskPublished, TaskReceived, TaskStarted
from celery_obs.runtime.builtin_tasks import registration as tasks
from celery_obs.runtime.builtin_tasks.apps import _names
from celery_obs.testing import capture_events
from tests.embedded import embedded_worker
from tests.servers import wait_until


SEEN: list[tuple[str, Any]] = []


def water(task: Any, plant: str) -> str:
    SEEN.append((task.name, plant))
    return f"watered {plant}"


WATER = TaskSpec(name="water_plant", run=water, time_limit=20, options={"ignore_result": False})


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """
    An app in memory, observed, whose only task of ours waters plants.
    """
    monkeypatch.setattr(tasks, "specs", lambda: iter([WATER]))
    _names.cache_clear()
    SEEN.clear()
    made = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    celery_obs.setup(made, metrics_dir=str(tmp_path), task_namespace="garden")
    yield made
    celery_obs.teardown()
    _names.cache_clear()


def activate(app: Celery) -> None:
    """
    Have the process turn out to be one that publishes.
    """
    from celery_obs.runtime.plugin import plugin

    found = plugin()
    assert found is not None
    found.activate(app)


def test_setting_up_registers_nothing_yet(app: Celery) -> None:
    """
    Until a process has turned out what it is, the user's modules may still define tasks, and the configuration may still be changed.
    """
    assert "garden.water_plant" not in app.tasks

    activate(app)

    assert "garden.water_plant" in app.tasks


def test_an_app_that_joins_later_has_our_tasks_too(app: Celery) -> None:
    """
    The second app of a process is served like the first.
    """
    activate(app)
    second = Celery("second", broker="memory://", set_as_current=False)

    celery_obs.setup(second)

    assert "garden.water_plant" in second.tasks


def test_a_task_of_ours_has_limits_and_no_result(app: Celery) -> None:
    """
    A task is killed when it takes too long, and told a little earlier; its result is kept only where it says so.
    """
    activate(app)
    task = app.tasks["garden.water_plant"]

    assert (20, 18.0, False) == (task.time_limit, task.soft_time_limit, task.ignore_result)


def test_a_task_of_the_users_stays(app: Celery) -> None:
    """
    Where a name is taken already, its task is the one that runs.
    """

    @app.task(name="garden.water_plant", shared=False)  # type: ignore[untyped-decorator]  # Celery's.
    def mine() -> str:
        return "mine"

    activate(app)

    assert "mine" == app.tasks["garden.water_plant"]()


def test_both_names_run_the_one_task_and_are_seen_as_one(app: Celery) -> None:
    """
    A message under the bare name is received, started and finished as the full one, and its result can be had.
    """
    with (
        embedded_worker(app),
        capture_events(TaskPublished, TaskReceived, TaskStarted, TaskFinished) as events,
    ):
        results = [app.send_task(name, args=["fern"]).get(timeout=10) for name in ("water_plant", "garden.water_plant")]
        wait_until(lambda: len(events) >= 8, what="the events")

    assert ["watered fern"] * 2 == results
    assert [("garden.water_plant", "fern")] * 2 == SEEN
    assert {"garden.water_plant"} == {event.started.task if isinstance(event, TaskFinished) else event.task for event in events}


def test_a_bare_name_of_the_users_is_theirs(app: Celery) -> None:
    """
    A task of the user's that is called as ours is without the namespace is the one that runs, and is counted under its own name.
    """

    @app.task(name="water_plant", shared=False)  # type: ignore[untyped-decorator]  # Celery's.
    def mine(plant: str) -> str:
        return f"mine: {plant}"

    with embedded_worker(app), capture_events(TaskStarted) as events:
        assert "mine: fern" == app.send_task("water_plant", args=["fern"]).get(timeout=10)

    assert ["water_plant"] == [event.task for event in events]


@pytest.mark.parametrize("name", ["water_plant", "garden.water_plant"])
@pytest.mark.parametrize(
    ("task_routes", "queue"),
    [
        (None, "celery"),
        ({"garden.*": {"queue": "shed"}}, "shed"),
        ([{"other.*": {"queue": "no"}}, {"garden.*": "shed"}], "shed"),
        ({"*": {"queue": "all"}}, "all"),
    ],
)
def test_both_names_go_the_same_way(app: Celery, name: str, task_routes: Any, queue: str) -> None:
    """
    The bare name follows the app's routes of the full one.
    """
    app.conf.task_routes = task_routes
    app.conf.broker_url = "memory://"

    assert queue == app.amqp.router.route({}, name)["queue"].name


@pytest.mark.parametrize("name", ["water_plant", "garden.water_plant"])
def test_the_setting_task_queue_wins(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With a queue of their own our tasks go there, and no others do.
    """
    monkeypatch.setattr(tasks, "specs", lambda: iter([WATER]))
    _names.cache_clear()
    made = Celery("proj", broker="memory://", set_as_current=False)
    celery_obs.setup(made)
    made.conf.update(
        task_routes={"garden.*": "shed"}, celery_obs={"metrics_dir": str(tmp_path), "task_namespace": "garden", "task_queue": "hose"}
    )
    try:
        assert "hose" == made.amqp.router.route({}, name)["queue"].name
        assert "shed" == made.amqp.router.route({}, "garden.weed")["queue"].name
        assert "celery" == made.amqp.router.route({}, "proj.water_plant")["queue"].name
    finally:
        celery_obs.teardown()
        _names.cache_clear()
