"""
Real servers of the monitoring: a private Prometheus, filled with what happened before it began.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from tests.servers import free_port, missing, wait_until


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["PrometheusServer", "Row", "quickly"]


class Row(NamedTuple):
    """
    One series of an answer, with its newest value.
    """

    labels: Mapping[str, str]
    value: float


def quickly(rules: Iterable[Path], folder: Path) -> list[Path]:
    """
    Copy rule files to *folder*, with groups that are evaluated every second: a test does not wait for a minute to pass.
    """
    copies = []
    for path in rules:
        tree = yaml.safe_load(path.read_text())
        for group in tree["groups"]:
            group["interval"] = "1s"
        copy = folder / path.name
        copy.write_text(yaml.safe_dump(tree))
        copies.append(copy)
    return copies


class PrometheusServer:
    """
    A Prometheus of one's own.

    Args:
        folder: For its data, configuration and log.

        past: What it knows from before, as OpenMetrics with timestamps.

        rules: Files of rules that it evaluates.

        scrapes: Scrape configurations.
    """

    def __init__(self, folder: Path, *, past: str = "", rules: Iterable[Path] = (), scrapes: Iterable[Mapping[str, Any]] = ()) -> None:
        self._folder = folder
        self._past = past
        self._config = {"rule_files": [str(path) for path in rules], "scrape_configs": list(scrapes)}
        self._child: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        program, tool = shutil.which("prometheus"), shutil.which("promtool")
        if program is None or tool is None:
            missing("Prometheus")
        config, data, log = (self._folder / name for name in ("prometheus.yml", "data", "prometheus.log"))
        config.write_text(yaml.safe_dump(self._config))
        if self._past:
            past = self._folder / "past.om"
            past.write_text(self._past)
            subprocess.run([str(tool), "tsdb", "create-blocks-from", "openmetrics", str(past), str(data)], check=True, capture_output=True)
        command = [
            str(program),
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--storage.tsdb.retention.time=45d",
        ]
        with log.open("wb") as sink:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
        try:
            wait_until(self._is_ready, what=f"Prometheus; its log is {log}")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """
        Make it go, whatever state it is in.
        """
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        child.kill()
        child.wait()

    def rows(self, expr: str) -> list[Row]:
        """
        Evaluate *expr* now.
        """
        return [Row(row["metric"], float(row["value"][1])) for row in self._ask("query", query=expr)]

    def course(self, expr: str, *, back: float = 1800.0, step: float = 60.0) -> list[Row]:
        """
        Evaluate *expr* over the last while; each series with its newest value.
        """
        now = time.time()
        found = self._ask("query_range", query=expr, start=str(now - back), end=str(now), step=str(step))
        return [Row(row["metric"], float(row["values"][-1][1])) for row in found]

    def _ask(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        answer = json.loads(self._get(f"/api/v1/{what}?{urllib.parse.urlencode(parameters)}"))
        assert "success" == answer["status"], answer
        result = answer["data"]["result"]
        # A bare number has no series; it stands for one without labels.
        return [{"metric": {}, "value": result}] if answer["data"]["resultType"] == "scalar" else result

    def _is_ready(self) -> bool:
        if self._child is not None and self._child.poll() is not None:
            log = (self._folder / "prometheus.log").read_text()[-2000:]
            message = f"Prometheus went at once:\n{log}"
            raise RuntimeError(message)
        try:
            return bool(self._get("/-/ready"))
        except OSError:
            return False

    def _get(self, path: str) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}{path}", timeout=30) as answer:
            body: bytes = answer.read()
        return body
