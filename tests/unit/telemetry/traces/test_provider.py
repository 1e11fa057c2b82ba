"""
Whose spans a process makes: found when the first is wanted, and anew in each child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery import Celery
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import celery_obs

from celery_obs.areas.sidecar.events import TelemetryDropped
from celery_obs.telemetry.traces.configuration import Batching, Plan
from celery_obs.telemetry.traces.provider import LightMaker, SdkMaker, Tracing
from tests.embedded import embedded_worker
from tests.otlp import Collector


OTLP = Plan(("otlp",), Batching(), ())


@pytest.fixture
def _nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process without a provider, whatever other tests have set.
    """
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _: None)


def tracing(plan: Plan = OTLP, told: list[Any] | None = None) -> Tracing:
    made = Tracing(plan, (told if told is not None else []).append, service="proj", redact=str)
    made.prepare()
    return made


@pytest.mark.usefixtures("_nobodys")
def test_without_one_a_provider_is_made_where_the_environment_says_where_to() -> None:
    """
    With an exporter it is ours and light; without, nothing is made.
    """
    assert isinstance(tracing().maker(), LightMaker)
    assert tracing(Plan((), Batching(), ())).maker() is None


def test_a_provider_of_the_programs_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Also where an endpoint is set, it gets no exporter of ours.
    """
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: TracerProvider(shutdown_on_exit=False))

    made = tracing()

    assert isinstance(made.maker(), SdkMaker)
    assert [] == made._pipelines


def test_a_provider_that_makes_nothing_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A user who sets OpenTelemetry's own nothing wants nothing.
    """
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)

    assert tracing().maker() is None


@pytest.mark.usefixtures("_nobodys")
def test_a_child_has_a_provider_of_its_own_and_nothing_of_its_parents() -> None:
    """
    What the parent has gathered is the parent's to send.
    """
    made = tracing()
    parents = made.maker()
    pipelines = list(made._pipelines)

    made.after_fork()
    own = made.maker()

    assert parents is not own
    assert len(pipelines) == len(made._pipelines) == 1
    assert pipelines[0] is not made._pipelines[0]


@pytest.mark.usefixtures("_nobodys")
def test_an_exporter_that_cannot_be_made_is_told_and_left_out(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Wrong variables and unknown names cost the traces, not the program.
    """
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER", "unknown")

    assert tracing(Plan(("otlp", "pigeon"), Batching(), ())).maker() is None

    assert "The OTLP exporter cannot be made" in caplog.text
    assert "OTEL_TRACES_EXPORTER names 'pigeon'. Expected otlp, console, none" in caplog.text


@pytest.mark.usefixtures("_nobodys")
def test_what_is_dropped_is_told() -> None:
    """
    The hub hears how many spans will not arrive, and why.
    """
    told: list[Any] = []

    tracing(told=told)._dropped("spans_queue_full", 3)

    assert [TelemetryDropped("spans_queue_full", 3)] == told


@pytest.fixture
def worked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Celery, Collector]]:
    """
    An app whose worker runs in the test's own process, as Celery's helper for tests starts it.
    """
    with Collector() as collector:
        for name, value in collector.environ.items():
            monkeypatch.setenv(name, value)
        app = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
        app.conf.celery_obs = {"metrics_dir": str(tmp_path), "logs": False}
        celery_obs.setup(app)
        celery_obs.setup(app)  # A second time changes nothing.
        try:
            yield app, collector
        finally:
            celery_obs.teardown()


@pytest.mark.usefixtures("_nobodys")
def test_celerys_test_worker_traces_as_well(worked: tuple[Celery, Collector]) -> None:
    """
    It sends neither celeryd_init nor worker_ready, and is traced all the same; each span once, though the app was set up twice.
    """
    app, collector = worked

    @app.task(name="proj.add_up")  # type: ignore[untyped-decorator]  # Celery's have no types.
    def add(left: int, right: int) -> int:
        return left + right

    with embedded_worker(app):
        assert 3 == add.delay(1, 2).get(timeout=20)

    sent, processed = collector.one("send proj.add_up"), collector.one("process proj.add_up")
    assert (sent.trace, sent.id) == (processed.trace, processed.parent)
    assert ("tested", "memory") == (sent.resource["service.name"], sent.attributes["messaging.system"])


def test_a_program_that_does_not_trace_loads_no_sdk(tmp_path: Path) -> None:
    """
    Where OpenTelemetry is installed and it is not said where spans go, a process that sends tasks loads neither its SDK nor an exporter.
    """
    program = (
        "import json, sys, celery, celery_obs\n"
        "app = celery.Celery('proj', broker='memory://')\n"
        f"celery_obs.setup(app, metrics_dir={str(tmp_path)!r})\n"
        "app.send_task('proj.add')\n"
        "print(json.dumps([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]))\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ)

    assert [] == json.loads(done.stdout)
