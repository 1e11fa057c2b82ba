"""
Imports do nothing: what a fresh interpreter loads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.otlp import Collector


def loaded_by(statement: str) -> set[str]:
    """
    Return the top-level packages and our own modules that a fresh interpreter has loaded after *statement*.
    """
    program = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout)
    return {module for module in modules if module.startswith("celery_obs.")} | {module.partition(".")[0] for module in modules}


BACKENDS = {"celery", "kombu", "redis", "prometheus_client", "structlog", "opentelemetry", "sentry_sdk", "starlette", "uvicorn"}


def test_the_package_loads_nothing() -> None:
    """
    ``import celery_obs`` is free: what it offers is loaded when it is asked for.
    """
    assert set() == loaded_by("import celery_obs") & (BACKENDS | {"celery_obs.runtime.plugin", "celery_obs.metrics"})


def test_the_sidecar_loads_neither_celery_nor_what_runs_in_a_worker() -> None:
    """
    The sidecar stays small, and an app that cannot be imported does not stop it.
    """
    loaded = loaded_by(
        "import celery_obs.exporter.app, celery_obs.exporter.server, celery_obs.areas.workers.collector, celery_obs.areas.channels.collector, celery_obs.exporter.api.routes"
    )

    assert set() == loaded & {
        "celery",
        "celery_obs.runtime",
        "celery_obs.runtime.plugin",
        "celery_obs.beat",
        "celery_obs.sync",
        "celery_obs.runtime.hub",
    }


@pytest.mark.parametrize("module", ["celery_obs.vocabulary", "celery_obs.metrics", "celery_obs.runtime.hub", "celery_obs.settings"])
def test_the_lower_rooms_load_no_backend(module: str) -> None:
    """
    Recording needs the standard library alone.
    """
    assert set() == loaded_by(f"import {module}") & BACKENDS


def test_the_generator_loads_no_backend_and_no_parser() -> None:
    """
    Rules come from values; what reads a file of objectives is loaded when one is read.
    """
    loaded = loaded_by("import celery_obs.rules.render as render; render.builders()")

    assert set() == loaded & (BACKENDS | {"yaml", "celery_obs.settings", "celery_obs.metrics"})


def test_setup_loads_celery_and_no_network_client() -> None:
    """
    One line in the app does not cost the app's start-up a Redis client or a web server.
    """
    loaded = loaded_by("import celery_obs; celery_obs.setup")

    assert "celery" in loaded
    assert set() == loaded & {"prometheus_client", "starlette", "uvicorn", "redis"}


def test_every_public_name_is_there() -> None:
    """
    What the package promises can be had from it.
    """
    program = "import celery_obs; print(*[name for name in celery_obs.__all__ if getattr(celery_obs, name, None) is None])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)

    assert "" == done.stdout.strip()


_SENDING = """
import os, sys
from celery_obs.telemetry.traces.start import trace_observer
from celery_obs.areas.tasks.events import AttemptOpened, TaskFinished, TaskStarted
observer = trace_observer(os.environ, print, broker_url="redis://localhost", service="shop", leave=print)
before = set(sys.modules)
started = TaskStarted("t", "q", "id", 0, 100.0, None, False, None)
observer.attempt_opened(AttemptOpened(started, {}))
observer.task_finished(TaskFinished(started, "success", 0.1, None, "", False, ""))
observer.flush(10.0)
print(*sorted(set(sys.modules) - before))
"""


def test_sending_spans_loads_no_module() -> None:
    """
    All that sending takes is loaded before the pool forks: a child that is forked while its parent's thread loads a module has half of it for good.
    """
    with Collector() as collector:
        done = subprocess.run(
            [sys.executable, "-c", _SENDING], env={**os.environ, **collector.environ}, capture_output=True, check=True, text=True
        )

        assert 1 == len(collector.spans("process t"))
    assert "" == done.stdout.strip()
