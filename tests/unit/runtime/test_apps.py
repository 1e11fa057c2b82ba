"""
An app is looked at, never touched: nothing of it is read or kept before it reads its configuration itself, and no object of ours keeps it alive.
"""

from __future__ import annotations

import gc
import pickle
import threading
import weakref

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from celery import Celery, current_app
from kombu import Exchange, Queue

import celery_obs

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.tasks.events import PublishEnded, TaskPublished
from celery_obs.runtime.plugin import Plugin, plugin
from celery_obs.testing import capture_events
from tests.embedded import embedded_worker
from tests.otlp import Collector


@pytest.fixture
def active(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    """
    A process that is active already: an app of its own has published, and messages are followed to their end.
    """
    with Collector() as collector:
        for name, value in collector.environ.items():
            monkeypatch.setenv(name, value)
        first = Celery("first", broker="memory://", set_as_current=False)
        celery_obs.setup(first, metrics_dir=str(tmp_path))
        first.send_task("first.task")
        found = plugin()
        assert found is not None
        assert found.hub.wants(PublishEnded)
        yield found
        celery_obs.teardown()


@pytest.fixture
def torn_down() -> Iterator[None]:
    """
    Afterwards nothing of ours is left.
    """
    yield
    celery_obs.teardown()


LATE = {
    "task_serializer": "yaml",
    "task_compression": "gzip",
    "task_default_delivery_mode": "transient",
    "task_queues": [Queue("orders", Exchange("orders"), routing_key="orders")],
    "task_default_queue": "orders",
    "task_routes": {"shop.*": {"queue": "orders"}},
    "beat_schedule": {"mine": {"task": "shop.mine", "schedule": 60.0}},
    "imports": ("shop.tasks",),
}


def sent_by(app: Celery) -> dict[str, Any]:
    """
    Return what *app* hands to its broker for a message.
    """
    seen: dict[str, Any] = {}

    class Producer(app.amqp.Producer):  # type: ignore[misc]  # Celery has no types.
        def publish(self, *args: Any, **kwargs: Any) -> Any:
            seen.update(kwargs)
            return super().publish(*args, **kwargs)

    with app.connection_for_write() as connection:
        app.send_task("shop.sell", producer=Producer(connection))
    return seen


def touches_nothing(app: Celery) -> bool:
    """
    Tell whether *app* is as it was made.
    """
    return not app.configured and not app.finalized and not {"amqp", "loader", "tasks", "pool"} & vars(app).keys()


def test_a_second_app_of_an_active_process_is_not_touched(active: Plugin) -> None:
    """
    Its configuration is read, and what it publishes with made, when it first needs them itself.
    """
    second = Celery("second", broker="memory://", set_as_current=False)

    celery_obs.setup(second)

    assert touches_nothing(second)


def test_a_second_app_is_configured_as_late_as_it_likes(active: Plugin) -> None:
    """
    Serializer, compression, delivery mode, queues, routes and schedule are those that it was given after its set-up.
    """
    second = Celery("second", broker="memory://", set_as_current=False)
    celery_obs.setup(second)
    second.config_from_object(LATE)

    sent = sent_by(second)

    assert ("yaml", "gzip", "transient") == (sent["serializer"], sent["compression"], sent["delivery_mode"])
    assert {"orders"} == set(second.amqp.queues)
    assert (LATE["imports"], LATE["beat_schedule"]) == (second.conf.imports, second.conf.beat_schedule)


def test_another_app_that_publishes_leaves_an_app_alone(active: Plugin) -> None:
    """
    Looking up the queue of an exchange, the channel of a task or the way of a message of ours asks only apps that know already.
    """
    second, third = (Celery(name, broker="memory://", set_as_current=False) for name in ("second", "third"))
    celery_obs.setup(third)
    celery_obs.setup(second)
    second.config_from_object(LATE)

    second.send_task("shop.sell", exchange="unknown", routing_key="anything")
    second.send_task("take_census")
    active._tags_of("shop.sell")

    assert touches_nothing(third)


def test_an_app_that_reads_its_configuration_again_forgets_nothing_of_it(tmp_path: Path, torn_down: None) -> None:
    """
    What we put into the configuration hides nothing that a later ``config_from_object`` says.
    """
    app = Celery("shop", broker="memory://", set_as_current=False)
    celery_obs.setup(app)
    early = {"celery_obs": {"metrics_dir": str(tmp_path / "early"), "redis_url": "redis://:secret@h/1"}, "task_routes": {"a": "b"}}
    app.config_from_object(early)
    app.finalize()
    assert app.conf.beat_schedule is not None

    late = {**LATE, "celery_obs": {"metrics_dir": str(tmp_path / "late")}}
    app.config_from_object(late)

    assert (late["imports"], late["beat_schedule"]) == (app.conf.imports, app.conf.beat_schedule)
    assert LATE["task_routes"] in app.conf.task_routes
    assert {"metrics_dir": str(tmp_path / "late")} == app.conf.celery_obs


def test_using_us_before_the_configuration_fixes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn_down: None) -> None:
    """
    Something of ours, then ``config_from_object``: both the app and we go by the configuration.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    app = Celery("shop", broker="memory://", set_as_current=False)
    celery_obs.setup(app)
    engines.current()

    app.config_from_object({**LATE, "celery_obs": {"metrics_dir": str(tmp_path / "late"), "label_limit": 7}})
    sent = sent_by(app)

    found = plugin()
    assert found is not None
    assert found.settings is not None
    assert ("yaml", 7, tmp_path / "late") == (sent["serializer"], found.settings.label_limit, found.settings.metrics_dir)


def test_a_listener_survives_new_settings(tmp_path: Path, torn_down: None) -> None:
    """
    What the program itself subscribed to goes on being told.
    """
    app = Celery("shop", broker="memory://", set_as_current=False)
    celery_obs.setup(app)
    app.conf.celery_obs = {"metrics_dir": str(tmp_path / "early")}
    app.send_task("shop.one")

    with capture_events(TaskPublished) as events:
        app.config_from_object({"celery_obs": {"metrics_dir": str(tmp_path / "late")}})
        del app.conf["celery_obs"]
        app.config_from_object({"celery_obs": {"metrics_dir": str(tmp_path / "late")}})
        app.send_task("shop.two")

    assert ["shop.two"] == [event.task for event in events]


def test_the_settings_are_those_of_the_app_that_publishes(tmp_path: Path, torn_down: None) -> None:
    """
    An app that has not read its configuration yet is not made to, because another one publishes.
    """
    idle, busy = (Celery(name, broker="memory://", set_as_current=False) for name in ("idle", "busy"))
    celery_obs.setup(idle)
    celery_obs.setup(busy)
    busy.conf.celery_obs = {"metrics_dir": str(tmp_path), "label_limit": 7}

    busy.send_task("busy.task")

    found = plugin()
    assert found is not None
    assert found.settings is not None
    assert (7, True) == (found.settings.label_limit, touches_nothing(idle))


def test_a_publisher_that_nobody_set_up_wakes_nobody(tmp_path: Path, torn_down: None) -> None:
    """
    The messages of an app that is not ours make none of ours read its configuration; the first one of ours is counted.
    """
    ours, theirs = (Celery(name, broker="memory://", set_as_current=False) for name in ("ours", "theirs"))
    celery_obs.setup(ours, metrics_dir=str(tmp_path))
    theirs.send_task("theirs.task")
    untouched = touches_nothing(ours)

    with capture_events(TaskPublished) as events:
        ours.send_task("ours.task")

    assert (True, ["ours.task"]) == (untouched, [event.task for event in events])


def test_an_app_that_has_published_is_followed_once_it_is_set_up(active: Plugin) -> None:
    """
    What such an app publishes with is there already, and is followed from its next message on.
    """
    second = Celery("second", broker="memory://", set_as_current=False)
    second.send_task("second.unseen")

    celery_obs.setup(second)
    with capture_events(PublishEnded) as events:
        second.send_task("second.seen")

    assert ["second.seen"] == [event.headers["task"] for event in events]


def test_the_first_message_of_a_second_app_is_followed(active: Plugin) -> None:
    """
    A second app is followed from its first message on, though it had nothing to publish with when it was set up.
    """
    second = Celery("second", broker="memory://", set_as_current=False)
    celery_obs.setup(second)

    with capture_events(PublishEnded) as events:
        second.send_task("second.seen")

    assert ["second.seen"] == [event.headers["task"] for event in events]


def test_what_a_test_puts_in_the_place_of_publishing_stays_there(active: Plugin) -> None:
    """
    A mock that a program's own test asks afterwards is the one that it gave.
    """
    second = Celery("second", broker="memory://", set_as_current=False)
    celery_obs.setup(second)
    second.amqp.send_task_message = given = Mock()

    second.send_task("second.task")

    assert given is second.amqp.send_task_message
    given.assert_called_once()


def test_taking_us_off_leaves_what_publishes_as_it_was(active: Plugin) -> None:
    """
    An app publishes as before, whether it had published before its set-up or not.
    """
    second = Celery("second", broker="memory://", set_as_current=False)
    second.send_task("second.task")
    original = second.amqp.send_task_message
    celery_obs.setup(second)
    second.send_task("second.task")

    celery_obs.teardown()

    assert original is second.amqp.send_task_message
    second.send_task("second.task")


def test_a_proxy_is_the_app_that_it_stands_for(tmp_path: Path, torn_down: None) -> None:
    """
    ``setup(celery.current_app)`` observes that app.
    """
    app = Celery("shop", broker="memory://")
    app.set_current()
    celery_obs.setup(current_app, metrics_dir=str(tmp_path))
    found = plugin()
    assert found is not None

    app.send_task("shop.task")

    assert [app] == list(found.apps)
    assert found.settings is not None


def test_a_pickled_app_is_the_app(tmp_path: Path, torn_down: None) -> None:
    """
    A copy made by pickling has the configuration of the original, and its routes.
    """
    app = Celery("shop", broker="memory://", set_as_current=False)
    celery_obs.setup(app, metrics_dir=str(tmp_path))
    app.conf.update(LATE)
    app.send_task("shop.sell")

    copy = pickle.loads(pickle.dumps(app))  # noqa: S301 -- our own.

    assert ("yaml", "orders") == (copy.conf.task_serializer, copy.amqp.router.route({}, "shop.sell")["queue"].name)


# -- what it costs ----------------------------------------------------------------------------------------------------


def alive_after(use: Callable[[Celery], object], *, number: int = 20) -> int:
    """
    Make apps, set them up, *use* each, close and drop them; return how many are left.
    """
    gc.collect()
    references = []
    for _ in range(number):
        app = Celery("passing", broker="memory://", backend="cache+memory://", set_as_current=False)
        celery_obs.setup(app)
        use(app)
        app.close()
        references.append(weakref.ref(app))
        del app
    gc.collect()
    return sum(1 for reference in references if reference() is not None)


def _publish(app: Celery) -> None:
    app.send_task("passing.task", retry=False)


def _count(items: list[Any]) -> int:
    return len(items)


def _run(app: Celery) -> None:
    app.conf.task_default_queue = "run"  # The transport in memory is one for all apps.
    app.task(name="passing.run", shared=False)(_count)
    with embedded_worker(app):
        app.send_task("passing.run", args=[[]]).get(timeout=10)


@pytest.mark.parametrize(
    ("use", "number", "left"),
    [
        (Celery.finalize, 200, 0),
        (lambda app: app.conf.timezone, 200, 0),
        (_publish, 20, 0),
        (_run, 3, 1),  # Celery's test worker makes its app the default one.
    ],
)
@pytest.mark.parametrize("is_active", [False, True])
def test_no_app_is_held_alive(
    request: pytest.FixtureRequest, *, use: Callable[[Celery], object], number: int, left: int, is_active: bool
) -> None:
    """
    Apps that are made, set up, used, closed and dropped are gone, whatever they were used for.
    """
    request.getfixturevalue("active" if is_active else "torn_down")

    assert left == alive_after(use, number=number)


def test_an_app_that_publishes_nothing_has_no_settings_read(monkeypatch: pytest.MonkeyPatch, torn_down: None) -> None:
    """
    Setting an app up, configuring it and making its tasks read none of our settings and register none of our tasks.
    """
    read: list[SimpleNamespace] = []
    monkeypatch.setattr("celery_obs.runtime.configuration.load", lambda *args: read.append(SimpleNamespace()))
    app = Celery("idle", broker="redis://127.0.0.1:1/0", set_as_current=False)
    celery_obs.setup(app)

    app.finalize()

    assert ([], []) == (read, [name for name in app.tasks if name.startswith("channel_manager.")])
    assert {} == dict(app.conf.beat_schedule)


def test_setting_up_again_and_again_leaves_one_step(tmp_path: Path, torn_down: None) -> None:
    """
    An app that is set up by each of many tests has its steps once.
    """
    app = Celery("shop", broker="memory://", set_as_current=False)
    for _ in range(5):
        celery_obs.setup(app, metrics_dir=str(tmp_path))
        celery_obs.teardown()

    assert (1, 2) == (len(app.steps["worker"]), len(app.steps["consumer"]))


def test_a_worker_inside_a_program_leaves_no_thread_there(tmp_path: Path, torn_down: None) -> None:
    """
    Its end is a cold shutdown, which calls other methods of Celery's steps; found by Celery's own tests, which look for threads after each.
    """
    app = Celery("inside", broker="memory://", backend="cache+memory://", set_as_current=False)
    celery_obs.setup(app, metrics_dir=str(tmp_path))
    before = set(threading.enumerate())

    with embedded_worker(app):
        during = {thread.name for thread in threading.enumerate()}
    left = set(threading.enumerate()) - before

    assert "celery_obs.retire" in during
    assert not [thread.name for thread in left if thread.name.startswith("celery_obs")]
