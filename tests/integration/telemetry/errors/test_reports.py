"""
Error reports of real workers, as a real endpoint gets them: exactly those that are expected, each with its task, none with a secret.
"""

from __future__ import annotations

import json

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import pytest

from celery import Celery

from tests.clients import client_of
from tests.sentry import SentryServer
from tests.servers import RedisServer
from tests.workers import Worker, settle_at


pytestmark = pytest.mark.integration

CANARY: Final = "zqcanary"
LOGGED: Final = "(logged)"

EVERYWHERE: Final[Mapping[tuple[str, str], int]] = {
    ("observed.fail", "ValueError"): 1,
    ("observed.retry_in_vain", "KeyError"): 1,
    ("observed.return_the_unserialisable", "EncodeError"): 1,
    ("reporting.leak", "ConnectionError"): 1,
    ("reporting.mark", "RuntimeError"): 2,
    ("reporting.raise_the_unpicklable", "UnpicklableError"): 1,
    ("reporting.raise_again", "KeyError"): 1,
    ("reporting.sync_in_vain", "TimeoutError"): 1,
    ("reporting.fail_in_a_thread", LOGGED): 1,
    ("reporting.log_an_error", LOGGED): 1,
}
"""
The reports that are expected from every pool, by task and by what went wrong.
"""

SILENT: Final = ("succeed", "fail_expectedly", "retry_once", "ignore", "reject")
"""
Tasks of the observed app that end in a way that needs no report.
"""

DEADLY: Final[Mapping[str, Mapping[tuple[str, str], int]]] = {
    "prefork": {
        ("observed.exceed_soft_limit", "SoftTimeLimitExceeded"): 1,
        ("observed.exceed_hard_limit", "TimeLimitExceeded"): 1,
        ("observed.kill_own_process", "WorkerLostError"): 1,
        ("observed.leave", "WorkerLostError"): 1,
        ("observed.kill_then_redeliver", "WorkerLostError"): 1,
    },
    "gevent": {("observed.exceed_hard_limit", "TimeLimitExceeded"): 1},
}
"""
What is expected besides, from pools that can be killed in part.
"""


class Rig(NamedTuple):
    """
    A worker that reports to an endpoint of the test's.
    """

    pool: str
    mode: str
    worker: Worker
    client: Celery
    sentry: SentryServer

    def expected(self) -> Counter[tuple[str, str]]:
        return Counter({**EVERYWHERE, **DEADLY.get(self.pool, {})})

    def seen(self) -> Counter[tuple[str, str]]:
        return Counter(summary(event) for event in self.sentry.events())


def summary(event: Mapping[str, Any]) -> tuple[str, str]:
    exceptions = (event.get("exception") or {}).get("values")
    return event.get("transaction") or "", exceptions[-1]["type"] if exceptions else LOGGED


@pytest.fixture(
    scope="module",
    params=[("prefork", "full"), ("threads", "light"), ("gevent", "full"), ("solo", "light")],
    ids=" ".join,
)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """
    A worker of each pool, through whose hands every kind of failure went.
    """
    pool, mode = request.param
    with RedisServer() as redis, SentryServer() as sentry:
        worker = Worker(
            f"--pool={pool}",
            "--concurrency=2",
            redis=redis.url,
            folder=tmp_path_factory.mktemp(pool),
            app="reporting",
            CELERY_OBS_LOGS="1",  # Its lines about failures are no failures.
            TEST_CANARY=CANARY,
            TEST_SETTINGS=json.dumps({"sentry_dsn": sentry.dsn, "sentry_mode": mode, "redis_url": redis.url}),
            ENVIRONMENT="testing",
            GIT_SHA="0123abc",
        )
        try:
            worker.start()
            rig = Rig(pool, mode, worker, client_of(redis.url), sentry)
            for task in SILENT:
                rig.client.send_task(f"observed.{task}")
            for (task, _), times in rig.expected().items():
                for number in range(times):
                    rig.client.send_task(task, arguments_of(task, number))
            settle_at(rig.expected(), rig.seen, within=25, steady=1.5)
            yield rig
        finally:
            worker.kill()
            worker.redis.close()


def arguments_of(task: str, number: int) -> list[str]:
    known = {"reporting.leak": ["order-7", f"{CANARY}-argument"], "reporting.mark": ["ab"[number]]}
    return known.get(task, [])


def test_every_failure_is_reported_once(rig: Rig) -> None:
    """
    In every pool the endpoint gets one report of each failure, attempts that were killed among them, and none else.
    """
    assert rig.expected() == rig.seen()


def test_every_report_tells_its_task_its_queue_and_what_it_belongs_to(rig: Rig) -> None:
    """
    A report can be found by task, queue, id and correlation id, also when it comes from another process or from a thread of the task's.
    """
    for event in rig.sentry.events():
        tags = event["tags"]
        assert (event["transaction"], "work", tags["task_id"]) == (tags["task"], tags["queue"], tags["correlation_id"])


def test_a_sync_tells_its_channel(rig: Rig) -> None:
    """
    The report of a sync that failed says which channel it was about.
    """
    (event,) = rig.sentry.events("reporting.sync_in_vain")

    assert "airbnb" == event["tags"]["channel"]


def test_release_and_environment_come_from_the_environment(rig: Rig) -> None:
    """
    Where Sentry's own variables are not set, ENVIRONMENT and GIT_SHA are what a report is filed under.
    """
    assert {("testing", "0123abc")} == {(event["environment"], event["release"]) for event in rig.sentry.events()}


def test_no_secret_is_in_what_was_sent(rig: Rig) -> None:
    """
    Neither arguments nor local variables, headers, URLs, log extras, contexts or messages bring a secret out, and the rest of them stays.
    """
    sent = b"\n".join(rig.sentry.raw)
    (leak,) = rig.sentry.events("reporting.leak")

    assert CANARY.encode() not in sent
    assert "*** was refused by https://" in leak["exception"]["values"][-1]["value"]
    assert "'order-7'" == leak["exception"]["values"][-1]["stacktrace"]["frames"][-1]["vars"]["order"]


def test_what_one_task_tells_sentry_is_not_told_of_the_next(rig: Rig) -> None:
    """
    Tags and breadcrumbs of one task are in none of another's reports, whatever the pool.
    """
    marks = [
        (
            sorted(tag for tag in event["tags"] if tag.startswith("mark_")),
            [crumb["message"] for crumb in event["breadcrumbs"]["values"] if crumb.get("category") == "mark"],
        )
        for event in rig.sentry.events("reporting.mark")
    ]

    assert [(["mark_a"], ["a"]), (["mark_b"], ["b"])] == sorted(marks)


def test_no_traces_are_sent_unasked(rig: Rig) -> None:
    """
    Errors are what was asked for, so there are no transactions.
    """
    assert {"event"} == {item.type for item in rig.sentry.items()} - {"client_report", "session", "sessions"}


def test_inspect_conf_shows_no_secret_of_ours(rig: Rig) -> None:
    """
    Who may ask a worker for its configuration does not get the DSN.
    """
    answer = rig.client.control.inspect(timeout=10, limit=1).conf()

    shown = json.dumps(answer)
    assert "sentry_dsn" in shown
    assert rig.sentry.dsn.partition("@")[0] not in shown
