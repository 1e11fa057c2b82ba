"""
Reconciliation of many connections in one process: how much memory it takes at most, and how long.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from .harness import Limit, Report


CONNECTIONS: Final = 10_000
DAYS: Final = 365
MIB: Final = 1024.0


def measure(*, quick: bool) -> Report:
    """
    Reconcile all connections in a fresh process with a Redis of its own, which has to hold what is found.
    """
    count = 300 if quick else CONNECTIONS
    with _redis() as url:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.reconciliation", url, str(count)], check=True, capture_output=True, text=True
        )
    taken = json.loads(done.stdout)
    limits = [Limit(what=f"peak resident, {count} x {DAYS} days", measured=taken["peak"], bound=150.0, unit="MiB")]
    return Report(
        name="reconciliation",
        title=f"{count} connections x {DAYS} days on each side, one in twenty days differs",
        columns=("", "value"),
        rows=[
            ("seconds", taken["seconds"]),
            ("µs a day", taken["seconds"] / (count * DAYS) * 1e6),
            ("ms a connection", taken["seconds"] / count * 1e3),
            ("resident before, MiB", taken["before"]),
            ("resident at most, MiB", taken["peak"]),
        ],
        limits=limits,
        notes=["`reconcile()` of one connection after the other, both sides generators. From /proc/self/status: VmHWM."],
    )


class _Calendar:
    """
    Two sides that are made as they are read.
    """

    def local(self, connection_id: str, start: date, end: date) -> Iterator[tuple[date, Any]]:
        for number in range((end - start).days):
            yield start + timedelta(days=number), {"rooms": number % 7, "price": 100 + number % 50}

    def remote(self, connection_id: str, start: date, end: date) -> Iterator[tuple[date, Any]]:
        for number in range((end - start).days):
            yield start + timedelta(days=number), {"rooms": number % 7, "price": 100 + number % 50 + (number % 20 == 0)}


def _run(url: str, count: int) -> dict[str, float]:
    """
    Reconcile in this process.
    """
    from celery_obs.areas.channels import engine as engines
    from celery_obs.areas.channels.conflicts.events import ConflictDetected
    from celery_obs.areas.channels.connections.state import Connection, Facts
    from celery_obs.areas.channels.reconciliation.api import reconcile
    from celery_obs.areas.channels.reconciliation.events import ConnectionReconciled
    from celery_obs.areas.channels.reconciliation.state import Pending
    from celery_obs.runtime.hub import ErrorReporter, Hub
    from celery_obs.settings import Settings

    heard = {"days": 0, "conflicts": 0}

    def reconciled(event: ConnectionReconciled) -> None:
        heard["days"] += event.checked

    def detected(_: ConflictDetected) -> None:
        heard["conflicts"] += 1

    hub = Hub(on_error=ErrorReporter())
    hub.subscribe(ConnectionReconciled, reconciled)
    hub.subscribe(ConflictDetected, detected)
    settings = Settings(metrics_dir=Path("nowhere"), redis_url=url, reconciliation_source=_Calendar(), reconciliation_days=DAYS)
    engine = engines.Engine(hub=hub, settings=settings)
    engines.connect(lambda: engine)
    assert engine.redis is not None
    names = [f"connection-{number}" for number in range(count)]
    Facts(engine.redis).register(Connection(name, f"channel-{number % 8}") for number, name in enumerate(names))
    before, began = _memory("VmRSS"), time.perf_counter()
    for name in names:
        reconcile(name)
    seconds = time.perf_counter() - began
    peak = _memory("VmHWM")
    assert {"days": count * DAYS, "conflicts": count * -(-DAYS // 20)} == heard
    assert count == len(Facts(engine.redis).drifts()) == len(Pending(engine.redis).all())
    return {"seconds": seconds, "before": before, "peak": peak}


def _memory(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / MIB


@contextlib.contextmanager
def _redis() -> Iterator[str]:
    """
    Lend a Redis on a free port of loopback.
    """
    program = shutil.which("redis-server")
    if program is None:
        message = "This benchmark needs redis-server, which is not on the PATH. Install it."
        raise SystemExit(message)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="celery-obs-bench-") as folder:
        options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", "", "--appendonly", "no"]
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            _wait(port, server)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0 and server.poll() is None:
                return
        if server.poll() is not None or time.monotonic() > deadline:
            message = f"redis-server did not answer on port {port} within 10 s."
            raise SystemExit(message)
        time.sleep(0.05)


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], int(sys.argv[2]))))
