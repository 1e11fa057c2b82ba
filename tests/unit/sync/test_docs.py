"""
The examples of the page about syncs run as they stand.
"""

from __future__ import annotations

import re

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from celery import Celery

import celery_obs

from celery_obs.vocabulary.syncs import SyncFinished


PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "observe-your-syncs.md"


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
