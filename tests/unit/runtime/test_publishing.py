"""
Publishing is seen through: whatever becomes of a message, its end is told, once, in the thread that sent it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery import Celery
from kombu.exceptions import OperationalError

import celery_obs

from celery_obs.areas.tasks.events import PublishEnded, PublishStarted
from celery_obs.runtime.plugin import plugin
from tests.otlp import Collector


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """
    An app in memory, observed, whose messages an observer wants to hear of.
    """
    with Collector() as collector:
        for name, value in collector.environ.items():
            monkeypatch.setenv(name, value)
        made = Celery("proj", broker="memory://", set_as_current=False)
        made.conf.celery_obs = {"metrics_dir": str(tmp_path)}
        celery_obs.setup(made)
        yield made
        celery_obs.teardown()


def heard_of(app: Celery) -> list[Any]:
    """
    Return what the hub tells of publishes from now on.
    """
    found = plugin()
    assert found is not None
    heard: list[Any] = []
    for event_type in (PublishStarted, PublishEnded):
        found.hub.subscribe(event_type, heard.append)
    return heard


def test_the_first_message_of_a_process_is_seen_through(app: Celery) -> None:
    """
    A publisher becomes active before the message goes, so that none goes without its trace.
    """
    found = plugin()
    assert found is not None

    app.send_task("proj.first", retry=False)

    assert found.hub.wants(PublishEnded)
    assert "send_task_message" in vars(app.amqp)


def test_a_publish_that_fails_is_ended_as_well(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Celery sends no signal for it; the end names the headers that the beginning named, and what was raised.
    """
    heard = heard_of(app)

    def refuse(*_: object, **__: object) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr("kombu.messaging.Producer.publish", refuse)
    with pytest.raises(OperationalError, match="gone"):
        app.send_task("proj.fails", retry=False)

    started, ended = heard
    assert (True, True, "gone") == (started.is_followed, started.headers is ended.headers, str(ended.error))


def test_what_another_app_sends_is_not_promised_an_end(app: Celery) -> None:
    """
    Celery's signals are those of all apps; only ours are followed.
    """
    app.send_task("proj.first", retry=False)
    heard = heard_of(app)

    Celery("other", broker="memory://", set_as_current=False).send_task("other.task", retry=False)

    (started,) = heard
    assert not started.is_followed


def test_tearing_down_leaves_the_app_as_it_was(app: Celery) -> None:
    """
    The method that was wrapped is Celery's again.
    """
    before = app.amqp.send_task_message
    app.send_task("proj.first", retry=False)

    celery_obs.teardown()

    assert before is app.amqp.send_task_message


def test_a_message_is_the_same_with_and_without_traces(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Besides headers of ours and of OpenTelemetry's, nothing of it differs.
    """
    sent: list[dict[str, Any]] = []

    def publish(_: object, body: Any, **options: Any) -> None:
        sent.append({"body": body, **options})

    monkeypatch.setattr("kombu.messaging.Producer.publish", publish)
    app.send_task("proj.same", (1,), {"a": 2}, task_id="same", countdown=None, priority=3)
    celery_obs.teardown()
    app.send_task("proj.same", (1,), {"a": 2}, task_id="same", countdown=None, priority=3)

    with_us, without = sent
    extra = set(with_us.pop("headers")) - set(without.pop("headers"))
    assert {"traceparent", "celery_obs_published", "celery_obs_due", "celery_obs_correlation_id"} == extra
    assert {key: str(value) for key, value in with_us.items()} == {key: str(value) for key, value in without.items()}
