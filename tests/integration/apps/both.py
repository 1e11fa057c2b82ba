"""
The observed app of a program that has both Sentry and OpenTelemetry of its own, set up in one of the ways in which people do that: ``TEST_WAY``.
"""

from __future__ import annotations

import os

import sentry_sdk

from celery import signals
from observed import app, enter  # type: ignore[import-not-found]  # Beside this file, where the worker runs.
from sentry_sdk.integrations.celery import CeleryIntegration


WAY = os.environ["TEST_WAY"]


def init(**options: object) -> None:
    sentry_sdk.init(dsn=os.environ["TEST_DSN"], **options)  # type: ignore[arg-type]


def provide(**_: object) -> None:
    """
    Set up OpenTelemetry's SDK, as its documentation says.
    """
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"{os.environ['TEST_COLLECTOR']}/v1/traces"), schedule_delay_millis=100)
    )
    trace.set_tracer_provider(provider)


if WAY == "rate":
    init(traces_sample_rate=1)
elif WAY == "sampler":
    init(traces_sampler=lambda _: 1.0)
elif WAY == "late":
    signals.celeryd_init.connect(lambda **_: init(traces_sample_rate=1.0), weak=False)
elif WAY == "integration":
    init(traces_sample_rate=1.0, integrations=[CeleryIntegration(monitor_beat_tasks=True, propagate_traces=False)])
elif WAY == "otel":
    init(traces_sample_rate=1.0, instrumenter="otel")
elif WAY == "otlp":
    from sentry_sdk.integrations.otlp import OTLPIntegration

    init(integrations=[OTLPIntegration(setup_otlp_traces_exporter=False, setup_propagator=False)])
elif WAY == "provider":
    provide()
    init(traces_sample_rate=1.0)
elif WAY == "provider in the child":
    signals.worker_process_init.connect(provide, weak=False)
    init(traces_sample_rate=1.0)
elif WAY == "alone":
    init(traces_sample_rate=1.0)


@app.task(name="both.fail_below")
def fail_below() -> None:
    """
    Publish a task, which fails, and fail as well.
    """
    enter("fail_below")
    app.send_task("observed.fail")
    raise RuntimeError("on purpose")
