"""
The examples of the pages about syncs and about drift run as they stand.
"""

from __future__ import annotations

import re

from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from celery import Celery

import celery_obs

from celery_obs.areas.channels.reconciliation.api import compare
from celery_obs.areas.channels.syncs.events import SyncFinished
from celery_obs.settings import load


PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "observe-your-syncs.md"
DRIFT_PAGE = PAGE.with_name("check-for-drift.md")


@pytest.fixture
def examples() -> dict[str, Any]:
    """
    The names that the page's examples define.
    """
    names: dict[str, Any] = {
        "app": Celery("proj", broker="memory://", set_as_current=False),
        "celery_obs": celery_obs,
        "push": lambda listing: 1,
    }
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 -- our own page.
    return names


def test_the_examples_run(examples: dict[str, Any], heard: list[Any]) -> None:
    """
    The block counts its records, the task is a sync task with a schedule, and the clients have their hooks.
    """
    examples["export"](SimpleNamespace(id="c-1"), ["one", "two"])

    assert [("c-1", 2)] == [(event.started.connection_id, event.updated) for event in heard if isinstance(event, SyncFinished)]
    assert 5 == examples["export_availability"].retry_schedule.max_retries
    assert "airbnb" == examples["session"].get_adapter("https://channel.example")._channel
    examples["client"].close()
    examples["session"].close()


def test_the_clients_of_the_page_are_known(tmp_path: Path) -> None:
    """
    What the page sets is what the settings take.
    """
    (block,) = re.findall(r"```python\n# client errors\n(.*?)```", PAGE.read_text(), re.DOTALL)
    app = SimpleNamespace(conf=SimpleNamespace())
    exec(compile(block, str(PAGE), "exec", dont_inherit=True), {"app": app})  # noqa: S102 -- our own page.

    found = load(vars(app.conf), {}, {"metrics_dir": str(tmp_path)}).client_errors

    assert [("acme.errors.Busy", "rate_limit"), ("acme.errors.ApiError", None)] == [(row.of, row.kind) for row in found]


def test_the_sides_of_the_page_about_drift_differ_in_nothing() -> None:
    """
    A channel that tells a hundred days, and one that tells its calendar in parts of which one fails, lack nothing.
    """
    start = date(2030, 1, 1)
    end = start + timedelta(days=365)
    calendar = [(start + timedelta(days=number), 1) for number in range(365)]

    class NotToldError(Exception):
        pass

    class Api:
        def calendar(self, first: date, last: date) -> list[tuple[date, int]]:
            if first == start + timedelta(days=90):
                raise NotToldError
            return [pair for pair in calendar if first <= pair[0] < last]

    found = {}
    for name in ("unknown", "windows"):
        (block,) = re.findall(rf"```python\n# {name}\n(.*?)```", DRIFT_PAGE.read_text(), re.DOTALL)
        names: dict[str, Any] = {"channel_api": lambda connection_id: Api(), "NotTold": NotToldError}
        exec(compile(block, str(DRIFT_PAGE), "exec", dont_inherit=True), names)  # noqa: S102 -- our own page.
        found[name] = compare(calendar, names["Calendar"]().remote("c-1", start, end), start=start, end=end)

    # The first of them asks for one stretch, which does not begin where the other's failed.
    assert ((100, 265), (275, 90)) == tuple((each.checked, each.unknown) for each in found.values())
    assert [{}, {}] == [each.conflicts for each in found.values()]


def test_the_time_zone_of_the_page_about_drift_is_asked_for() -> None:
    """
    It comes from the application's own table.
    """
    (block,) = re.findall(r"```python\n# time zones\n(.*?)```", DRIFT_PAGE.read_text(), re.DOTALL)
    row = SimpleNamespace(timezone="Pacific/Auckland")
    names: dict[str, Any] = {"Property": SimpleNamespace(objects=SimpleNamespace(get=lambda connection: row))}
    exec(compile(block, str(DRIFT_PAGE), "exec", dont_inherit=True), names)  # noqa: S102 -- our own page.

    assert "Pacific/Auckland" == names["Calendar"]().timezone("c-1")
