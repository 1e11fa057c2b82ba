"""
What holds is told, not what is declared: the maximum of retries that counted, the time at which a task was due, the id that it has.
"""

from __future__ import annotations

import json
import time
import uuid

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from celery import Celery
from opentelemetry import trace
from redis import Redis

import celery_obs

from tests.otlp import Collector
from tests.sentry import SentryServer
from tests.servers import RedisServer, wait_until
from tests.workers import Metrics, Worker, settle_at


pytestmark = pytest.mark.integration


class Rig(NamedTuple):
    """
    A worker, all of whose observers are on.
    """

    worker: Worker
    client: Celery
    metrics: Metrics
    collector: Collector
    sentry: SentryServer

    def lines(self, task: str) -> list[dict[str, Any]]:
        """
        Return the canonical lines of ``effective.<task>``.
        """
        found = [json.loads(line) for line in self.worker.log.read_text(errors="replace").splitlines() if line.startswith("{")]
        return [line for line in found if line.get("event") == "task_finished" and line.get("task") == f"effective.{task}"]

    def sum_of(self, metric: str, task: str) -> float:
        return self.metrics.find(f"{metric}_sum", task=f"effective.{task}") or 0.0

    def count_of(self, metric: str, task: str) -> float:
        return self.metrics.find(f"{metric}_count", task=f"effective.{task}") or 0.0


@pytest.fixture(scope="module")
def rig(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """
    A prefork worker for the whole module.
    """
    with Collector() as collector, SentryServer() as sentry:
        worker = Worker(
            "--concurrency=2",
            redis=redis_server.url,
            folder=tmp_path_factory.mktemp("effective"),
            app="effective",
            **{**collector.environ, "SENTRY_DSN": sentry.dsn, "CELERY_OBS_LOGS": "1"},
        )
        worker.redis.flushall()
        worker.start()
        try:
            client = Celery("client", broker=redis_server.url, set_as_current=False, task_default_queue="work")
            yield Rig(worker, client, Metrics(worker.metrics_dir), collector, sentry)
        finally:
            worker.kill()


REFUSED = {
    "by_keywords": 3,
    "by_call": 3,
    "without_reason": 2,
    "translated": 2,
    "overridden": 2,
    "by_base": 2,
    "of_a_sync": 2,
}
OTHERWISE = {
    "other_error": 4,
    "other_error_by_call": 4,
    "without_end": 6,
    "other_error_last": 2,
    "of_another": 2,
}


@pytest.mark.parametrize(
    ("task", "runs", "exhausted"), [*((*each, "true") for each in REFUSED.items()), *((*each, "false") for each in OTHERWISE.items())]
)
def test_retries_are_exhausted_where_celery_refused_another_one(rig: Rig, task: str, runs: int, exhausted: str) -> None:
    """
    Whatever set the maximum that counted, and whatever the task declares: metric, log line and span say what Celery decided.
    """
    before = rig.worker.ran(task)
    rig.client.send_task(f"effective.{task}")

    settle_at(
        ({exhausted: 1}, runs),
        lambda: (
            rig.metrics.by("exhausted", "celery_task_failures_total", task=f"effective.{task}"),
            rig.worker.ran(task) - before,
        ),
    )
    wait_until(lambda: any(line["state"] == "failure" for line in rig.lines(task)), what="the line of the failure")
    [line] = [line for line in rig.lines(task) if line["state"] == "failure"]
    assert (exhausted == "true") == line.get("exhausted", False)
    span = rig.collector.one(f"process effective.{task}", celery_task_state="failure")
    assert (exhausted == "true") == span.attributes.get("celery.task.exhausted", False)


IDS = [pytest.param(42, id="number"), pytest.param(uuid.UUID(int=7), id="UUID")]


@pytest.mark.parametrize("task_id", IDS)
def test_an_id_that_is_no_text_is_told_as_text_by_every_observer(rig: Rig, task_id: object) -> None:
    """
    Celery takes any value for an id.  The task is counted, its line written, its span and its report name it.
    """
    before = rig.metrics.states_of("effective.say").get("success", 0)
    rig.client.send_task("effective.say", task_id=task_id, ignore_result=True)
    rig.client.send_task("observed.fail", task_id=task_id, ignore_result=True)

    settle_at(before + 1, lambda: rig.metrics.states_of("effective.say").get("success", 0))
    wait_until(lambda: any(line["task_id"] == str(task_id) for line in rig.lines("say")), what="the line")
    [line] = [line for line in rig.lines("say") if line["task_id"] == str(task_id)]
    assert ("success", str(task_id)) == (line["state"], line["correlation_id"])
    span = rig.collector.one("process effective.say", messaging_message_id=str(task_id))
    assert str(task_id) == span.attributes["messaging.message.conversation_id"]

    def reports() -> list[Any]:
        return [event for event in rig.sentry.events("observed.fail") if dict(event["tags"]).get("task_id") == str(task_id)]

    wait_until(lambda: len(reports()) == 1, what="the report")
    assert str(task_id) == reports()[0]["tags"]["correlation_id"]
    assert {} == rig.metrics.by("component", "celery_obs_internal_errors_total")


def test_an_attempt_with_a_number_for_its_id_is_told_of_when_it_is_killed(rig: Rig) -> None:
    """
    The main process finds it by the same id, and the verdict reaches the slot of the process that ran it; also where Celery (5.4) fails to store the result.
    """
    rig.client.send_task("observed.exceed_hard_limit", task_id=4711, ignore_result=True)

    settle_at({"timeout": 1}, lambda: rig.metrics.states("exceed_hard_limit"))
    span = rig.collector.one("process observed.exceed_hard_limit", messaging_message_id="4711")
    assert "timeout" == span.attributes["celery.task.state"]


MEASURED = ("celery_task_latency_seconds", "celery_task_queue_wait_seconds")


@pytest.fixture
def publishing(rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Any]:
    """
    Make observed publishers in this process.
    """

    def make(**configuration: Any) -> Celery:
        app = Celery("publisher", broker=rig.worker.redis_url, set_as_current=False, task_default_queue="work")
        app.conf.update(**configuration)
        app.conf.celery_obs = {"metrics_dir": str(tmp_path), "errors": False}
        celery_obs.setup(app)
        return app

    try:
        yield make
    finally:
        celery_obs.teardown()


def moment_in(seconds: float, zone: str | None) -> datetime:
    now = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return now.replace(tzinfo=None) if zone is None else now.astimezone(ZoneInfo(zone))


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("enable_utc", [True, False], ids=["utc", "local"])
def test_time_before_an_eta_is_neither_wait_nor_latency(rig: Rig, publishing: Any, protocol: int, enable_utc: bool) -> None:
    """
    Whatever the protocol and the time zones, a task with a countdown or an ETA is due when that comes; without a zone an ETA is UTC.
    """
    app = publishing(task_protocol=protocol, enable_utc=enable_utc, timezone="America/New_York")
    before = {name: (rig.sum_of(name, "say"), rig.count_of(name, "say")) for name in MEASURED}

    due = 3.0  # What four tasks wait together on a busy machine is less.
    app.send_task("effective.say", countdown=due, ignore_result=True)
    for zone in (None, "UTC", "Asia/Tokyo"):
        app.send_task("effective.say", eta=moment_in(due, zone), ignore_result=True)

    for name, (total, count) in before.items():
        settle_at(count + 4, partial(rig.count_of, name, "say"), steady=0.0)
        assert 0.0 <= rig.sum_of(name, "say") - total < due


def test_retries_by_protocol_1_count_from_the_first_due_time(rig: Rig, publishing: Any) -> None:
    """
    The latency of a task that was tried again is that of all attempts; the wait of each is its own.
    """
    app = publishing(task_protocol=1)
    app.send_task("effective.retry_later", countdown=1, ignore_result=True)

    settle_at(1.0, lambda: rig.count_of("celery_task_latency_seconds", "retry_later"), steady=0.0)
    assert 1.4 <= rig.sum_of("celery_task_latency_seconds", "retry_later") < 2.6
    assert rig.sum_of("celery_task_queue_wait_seconds", "retry_later") < 0.9
    assert 2 == rig.count_of("celery_task_queue_wait_seconds", "retry_later")


def test_a_message_of_protocol_1_is_traced_and_found_again(rig: Rig, publishing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its id stands in its body: the span of the publish names it, and the attempt belongs to the same trace.
    """
    for name, value in rig.collector.environ.items():
        monkeypatch.setenv(name, value)
    # A process without a provider, whatever other tests have set.
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _: None)
    task_id = f"traced-{time.time()}"
    app = publishing(task_protocol=1)

    app.send_task("effective.say", task_id=task_id, countdown=0.1, ignore_result=True)

    sent = rig.collector.one("send effective.say", messaging_message_id=task_id)
    processed = rig.collector.one("process effective.say", messaging_message_id=task_id)
    assert (sent.trace, sent.id) == (processed.trace, processed.parent)
    assert "celery.task.eta" in sent.attributes


@pytest.mark.parametrize("protocol", [1, 2])
def test_an_expired_message_is_revoked(rig: Rig, publishing: Any, protocol: int) -> None:
    """
    By either protocol, what comes too late ends as revoked and has no wait.
    """
    before = rig.metrics.states("expire").get("revoked", 0)
    publishing(task_protocol=protocol).send_task("observed.expire", expires=moment_in(-5, "UTC"), ignore_result=True)

    settle_at(before + 1, lambda: rig.metrics.states("expire").get("revoked", 0))


# --- one word for an outcome ----------------------------------------------------------------------------------------------------------


def words_of(rig: Rig, task: str) -> dict[str, list[str]]:
    """
    Return how attempts of *task* ended, as the metrics, the log and the traces tell it.
    """
    lines = [json.loads(line) for line in rig.worker.log.read_text(errors="replace").splitlines() if line.startswith("{")]
    counted = rig.metrics.states_of(task)
    return {
        "metrics": sorted(state for state, times in counted.items() for _ in range(int(times))),
        "log": sorted(line["state"] for line in lines if line.get("event") == "task_finished" and line.get("task") == task),
        "traces": sorted(span.attributes["celery.task.state"] for span in rig.collector.spans(f"process {task}")),
    }


def agreed(*states: str) -> dict[str, list[str]]:
    return dict.fromkeys(("metrics", "log", "traces"), sorted(states))


ENDS = [
    pytest.param("observed.succeed", ("success",), "", id="success"),
    pytest.param("observed.fail_expectedly", ("failure",), "", id="expected exception"),
    pytest.param("observed.retry_in_vain", ("retry", "retry", "failure"), "KeyError", id="retries"),
    pytest.param("observed.ignore", ("ignored",), "", id="Ignore"),
    pytest.param("effective.ignore_late", ("ignored",), "", id="Ignore, acks_late"),
    pytest.param("observed.reject", ("rejected",), "", id="Reject"),
    pytest.param("observed.reject_and_requeue", ("rejected", "success"), "", id="Reject(requeue=True)"),
    pytest.param("observed.replace_itself", ("ignored",), "", id="replace()"),
    pytest.param("observed.return_the_unserialisable", ("failure",), "EncodeError", id="unserialisable result"),
]
DEADLY = [
    pytest.param("observed.exceed_soft_limit", ("failure",), "SoftTimeLimitExceeded", id="soft limit"),
    pytest.param("observed.leave", ("lost",), "WorkerLostError", id="sys.exit"),
    pytest.param("observed.kill_own_process", ("lost",), "WorkerLostError", id="SIGKILL"),
    pytest.param("observed.kill_then_redeliver", ("lost", "success"), "WorkerLostError", id="SIGKILL, redelivered"),
]


def check_words(rig: Rig, task: str, states: tuple[str, ...], error: str) -> None:
    rig.client.send_task(task, ignore_result=False)

    settle_at(agreed(*states), lambda: words_of(rig, task))
    settle_at([error] if error else [], lambda: [event["exception"]["values"][-1]["type"] for event in rig.sentry.events(task)], steady=0.2)


@pytest.mark.parametrize(("task", "states", "error"), [*ENDS, *DEADLY])
def test_an_outcome_has_one_word(rig: Rig, task: str, states: tuple[str, ...], error: str) -> None:
    """
    Metrics, log and traces call it the same, and what needs attention is reported once.
    """
    check_words(rig, task, states, error)


def test_what_is_terminated_has_one_word(rig: Rig) -> None:
    """
    What was revoked while it ran is terminated, and no error.
    """
    task_id = "terminated-1"
    rig.client.send_task("observed.wait_for_ever", task_id=task_id, ignore_result=True)
    wait_until(lambda: rig.worker.ran("wait_for_ever"), what="the task to run")
    rig.client.control.revoke(task_id, terminate=True)

    settle_at(agreed("terminated"), lambda: words_of(rig, "observed.wait_for_ever"))
    assert [] == rig.sentry.events("observed.wait_for_ever")


@pytest.mark.faults
@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_an_outcome_has_one_word_in_one_process(pool: str, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    The same holds for the pools that run their tasks in the worker's own process.
    """
    with RedisServer() as broker, Collector() as collector, SentryServer() as sentry:
        worker = Worker(
            f"--pool={pool}",
            "--concurrency=2",
            redis=broker.url,
            folder=tmp_path,
            app="effective",
            **{**collector.environ, "SENTRY_DSN": sentry.dsn, "CELERY_OBS_LOGS": "1"},
        )
        with worker:
            client = Celery("client", broker=broker.url, set_as_current=False, task_default_queue="work")
            rig = Rig(worker, client, Metrics(worker.metrics_dir), collector, sentry)
            for case in ENDS:
                check_words(rig, *case.values)  # type: ignore[arg-type]  # What pytest.param holds has no types.
        worker.redis.close()


def test_what_is_cancelled_with_its_connection_has_one_word(tmp_path: Path) -> None:
    """
    With ``worker_cancel_long_running_tasks_on_connection_loss`` an attempt is killed and comes again: lost, for all four observers.
    """
    with RedisServer() as broker, RedisServer() as ledger, Collector() as collector, SentryServer() as sentry:
        worker = Worker(
            "--concurrency=2",
            redis=broker.url,
            folder=tmp_path,
            app="effective",
            **{**collector.environ, "SENTRY_DSN": sentry.dsn, "CELERY_OBS_LOGS": "1", "TEST_CANCEL": "1", "TEST_LEDGER": ledger.url},
        )
        with worker, Redis.from_url(ledger.url, decode_responses=True) as told:
            client = Celery("client", broker=broker.url, set_as_current=False, task_default_queue="work")
            rig = Rig(worker, client, Metrics(worker.metrics_dir), collector, sentry)
            client.send_task("effective.hold_on", ignore_result=True)
            wait_until(lambda: told.hget("ran", "hold_on") == "1", what="the task to run")

            with Redis.from_url(broker.url) as operator:
                for kind in ("normal", "pubsub"):
                    operator.client_kill_filter(_type=kind)
            wait_until(lambda: rig.metrics.states_of("effective.hold_on"), what="the attempt to be over")

            settle_at(agreed("lost", "success"), lambda: words_of(rig, "effective.hold_on"))
            wait_until(sentry.events, what="the report")
            assert ["lost"] == [event["contexts"]["celery"]["state"] for event in sentry.events()]
