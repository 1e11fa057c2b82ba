"""
The exporter's memory: a process of its own, idle and after scrapes of a large node.
"""

from __future__ import annotations

import contextlib
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


def measure(*, quick: bool) -> Report:
    """
    Measure one exporter with nothing to read, and one for each size.
    """
    sizes = ((0, 0), *(((8, 200),) if quick else SIZES))
    taken = [_measure(slots, lines) for slots, lines in sizes]
    rows: list[tuple[str | float, ...]] = [
        (f"{slots} x {lines}" if slots else "idle", *memory) for (slots, lines), memory in zip(sizes, taken, strict=True)
    ]
    limits = [Limit(what="resident, idle", measured=taken[0][0], bound=48.0, unit="MiB")]
    if not quick:
        limits.append(Limit(what="resident, 512 x 2,000", measured=taken[-1][0], bound=64.0, unit="MiB"))
    return Report(
        name="exporter_memory",
        title="resident memory of the exporter, MiB",
        columns=("slots x lines", "resident", "anonymous", "peak"),
        rows=rows,
        limits=limits,
        notes=[
            f"``celery-obs exporter`` with one worker's files and no broker, after {_SCRAPES} scrapes with gzip. From /proc/<pid>/status: {', '.join(_FIELDS)}."
        ],
    )


def _measure(slots: int, lines: int) -> tuple[float, ...]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(fast_folder())
        change = None
        if slots:
            fleet = Fleet(folder, slots=slots, lines=lines)
            stack.callback(fleet.close)
            change = fleet.change
        exporter = _Exporter(folder)
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


class _Exporter:
    """
    The exporter as one starts it.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}/metrics"
        env = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_OBS_", "PROMETHEUS_"))}
        command = [sys.executable, "-m", "celery_obs.cli", "exporter", "--log-level", "warning"]
        command += ["--metrics-dir", str(folder), "--web.listen-address", f"127.0.0.1:{port}"]
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
