"""
The tutorial for an app without channels, followed to the letter; only its ports are other ones.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import textwrap
import urllib.parse
import urllib.request

from typing import Any

import pytest

from tests.conftest import NeedServer
from tests.pages import DOCS, commands_of
from tests.servers import free_port, wait_until
from tests.workers import settle_at

from .conftest import Page, Stage


pytestmark = pytest.mark.integration

TUTORIAL = DOCS / "tutorial" / "first-dashboard.md"
MOST_BYTES = 40_000


def block(page: str, language: str) -> str:
    """
    Return the one block of *page* in a language.
    """
    [found] = re.findall(rf"^ *```{language}\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    return textwrap.dedent(found)


def ask(port: int, path: str, **parameters: str) -> Any:
    """
    Ask Prometheus.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=5) as answer:
        return json.loads(answer.read())["data"]


def test_the_first_tutorial_works_and_shows_a_general_user_nothing_of_channels(stage: Stage, need_server: NeedServer) -> None:
    """
    A shop of one task: a small page, rules, tasks and schedule on which no word is of channels, and nothing that fires.
    """
    prometheus = need_server("prometheus")
    page = TUTORIAL.read_text(encoding="utf-8")
    (stage.folder / "shop.py").write_text(block(page, "python").replace("redis://localhost:6379/0", stage.redis.url))
    environ = {"PYTHONPATH": str(stage.folder), "CELERY_OBS_BEAT_SCHEDULE": "1"}
    commands = commands_of(page)
    worker = next(words for words in commands if words[:1] == ["celery"])
    started = stage.process(sys.executable, "-m", *worker, "-B", f"--schedule={stage.folder}/schedule", name="worker", **environ)
    wait_until(lambda: " ready." in started.log.read_text(), within=40, what="the worker to be ready")
    shown = stage.exporter(f"--broker-url={stage.redis.url}")
    loop = next(line for line in block_lines(page) if line.startswith("for "))
    code, said = stage.run("sh", "-c", loop.replace("celery ", f"{shlex.quote(sys.executable)} -m celery "), name="call", **environ)
    assert 0 == code, said

    settle_at(3.0, lambda: shown.find("celery_task_finished_total", task="shop.order", state="success"))

    text = shown.text()
    assert "channel" not in text.lower()
    assert len(text.encode()) < MOST_BYTES
    assert {"shop.order"} == set(shown.by("task", "celery_task_started_total"))
    for path in ("/", "/health"):
        assert "channel" not in shown.exporter.get(path).body.lower(), path
    _, report = stage.run(sys.executable, "-m", "celery", "-A", "shop", "inspect", "registered", "--json", name="inspect", **environ)
    assert "shop.order" in report
    assert "channel" not in report
    watch(stage, prometheus, page, shown)


def block_lines(page: str) -> list[str]:
    return [line.strip() for line in page.splitlines()]


def watch(stage: Stage, prometheus: str, page: str, shown: Page) -> None:
    """
    Load the rules as the page does, and ask its questions.
    """
    [words] = [words for words in commands_of(page) if words[:2] == ["celery-obs", "deploy"]]
    code, said = stage.run(sys.executable, "-m", "celery_obs.cli", *words[1:], "--out", str(stage.folder), name="deploy")
    assert 0 == code, said
    rules = stage.folder / "deploy/prometheus/rules"
    for path in rules.iterdir():
        path.write_text(path.read_text().replace("interval: 30s", "interval: 1s"))
    assert "channel" not in "".join(path.read_text() for path in rules.iterdir()).lower()

    config = block(page, "yaml").replace("localhost:19540", f"127.0.0.1:{shown.exporter.port}").replace("15s", "1s")
    (stage.folder / "prometheus.yml").write_text(f"global: {{evaluation_interval: 1s}}\n{config}")
    port = free_port()
    stage.process(
        prometheus,
        f"--config.file={stage.folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={stage.folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        name="prometheus",
    )

    def has_scraped() -> bool:
        try:
            return bool(ask(port, "query", query='celery_task_finished_total{task="shop.order"}')["result"])
        except OSError:
            return False

    wait_until(has_scraped, within=30, what="Prometheus to have scraped")
    questions = re.findall(r"^ +- [A-Z].*\? `(.+)`$", page, re.MULTILINE)
    assert 4 == len(questions)
    for question in questions:
        ask(port, "query", query=question)  # An error of the question is one of HTTP.

    def active() -> set[str]:
        groups = ask(port, "rules")["groups"]
        assert groups
        return {rule["name"] for group in groups for rule in group["rules"] if rule.get("state", "inactive") != "inactive"}

    # Rules that Prometheus evaluated before its first scrape saw no worker; they are evaluated again each second.
    settle_at({"Watchdog"}, active, within=30, steady=3)
