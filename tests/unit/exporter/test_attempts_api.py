"""
``/api/v1/attempts`` over HTTP.
"""

from __future__ import annotations

import asyncio

from pathlib import Path
from typing import Any

import httpx
import pytest

from starlette.applications import Starlette

from celery_obs.exporter.api.attempts import AttemptsApi, described
from tests.unit.recorder.test_attempt_log import write


RUNS = [("emails.send", "q1", "success", 1, 0), ("sync", "q2", "failure", 2, 0), ("sync", "q2", "retry", 3, 1)]


def get(folder: Path | None, **parameters: Any) -> httpx.Response:
    """
    Ask the API once.
    """

    async def ask() -> httpx.Response:
        app = Starlette(routes=AttemptsApi(folder, clock=lambda: 30.0).routes())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.get("/api/v1/attempts", params=parameters)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("parameters", "ids"),
    [
        ({}, ["w@h-2", "w@h-1", "w@h-0"]),
        ({"task": "sync", "state": "failure, retry"}, ["w@h-2", "w@h-1"]),
        ({"exception": "E2"}, ["w@h-1"]),
        ({"since": "-10"}, ["w@h-2"]),
        ({"until": "5"}, ["w@h-0"]),
        ({"slower_than": "1.5", "queue": "q2", "node": "w@*", "id": "w@h-2"}, ["w@h-2"]),
    ],
)
def test_attempts_are_found_by_what_is_given(tmp_path: Path, parameters: dict[str, str], ids: list[str]) -> None:
    """
    Each parameter narrows the answer, which fits its description.
    """
    write(tmp_path, RUNS)

    answer = get(tmp_path, **parameters)

    assert answer.status_code == 200
    found = answer.json()
    assert ids == [attempt["id"] for attempt in found["attempts"]]
    assert sorted(found) == described()["answer"]["required"]
    assert sorted(found["attempts"][0]) == described()["answer"]["properties"]["attempts"]["items"]["required"]
    assert (found["kept"], found["overwritten"], found["complete"]) == (3, 0, True)


def test_pages_follow_one_another(tmp_path: Path) -> None:
    """
    What comes next is asked for by what the answer before named.
    """
    write(tmp_path, RUNS)

    first = get(tmp_path, limit=2).json()
    second = get(tmp_path, limit=2, after=first["following"]).json()

    assert ["w@h-2", "w@h-1", "w@h-0"] == [attempt["id"] for attempt in first["attempts"] + second["attempts"]]
    assert second["following"] is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"limit": "many"}, "limit is 'many'. Expected a whole number."),
        ({"limit": "0"}, "The limit is 0. Expected a whole number from 1 to 1000."),
        ({"since": "nan"}, "since is 'nan'. Expected a number of seconds."),
        ({"slower_than": "inf"}, "slower_than is 'inf'. Expected a number of seconds."),
        ({"state": "done"}, "There is no state 'done'."),
        ({"tasks": "x"}, "There is no parameter 'tasks'. Expected some of task, queue"),
        ({"task": "x" * 501}, "task has 501 characters. Expected at most 500."),
        ({"after": "x"}, "The place to go on at is 'x'."),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_expected(tmp_path: Path, parameters: dict[str, str], message: str) -> None:
    """
    A parameter that cannot be used is a 400 that says what would be right.
    """
    answer = get(tmp_path, **parameters)

    assert answer.status_code == 400
    assert answer.json()["error"] == "bad_parameter"
    assert answer.json()["message"].startswith(message)


def test_an_exporter_without_workers_says_where_to_ask(tmp_path: Path) -> None:
    """
    One that serves the cluster only, and one whose directory is gone, say so.
    """
    assert (404, "no_workers") == (get(None).status_code, get(None).json()["error"])
    assert (503, "metrics_dir_unavailable") == (get(tmp_path / "no").status_code, get(tmp_path / "no").json()["error"])
