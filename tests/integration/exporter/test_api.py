"""
The API on a real Redis: what scripts read, who may do what, and that every deed is written down.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from starlette.applications import Starlette

from celery_obs.areas.channels.breakers.state import Breakers
from celery_obs.areas.channels.connections.state import Connection, Facts, TokenExpiry
from celery_obs.areas.channels.overview import OverviewReader
from celery_obs.areas.channels.reconciliation.state import Pending, PendingConnection, PendingDay
from celery_obs.areas.channels.reports import reports_of
from celery_obs.areas.channels.state import Channels
from celery_obs.exporter.api.attempts import AttemptsApi
from celery_obs.exporter.api.routes import LONGEST_BODY, Api
from celery_obs.exporter.app import create_app
from celery_obs.exporter.scrape import InternalErrors, Runner
from celery_obs.exporter.web_config import WebConfig
from celery_obs.state import keys
from celery_obs.state.connection import connect
from tests.servers import RedisServer, free_port
from tests.shared_state import audited, write_syncs
from tests.unit.recorder.test_attempt_log import write


pytestmark = pytest.mark.integration

TOKEN = "a-token-of-the-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Any]:
    """
    A Redis that knows two channels, three accounts and what is wrong with them.
    """
    with connect(redis_server.url) as client:
        client.flushall()
        facts = Facts(client)
        facts.register([Connection("c1", "airbnb", "active", 1.0), Connection("c2", "airbnb", "error"), Connection("c3", "vrbo")])
        write_syncs(client, succeeded={"c1": 1000.0})
        facts.token_stored("c1", TokenExpiry(2 * 86400.0, 86400.0))
        facts.token_stored("c2", TokenExpiry(20 * 86400.0, 86400.0))
        facts.token_stored("c3", TokenExpiry(-3600.0, 86400.0))
        Channels(client).touch(["airbnb", "vrbo", HOSTILE])
        Pending(client).put(PendingConnection("c2", "airbnb", 4, {"mismatch": 4}, (PendingDay("2030-01-01", "mismatch", "1", None),), 5.0))
        yield client


def app(redis: Any, *, token: str = "", users: dict[str, bytes] | None = None, metrics_dir: Path | None = None) -> Starlette:
    """
    Make the exporter's application on *redis*, and beside the workers of *metrics_dir*.
    """
    api = Api(redis, token=token, metrics_dir=metrics_dir)
    if redis is not None:
        reports_of(redis)._clock = lambda: 0.0
    web = None if users is None else lambda: WebConfig(users=users)
    overview = None if redis is None else OverviewReader(redis).read
    attempts = AttemptsApi(metrics_dir)
    return create_app(Runner([], InternalErrors()), web=web, api=api, attempts=attempts, overview=overview)


def ask(application: Starlette, path: str, method: str = "GET", **more: Any) -> Any:
    """
    Send one request.
    """

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://exporter") as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


def test_the_questions_have_the_shapes_that_scripts_read(redis: Any) -> None:
    """
    Connections with a status, a list of breakers, a count, a list of tokens that end soon, the first to end first.
    """
    Breakers(redis).force_open("airbnb", actor="me")
    application = app(redis)

    status, breakers, pending, expiring = (
        ask(application, f"/api/v1/channels/{path}").json()
        for path in ("status", "circuit-breakers", "reconciliation/pending", "tokens/expiring")
    )

    assert {"c1": "active", "c2": "error", "c3": "active"} == {each["connection_id"]: each["status"] for each in status["connections"]}
    assert "1970-01-01T00:16:40+00:00" == status["connections"][0]["last_sync_at"]
    assert {"airbnb": "open", "vrbo": "closed", HOSTILE: "closed"} == {each["channel_type"]: each["state"] for each in breakers}
    assert (1, 4) == (pending["count"], pending["days"])
    assert {"day": "2030-01-01", "conflict_type": "mismatch", "local": "1", "remote": None} == pending["connections"][0]["sample"][0]
    assert [("c3", -0.1, True), ("c1", 2.0, False)] == [
        (each["connection_id"], each["expires_in_days"], each["expired"]) for each in expiring
    ]


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
@pytest.mark.parametrize(
    ("path", "program", "expected"),
    [
        (
            "status",
            ".connections | group_by(.status) | map({status: .[0].status, count: length})",
            [{"status": "active", "count": 2}, {"status": "error", "count": 1}],
        ),
        ("circuit-breakers", "[.[] | {channel: .channel_type, state: .state}] | length", 3),
        ("reconciliation/pending", ".count", 1),
        ("tokens/expiring", "[.[] | {connection: .connection_id, expires_in_days: .expires_in_days}][1].connection", "c1"),
    ],
)
def test_the_daily_check_reads_them_with_jq(redis: Any, path: str, program: str, expected: object) -> None:
    """
    The lines of the daily health check work as they are.
    """
    answer = ask(app(redis), f"/api/v1/channels/{path}")

    done = subprocess.run(["jq", "-c", program], input=answer.content, capture_output=True, check=True)

    assert expected == json.loads(done.stdout)


def test_pages_of_an_answer(redis: Any) -> None:
    """
    A limit and an offset divide what is long; the count is of all.
    """
    answer = ask(app(redis), "/api/v1/channels/status?limit=1&offset=1").json()

    assert (3, ["c2"]) == (answer["count"], [each["connection_id"] for each in answer["connections"]])


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1.5", "limit=99999999", "limit=", "offset=-1", f"limit={'9' * 5000}"])
def test_a_bad_parameter_is_refused_in_a_sentence(redis: Any, query: str) -> None:
    """
    The message says what was expected.
    """
    answer = ask(app(redis), f"/api/v1/channels/status?{query}")

    assert (400, "bad_parameter") == (answer.status_code, answer.json()["error"])
    assert "Expected a whole number from" in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("pause-all", {"seconds": 60}, {"paused": True}),
        ("resume-all", {}, {"paused": False, "was_paused": False}),
        ("circuit-breaker/open", {}, {"state": "open"}),
        ("circuit-breaker/close", {}, {"state": "closed"}),
        ("rate-limit/clear", {}, {"cleared": 1}),
    ],
)
def test_who_knows_the_token_does_things_and_they_are_written_down(
    redis: Any, path: str, body: dict[str, object], told: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Each deed says what it did, and the audit has who and why, in the log and in Redis.
    """
    redis.set(keys.rate_limit("airbnb"), 1)
    application = app(redis, token=TOKEN)

    with caplog.at_level(logging.INFO, logger="celery_obs.audit"):
        answer = ask(
            application,
            f"/api/v1/channels/airbnb/{path}",
            "POST",
            headers={**BEARER, "X-Actor": "jo"},
            json={**body, "reason": "an outage"},
        )

    assert 200 == answer.status_code, answer.text
    assert told == {key: value for key, value in answer.json().items() if key in told}
    (entry,) = audited(redis)
    assert ("jo", "an outage", "airbnb", "done") == (entry["actor"], entry["reason"], entry["channel"], entry["outcome"])
    assert entry["action"] == json.loads(caplog.records[-1].getMessage())["action"] == answer.json()["action"]


@pytest.mark.parametrize("channel", ["a/b", "/", "a/pause-all", "circuit-breaker/open", "a%2Fb", "å ö?#", "a\nb"])
@pytest.mark.parametrize("path", ["pause-all", "circuit-breaker/open"])
def test_a_channel_of_any_name_can_be_operated(redis: Any, channel: str, path: str) -> None:
    """
    Its name stands percent-encoded in the path, whatever it holds.
    """
    Channels(redis).touch([channel])

    answer = ask(app(redis, token=TOKEN), f"/api/v1/channels/{quote(channel, safe='')}/{path}", "POST", headers=BEARER)

    assert (200, channel) == (answer.status_code, answer.json().get("channel_type"))
    assert [channel] == [entry["channel"] for entry in audited(redis)]


def test_a_pause_holds_and_ends(redis: Any) -> None:
    """
    What the workers look at is there after the one and gone after the other.
    """
    application = app(redis, token=TOKEN)

    ask(application, "/api/v1/channels/airbnb/pause-all", "POST", headers=BEARER, json={"seconds": 60, "actor": "jo"})
    assert 0 < redis.ttl(keys.paused("airbnb")) <= 60
    assert "jo" == ask(application, "/api/v1/channels/status").json()["channels"][1]["paused_by"]
    ask(application, "/api/v1/channels/airbnb/resume-all", "POST", headers=BEARER)
    assert not redis.exists(keys.paused("airbnb"))


@pytest.mark.parametrize(
    ("token", "headers", "channel", "body", "status", "error"),
    [
        ("", BEARER, "airbnb", b"", 403, "operations_off"),
        (TOKEN, {}, "airbnb", b"", 401, "unauthorized"),
        (TOKEN, {"Authorization": "Bearer wrong"}, "airbnb", b"", 401, "unauthorized"),
        (TOKEN, {"Authorization": b"Bearer \xff\xfe"}, "airbnb", b"", 401, "unauthorized"),
        (TOKEN, {"Authorization": f"Basic {TOKEN}"}, "airbnb", b"", 401, "unauthorized"),
        (TOKEN, BEARER, "arbnb", b"", 404, "unknown_channel"),
        (TOKEN, BEARER, "%22%0A" + "x" * 5000, b"", 404, "unknown_channel"),
        (TOKEN, BEARER, "airbnb", b"{", 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b"[1]", 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b"[" * 10_000, 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b'{"second": 1}', 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b'{"seconds": true}', 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b'{"seconds": 0}', 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b'{"seconds": NaN}', 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b'{"seconds": 1e400}', 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b'{"reason": 1}', 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b'{"reason": "' + b"x" * 600 + b'"}', 400, "bad_body"),
        (TOKEN, BEARER, "airbnb", b" " * (LONGEST_BODY + 1), 413, "too_long"),
    ],
)
def test_what_is_refused_changes_nothing_and_is_written_down(
    *,
    redis: Any,
    token: str,
    headers: dict[str, Any],
    channel: str,
    body: bytes,
    status: int,
    error: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    The caller gets a sentence, the log a line, and the stream of what was done is left to what was done.
    """
    with caplog.at_level(logging.INFO, logger="celery_obs.audit"):
        answer = ask(app(redis, token=token), f"/api/v1/channels/{channel}/pause-all", "POST", headers=headers, content=body)

    assert (status, error) == (answer.status_code, answer.json()["error"])
    assert ("www-authenticate" in answer.headers) is (status == 401)
    assert f"refused: {error}" == json.loads(caplog.records[-1].getMessage())["outcome"]
    assert TOKEN not in caplog.text + answer.text
    assert not redis.exists(keys.AUDIT, keys.paused("airbnb"))


def test_a_wrong_method_is_told_the_right_one(redis: Any) -> None:
    """
    405 with Allow, and 404 for what is not there, both in JSON.
    """
    application = app(redis, token=TOKEN)

    got, put = ask(application, "/api/v1/channels/airbnb/pause-all"), ask(application, "/api/v1/channels/status", "PUT")
    nothing = ask(application, "/api/v1/nothing")

    assert (405, "POST", "method_not_allowed") == (got.status_code, got.headers["allow"], got.json()["error"])
    assert (405, "Expected") == (put.status_code, put.json()["message"][:8])
    assert {"GET", "HEAD"} == set(put.headers["allow"].split(", "))
    assert (404, "not_found") == (nothing.status_code, nothing.json()["error"])


def test_strangers_do_not_fill_the_log(redis: Any, caplog: pytest.LogCaptureFixture) -> None:
    """
    Who does not know the token is written down once a minute, however often; who knows it, each time.
    """
    application = app(redis, token=TOKEN)

    with caplog.at_level(logging.INFO, logger="celery_obs.audit"):
        for _ in range(20):
            ask(application, "/api/v1/channels/airbnb/pause-all", "POST")
            ask(application, "/api/v1/channels/none/pause-all", "POST", headers=BEARER)

    assert 1 == sum("refused: unauthorized" in record.getMessage() for record in caplog.records)
    assert 20 == sum("refused: unknown_channel" in record.getMessage() for record in caplog.records)


def test_with_users_questions_need_a_password_and_deeds_their_token(redis: Any) -> None:
    """
    A request has one Authorization header: the token alone is enough for a deed, and good for nothing else.
    """
    application = app(redis, token=TOKEN, users={"jo": b"$2b$04$" + b"x" * 53})

    assert 401 == ask(application, "/api/v1/channels/status").status_code
    assert 401 == ask(application, "/api/v1/channels/status", headers=BEARER).status_code
    assert 401 == ask(application, "/metrics", "POST", headers=BEARER).status_code
    assert 401 == ask(application, "/api/v1/channels/airbnb/pause-all", "POST").status_code
    assert 200 == ask(application, "/api/v1/channels/airbnb/pause-all", "POST", headers=BEARER).status_code


def test_a_redis_that_is_away_is_told_in_json(caplog: pytest.LogCaptureFixture) -> None:
    """
    503, also for a deed, which is written down as failed; the status page says it in words.
    """
    with connect(f"redis://127.0.0.1:{free_port()}/0") as client, caplog.at_level(logging.INFO, logger="celery_obs.audit"):
        application = app(client, token=TOKEN)
        question = ask(application, "/api/v1/channels/status")
        deed = ask(application, "/api/v1/channels/airbnb/pause-all", "POST", headers=BEARER)
        page = ask(application, "/")
    nowhere = ask(app(None), "/api/v1/channels/status")

    assert [(503, "redis_unavailable")] * 2 == [(each.status_code, each.json()["error"]) for each in (question, deed)]
    assert "refused: redis_unavailable" in caplog.text
    assert (200, True) == (page.status_code, "cannot be read" in page.text)
    assert (503, "no_redis") == (nowhere.status_code, nowhere.json()["error"])


def test_a_deed_that_fails_halfway_is_written_down_as_failed(redis: Any, caplog: pytest.LogCaptureFixture) -> None:
    """
    The key of the pause cannot be written, and the audit says that it was tried.
    """
    redis.config_set("maxmemory", "1")
    try:
        with caplog.at_level(logging.INFO, logger="celery_obs.audit"):
            answer = ask(app(redis, token=TOKEN), "/api/v1/channels/airbnb/pause-all", "POST", headers=BEARER)
    finally:
        redis.config_set("maxmemory", "0")

    assert (503, "redis_unavailable") == (answer.status_code, answer.json()["error"])
    assert "failed: OutOfMemoryError" in caplog.text
    assert "refused" not in caplog.text


def test_the_status_page_shows_how_things_stand_and_runs_nothing(redis: Any) -> None:
    """
    Channels, breakers, pauses; a channel's name is text, whatever it looks like.
    """
    Breakers(redis).force_open("airbnb")

    page = ask(app(redis), "/")

    assert "&lt;script&gt;" in page.text
    assert "<script" not in page.text
    assert "<td class=bad>open</td>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_no_request_that_the_description_allows_or_forbids_makes_a_server_error(redis: Any, tmp_path: Path) -> None:
    """
    Schemathesis reads /openapi.json and tries what it can think of, with the token.
    """
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    write(tmp_path, [("sync", "q", "failure", 1, 0)] * 20)
    application = app(redis, token=TOKEN, metrics_dir=tmp_path)
    schema = schemathesis.openapi.from_asgi("/openapi.json", application)
    tried, answered = 0, set[int]()

    for found in schema.get_all_operations():
        operation = found.ok()
        # A question without parameters cannot be asked wrongly.
        wrongly = [schemathesis.GenerationMode.NEGATIVE] if operation.query or operation.path_parameters else []
        for mode in (schemathesis.GenerationMode.POSITIVE, *wrongly):

            @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
            def try_it(case: Any, known: bool) -> None:
                nonlocal tried
                tried += 1
                case.headers.update(BEARER)
                if known and "channel" in case.path_parameters:
                    case.path_parameters["channel"] = "airbnb"
                response = case.call()
                assert response.status_code < 500, response.text
                answered.add(response.status_code)
                case.validate_response(response, checks=[status_code_conformance, response_schema_conformance])

            try_it()

    assert tried > 100
    assert {200, 400, 404} <= answered
