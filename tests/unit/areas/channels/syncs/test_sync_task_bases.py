"""
A sync task builds on the app's own task class, whichever framework or team made that.
"""

from __future__ import annotations

import logging
import pickle

from collections.abc import Iterator
from typing import Any

import pytest

from celery import Celery, Task

import celery_obs

from celery_obs.areas.channels.errors import NetworkError
from celery_obs.areas.channels.retries import RetrySchedule


CONTEXT: list[str] = []


class InContext(Task):  # type: ignore[misc]  # Celery has no types.
    """
    As Flask's guide has it: tasks run in a context of the app.
    """

    abstract = True
    colour = "green"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """
        Enter the context.
        """
        CONTEXT.append("in")
        try:
            return self.run(*args, **kwargs)
        finally:
            CONTEXT.append("out")


class ByTheGuideOfCelery(InContext):
    """
    The other way that documents show: by the base class.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """
        Enter the context twice.
        """
        CONTEXT.append("outer")
        return super().__call__(*args, **kwargs)


@pytest.fixture(autouse=True)
def _no_context() -> Iterator[None]:
    CONTEXT.clear()
    yield
    CONTEXT.clear()


def sync(app: Celery, **options: Any) -> Any:
    """
    Make a sync task that tells where it runs.
    """

    def export(self: Any) -> object:
        CONTEXT.append("export")
        if self.request.retries < options.get("fails", 0):
            raise NetworkError("on purpose")
        return celery_obs.SyncResult(updated=1)

    return app.task(base=celery_obs.SyncTask, bind=True, name="shop.export", shared=False, lazy=False, channel_type="airbnb", **options)(
        export
    )


def make(task_cls: Any = None) -> Celery:
    return Celery("shop", broker="memory://", set_as_current=False, **({} if task_cls is None else {"task_cls": task_cls}))


def test_djangos_tasks_can_wait_for_the_commit() -> None:
    """
    ``delay_on_commit`` is there, and so is all that a sync task has.
    """
    from celery.contrib.django.task import DjangoTask

    task = sync(make("celery.contrib.django.task:DjangoTask"))

    assert callable(task.delay_on_commit)
    assert isinstance(task, celery_obs.SyncTask)
    assert isinstance(task, DjangoTask)


@pytest.mark.parametrize(("base", "before"), [(InContext, ["in"]), (ByTheGuideOfCelery, ["outer", "in"])])
@pytest.mark.parametrize("how", ["apply", "call"])
def test_a_sync_runs_in_the_context_of_the_apps_class(base: type, before: list[str], how: str) -> None:
    """
    What the app's class does around a task, it does around a sync, once.
    """
    task = sync(make(base))

    if how == "apply":
        assert 1 == task.apply(throw=True).get()["updated"]
    else:
        task()

    assert [*before, "export", "out"] == CONTEXT
    assert "green" == task.colour


@pytest.mark.parametrize("base", [InContext, ByTheGuideOfCelery])
def test_each_retry_is_in_the_context_again(base: type) -> None:
    """
    The schedule of a sync task goes with the app's class.
    """
    schedule = RetrySchedule(max_retries=3, base_delay=0.0, max_delay=0.0, backoff_factor=1, jitter=False)
    task = sync(make(base), fails=2, autoretry_for=(NetworkError,), retry_schedule=schedule)

    result = task.apply()

    assert 1 == result.get()["updated"]
    assert 3 == CONTEXT.count("export") == CONTEXT.count("in")


def test_an_app_whose_class_is_assigned_is_built_on_too() -> None:
    """
    ``app.Task = …`` is the older way.
    """
    app = make()
    app.Task = InContext

    task = sync(app)
    task.apply(throw=True)

    assert ["in", "export", "out"] == CONTEXT


def test_an_app_with_celerys_own_class_has_the_bases_that_it_had() -> None:
    """
    Nothing is put in where there is nothing to take over.
    """
    task = sync(make())

    assert (celery_obs.SyncTask,) == type(task).__bases__


def test_a_base_of_the_teams_that_has_both_stays_as_it_is() -> None:
    """
    A class that derives from both in its own order keeps that order.
    """

    class Both(celery_obs.SyncTask, InContext):
        abstract = True

    app = make(InContext)

    @app.task(base=Both, name="shop.export", shared=False, channel_type="airbnb")  # type: ignore[untyped-decorator]  # Celery has no types.
    def export() -> None:
        CONTEXT.append("export")

    export.apply(throw=True)

    assert ["in", "export", "out"] == CONTEXT


def test_classes_that_contradict_each_other_are_told_and_the_sync_works(caplog: pytest.LogCaptureFixture) -> None:
    """
    What cannot be built on is named in the log; the task is a sync without it.
    """
    task = sync(make(InContext))
    other_way_round = type("Contradiction", (type("Other", (InContext, celery_obs.SyncTask), {}),), {})

    with caplog.at_level(logging.WARNING, logger="celery_obs"):
        type(task)._build_on(other_way_round)

    assert "cannot derive from" in caplog.text
    assert 1 == task.apply(throw=True).get()["updated"]


def test_a_task_can_be_pickled() -> None:
    """
    As a pool of spawned processes does.
    """
    app = make(InContext)
    app.set_current()
    task = sync(app)

    try:
        assert task.name == pickle.loads(pickle.dumps(task)).name  # noqa: S301 -- our own.
    finally:
        from celery import _state

        _state._set_current_app(None)
