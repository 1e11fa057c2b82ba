"""
A program with Sentry and OpenTelemetry of its own has one tracer for its tasks, and errors that lead to its traces.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from celery import Celery

from tests.otlp import Collector
from tests.sentry import SentryServer
from tests.servers import RedisServer, wait_until
from tests.workers import Worker


pytestmark = pytest.mark.integration

WAYS = [
    # The way; whether our variables say where spans go; the setting that is to be named.
    pytest.param("rate", True, "traces_sample_rate", id="traces_sample_rate"),
    pytest.param("provider in the child", False, "traces_sample_rate", id="a provider made in the child"),
    pytest.param("sampler", True, "traces_sampler", id="traces_sampler", marks=pytest.mark.faults),
    pytest.param("late", True, "traces_sample_rate", id="init after setup", marks=pytest.mark.faults),
    pytest.param("integration", True, "traces_sample_rate", id="an integration with options", marks=pytest.mark.faults),
    pytest.param("provider", False, "traces_sample_rate", id="a provider made before", marks=pytest.mark.faults),
    pytest.param("otel", True, "", id="instrumenter otel", marks=pytest.mark.faults),
    pytest.param("otlp", True, "", id="OTLPIntegration", marks=pytest.mark.faults),
]


def worker_of(way: str, redis: RedisServer, folder: Path, sentry: SentryServer, **environ: str) -> Worker:
    worker = Worker("--concurrency=1", redis=redis.url, folder=folder, app="both", TEST_WAY=way, TEST_DSN=sentry.dsn, **environ)
    worker.redis.flushall()
    return worker


@pytest.mark.parametrize(("way", "by_environment", "named"), WAYS)
def test_tasks_have_one_tracer_and_errors_its_ids(
    redis_server: RedisServer, client: Celery, tmp_path: Path, *, way: str, by_environment: bool, named: str
) -> None:
    """
    Sentry makes no transaction of a task, each error has the ids of its attempt's span, and the log names what was switched off, once a process.
    """
    with Collector() as collector, SentryServer() as sentry:
        environ = {**(collector.environ if by_environment else {}), "TEST_COLLECTOR": collector.url}
        worker = worker_of(way, redis_server, tmp_path, sentry, **environ)
        with worker:
            client.send_task("both.fail_below")
            wait_until(lambda: len(sentry.events()) >= 2, what="two reports")
            spans = {name: collector.one(f"process {name}") for name in ("both.fail_below", "observed.fail")}
        worker.redis.close()

        events = {event["transaction"]: event for event in sentry.events()}
        assert [] == sentry.items("transaction")
        for name, span in spans.items():
            assert (span.trace, span.id) == (events[name]["contexts"]["trace"]["trace_id"], events[name]["contexts"]["trace"]["span_id"])
        assert spans["both.fail_below"].trace == spans["observed.fail"].trace
        warnings = [line for line in worker.log.read_text().splitlines() if "so Sentry does not:" in line]
        assert bool(named) == bool(warnings)
        assert len(warnings) <= 2
        assert all(f"does not: {named} of sentry_sdk.init" in line for line in warnings)


@pytest.mark.faults
def test_sentry_traces_on_where_nothing_else_does(redis_server: RedisServer, client: Celery, tmp_path: Path) -> None:
    """
    Without OpenTelemetry, or with our traces switched off, the program's own tracing is left as it is.
    """
    with Collector() as collector, SentryServer() as sentry:
        for environ in ({}, {**collector.environ, "CELERY_OBS_TRACES": "0"}):
            sentry.forget()
            worker = worker_of("alone", redis_server, tmp_path, sentry, **environ)
            with worker:
                client.send_task("observed.fail")
                wait_until(lambda: sentry.items("transaction") and sentry.events(), what="a report and a transaction")
            worker.redis.close()
        assert [] == collector.spans()
