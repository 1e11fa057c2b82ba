"""
The exporter as a process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.servers import free_port, wait_until


__all__ = ["EXPORTER", "Exporter", "as_users_run_it", "running"]


EXPORTER = (sys.executable, "-c", "from celery_obs.cli.exporter import exporter; exporter()")


class Exporter:
    """
    A running exporter.

    Args:
        log: Where it writes.

        options: Of its command line, beside the address to listen on.

        command: How it is started.
    """

    def __init__(
        self,
        log: Path,
        *options: str,
        scheme: str = "http",
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = EXPORTER,
    ) -> None:
        self.port = free_port()
        self.log = log
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [*command, "--web.listen-address", f"127.0.0.1:{self.port}", *options],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=environ,
            )
        wait_until(lambda: "Serving on" in self.output or self.process.poll() is not None, what="the exporter")

    @property
    def output(self) -> str:
        return self.log.read_text()

    def metrics(self) -> dict[str, float]:
        text = httpx.get(f"{self.url}/metrics", trust_env=False).raise_for_status().text
        return {series: float(value) for series, value in re.findall(r"^([^#\s]+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def as_users_run_it() -> dict[str, str]:
    """
    Return an environment in which no coverage is measured, for that takes memory of its own.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@contextmanager
def running(
    tmp_path: Path,
    *options: str,
    scheme: str = "http",
    environ: Mapping[str, str] | None = None,
    command: Sequence[str] = EXPORTER,
) -> Iterator[Exporter]:
    """
    Run an exporter on a metrics directory of its own.
    """
    (tmp_path / "metrics").mkdir(exist_ok=True)
    all_options = ("--metrics-dir", str(tmp_path / "metrics"), *options)
    exporter = Exporter(tmp_path / "exporter.log", *all_options, scheme=scheme, environ=environ, command=command)
    try:
        yield exporter
    finally:
        exporter.stop()
