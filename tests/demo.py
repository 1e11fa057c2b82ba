"""
The demo as a process of a test, found by what it tells on its screen, as by its user.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import urllib.request

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.servers import free_port
from tests.workers import Process


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["ROOT", "Demo"]


ROOT = Path(__file__).parents[1]


class Demo:
    """
    A running demo.

    Args:
        folder: For its files and its log.

        options: More words for its command.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = Process(
            [sys.executable, "-m", "celery_obs.cli", "demo", f"--port={self.port}", f"--dir={folder}", *options],
            log=folder / "demo.log",
            environ={"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)},
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            self.process.kill()

    def start(self) -> None:
        """
        Start.
        """
        self.process.start()

    def stop(self) -> int:
        """
        End it as Ctrl-C does; return its exit code.
        """
        return self.process.stop(signal.SIGINT, within=60) if self.process.is_alive() else self.process.wait()

    def redis_url(self) -> str:
        """
        Return where its Redis is, as it tells.
        """
        return self._printed(r"--redis-url (\S+)")

    def provider_url(self) -> str:
        """
        Return where its fake channels are, as it tells.
        """
        return self._printed(r"(\S+)/admin/faults")

    def scrape(self, *, accept: str = "text/plain") -> str:
        """
        Return the page.
        """
        request = urllib.request.Request(f"{self.url}/metrics", headers={"Accept": accept})  # noqa: S310 -- our own.
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 -- our own.
            return str(answer.read().decode())

    def values(self, name: str, **labels: str) -> list[float]:
        """
        Return the samples of *name* that have *labels*, now.
        """
        return [
            sample.value
            for family in text_string_to_metric_families(self.scrape())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def _printed(self, pattern: str) -> str:
        found = re.search(pattern, self.process.log.read_text())
        assert found is not None, f"The demo does not tell {pattern}:\n{self.process.tail()}"
        return found[1]
