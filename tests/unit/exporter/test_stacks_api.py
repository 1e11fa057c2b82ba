"""
``/api/v1/stacks`` over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from starlette.applications import Starlette

from celery_obs.exporter.api.openapi import document
from celery_obs.exporter.api.routes import Api, shows_token
from celery_obs.exporter.api.stacks import described
from tests.unit.recorder.test_stacks import NODE, Running


TOKEN = "a-token-that-is-long-enough"


def post(folder: Path | None, *paths: str, token: str = TOKEN, given: str = TOKEN, **more: Any) -> list[httpx.Response]:
    """
    Ask one API for some processes, one after the other.
    """

    async def ask() -> list[httpx.Response]:
        app = Starlette(routes=Api(None, token=token, metrics_dir=folder).routes())
        headers = {"Authorization": f"Bearer {given}", "X-Actor": "ada"} if given else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here", timeout=60) as client:
            return [await client.post(f"/api/v1/stacks/{path}", headers=headers, **more) for path in paths]

    return asyncio.run(ask())


def test_who_knows_the_token_sees_where_a_process_is_once_a_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    The answer fits its description, the second question is too early, and both are in the audit's log.
    """
    process = Running(tmp_path)
    caplog.set_level(logging.INFO, "celery_obs.audit")
    try:
        first, second = post(tmp_path, f"{quote(NODE)}/1", f"{quote(NODE)}/1", json={"reason": "it hangs"})
    finally:
        process.end()

    assert first.status_code == 200, first.text
    assert sorted(first.json()) == described()["required"]
    assert first.json()["threads"][0]["frames"][0].endswith("in waits_here")
    assert second.status_code == 429
    assert second.headers["Retry-After"] == "1"
    entries = [json.loads(line) for line in caplog.messages]
    assert [(entry["actor"], entry["reason"], entry["outcome"]) for entry in entries] == [
        ("ada", "it hangs", "done"),
        ("ada", "it hangs", "refused: too_often"),
    ]


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({"token": ""}, 403, "operations_off"),
        ({"given": "wrong"}, 401, "unauthorized"),
        ({"given": ""}, 401, "unauthorized"),
        ({"json": {"seconds": 5}}, 400, "bad_body"),
        ({}, 404, "unknown_node"),
    ],
)
def test_all_others_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any], status: int, error: str) -> None:
    """
    Without the token, without sense, without a node: each refusal is a line in the audit's log.
    """
    caplog.set_level(logging.INFO, "celery_obs.audit")

    answer = post(tmp_path, "w%40h/1", **options)[0]

    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert [json.loads(line)["outcome"] for line in caplog.messages] == [f"refused: {error}"]


def test_strange_names_and_numbers_are_unknown(tmp_path: Path) -> None:
    """
    Whatever is asked for, nothing fails.
    """
    process = Running(tmp_path)
    try:
        answers = post(tmp_path, f"{quote(NODE)}/{10**30}", "a%2F..%2F..%2Fb/1", "%00/1", "%ED%A0%80/1", f"{'x' * 5000}/1")
    finally:
        process.end()

    assert [answer.status_code for answer in answers] == [404] * 5


def test_where_no_worker_is_served_the_answer_says_so() -> None:
    """
    With what to do.
    """
    answer = post(None, "w%40h/1")[0]

    assert (answer.status_code, answer.json()["error"]) == (404, "no_workers")


def test_the_path_is_described_and_its_token_is_looked_at() -> None:
    """
    In OpenAPI; and no password is asked for where the operations token is given.
    """
    described_path = document()["paths"]["/api/v1/stacks/{node}/{process}"]["post"]

    assert {"200", "401", "403", "404", "409", "429", "504"} <= set(described_path["responses"])
    assert shows_token("POST", "/api/v1/stacks/w@h/1", f"Bearer {TOKEN}")
