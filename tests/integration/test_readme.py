"""
The README's app and the README's command to start its worker, as written; only the broker is another one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys

from pathlib import Path
from typing import Any

import pytest

from celery import Celery

from tests.servers import RedisServer, wait_until
from tests.workers import Process


pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LOCALHOST = "redis://localhost:6379/0"
TASK = """

@app.task
def order(number):
    return number
"""


def blocks(page: Path, language: str) -> list[str]:
    """
    Return the blocks of code on a page, without what they are indented by.
    """
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def started(page: Path, folder: Path, redis: str, *more: str) -> Process:
    """
    Write the page's app, and start the worker by the page's command.
    """
    [code] = [block for block in blocks(page, "python") if block.startswith("from celery import Celery")]
    assert LOCALHOST in code
    (folder / "shop.py").write_text(code.replace(LOCALHOST, redis) + ("" if "def order" in code else TASK))
    [command] = [line for block in blocks(page, "sh") for line in block.splitlines() if " worker" in line and line.startswith("celery ")]
    return Process(
        [sys.executable, "-m", *shlex.split(command), *more],
        log=folder / "worker.log",
        environ={
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "CELERY_OBS_METRICS_DIR": str(folder / "metrics"),
            "CELERY_OBS_LOGS": "1",
        },
        cwd=folder,
    )


def lines_of(process: Process) -> list[dict[str, Any]]:
    text = process.log.read_text(errors="replace") if process.log.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial/first-dashboard.md"])
def test_the_printed_command_writes_a_line_for_each_attempt(page: str, redis_server: RedisServer, tmp_path: Path) -> None:
    """
    A reader who follows the page sees what it promises: one JSON line for the task that was sent, and no advice that there would be none.
    """
    with started(ROOT / page, tmp_path, redis_server.url) as worker:
        with Celery("shop", broker=redis_server.url, set_as_current=False) as client:
            client.send_task("shop.order", [7])
        wait_until(lambda: [line for line in lines_of(worker) if line.get("event") == "task_finished"], what="the line of the attempt")

    lines = lines_of(worker)
    assert [("shop.order", "success")] == [(line["task"], line["state"]) for line in lines if line["event"] == "task_finished"]
    assert not any("no line is written" in line["event"] for line in lines)


def test_a_worker_that_writes_no_lines_says_so(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    Without a level Celery means WARNING: then a warning says at the start what is left out, and what to do.
    """
    with started(ROOT / "README.md", tmp_path, redis_server.url, "-l", "WARNING") as worker:
        wait_until(lambda: [line for line in lines_of(worker) if "-l INFO" in line["event"]], what="the advice")

    [line] = [line for line in lines_of(worker) if "no line is written" in line["event"]]
    assert "warning" == line["level"]
