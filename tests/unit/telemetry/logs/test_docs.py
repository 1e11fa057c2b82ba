"""
The examples of the page about logs run as they stand, on lines as we write them.
"""

from __future__ import annotations

import io
import json
import logging
import logging.config
import re
import subprocess

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from celery import Celery

import celery_obs

from celery_obs.settings import load
from tests.conftest import NeedServer


PAGE = (Path(__file__).parents[4] / "docs/how-to/read-the-logs.md").read_text()
LINES = (
    {"event": "calendar_imported", "level": "info", "correlation_id": "req-7f3a"},
    {"event": "task_finished", "level": "error", "task": "shop.sell", "error": "ValueError", "correlation_id": "req-8"},
    {"event": "task_finished", "level": "error", "task": "shop.sell", "error": "ValueError", "correlation_id": "req-9"},
    {"event": "task_finished", "level": "info", "task": "shop.sell", "correlation_id": "req-7f3a"},
)


def blocks(language: str) -> list[str]:
    """
    Return the page's examples in *language*, at the margin.
    """
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    return ["\n".join(line.removeprefix(margin) for line in block.splitlines()) for margin, block in found]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """
    Leave logging as it was.
    """
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


def test_the_shell_finds_what_it_asks_for(tmp_path: Path, need_server: NeedServer) -> None:
    """
    jq reads the lines, also between those of a banner that is no JSON.
    """
    need_server("jq")
    (tmp_path / "worker.log").write_text("\n".join([" -------- w1@test", *map(json.dumps, LINES)]))
    (script,) = blocks("sh")

    first, second = (
        subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for command in script.splitlines()
    )

    assert 2 == first.count('"req-7f3a"')
    assert ["2", "shop.sell", "ValueError"] == second.split()


def test_the_programs_run(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Each Python example does what the page says.
    """

    class Delayed:
        def delay(self, hotel: int) -> None:
            assert "req-7f3a" == celery_obs.correlation_id()

    app = Celery("proj", broker="memory://", set_as_current=False)
    names: dict[str, Any] = {
        "celery_obs": celery_obs,
        "structlog": structlog,
        "app": app,
        "request": SimpleNamespace(headers={"X-Correlation-ID": "req-7f3a"}),
        "import_calendar": Delayed(),
    }
    for block in blocks("python"):
        exec(compile(block, "read-the-logs.md", "exec"), names)  # noqa: S102 -- our own page.

    assert {"proj.ping": 0.01} == load(app.conf, {}, {}).log_sampling
    logging.basicConfig(stream=(stream := io.StringIO()), format="%(message)s", level="INFO", force=True)
    structlog.get_logger("proj").warning("said", card_pin=1234)
    assert "***" == json.loads(stream.getvalue())["card_pin"]
    logging.config.dictConfig(names["LOGGING"])
    logging.getLogger("proj").warning("hello")
    assert "WARNING proj hello [ ]\n" == capsys.readouterr().err
