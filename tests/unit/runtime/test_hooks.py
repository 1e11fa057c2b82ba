"""
Hooks: what a program subscribes to is heard, whenever it subscribes, and never hurts what is observed.
"""

from __future__ import annotations

import functools
import logging
import os

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from celery import Celery

import celery_obs

from celery_obs.areas.sidecar.metrics import INTERNAL_ERRORS
from celery_obs.runtime import hooks
from celery_obs.testing import counters
from tests.embedded import embedded_worker
from tests.pages import DOCS, python_of


PAGE = DOCS / "how-to" / "hear-events.md"


class Rang(NamedTuple):
    """
    The bell rang.
    """

    times: int


class Stopped(NamedTuple):
    """
    The bell stopped.
    """

    times: int


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[Callable[[], Celery]]:
    """
    Makes an app in memory that is observed; afterwards nothing is, and no hook is left.
    """
    before = list(hooks._hooks)

    def make() -> Celery:
        made = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
        made.conf.celery_obs = {"metrics_dir": str(tmp_path)}
        celery_obs.setup(made)
        return made

    yield make
    celery_obs.teardown()
    hooks._hooks[:] = before


def test_a_hook_that_is_subscribed_before_setup_hears_what_happens_after_it(make_app: Callable[[], Celery]) -> None:
    """
    Which of the two lines comes first in the program does not matter.
    """
    heard: list[Rang] = []

    celery_obs.subscribe(Rang, heard.append)
    celery_obs.emit(Rang(1))
    make_app()
    celery_obs.emit(Rang(2))

    assert [Rang(2)] == heard


def test_a_hook_that_is_subscribed_after_setup_hears_its_own_type_alone(make_app: Callable[[], Celery]) -> None:
    """
    Two events of equal content are still two kinds of event.
    """
    heard: list[Rang] = []

    make_app()
    celery_obs.subscribe(Rang, heard.append)
    celery_obs.emit(Stopped(1))
    celery_obs.emit(Rang(1))

    assert [Rang(1)] == heard


def test_a_hook_that_is_subscribed_twice_is_called_once_and_gone_when_unsubscribed_once(make_app: Callable[[], Celery]) -> None:
    """
    A module that is imported anew subscribes anew.
    """
    heard: list[Rang] = []

    celery_obs.subscribe(Rang, heard.append)
    make_app()
    celery_obs.subscribe(Rang, heard.append)
    celery_obs.emit(Rang(1))
    celery_obs.unsubscribe(Rang, heard.append)
    celery_obs.emit(Rang(2))
    celery_obs.teardown()
    make_app()
    celery_obs.emit(Rang(3))

    assert [Rang(1)] == heard


def test_unsubscribing_what_was_not_subscribed_changes_nothing(make_app: Callable[[], Celery]) -> None:
    """
    Cleaning up twice is no mistake.
    """
    heard: list[Rang] = []
    celery_obs.unsubscribe(Rang, heard.append)
    make_app()
    celery_obs.subscribe(Rang, heard.append)

    celery_obs.unsubscribe(Stopped, broken)
    celery_obs.unsubscribe(Rang, print)
    celery_obs.emit(Rang(1))

    assert [Rang(1)] == heard


def test_hooks_outlive_a_teardown(make_app: Callable[[], Celery]) -> None:
    """
    Between teardown and the next setup there is silence; afterwards each hook is called once again.
    """
    heard: list[Rang] = []
    celery_obs.subscribe(Rang, heard.append)
    make_app()

    celery_obs.teardown()
    celery_obs.emit(Rang(1))
    make_app()
    celery_obs.emit(Rang(2))

    assert [Rang(2)] == heard


def test_a_hook_that_raises_is_counted_under_its_module_and_hurts_nothing(
    make_app: Callable[[], Celery], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The caller goes on, the hooks after it are called, and an operator sees whose it is.
    """
    heard: list[Rang] = []
    make_app()
    celery_obs.subscribe(Rang, broken)
    celery_obs.subscribe(Rang, heard.append)

    with caplog.at_level(logging.ERROR, "celery_obs"):
        celery_obs.emit(Rang(1))
        celery_obs.emit(Rang(2))

    assert [Rang(1), Rang(2)] == heard
    assert 2 == counters(tmp_path)[INTERNAL_ERRORS.name, (__name__,)]
    assert [f"celery_obs: {__name__} failed."] == [record.getMessage()[: len(__name__) + 20] for record in caplog.records]


def test_a_method_without_a_module_has_a_component_too(make_app: Callable[[], Celery], tmp_path: Path) -> None:
    """
    What a built-in method raises is not counted as None.
    """
    make_app()
    celery_obs.subscribe(Rang, list[Rang]().remove)

    celery_obs.emit(Rang(1))

    assert 1 == counters(tmp_path)[INTERNAL_ERRORS.name, ("observer",)]


def broken(event: object) -> None:
    message = "oops"
    raise RuntimeError(message)


def sold_out() -> None:
    message = "sold out"
    raise LookupError(message)


async def later(event: object) -> None:
    """
    Nothing runs it.
    """


@pytest.mark.parametrize(
    ("event_type", "hook", "words"),
    [
        ("TaskFinished", print, "Expected an event's class and a function, got 'TaskFinished' and"),
        (Rang(1), print, "Expected an event's class and a function, got Rang"),
        (Rang, "print", "Expected an event's class and a function, got .* and 'print'"),
        (Rang, None, "docs/reference/events.md"),
        (Rang, later, "Expected a plain function, got the coroutine function"),
        (Rang, functools.partial(later), "Expected a plain function, got the coroutine function"),
    ],
)
def test_what_cannot_be_a_hook_is_refused_where_it_is_subscribed(event_type: Any, hook: Any, words: str) -> None:
    """
    A mistake is told at start-up, and nothing of it is kept.
    """
    before = list(hooks._hooks)

    with pytest.raises(TypeError, match=words):
        celery_obs.subscribe(event_type, hook)

    assert before == hooks._hooks


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # From Python 3.12 on, where an earlier test left a thread.
def test_a_forked_child_inherits_the_hooks(make_app: Callable[[], Celery]) -> None:
    """
    What was subscribed where the app is made is heard in pool processes.
    """
    reading, writing = os.pipe()
    make_app()
    celery_obs.subscribe(Rang, lambda event: os.write(writing, f"{os.getpid()} {event.times}".encode()))

    child = os.fork()
    if child == 0:
        try:
            celery_obs.emit(Rang(7))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)

    with os.fdopen(reading) as pipe:
        assert f"{child} 7" == pipe.read()


def test_the_hook_of_the_page_hears_a_task_that_fails(make_app: Callable[[], Celery], caplog: pytest.LogCaptureFixture) -> None:
    """
    What docs/how-to/hear-events.md shows works in a worker as it stands there.
    """
    app = make_app()

    order = app.task(name="shop.order")(sold_out)
    [snippet] = python_of(PAGE.read_text(encoding="utf-8"))
    exec(snippet, {"__name__": "shop.hooks"})  # noqa: S102 -- a page of ours.
    log = logging.getLogger("shop")
    log.addHandler(caplog.handler)  # A worker takes the root's away.
    with caplog.at_level(logging.WARNING, "shop"), embedded_worker(app), pytest.raises(LookupError):
        order.delay().get(timeout=10)
    log.removeHandler(caplog.handler)

    assert any(message.startswith("shop.order failed with LookupError after ") for message in caplog.messages)
