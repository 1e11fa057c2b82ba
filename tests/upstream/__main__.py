"""
Run other projects' own tests of Celery, with us and without us, and compare: ``tox -e upstream``.

The tests come from the source distributions of the versions that are installed, which pip downloads into a temporary folder.
Each suite runs twice: as it is, and with `celery_obs.setup` called on every app that its tests make, in a process that traces and is active already.
The file of a test that goes differently runs once more, on both sides.  What still differs has to be in ``differences.json`` with its reason,
and what is listed there has to differ: the exit code is 1 otherwise.

    python -m tests.upstream                 all suites, which takes some 20 minutes
    python -m tests.upstream celery-unit     one of them

The integration tests run against a Redis, a collector and a Sentry of their own; what an event receiver beside the worker heard has to be what we
counted, of every event, and spans and error reports have to come.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.otlp import Collector
from tests.sentry import SentryServer
from tests.servers import RedisServer

from .counts import Counts, listening


__all__ = ["SUITES", "Difference", "Run", "Suite", "compare", "fetch", "run"]


HERE = Path(__file__).parent
EVENTS = {"worker_send_task_events": True}


class Suite(NamedTuple):
    """
    The tests of another project: the package whose source distribution has them, which they are, how pytest is called, and what they need and get.
    """

    package: str
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()
    needs_redis: bool = False
    reports: bool = False


_ALONE = ("-p", "no:cacheprovider", "-p", "no:cloudcoil", "-p", "no:schemathesis")
_CELERY = ("-p", "celery.contrib.pytest")

SUITES: Mapping[str, Suite] = {
    "celery-unit": Suite("celery", ("t/unit",), (*_CELERY, "-n", "2")),
    "celery-integration": Suite("celery", ("t/integration",), _CELERY, needs_redis=True, reports=True),
    "opentelemetry": Suite("opentelemetry-instrumentation-celery", ("tests",)),
    "sentry": Suite(
        "sentry-sdk", ("tests/integrations/celery",), ("-o", "addopts=", "--ignore=tests/integrations/celery/integration_tests")
    ),
}
"""
The suites, by the words that choose them.
"""


class Difference(NamedTuple):
    """
    A test that went differently: how it went without us, and with us.
    """

    without: str
    observed: str


def fetch(package: str, folder: Path) -> Path:
    """
    Unpack the source distribution of the version of *package* that is installed into *folder*, and return where it is.
    """
    version = importlib.metadata.version(package)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package, "--dest", str(folder)]
    subprocess.run([*command, f"{package}=={version}"], check=True, cwd=folder)
    (archive,) = folder.glob(f"{package.replace('-', '_')}-{version}.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


class Run(NamedTuple):
    """
    What a run of a suite came to.

    Attributes:
        tests: How each test went, by its id.

        counts: What a receiver of Celery's events heard and what we counted, where the two differ; empty where there was nothing to count.

        table: The two counts, laid out.

        spans, reports: How many a collector and a Sentry on loopback got.
    """

    tests: dict[str, str]
    counts: Mapping[str, tuple[int, int]]
    table: str
    spans: int
    reports: int


def run(suite: Suite, source: Path, tests: tuple[str, ...], *, observed: bool, folder: Path) -> Run:
    """
    Run *tests*, with metrics, logs, traces and errors on where they are *observed*.
    """
    metrics = folder / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(mode=0o700)
    results = folder / "results.json"
    results.unlink(missing_ok=True)
    environ = {**os.environ, "PYTHONPATH": str(HERE), "UPSTREAM_RESULTS": str(results), "CELERY_OBS_METRICS_DIR": str(metrics)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "observing", *_ALONE, *suite.options, *tests]
    with contextlib.ExitStack() as stack:
        collector, sentry = stack.enter_context(Collector()), stack.enter_context(SentryServer())
        if observed:
            environ |= {"UPSTREAM_OBSERVED": "1", **collector.environ, **({"SENTRY_DSN": sentry.dsn} if suite.reports else {})}
        counts = stack.enter_context(_redis(environ, source, metrics)) if suite.needs_redis else None
        log = stack.enter_context((folder / f"{'with' if observed else 'without'}.log").open("a"))
        subprocess.run(command, cwd=source, env=environ, stdout=log, stderr=log, check=False)
        if counts is not None:
            counts.settle()
        differences, table = (counts.differences(), str(counts)) if counts is not None and observed else ({}, "")
        return Run(json.loads(results.read_text()), differences, table, len(collector.spans()), len(sentry.events()))


@contextlib.contextmanager
def _redis(environ: dict[str, str], source: Path, metrics: Path) -> Iterator[Counts]:
    """
    Lend the integration tests a Redis, and count the events on it.
    """
    (source / "integration-tests-config.json").write_text(json.dumps(EVENTS))
    with RedisServer() as server, listening(server.url, metrics) as counts:
        environ |= {"TEST_BROKER": server.url, "TEST_BACKEND": server.url, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port)}
        yield counts


def compare(without: Mapping[str, str], observed: Mapping[str, str]) -> dict[str, Difference]:
    """
    Return the tests that went differently.
    """
    names = sorted(without.keys() | observed.keys())
    pairs = {name: Difference(without.get(name, "absent"), observed.get(name, "absent")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair.without != pair.observed}


def _confirmed(suite: Suite, source: Path, found: Mapping[str, Difference], folder: Path) -> dict[str, Difference]:
    """
    Return those differences that are there again when the files of their tests run once more.
    """
    if not found:
        return {}
    files = tuple(sorted({name.partition("::")[0] for name in found}))
    again = compare(*(run(suite, source, files, observed=observed, folder=folder).tests for observed in (False, True)))
    return {name: pair for name, pair in again.items() if name in found}


def main() -> int:
    """
    Run the suites that the command line names, print the table, and return the exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.upstream")
    parser.add_argument("suites", nargs="*", default=list(SUITES), metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--logs", type=Path, help="where the output of the tests goes; by default a temporary folder")
    given = parser.parse_args()
    listed: Mapping[str, Mapping[str, str]] = json.loads((HERE / "differences.json").read_text())
    rows, problems = [], []
    with tempfile.TemporaryDirectory(prefix="celery-obs-upstream-") as temporary:
        for name in given.suites:
            suite, folder = SUITES[name], (given.logs or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            source = fetch(suite.package, folder)
            without, observed = (run(suite, source, suite.tests, observed=observed, folder=folder) for observed in (False, True))
            found = _confirmed(suite, source, compare(without.tests, observed.tests), folder)
            found |= {event: Difference(str(heard), str(ours)) for event, (heard, ours) in observed.counts.items()}
            problems += [f"{name}: no {what} came" for what, number in _telemetry(suite, observed).items() if not number]
            expected = listed.get(name, {})
            passed = [sum(outcome == "passed" for outcome in tests.values()) for tests in (without.tests, observed.tests)]
            rows.append((name, str(len(without.tests)), *map(str, passed), str(len(found))))
            problems += [
                f"{name}: {test}: {pair.without} without us, {pair.observed} with us"
                for test, pair in found.items()
                if test not in expected
            ]
            problems += [f"{name}: {test} is in differences.json and goes as without us" for test in expected if test not in found]
            print(_table([rows[-1]]), observed.table, f"{observed.spans} spans, {observed.reports} error reports", sep="\n", flush=True)
    print(_table(rows))
    print("\n".join(problems) or "No difference that is not listed.")
    return 1 if problems else 0


def _telemetry(suite: Suite, observed: Run) -> dict[str, int]:
    """
    Return how much came of what has to come.
    """
    return {"spans": observed.spans, "error reports": observed.reports} if suite.needs_redis else {}


def _table(rows: list[tuple[str, ...]]) -> str:
    head = ("suite", "tests", "passed without us", "passed with us", "differences")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows))


if __name__ == "__main__":
    sys.exit(main())
