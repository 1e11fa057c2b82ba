"""
Imports do nothing: what a fresh interpreter loads.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from celery_obs.areas import AREAS
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


ROOT = Path(__file__).parents[2]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "celery_obs").rglob("*.py"))
}


def at_import(nodes: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """
    Go through the statements that run when a module is imported.
    """
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
            continue
        yield node
        for name in ("body", "orelse", "finalbody"):
            yield from at_import(getattr(node, name, None) or ())
        for handler in getattr(node, "handlers", ()):
            yield from at_import(handler.body)


def imported_by(module: str) -> set[str]:
    """
    Return the modules of ours that an import of *module* imports, by statements and through the registry of areas.
    """
    path, found = FILES[module], set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in at_import(ast.parse(path.read_text()).body):
        if isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [node.module])])
                if node.level
                else str(node.module)
            )
            found |= {whole if (whole := f"{base}.{alias.name}") in FILES else base for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    # Whether it asks the registry at once or in a function that is called at once is not told apart.
    asked = [*re.findall(r"\bparts\w*\(\"(\w+)\"\)", path.read_text()), *(["tasks"] if "specs()" in path.read_text() else [])]
    found |= {
        each
        for each in FILES
        if each.startswith("celery_obs.areas.") and each.endswith(tuple(f".{part}" for part in asked)) and each not in AREA_FOLDERS
    }
    # What is in a package imports the package first.
    found |= {parent for each in found for parent in parents(each)}
    return (found & FILES.keys()) - {module, *parents(module)}


def parents(module: str) -> set[str]:
    """
    Return the packages around a module.
    """
    words = module.split(".")
    return {".".join(words[:count]) for count in range(1, len(words))}


AREA_FOLDERS = {area.package for area in AREAS}


def test_no_module_imports_itself_in_a_circle() -> None:
    """
    Neither by its statements nor through the registry of areas: any module can be the first one that a program imports.
    """
    graph = {module: imported_by(module) for module in FILES}
    assert "celery_obs.areas.tasks.metrics" in graph["celery_obs.areas.catalogue"]

    with pytest.raises(CycleError):
        TopologicalSorter({**graph, "celery_obs.clock": {"celery_obs"}, "celery_obs": {"celery_obs.clock"}}).prepare()
    TopologicalSorter(graph).prepare()
