"""
Setting up: once a process, whatever is called how often.
"""

from __future__ import annotations

import logging
import re
import threading

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery import Celery, signals

import celery_obs

from celery_obs.areas.tasks.events import TaskFinished, TaskStarted
from celery_obs.areas.tasks.metrics import FINISHED, LATENCY, PUBLISHED, QUEUE_WAIT, RUNTIME
from celery_obs.exceptions import ConfigurationError
from celery_obs.recorder.layout import Layout
from celery_obs.runtime.plugin import plugin
from celery_obs.runtime.signals import TABLE
from celery_obs.testing import capture_events, counters
from tests.embedded import embedded_worker
from tests.servers import free_port


MANY_TASKS = Path(__file__).parents[3] / "docs" / "how-to" / "many-tasks-and-nodes.md"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    """
    An app in memory, observed.
    """
    made = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.celery_obs = {"metrics_dir": str(tmp_path)}
    celery_obs.setup(made)
    yield made
    celery_obs.teardown()


def receivers_of_ours() -> int:
    return sum(1 for signal, method in TABLE for (uid, _), _ in signal.receivers if uid == f"celery_obs.{method.__name__}")


def buckets_in(metrics_dir: Path) -> dict[str, tuple[float, ...]]:
    """
    Return the edges of the histograms of tasks, as the files describe them.
    """
    [path] = metrics_dir.glob("*/layout")
    layout = Layout()
    layout.feed(path.read_bytes())
    families = {series.family for series in layout.series}
    return {family.name: family.buckets for family in families if family.name in {RUNTIME.name, QUEUE_WAIT.name, LATENCY.name}}


def test_setting_up_twice_connects_once(app: Celery) -> None:
    """
    Two calls, and a second app, leave one set of receivers.
    """
    celery_obs.setup(app)
    celery_obs.setup(Celery("another", set_as_current=False))

    assert len(TABLE) == receivers_of_ours()


def test_tearing_down_disconnects_all(app: Celery) -> None:
    """
    Afterwards no signal of Celery's knows us.
    """
    celery_obs.teardown()

    assert (0, None) == (receivers_of_ours(), plugin())


def test_other_arguments_in_a_second_call_are_refused(app: Celery) -> None:
    """
    One process has one set of settings, and the error shows both.
    """
    with pytest.raises(ConfigurationError, match="called before"):
        celery_obs.setup(app, label_limit=5)


def test_unknown_arguments_are_refused_at_once(tmp_path: Path) -> None:
    """
    A misspelt setting does not wait for a worker to be found.
    """
    with pytest.raises(ConfigurationError, match="label_limit"):
        celery_obs.setup(Celery("proj", set_as_current=False), label_limt=5)


def test_spawned_children_will_load_us(app: Celery) -> None:
    """
    The entry for spawned pool processes is added to the user's own imports where there will be a pool, and nowhere else.
    """
    app.conf.imports = ("tests.embedded",)
    app.finalize()
    before = app.conf.imports

    with embedded_worker(app):
        pass

    assert (("tests.embedded",), ("tests.embedded", "celery_obs.autoload")) == (before, app.conf.imports)


def test_an_embedded_worker_is_observed(app: Celery, tmp_path: Path) -> None:
    """
    A worker started inside a program, which sends fewer signals, counts its tasks, and the program its messages.
    """

    @app.task(name="proj.add")  # type: ignore[untyped-decorator]  # Celery's.
    def add(a: int, b: int) -> int:
        return a + b

    with embedded_worker(app), capture_events(TaskStarted, TaskFinished) as events:
        assert 3 == add.delay(1, 2).get(timeout=10)
        _until(lambda: len(events) == 2)

    found = counters(tmp_path)
    assert 1 == found[FINISHED.name, ("proj.add", "celery", "success")]
    assert 1 == found[PUBLISHED.name, ("proj.add", "celery")]
    assert [TaskStarted, TaskFinished] == [type(event) for event in events]


def test_an_eager_task_is_not_counted(app: Celery, tmp_path: Path) -> None:
    """
    ``apply()`` is a function call of the caller's.
    """

    @app.task(name="proj.noop")  # type: ignore[untyped-decorator]  # Celery's.
    def noop() -> None:
        pass

    with capture_events(TaskStarted, TaskFinished) as events:
        noop.apply()

    assert [] == events


def test_ignored_tasks_leave_no_trace(tmp_path: Path) -> None:
    """
    Tasks that match the setting *ignore_tasks* are not recorded anywhere.
    """
    made = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    celery_obs.setup(made, metrics_dir=str(tmp_path), ignore_tasks=["proj.noisy*"])

    @made.task(name="proj.noisy_one")  # type: ignore[untyped-decorator]  # Celery's.
    def noisy() -> None:
        pass

    try:
        with embedded_worker(made):
            noisy.delay().get(timeout=10)
        assert [] == [key for key in counters(tmp_path) if "proj.noisy_one" in key[1]]
    finally:
        celery_obs.teardown()


def test_histograms_have_the_buckets_that_the_app_sets(tmp_path: Path) -> None:
    """
    Runtime, wait in the queue and latency have the edges that the page on many tasks gives them.
    """
    made = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    [block] = re.findall(r"^```python\n(.*?_buckets.*?)^```$", MANY_TASKS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    exec(block, {"app": made})  # noqa: S102 -- what the page tells people to write.
    made.conf.celery_obs["metrics_dir"] = str(tmp_path)
    celery_obs.setup(made)

    @made.task(name="proj.bucketed")  # type: ignore[untyped-decorator]  # Celery's.
    def bucketed() -> None:
        pass

    try:
        with embedded_worker(made):
            bucketed.delay().get(timeout=10)
            edges = buckets_in(tmp_path)
    finally:
        celery_obs.teardown()

    assert {
        RUNTIME.name: (0.1, 1.0, 10.0, 60.0, 600.0),
        QUEUE_WAIT.name: (1.0, 10.0, 60.0, 600.0),
        LATENCY.name: (1.0, 10.0, 30.0, 60.0, 600.0),
    } == edges


@pytest.mark.parametrize("wanted", [True, False])
def test_queues_are_announced_if_the_app_wants_it(tmp_path: Path, wanted: bool) -> None:
    """
    With ``announce_queues`` false, neither worker nor publisher tells sidecars of queues.
    """
    made = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    redis = f"redis://127.0.0.1:{free_port()}/0"
    made.conf.celery_obs = {"metrics_dir": str(tmp_path), "redis_url": redis, "announce_queues": wanted}
    celery_obs.setup(made)
    before = set(threading.enumerate())

    @made.task(name=f"proj.announced_{wanted}")  # type: ignore[untyped-decorator]  # Celery's.
    def noop() -> None:
        pass

    try:
        with embedded_worker(made):
            noop.delay().get(timeout=10)
            announcing = {thread for thread in threading.enumerate() if thread.name == "celery_obs.announce"} - before
    finally:
        celery_obs.teardown()

    assert wanted == bool(announcing)


def test_a_broken_observer_does_not_reach_the_task(app: Celery) -> None:
    """
    Whatever goes wrong on our side, the task returns what it returns.
    """

    @app.task(name="proj.fine")  # type: ignore[untyped-decorator]  # Celery's.
    def fine() -> str:
        return "fine"

    def broken(event: Any) -> None:
        raise RuntimeError

    found = plugin()
    assert found is not None
    for event_type in (TaskStarted, TaskFinished):
        found.hub.subscribe(event_type, broken)

    with embedded_worker(app):
        assert "fine" == fine.delay().get(timeout=10)


def test_our_receivers_are_strong(app: Celery) -> None:
    """
    Receivers do not vanish with the garbage collector.
    """
    import gc
    import weakref

    gc.collect()

    kept = [receiver for (uid, _), receiver in signals.task_prerun.receivers if str(uid).startswith("celery_obs")]
    assert 1 == len(kept)
    assert not isinstance(kept[0], weakref.ReferenceType)


def _until(holds: Any) -> None:
    from tests.servers import wait_until

    wait_until(holds, what="the events")


@pytest.mark.parametrize(
    "url", ["redis://h:1/PLAN", "redis://:PLAN@h:nothing/0", "redis://h:1/0;redis://h:1/PLAN", "carrier-pigeon://PLAN@h"]
)
def test_a_broker_that_cannot_keep_the_state_stops_nothing(app: Celery, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """
    What is inferred costs the cluster features and one line, and no process its life; what was set itself is refused as ever.
    """
    app.conf.broker_url = url
    observing = plugin()
    assert observing is not None

    with caplog.at_level(logging.WARNING, "celery_obs"):
        observing.activate(app)
        observing.activate(app)

    assert observing.settings is not None
    assert observing.settings.redis is None
    assert 1 == len([line for line in caplog.messages if "cluster features are off" in line])
    assert "PLAN" not in caplog.text


@pytest.mark.parametrize("first_is_active", [True, False])
def test_an_app_that_is_configured_otherwise_is_told_that_this_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first_is_active: bool
) -> None:
    """
    Whether it reads its configuration before or after the first app becomes active: once, with both names and the settings.
    """
    first, second, plain = (Celery(name, broker="memory://", set_as_current=False) for name in ("first", "second", "plain"))
    first.conf.celery_obs = {"metrics_dir": str(tmp_path), "label_limit": 7}
    second.conf.celery_obs = {"metrics_dir": str(tmp_path), "label_limit": 9, "ignore_tasks": ["x.*"]}
    try:
        for each in (first, second, plain):
            celery_obs.setup(each)
        apps = (first, plain, second) if first_is_active else (plain, second, first)
        for each in apps:
            if each is first:
                each.send_task("first.task")
            else:
                assert each.conf.task_always_eager is False
        second.send_task("second.task")
    finally:
        celery_obs.teardown()

    (told,) = [record.getMessage() for record in caplog.records if "one set of settings" in record.getMessage()]
    assert "the app 'first' are in force. What the app 'second' says of label_limit, ignore_tasks is not used" in told
