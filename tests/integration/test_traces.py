"""
Traces on real workers, as a real collector gets them over OTLP: what began is there, once, in the right trace, in the right place.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from celery import Celery

from tests.clients import client_of
from tests.otlp import Collector, Received
from tests.servers import RedisServer, wait_until
from tests.workers import APPS, Metrics, Worker, celery_version


pytestmark = pytest.mark.integration

LOST = ["observed.exceed_hard_limit", "observed.kill_own_process", "traced.die_once", "observed.leave"]


class Rig(NamedTuple):
    """
    A worker that traces, and who sends to it.
    """

    worker: Worker
    client: Celery
    collector: Collector
    pool: str

    def send(self, task: str, *arguments: Any, sampled: bool = True, **options: Any) -> str:
        """
        Send a task as a web process that traces would, and return the trace.
        """
        made = secrets.token_hex(16)
        self.client.send_task(task, arguments, headers={"traceparent": f"00-{made}-{'a' * 16}-0{int(sampled)}"}, **options)
        return made

    def trace(self, made: str, count: int, *, within: float = 30.0) -> dict[str, Received]:
        """
        Wait until a trace has *count* spans, and return them by name.
        """
        wait_until(lambda: len(self.of(made)) >= count, within=within, what=f"{count} spans of {made}: {self.of(made)}")
        found = self.of(made)
        assert count == len(found), found
        return {span.name: span for span in found}

    def of(self, made: str) -> list[Received]:
        return [span for span in self.collector.spans() if span.trace == made]


def start(pool: str, redis: RedisServer, collector: Collector, folder: Path, *arguments: str, **environ: str) -> Rig:
    environ = {**collector.environ, **environ}
    worker = Worker(
        f"--pool={pool}", "--concurrency=4", *arguments, redis=redis.url, folder=folder, name=f"{pool}@test", app="traced", **environ
    )
    worker.redis.flushall()
    worker.start()
    return Rig(worker, client_of(redis.url), collector, pool)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """
    A collector for the whole module.
    """
    with Collector() as made:
        yield made


@pytest.fixture(scope="module")
def prefork(redis_server: RedisServer, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """
    A prefork worker for the whole module.
    """
    rig = start("prefork", redis_server, collector, tmp_path_factory.mktemp("prefork"))
    try:
        yield rig
    finally:
        rig.worker.kill()


@pytest.fixture(scope="module")
def other_redis() -> Iterator[RedisServer]:
    """
    A broker for workers of one test each.
    """
    with RedisServer() as server:
        yield server


# --- one trace ---------------------------------------------------------------------------------------------------------------------


def test_an_attempt_is_in_the_trace_of_its_message(prefork: Rig) -> None:
    """
    Nothing has to be done in the pool's processes for that; the span names the broker, the queue and the task.
    """
    made = prefork.send("traced.add", 1, 2)

    span = prefork.trace(made, 1)["process traced.add"]
    assert ("CONSUMER", "a" * 16, "UNSET") == (span.kind, span.parent, span.status)
    assert ("redis", "work", "success") == (
        span.attributes["messaging.system"],
        span.attributes["messaging.destination.name"],
        span.attributes["celery.task.state"],
    )
    assert ("tested", "prefork@test") == (span.resource["service.name"], span.attributes["celery.worker"])


def test_a_chain_and_a_chord_are_one_trace(prefork: Rig) -> None:
    """
    However many processes the work goes through, each span's parent is in the trace.
    """
    made = prefork.send("traced.conduct")

    # One that conducts; a chain of two and a chord of two with its body, each sent and processed.
    wait_until(lambda: len(prefork.of(made)) >= 11, what="all spans")
    spans = prefork.of(made)
    assert {
        "process traced.conduct": 1,
        "send traced.add": 4,
        "process traced.add": 4,
        "send traced.add_all": 1,
        "process traced.add_all": 1,
    } == (Counter(span.name for span in spans))
    assert {span.parent for span in spans} - {span.id for span in spans} == {"a" * 16}
    waits = [span.attributes["celery.task.queue_wait"] for span in spans if span.kind == "CONSUMER" and span.parent != "a" * 16]
    assert all(0 <= wait < 60 for wait in waits)
    assert 5 == len(waits)


def test_retries_are_one_trace_and_linked(prefork: Rig) -> None:
    """
    Each attempt is below the message that it came by, and links to the attempt that asked for it.
    """
    made = prefork.send("traced.come_again", 2)

    wait_until(lambda: len(prefork.of(made)) >= 7, what="three attempts, two syncs, two messages")
    attempts = sorted((span for span in prefork.of(made) if span.kind == "CONSUMER"), key=lambda span: span.began)
    messages = {span.id for span in prefork.of(made) if span.kind == "PRODUCER"}
    assert [0, 1, 2] == [span.attributes["celery.task.retries"] for span in attempts]
    assert ["retry", "retry", "success"] == [span.attributes["celery.task.state"] for span in attempts]
    assert [(), ((made, attempts[0].id),), ((made, attempts[1].id),)] == [span.links for span in attempts]
    assert {span.parent for span in attempts[1:]} == messages


def test_what_happens_inside_lies_below(prefork: Rig) -> None:
    """
    A sync, its API call and the task's own spans are in the attempt's trace, in their places.
    """
    spans = prefork.trace(prefork.send("traced.synchronise"), 4)

    sync = spans["sync airbnb calendar"]
    assert spans["process traced.synchronise"].id == sync.parent
    assert {sync.id} == {spans["GET /listings/{id}"].parent, spans["my own"].parent}
    assert (3, "conn-1") == (sync.attributes["channel.records.updated"], sync.attributes["channel.connection_id"])


def test_an_eager_run_leaves_the_attempts_context_alone(prefork: Rig) -> None:
    """
    What a task runs inside itself has no span of its own, and what it sends afterwards is still its child.
    """
    spans = prefork.trace(prefork.send("traced.send_more"), 3)

    assert {"process traced.send_more", "send traced.add", "process traced.add"} == set(spans)
    assert spans["process traced.send_more"].id == spans["send traced.add"].parent


def test_a_failure_is_told_without_its_secret(prefork: Rig) -> None:
    """
    The span has the exception, the collector has not the password.
    """
    span = prefork.trace(prefork.send("traced.raise_secretly"), 1)["process traced.raise_secretly"]

    assert ("ERROR", "ValueError") == (span.status, span.attributes["error.type"])
    assert "raise_secretly" in span.events[0].attributes["exception.stacktrace"]
    assert not [body for body in prefork.collector.bodies if b"hunter2" in body]


def test_what_the_publisher_did_not_sample_is_not_recorded(prefork: Rig) -> None:
    """
    The decision is made once, where the trace begins.
    """
    made = prefork.send("traced.send_more", sampled=False)
    seen = prefork.client.send_task("traced.look_around", headers={"traceparent": f"00-{made}-{'a' * 16}-00"})

    assert f"{made}-{'a' * 16}-0" == seen.get(timeout=20)
    prefork.trace(prefork.send("traced.add"), 1)
    assert [] == prefork.of(made)


# --- those that came to no end -------------------------------------------------------------------------------------------------------


def lose(rig: Rig, task: str, number: int) -> None:
    """
    Send a task that loses its process, and see what the collector has of it.
    """
    state = "timeout" if task.endswith("hard_limit") else "lost"
    traces = {rig.send(task) for _ in range(number)}

    def errors() -> list[Received]:
        return [span for span in rig.collector.spans(f"process {task}") if span.trace in traces and span.status == "ERROR"]

    wait_until(lambda: traces == {span.trace for span in errors()}, within=60 + 2 * number, what=f"all lost attempts of {task}")
    assert number == len(errors())
    for span in errors():
        assert ("a" * 16, state, task) == (span.parent, span.attributes["celery.task.state"], span.attributes["celery.task.name"])
        assert span.attributes["error.type"] in {"TimeLimitExceeded", "WorkerLostError"}
        assert span.attributes["messaging.message.id"]
        assert span.began < span.ended


@pytest.mark.parametrize("task", LOST)
def test_a_lost_attempt_has_a_span_with_an_error(prefork: Rig, task: str) -> None:
    """
    Killed by its hard limit or by SIGKILL, redelivered or not, or gone with sys.exit: the main process makes its span, once.
    """
    lose(prefork, task, 2)


def test_the_errback_of_a_lost_attempt_is_in_its_trace(prefork: Rig) -> None:
    """
    The main process sends it, in no context at all; it belongs to the message of the attempt.
    """
    spans = prefork.trace(prefork.send("observed.kill_own_process", link_error=prefork.client.signature("traced.look_after")), 3)

    assert {"process observed.kill_own_process", "send traced.look_after", "process traced.look_after"} == set(spans)
    assert spans["send traced.look_after"].id == spans["process traced.look_after"].parent


@pytest.mark.faults
@pytest.mark.parametrize("task", LOST[:3])
def test_fifty_lost_attempts_have_fifty_spans(prefork: Rig, task: str) -> None:
    """
    Not one of fifty is missing, and none comes twice.
    """
    lose(prefork, task, 50)


def test_a_terminated_attempt_has_a_span_with_an_error(prefork: Rig) -> None:
    """
    What ``revoke(terminate=True)`` killed did not end well, though Celery's signal names no state.
    """
    made = prefork.send("observed.wait_for_ever", task_id="terminated-1")
    wait_until(lambda: prefork.worker.ran("wait_for_ever"), what="the task to run")

    prefork.client.control.revoke("terminated-1", terminate=True)

    span = prefork.trace(made, 1)["process observed.wait_for_ever"]
    assert ("ERROR", "terminated") == (span.status, span.attributes["celery.task.state"])


# --- a collector that is unwell ------------------------------------------------------------------------------------------------------


def test_a_collector_that_refuses_costs_no_task_anything(prefork: Rig, collector: Collector) -> None:
    """
    Results come as ever, what was not taken is counted, and when the collector is well again spans arrive again.
    """
    metrics = Metrics(prefork.worker.metrics_dir)
    collector.status = 400
    try:
        results = [prefork.client.send_task("traced.add", (number, 1)) for number in range(20)]
        assert [number + 1 for number in range(20)] == [result.get(timeout=20) for result in results]
        wait_until(
            lambda: (metrics.find("celery_obs_dropped_total", reason="spans_not_exported") or 0) >= 20,
            what="what was dropped to be counted",
        )
    finally:
        collector.status = 200

    prefork.trace(prefork.send("traced.add"), 1)


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["down", "slow", "500"])
def test_whatever_ails_the_collector_every_span_is_accounted_for(fault: str, other_redis: RedisServer, tmp_path: Path) -> None:
    """
    All tasks succeed, also with processes that are recycled, and what did not arrive is counted, each span once.
    """
    with Collector() as ill:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} if fault == "down" else {}
        ill.status, ill.delay = 500, 60.0 if fault == "slow" else 0.0
        rig = start("prefork", other_redis, ill, tmp_path, "--max-tasks-per-child=10", **environ)
        try:
            results = [rig.client.send_task("traced.add", (number, 1)) for number in range(200)]
            assert [number + 1 for number in range(200)] == [result.get(timeout=120) for result in results]
            rig.worker.stop(within=60)
        finally:
            rig.worker.kill()

    dropped = Metrics(rig.worker.metrics_dir).by("reason", "celery_obs_dropped_total")
    assert {"spans_not_exported": 200.0} == dropped


# --- other pools -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["threads", "gevent"])
def other_pool(request: pytest.FixtureRequest, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """
    A worker of each pool that runs several tasks in one process.
    """
    with RedisServer() as redis:
        rig = start(request.param, redis, collector, tmp_path_factory.mktemp(request.param))
        try:
            yield rig
        finally:
            rig.worker.kill()


def test_pools_in_one_process_trace_as_well(other_pool: Rig) -> None:
    """
    Threads and greenlets send no signal of a process that starts, and need none.
    """
    spans = other_pool.trace(other_pool.send("traced.synchronise"), 4)
    failed = other_pool.trace(other_pool.send("traced.raise_secretly"), 1)["process traced.raise_secretly"]

    assert spans["process traced.synchronise"].id == spans["sync airbnb calendar"].parent
    assert "ERROR" == failed.status


def test_overlapping_attempts_of_one_id_are_not_crossed(other_pool: Rig) -> None:
    """
    Four attempts of one task id at the same time have four spans, and each saw its own.
    """
    traces = [other_pool.send("traced.overlap", 4, task_id=f"same-{other_pool.pool}") for _ in range(4)]

    spans = [other_pool.trace(made, 1)["process traced.overlap"] for made in traces]
    seen = other_pool.worker.redis.lrange("seen", 0, -1)
    assert {f"{span.trace}-{span.id}" for span in spans} == set(seen)
    assert (4, 4) == (len({span.id for span in spans}), len(seen))


def test_a_hard_limit_in_a_pool_of_greenlets_is_an_error(other_pool: Rig) -> None:
    """
    Its process lives on: there is one span, and it is not the one of an attempt that went well.
    """
    if other_pool.pool != "gevent":
        pytest.skip("Only greenlets have hard limits, besides processes.")

    span = other_pool.trace(other_pool.send("observed.exceed_hard_limit"), 1)["process observed.exceed_hard_limit"]

    assert ("ERROR", "timeout") == (span.status, span.attributes["celery.task.state"])


# --- the end ---------------------------------------------------------------------------------------------------------------------------


def recycle(redis: RedisServer, collector: Collector, folder: Path, number: int) -> None:
    """
    Run tasks in processes that are good for one each, and see that no span is missing.
    """
    rig = start("prefork", redis, collector, folder, "--max-tasks-per-child=1", OTEL_BSP_SCHEDULE_DELAY="60000")
    try:
        traces = {rig.send("traced.add", 1, 2) for _ in range(number)}
        wait_until(lambda: traces <= {span.trace for span in collector.spans()}, within=30 + number, what=f"{number} spans")
    finally:
        rig.worker.kill()
    assert number == len([span for span in collector.spans("process traced.add") if span.trace in traces])


def test_processes_that_are_recycled_leave_no_span_behind(other_redis: RedisServer, collector: Collector, tmp_path: Path) -> None:
    """
    With one task per process each sends its span before it goes, however long a batch would wait.
    """
    recycle(other_redis, collector, tmp_path, 20)


@pytest.mark.faults
def test_a_thousand_recycled_processes_leave_no_span_behind(other_redis: RedisServer, collector: Collector, tmp_path: Path) -> None:
    """
    A thousand tasks, a thousand processes, a thousand spans.
    """
    recycle(other_redis, collector, tmp_path, 1000)


@pytest.mark.parametrize(
    ("how", "number"),
    [
        pytest.param(["--pool=solo"], signal.SIGTERM, id="solo"),
        pytest.param(["--pool=prefork"], signal.SIGQUIT, id="cold"),
        pytest.param(
            ["--pool=prefork", "soft"],
            signal.SIGQUIT,
            id="soft",
            marks=[pytest.mark.skipif(celery_version() < (5, 5), reason="Soft shutdown came with Celery 5.5."), pytest.mark.faults],
        ),
        pytest.param(["--pool=threads"], signal.SIGTERM, id="threads", marks=pytest.mark.faults),
        pytest.param(["--pool=prefork"], signal.SIGTERM, id="warm", marks=pytest.mark.faults),
        pytest.param(["--pool=gevent"], signal.SIGTERM, id="gevent", marks=pytest.mark.faults),
    ],
)
def test_a_worker_that_ends_sends_what_it_has(
    how: list[str], number: signal.Signals, other_redis: RedisServer, collector: Collector, tmp_path: Path
) -> None:
    """
    Warm, cold or soft, what was gathered and not yet sent is sent before the process goes.
    """
    pool = how[0].removeprefix("--pool=")
    soft = "2" if "soft" in how else "0"
    rig = start(pool, other_redis, collector, tmp_path, OTEL_BSP_SCHEDULE_DELAY="60000", TEST_SOFT_SHUTDOWN=soft)
    try:
        made = [rig.send("traced.add", 1, 2) for _ in range(4)]
        wait_until(lambda: rig.worker.log.read_text(errors="replace").count("succeeded in") >= 4, what="the tasks to be done")
        rig.worker.stop(number)
    finally:
        rig.worker.kill()

    for each in made:
        rig.trace(each, 1, within=5)


# --- other programs --------------------------------------------------------------------------------------------------------------------


def test_a_program_that_only_sends_traces_from_its_first_message(prefork: Rig) -> None:
    """
    Its one message, and the task, are one trace, though the process is gone at once; a message that the broker never got has an error.
    """
    program = (
        "from traced import app\n"
        "app.send_task('traced.look_around')\n"
        "app.conf.broker_url = app.conf.broker_write_url = 'redis://127.0.0.1:1'\n"
        "app.pool.force_close_all(); app._pool = None; app.amqp._producer_pool = None\n"
        "try: app.send_task('traced.add', retry=False)\n"
        "except Exception as exc: print(type(exc).__name__)\n"
        "from opentelemetry import context\n"
        "print(dict(context.get_current()))\n"
    )
    environ = {**os.environ, **prefork.worker._environ, **prefork.collector.environ, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    done = subprocess.run([sys.executable, "-c", program], cwd=APPS, env=environ, capture_output=True, text=True, check=False, timeout=60)

    assert (0, ["OperationalError", "{}"]) == (done.returncode, done.stdout.split()), done.stderr
    (message,) = prefork.collector.wait_for(1, "send traced.look_around")
    (task,) = [span for span in prefork.trace(message.trace, 2).values() if span.kind == "CONSUMER"]
    (failed,) = prefork.collector.wait_for(1, "send traced.add", celery_task_retries=0, error_type="kombu.exceptions.OperationalError")
    assert (message.id, "") == (task.parent, message.parent)
    assert ("ERROR", "", True) == (failed.status, failed.parent, failed.trace != message.trace)


def test_a_provider_of_the_programs_own_is_used(other_redis: RedisServer, collector: Collector, tmp_path: Path) -> None:
    """
    One that is made as OpenTelemetry's documentation says gets our spans, once, and gets no exporter of ours; it is flushed with the process.
    """
    rig = start(
        "prefork",
        other_redis,
        collector,
        tmp_path,
        "--max-tasks-per-child=1",
        TEST_PROVIDER="1",
        TEST_COLLECTOR=collector.url,
        OTEL_EXPORTER_OTLP_ENDPOINT="",
        OTEL_SERVICE_NAME="theirs",
        OTEL_BSP_SCHEDULE_DELAY="60000",
    )
    try:
        made = [rig.send("traced.synchronise") for _ in range(8)]
        spans = [rig.trace(each, 4) for each in made]
    finally:
        rig.worker.kill()
    assert {"theirs"} == {span.resource["service.name"] for trace in spans for span in trace.values()}
    assert all(trace["process traced.synchronise"].id == trace["sync airbnb calendar"].parent for trace in spans)


def test_opentelemetrys_own_instrumentation_gets_no_second_span(other_redis: RedisServer, collector: Collector, tmp_path: Path) -> None:
    """
    Where it is at work its spans are the only ones of tasks and messages, and carry what we know besides.
    """
    rig = start("prefork", other_redis, collector, tmp_path, TEST_INSTRUMENTED="1")
    try:
        spans = rig.trace(rig.send("traced.send_one"), 3)
        lost = rig.trace(rig.send("observed.kill_own_process"), 1)
    finally:
        rig.worker.kill()
    assert {"run/traced.send_one", "apply_async/traced.add", "run/traced.add"} == set(spans)
    assert ("success", "redis") == (
        spans["run/traced.add"].attributes["celery.task.state"],
        spans["run/traced.add"].attributes["messaging.system"],
    )
    assert "ERROR" == lost["process observed.kill_own_process"].status


@pytest.mark.faults
@pytest.mark.skipif(celery_version() < (5, 7), reason="Pools that spawn came with Celery 5.7.")
def test_processes_that_are_spawned_trace_as_well(other_redis: RedisServer, collector: Collector, tmp_path: Path) -> None:
    """
    They see nothing of the main process but the configuration and the environment, which is enough.
    """
    rig = start("prefork", other_redis, collector, tmp_path, TEST_START_METHOD="spawn")
    try:
        spans = rig.trace(rig.send("traced.synchronise"), 4, within=60)
    finally:
        rig.worker.kill()
    assert spans["process traced.synchronise"].id == spans["sync airbnb calendar"].parent


def test_beat_inside_a_worker_begins_traces(other_redis: RedisServer, collector: Collector, tmp_path: Path) -> None:
    """
    What the schedule sends is the root of a trace that names its entry, and the task is in it.
    """
    rig = start("prefork", other_redis, collector, tmp_path, "-B", "-s", str(tmp_path / "schedule"))
    try:
        wait_until(lambda: len(collector.spans("send observed.succeed")) >= 2, what="beat's messages")
        message = collector.spans("send observed.succeed")[0]
        task = rig.trace(message.trace, 2)["process observed.succeed"]
    finally:
        rig.worker.kill()
    assert ("", "every second") == (message.parent, message.attributes["celery.beat.entry"])
    assert (message.id, "every second") == (task.parent, task.attributes["celery.beat.entry"])
