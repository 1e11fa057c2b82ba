"""
The observed app, with tasks whose traces are worth a look: that send others, sync, and come again.
"""

from __future__ import annotations

import os
import signal
import time

from celery import Task, chain, chord
from observed import app, ledger  # type: ignore[import-not-found]  # Found beside this file by the worker.

import celery_obs


app.conf.worker_soft_shutdown_timeout = float(os.environ.get("TEST_SOFT_SHUTDOWN", "0"))
if os.environ.get("TEST_START_METHOD"):
    app.conf.worker_pool_start_method = os.environ["TEST_START_METHOD"]
    app.conf.imports = ("traced",)
if os.environ.get("TEST_INSTRUMENTED") == "1":
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    CeleryInstrumentor().instrument()
if os.environ.get("TEST_PROVIDER") == "1":
    from celery.signals import worker_process_init

    @worker_process_init.connect(weak=False)
    def make_provider(**_: object) -> None:
        """
        Do as OpenTelemetry's documentation says for a pool of processes.
        """
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=os.environ["TEST_COLLECTOR"] + "/v1/traces")))
        trace.set_tracer_provider(provider)


@app.task
def add(*numbers: int) -> int:
    return sum(numbers)


@app.task
def add_all(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def conduct() -> None:
    chain(add.s(1, 2), add.s(3)).apply_async()
    chord([add.s(1, 2), add.s(3, 4)])(add_all.s())


@app.task(bind=True, max_retries=5)
def come_again(self: Task, times: int) -> None:
    if self.request.retries < times:
        with celery_obs.sync_run("airbnb", "again"):
            raise self.retry(exc=KeyError("again"), countdown=0)


@app.task
def send_more() -> None:
    app.send_task("traced.add", (1, 2))
    add.s(3, 4).apply()


@app.task
def send_one() -> None:
    app.send_task("traced.add", (1, 2))


@app.task
def synchronise() -> None:
    from opentelemetry import trace

    with celery_obs.sync_run("airbnb", "calendar", connection_id="conn-1") as run:
        with celery_obs.api_call("airbnb", "/listings/{id}", "GET", connection_id="conn-1") as call:
            call.response(200)
        with trace.get_tracer("mine").start_as_current_span("my own"):
            run.updated(3)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def die_once(self: Task) -> None:
    if ledger().hincrby("died", self.request.id, 1) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@app.task
def look_after(task_id: str) -> None:
    """
    Be the errback of a task that was lost.
    """


@app.task
def raise_secretly() -> None:
    raise ValueError("cannot reach https://me:hunter2@example.com/path")


@app.task(bind=True)
def overlap(self: Task, number: int) -> str:
    """
    Run until all attempts of this id are running, and say which trace this one sees as its own.
    """
    from opentelemetry import trace

    redis = ledger()
    redis.incr("overlapping")
    deadline = time.monotonic() + 20
    while int(redis.get("overlapping") or 0) < number and time.monotonic() < deadline:
        time.sleep(0.01)
    identity = trace.get_current_span().get_span_context()
    redis.rpush("seen", f"{identity.trace_id:032x}-{identity.span_id:016x}")
    return "done"


@app.task
def look_around() -> str:
    """
    Say which span is the current one.
    """
    from opentelemetry import trace

    identity = trace.get_current_span().get_span_context()
    return f"{identity.trace_id:032x}-{identity.span_id:016x}-{identity.trace_flags & 1}"
