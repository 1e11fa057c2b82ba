"""
The exporter's memory: a process of its own, idle and after scrapes of a large node.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from pathlib import Path
from typing import Final

from .content import Fleet
from .harness import Limit, Report, fast_folder


SIZES: Final = ((64, 2000), (512, 2000))
MIB: Final = 1024.0
_SCRAPES: Final = 5
_FIELDS: Final = ("VmRSS", "RssAnon", "VmHWM")

_STAND_IN: Final = """
import pathlib, sys
import starlette.applications, uvicorn
from celery_obs.exporter.collectors.workers import WorkersCollector
from celery_obs.exporter.exposition import compress
from celery_obs.exporter.scrape import InternalErrors
collector = WorkersCollector(pathlib.Path(sys.argv[1]), errors=InternalErrors())
print("ready", flush=True)
for line in sys.stdin:
    print(len(compress(collector.collect().text.encode())), flush=True)
"""


def measure(*, quick: bool) -> Report:
    """
    Measure one exporter with nothing to read, and one for each size.
    """
    rows = [("idle", *_measure(0, 0))]
    rows += [(f"{slots} x {lines}", *_measure(slots, lines)) for slots, lines in (((8, 200),) if quick else SIZES)]
    limits = [Limit(what="resident, idle", measured=rows[0][1], bound=48.0, unit="MiB")]
    if not quick:
        limits.append(Limit(what="resident, 512 x 2,000", measured=rows[-1][1], bound=64.0, unit="MiB"))
    what = (
        "celery-obs exporter"
        if _is_there()
        else "a stand-in that loads starlette and uvicorn and runs the workers' collector, until the exporter is there"
    )
    return Report(
        name="exporter_memory",
        title="resident memory of the exporter, MiB",
        columns=("slots x lines", "resident", "anonymous", "peak"),
        rows=rows,
        limits=limits,
        notes=[f"Measured: {what}; after {_SCRAPES} scrapes with gzip. From /proc/<pid>/status: {', '.join(_FIELDS)}."],
    )


def _is_there() -> bool:
    return importlib.util.find_spec("celery_obs.exporter.server") is not None


def _measure(slots: int, lines: int) -> tuple[float, ...]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(fast_folder())
        change = None
        if slots:
            fleet = Fleet(folder, slots=slots, lines=lines)
            stack.callback(fleet.close)
            change = fleet.change
        exporter = _Exporter(folder) if _is_there() else _StandIn(folder)
        stack.callback(exporter.stop)
        for _ in range(_SCRAPES):
            if change is not None:
                change()
            exporter.scrape()
        return _memory(exporter.pid)


def _memory(pid: int) -> tuple[float, ...]:
    text = (Path("/proc") / str(pid) / "status").read_text()
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    return tuple(int(found[name]) / MIB for name in _FIELDS)


class _StandIn:
    """
    As much of the exporter as there is.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _STAND_IN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            message = "The exporter's stand-in ended; what it said is above."
            raise SystemExit(message)

    def scrape(self) -> None:
        """
        Scrape once.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._read()

    def stop(self) -> None:
        """
        Let it end.
        """
        self._process.communicate("")


class _Exporter:
    """
    The exporter as one starts it.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}/metrics"
        env = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_OBS_")}
        command = [sys.executable, "-c", "from celery_obs.cli import main; main()", "exporter"]
        command += ["--metrics-dir", str(folder), "--listen", f"127.0.0.1:{port}"]
        self._process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                message = f"The exporter did not answer on {self._url} within 20 s; what it said is above."
                raise SystemExit(message)
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _answers(self) -> bool:
        try:
            self.scrape()
        except urllib.error.HTTPError:
            raise
        except OSError:
            return False
        return True

    def scrape(self) -> None:
        """
        Scrape once, as Prometheus does.
        """
        asked = urllib.request.Request(self._url, headers={"Accept-Encoding": "gzip"})  # noqa: S310 -- our own address.
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 -- our own address.
            answer.read()

    def stop(self) -> None:
        """
        Ask it to go.
        """
        self._process.terminate()
        self._process.wait()
