"""
The lines of real workers, in every pool: what they say, what belongs to what, and what they keep to themselves.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from typing import Any, NamedTuple

import pytest

from celery import Celery

from tests.clients import client_of
from tests.servers import RedisServer, wait_until
from tests.workers import APPS, Worker, celery_version


pytestmark = pytest.mark.integration

REQUEST = "req-7f3a"
SECRET = "sw0rdfish-9271-canary"
QUIET = ("--without-mingle", "--without-gossip", "--without-heartbeat")
POOLS = {
    "prefork": ("-P", "prefork", "-c", "2"),
    "threads": ("-P", "threads", "-c", "4"),
    "gevent": ("-P", "gevent", "-c", "4"),
    "solo": ("-P", "solo"),
}
FIRST = ("timestamp", "level", "logger", "event")


class Log(NamedTuple):
    """
    What a worker wrote while it did what one web request and some strangers asked for.
    """

    pool: str
    text: str
    lines: list[dict[str, Any]]

    def about(self, event: str, **facts: object) -> list[dict[str, Any]]:
        """
        Return the lines about *event* that say *facts*.
        """
        return [line for line in self.lines if line["event"] == event and facts.items() <= line.items()]

    def ended(self, task: str, **facts: object) -> list[dict[str, Any]]:
        """
        Return the canonical lines of ``logged.<task>``.
        """
        return self.about("task_finished", task=f"logged.{task}", **facts)


def lines_in(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def ask_by_request(redis: str) -> None:
    """
    Publish everything from inside a web request, in a program of its own.
    """
    environ = {**os.environ, "TEST_BROKER": redis, "CELERY_OBS_METRICS": "0", "PYTHONPATH": os.pathsep.join([str(APPS), *sys.path])}
    subprocess.run([sys.executable, "-W", "ignore", APPS / "requesting.py", REQUEST, SECRET], env=environ, check=True, capture_output=True)


def ask_as_stranger(app: Celery) -> None:
    """
    Send what no worker can do anything with, each with a secret in it.
    """
    app.send_task("logged.nosuch", args=(SECRET,), kwargs={"x": SECRET})
    with app.connection_for_write() as connection:
        producer = connection.Producer()
        headers = {"id": "invalid-0001", "task": "logged.say", "lang": "py"}
        producer.publish([[SECRET], 1, {}], routing_key="work", serializer="json", headers=headers)
        producer.publish({"no": SECRET}, routing_key="work", serializer="json", headers={"secret": SECRET})
        producer.publish(f"{{{SECRET}", routing_key="work", content_type="application/json", content_encoding="utf-8", headers=headers)
        producer.publish(SECRET, routing_key="work", content_type="application/x-unheard-of", content_encoding="utf-8", headers=headers)


def _has_hard_limit(pool: str) -> bool:
    """
    Tell whether the pool has hard time limits, and Celery says so when it is reached (in greenlets since 5.7).
    """
    return pool == "prefork" or (pool == "gevent" and celery_version() >= (5, 7))


@pytest.fixture(scope="module", params=POOLS)
def log(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Log:
    """
    A worker of each pool at its most talkative, and all that it wrote.
    """
    pool = request.param
    if pool == "gevent":
        pytest.importorskip("gevent")
    folder = tmp_path_factory.mktemp(pool)
    worker = Worker(
        *POOLS[pool],
        *QUIET,
        "-l",
        "DEBUG",
        redis=redis_server.url,
        folder=folder,
        app="logged",
        CELERY_OBS_LOGS="1",
        CELERY_OBS_METRICS="0",
    )
    worker.redis.flushall()
    with worker, client_of(redis_server.url) as client:
        ask_by_request(redis_server.url)
        ask_as_stranger(client)
        if _has_hard_limit(pool):
            client.send_task("logged.exceed_hard_limit", link_error=client.signature("logged.note"))

        def is_done() -> bool:
            log = Log(pool, "", lines_in(worker.log.read_text()))
            notes = 2 if pool == "prefork" else 1
            return (
                len(log.ended("say", state="success")) >= 24
                and len(log.ended("gather")) == len(log.ended("hide")) == len(log.ended("fail_with_secret")) == 1
                and len(log.ended("note")) >= notes
                and worker.redis.llen("work") == 0
                and bool(log.ended("exceed_hard_limit")) is _has_hard_limit(pool)
            )

        wait_until(is_done, within=40, what="the worker to be done")
        text = worker.log.read_text()
    worker.redis.close()
    return Log(pool, text, lines_in(text))


def test_every_line_says_when_how_loud_and_what(log: Log) -> None:
    """
    All lines are JSON, our own and those of Celery and its libraries, and begin with the same four facts.
    """
    banner_ends = log.text.index("[tasks]")
    others = [
        line for line in log.text[banner_ends:].splitlines() if not line.startswith(("{", "  . ", "[tasks]", "worker: ")) and line.strip()
    ]

    assert [] == others
    assert all(FIRST == tuple(line)[:4] for line in log.lines)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"]) for line in log.lines)
    assert {line["level"] for line in log.lines} >= {"debug", "info", "warning", "error"}


def test_what_a_request_began_belongs_to_it(log: Log) -> None:
    """
    One id from the web request over task, retry, chain, chord and errback, in a header that Celery leaves alone.
    """
    tasks = ("say", "retry_once", "gather", "fail", "fail_expectedly", "hide", "run_another_eagerly")
    lines = [line for task in tasks for line in log.ended(task)]
    said = [*log.about("before"), *log.about("trying"), *log.about("gathered")]

    assert len(lines) >= 30
    assert {REQUEST} == {line["correlation_id"] for line in lines}
    assert {REQUEST} == {line["correlation_id"] for line in said}
    assert REQUEST in {line["correlation_id"] for line in log.ended("note")}


def test_what_nobody_requested_belongs_to_its_root(log: Log) -> None:
    """
    An errback that the main process publishes for a killed task has no context, and belongs to the root of its tree.
    """
    if log.pool != "prefork":
        pytest.skip("Only there is the main process another one, and publishes for it.")
    (killed,) = log.ended("exceed_hard_limit")

    assert killed["task_id"] == killed["correlation_id"]
    assert {REQUEST, killed["task_id"]} == {line["correlation_id"] for line in log.ended("note")}


def test_an_attempt_has_one_line(log: Log) -> None:
    """
    Success, failure and retry each have a canonical line, with durations, and Celery's own line about them is left out.
    """
    first, second = sorted(log.ended("retry_once"), key=lambda line: line["retries"])

    assert ("retry", "warning", 0, "ConnectionError", "again") == (
        *(first[name] for name in ("state", "level", "retries", "error", "error_message")),
    )
    assert ("success", "info", 1) == (second["state"], second["level"], second["retries"])
    assert "exception" not in first
    assert 25 == len(log.ended("say", state="success")) + 1
    for line in (first, second):
        assert ("work", "w1@test", "celery_obs.task") == (line["queue"], line["worker"], line["logger"])
        assert line["duration_ms"] > 0
        assert line["queue_wait_ms"] >= 0
    assert [] == [line for line in log.lines if line["logger"] == "celery.app.trace"]


def test_a_failure_tells_why(log: Log) -> None:
    """
    A failure is an error with its traceback, formatted while it was there; one that the task says may happen is not.
    """
    (failure,) = log.ended("fail")
    (expected,) = log.ended("fail_expectedly")

    assert ("error", "ValueError", "on purpose") == (failure["level"], failure["error"], failure["error_message"])
    assert "time.sleep(0)" not in failure["exception"]
    assert 'raise ValueError("on purpose")' in failure["exception"]
    assert failure["exception"].endswith("ValueError: on purpose")
    assert ("info", "failure", True) == (expected["level"], expected["state"], expected["expected"])
    assert "exception" not in expected


def test_a_killed_attempt_has_its_line_from_the_main_process(log: Log) -> None:
    """
    What the process of a killed attempt cannot tell, the main process does, once.
    """
    if not _has_hard_limit(log.pool):
        pytest.skip("No hard limit there, or none that Celery tells of.")
    (killed,) = log.ended("exceed_hard_limit")

    assert ("timeout", "error", "TimeLimitExceeded", "work", "w1@test") == (
        *(killed[name] for name in ("state", "level", "error", "queue", "worker")),
    )


def test_no_attempt_sees_what_another_bound(log: Log) -> None:
    """
    Processes and threads keep their context from one task to the next; what a task binds is gone with it.
    """
    for line in log.lines:
        own = {name for name in line if name.startswith("only_")}
        assert own <= {f"only_{line.get('number')}"}, line
        if line["event"] == "before" and line["task"] == "logged.say":
            assert line["said"] == line["number"]
        if line["event"].startswith("after ") and line["task"] == "logged.say":
            assert line["event"] == f"after {line['number']}"


def test_a_task_that_runs_another_keeps_its_context(log: Log) -> None:
    """
    An eager run is the caller's own work; the context around it is restored, not cleared.
    """
    (after,) = log.about("after_eager")
    (outer,) = log.ended("run_another_eagerly")

    assert ("logged.run_another_eagerly", "kept", outer["task_id"]) == (after["task"], after["outer"], after["task_id"])
    assert "kept" == outer["outer"]
    assert [] == [line for line in log.ended("say") if line.get("number") == 77]


def test_what_a_task_bound_is_in_its_canonical_line(log: Log) -> None:
    """
    The canonical line says what the task found out about itself.
    """
    assert set(range(10, 30)) <= {line["number"] for line in log.ended("say")}


def test_no_secret_is_in_any_line(log: Log) -> None:
    """
    Arguments, results, bodies, headers, URLs, extras and errors of tasks, of strangers and of Celery: none of their secrets come out.
    """
    (hid,) = log.about("hid")
    errors = [line["event"] for line in log.lines if line["logger"] == "celery.worker.consumer.consumer"]

    assert SECRET not in log.text
    assert ("***", "redis://:***@host", "***") == (hid["api_key"], hid["url"], hid["nested"]["headers"]["Authorization"])
    assert "Received unregistered task of type 'logged.nosuch'; the message was discarded." in errors
    assert (
        "Received an invalid task message; it was discarded." in errors
        or "Received and deleted a message that is no task message." in errors
    )
    assert "Cannot decode the body of a message; it was discarded." in errors
    if log.pool != "solo":
        assert log.about("TaskPool: Apply")


def test_what_the_main_process_says_of_a_task_names_it(log: Log) -> None:
    """
    Celery's own lines have the task and its id as facts, so that they are found with it.
    """
    (hid,) = log.ended("hide")
    received = [line for line in log.lines if line["logger"] == "celery.worker.strategy" and line.get("task_id") == hid["task_id"]]

    assert [f"Task logged.hide[{hid['task_id']}] received"] == [line["event"] for line in received]
    assert ["logged.hide"] == [line["task"] for line in received]


def test_what_is_printed_is_a_line_with_context(log: Log) -> None:
    """
    Standard output goes to the log as it does without us, and says which task printed.
    """
    (printed,) = [line for line in log.lines if line["logger"] == "celery.redirected" and line["event"].startswith("printed")]

    assert ("printed password=***", "warning", "logged.hide", REQUEST) == (
        *(printed[name] for name in ("event", "level", "task", "correlation_id")),
    )
