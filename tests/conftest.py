"""
What every test gets: an environment without our settings, and a header that tells what it ran with.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import platform
import random
import shutil
import sys
import threading

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hypothesis
import pytest
import structlog

from celery import _state as celery_state


# What draws the dashboards lies beside the package.  At the end of the path, so that celery_obs is the installed one.
sys.path.append(str(Path(__file__).parents[1]))

# Machines that run this are shared: how long one example takes says nothing about our code.
# At a desk a run tries forty examples of what a test gives no number, in CI a hundred; `tox -e fuzz` takes the deep ones with --hypothesis-profile=deep.
_ALIKE = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("shared", _ALIKE, max_examples=100 if os.environ.get("CI") else 40)
hypothesis.settings.register_profile("deep", _ALIKE, max_examples=1000)
hypothesis.settings.load_profile("shared")


def _draw_apart_in_threads() -> None:
    """
    Give each thread but the first random numbers of its own.

    Hypothesis takes it for a test's fault if the program's generator moves while it makes an example; and a thread of a library that an earlier test used, such
    as one that waits for a while before it tries again, may draw at that very moment.  What our own code draws from is held in test_clock.py.
    """
    own = threading.local()

    def apart(name: str) -> Callable[..., object]:
        shared = getattr(random, name)

        @functools.wraps(shared)
        def draw(*args: object, **kwargs: object) -> object:
            if threading.current_thread() is threading.main_thread():
                return shared(*args, **kwargs)
            if not hasattr(own, "generator"):
                own.generator = random.Random()
            return getattr(own.generator, name)(*args, **kwargs)

        return draw

    for name in (
        "random",
        "uniform",
        "randint",
        "randrange",
        "getrandbits",
        "choice",
        "choices",
        "sample",
        "shuffle",
        "gauss",
        "expovariate",
    ):
        setattr(random, name, apart(name))


_draw_apart_in_threads()

_SHOWN = ("celery", "kombu", "billiard", "redis", "prometheus-client", "starlette", "uvicorn", "click")
_SHOWN_SERVERS = (
    "redis-server",
    "rabbitmq-server",
    "prometheus",
    "promtool",
    "prometheus-alertmanager",
    "amtool",
    "prometheus-node-exporter",
    "prometheus-redis-exporter",
)


def pytest_configure(config: pytest.Config) -> None:
    """
    Prepare the process, and the environment of the programs that tests start.
    """
    _find_servers()
    _import_as_users_do(config)
    _keep_what_is_compiled()


def _find_servers() -> None:
    """
    Let programs of ``CELERY_OBS_TESTS_SERVERS`` come before the machine's own, such as another Prometheus (see ``tests/newer-servers``).
    """
    folder = os.environ.get("CELERY_OBS_TESTS_SERVERS")
    if not folder:
        return
    if not Path(folder).is_dir():
        message = f"CELERY_OBS_TESTS_SERVERS is {folder}, which is no folder. Fetch programs with ./tests/newer-servers, and name the folder with bin at its end."
        raise pytest.UsageError(message)
    os.environ["PATH"] = os.pathsep.join([str(Path(folder).resolve()), os.environ["PATH"]])


def _import_as_users_do(config: pytest.Config) -> None:
    """
    Have pytest leave the modules of libraries and of the package as they are.

    It writes the assertions of each distribution that brings a plugin anew, such as ours and Hypothesis: several seconds in each process that runs tests.
    """
    hook = getattr(config.pluginmanager, "rewrite_hook", None)
    getattr(hook, "_must_rewrite", set()).clear()
    getattr(hook, "_marked_for_rewrite_cache", {}).clear()


def _keep_what_is_compiled() -> None:
    """
    Let Python keep compiled modules, as it does unless it is told not to: some hundred programs that tests start would compile all of ours each.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_finish() -> None:
    """
    Spare what was loaded for good from every collection of garbage: it is most of the memory, and tests of what is left behind collect often.
    """
    gc.collect()
    gc.freeze()


_FLAKY_AT_MOST = 2


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """
    Show how each test failed that passed at its second try (``--reruns``): it is flaky, which is a bug to be found, and this is all there is to find it by.
    """
    again = terminalreporter.stats.get("rerun", [])
    for report in again:
        terminalreporter.section(f"FLAKY, or failed twice: {report.nodeid}", sep="-")
        terminalreporter.line(report.longreprtext)
        for title, text in report.sections:
            terminalreporter.section(title, sep=".")
            terminalreporter.line(text)
    if len(again) > _FLAKY_AT_MOST:
        terminalreporter.line(f"{len(again)} tests needed a second try, which fails the run: at most {_FLAKY_AT_MOST} may.")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """
    Fail a run in which more than two tests needed a second try: one late process is bad luck, three are the code's fault.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    again = [] if reporter is None else reporter.stats.get("rerun", [])
    if len(again) > _FLAKY_AT_MOST and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_report_header() -> list[str]:
    """
    Say which libraries and servers the run has.
    """
    return [
        f"python: {platform.python_version()} on {platform.system()}",
        "libraries: " + ", ".join(f"{name} {_version(name)}" for name in _SHOWN),
        "servers: " + ", ".join(shutil.which(name) or f"no {name}" for name in _SHOWN_SERVERS),
    ]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "missing"


@pytest.fixture(autouse=True)
def _no_settings_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Hide the settings of the person who runs the tests.
    """
    for name in os.environ:
        if name.startswith("CELERY_OBS_") or name in {"CELERY_BROKER_URL", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"}:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logging_stays() -> Iterator[None]:
    """
    Leave logging as it was: a worker that runs inside a test sets it up for the whole process.
    """
    root = logging.getLogger()
    level, handlers, disabled = root.level, list(root.handlers), logging.root.manager.disable
    configured = structlog.is_configured()
    yield
    if structlog.is_configured() and not configured:
        structlog.reset_defaults()
    root.setLevel(level)
    root.handlers[:] = handlers
    logging.disable(disabled)
    structlog.contextvars.clear_contextvars()


@pytest.fixture(autouse=True)
def _shared_tasks_stay() -> Iterator[None]:
    """
    Forget the tasks of the test's own apps, which Celery otherwise makes again in every app that any later test finalizes.
    """
    finalizers: set[object] = celery_state._on_app_finalizers
    before = set(finalizers)
    yield
    finalizers.intersection_update(before)


NeedServer = Callable[[str], str]
"""
Takes the name of a server's program and returns its path; skips the test where there is none, and fails it in CI.
"""


@pytest.fixture(scope="session")
def need_server() -> NeedServer:
    """
    Ask for a server's program: ``need_server("redis-server")``.
    """
    return find_server


def find_server(name: str) -> str:
    """
    Return the path of the program *name*; without it, skip the test, or fail it where ``CI`` is set.
    """
    # Debian keeps some servers where only root's PATH leads.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found:
        return found
    reason = f"This test needs {name}, which is not on PATH. Install it (./tests/run does, where it may)."
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(f"{reason} In CI a missing server is a failure.")
    pytest.skip(reason)
