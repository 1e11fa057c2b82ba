"""
The operators' commands on a real Redis: what they do, what they say, and what the audit has of it.
"""

from __future__ import annotations

import json
import time

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from celery import Celery
from click.testing import CliRunner, Result

from celery_obs.areas.channels.breakers.state import Breakers
from celery_obs.areas.channels.connections.state import Connection, Facts, TokenExpiry
from celery_obs.areas.channels.reconciliation.state import Pending, PendingConnection, PendingDay
from celery_obs.areas.channels.state import Channels
from celery_obs.cli.group import COMMANDS, obs
from celery_obs.cli.health import rate_from_page
from celery_obs.state import keys
from celery_obs.state.connection import connect
from tests.servers import RedisServer, free_port
from tests.shared_state import audited


pytestmark = pytest.mark.integration

PAGE = 'channel_sync_total{channel_type="a",status="success"} 97.0\nchannel_sync_total{channel_type="a\\"}",status="failure"} 3.0\n'
WELL = json.dumps({"status": "healthy", "checks": {"workers": {"status": "healthy", "error": None, "findings": []}}})


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Any]:
    """
    A Redis in which all is well with one channel.
    """
    with connect(redis_server.url) as client:
        client.flushall()
        Facts(client).register([Connection("c1", "airbnb"), Connection('c"2\n', "airbnb")])
        Channels(client).touch(["airbnb"])
        yield client


@pytest.fixture
def exporter() -> Iterator[str]:
    """
    A page with some syncs, at ``/metrics`` and as Prometheus would tell it.
    """

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            prometheus = {"status": "success", "data": {"result": [{"value": [1, "12.5"]}]}}
            body = json.dumps(prometheus) if "/api/v1/query?" in self.path else WELL if self.path == "/health" else PAGE
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def call(server: RedisServer, *words: str, **more: Any) -> Result:
    """
    Run a command.
    """
    return CliRunner().invoke(obs, [*words, "--redis-url", server.url], **more)


def test_a_channel_is_paused_and_resumed(redis: Any, redis_server: RedisServer) -> None:
    """
    The pause is there with its end, the audit has who and why, on standard error and in Redis.
    """
    paused = call(redis_server, "channel", "pause", "airbnb", "--for", "30m", "--reason", "an outage", "--actor", "jo")

    assert (0, "airbnb is paused for 1800 s.\n") == (paused.exit_code, paused.stdout)
    assert 0 < redis.ttl(keys.paused("airbnb")) <= 1800
    assert ("channel.pause", "jo", "an outage") == tuple(audited(redis)[0][name] for name in ("action", "actor", "reason"))

    assert "airbnb is resumed.\n" == call(redis_server, "channel", "resume", "airbnb").stdout
    assert "airbnb was not paused.\n" == call(redis_server, "channel", "resume", "airbnb").stdout
    assert "@" in audited(redis)[0]["actor"]


def test_breakers_are_opened_closed_and_reset(redis: Any, redis_server: RedisServer) -> None:
    """
    Each command is followed by a list that shows what it did.
    """
    states = []
    for word in ("open", "close", "open", "reset"):
        assert 0 == call(redis_server, "breaker", word, "airbnb").exit_code
        states.append(json.loads(call(redis_server, "breaker", "list", "--json").stdout)[0]["state"])

    assert ["open", "closed", "open", "closed"] == states
    call(redis_server, "breaker", "open", "airbnb", "--actor", "jo")
    listed = call(redis_server, "breaker", "list").stdout
    assert listed.startswith("open      airbnb  0 failures in a row since 20")
    assert listed.endswith(", by jo\n")


def test_rate_limits_are_cleared(redis: Any, redis_server: RedisServer) -> None:
    """
    The counts of this channel go, and those of others stay.
    """
    redis.set(keys.rate_limit("airbnb", "c1"), 1)
    redis.set(keys.rate_limit("vrbo"), 1)

    assert "Rate-limit counters of airbnb reset: 1.\n" == call(redis_server, "rate-limit", "clear", "airbnb").stdout
    assert redis.exists(keys.rate_limit("vrbo"))


def test_a_mistyped_channel_is_refused_with_the_right_one(redis: Any, redis_server: RedisServer) -> None:
    """
    In an emergency no operator should pause a mistyped channel; one that was never used has to be confirmed.
    """
    refused = call(redis_server, "channel", "pause", "arbnb")

    assert (2, True) == (refused.exit_code, "Did you mean airbnb?" in refused.stderr)
    assert not redis.exists(keys.paused("arbnb"))
    assert 0 == call(redis_server, "channel", "pause", "arbnb", "--new").exit_code


def test_tokens_and_pending_connections_are_listed(redis: Any, redis_server: RedisServer) -> None:
    """
    Names stand in quotes, so that none of them makes lines of its own.
    """
    now = time.time()
    Facts(redis).token_stored("c1", TokenExpiry(now - 5, None))
    Facts(redis).token_stored('c"2\n', TokenExpiry(now + 2.5 * 86400, None))
    Pending(redis).put(PendingConnection("c1", "airbnb", 4, {"mismatch": 4}, (PendingDay("2030-01-01", "mismatch", "1", None),), 5.0))

    ends = call(redis_server, "tokens", "expiring", "--within", "3d").stdout.splitlines()
    pending = call(redis_server, "reconciliation", "pending").stdout.splitlines()

    assert [True, True] == [ends[0].startswith("EXPIRED "), ends[1].startswith("2.4 d ") or ends[1].startswith("2.5 d ")]
    assert "'c\"2\\n'" in ends[1]
    assert 1 == len(call(redis_server, "tokens", "expiring", "--within", "2h").stdout.splitlines())
    assert ["1 connections differ, on 4 days together.", "    4 d  airbnb  'c1'  4 mismatch, first 2030-01-01"] == pending


def test_a_healthy_cluster_is_told_line_by_line(redis: Any, redis_server: RedisServer, exporter: str) -> None:
    """
    Exit code 0, and the numbers beside the words.
    """
    told = call(redis_server, "health", "--exporter-url", exporter)

    assert (0, "The cluster is healthy.") == (told.exit_code, told.stdout.splitlines()[-1])
    assert told.stdout.startswith("healthy   workers: all well.\n")
    assert "sync success: 97.00 % since the metric files" in told.stdout


def test_without_channels_there_is_no_word_of_them(redis: Any, redis_server: RedisServer, exporter: str) -> None:
    """
    A cluster that uses none hears of its workers only.
    """
    redis.flushall()

    told = call(redis_server, "health", "--exporter-url", exporter)

    assert (0, "healthy   workers: all well.\n\nThe cluster is healthy.\n") == (told.exit_code, told.stdout)


def test_what_is_wrong_makes_it_degraded(redis: Any, redis_server: RedisServer, exporter: str) -> None:
    """
    Each thing that needs a person is one line; the exit code is 1.
    """
    Facts(redis).set_status("c1", "error")
    Facts(redis).token_stored("c1", TokenExpiry(5.0, None))
    Breakers(redis).force_open("airbnb")
    Pending(redis).put(PendingConnection("c1", "airbnb", 4, {}, (), 5.0))

    told = call(redis_server, "health", "--prometheus-url", exporter, "--json")

    report = json.loads(told.stdout)
    assert (1, "degraded") == (told.exit_code, report["status"])
    degraded = {"connections", "circuit breakers", "sync success", "pending reconciliation", "tokens"}
    assert degraded == {name for name, check in report["checks"].items() if check["status"] == "degraded"}
    assert 12.5 == report["checks"]["sync success"]["value"]


def test_what_cannot_be_told_is_no_health(redis: Any, redis_server: RedisServer) -> None:
    """
    Without syncs to look at, or without Redis, the exit code is 2.
    """
    unserved = f"http://127.0.0.1:{free_port()}"

    assert 2 == call(redis_server, "health", "--exporter-url", unserved).exit_code
    assert 2 == call(redis_server, "health", "--exporter-url", "file:///etc/passwd").exit_code
    away = CliRunner().invoke(obs, ["health", "--redis-url", f"redis://:secret@127.0.0.1:{free_port()}/0"])
    assert (2, True, False) == (away.exit_code, "The health of the cluster is unknown" in away.stdout, "secret" in away.output)


def test_a_page_without_syncs_has_no_rate() -> None:
    """
    Nothing divided by nothing is no failure.
    """
    assert None is rate_from_page("")[0]
    assert 97.0 == rate_from_page(PAGE)[0]


@pytest.mark.parametrize("words", [("channel", "pause", "x"), ("breaker", "list"), ("tokens", "expiring"), ("rate-limit", "clear", "x")])
def test_redis_away_or_missing_is_one_paragraph(words: tuple[str, ...]) -> None:
    """
    Exit code 2, what was expected, and no password.
    """
    missing = CliRunner().invoke(obs, words)
    away = CliRunner().invoke(obs, [*words, "--redis-url", f"redis://:secret@127.0.0.1:{free_port()}/0"])

    assert (2, True) == (missing.exit_code, missing.stderr.startswith("Error: No Redis is given. Expected --redis-url"))
    assert (2, True) == (away.exit_code, "Is it running" in away.stderr)
    assert "secret" not in away.output
    assert "Traceback" not in away.output


@pytest.mark.parametrize("time_", ["0", "-1", "soon", "1e400", "nan", "", "9999d"])
def test_a_time_that_is_none_is_refused(redis_server: RedisServer, time_: str) -> None:
    """
    The message shows some that are.
    """
    refused = call(redis_server, "channel", "pause", "airbnb", "--for", time_)

    assert (2, True) == (refused.exit_code, f"invalid duration {time_!r}. Expected something like 90, 30m" in refused.stderr)


def test_the_app_tells_where_its_redis_is(redis: Any, redis_server: RedisServer) -> None:
    """
    ``celery -A proj obs breaker list`` needs no option.
    """
    app = Celery("proj", broker=redis_server.url, set_as_current=False)

    told = CliRunner().invoke(obs, ["breaker", "list"], obj=SimpleNamespace(app=app))

    assert (0, "closed    airbnb  0 failures in a row\n") == (told.exit_code, told.output)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_help_fits_on_a_screen(name: str) -> None:
    """
    24 lines of 80 characters, for each command and each of its parts; the exporter, which has many options, has a larger screen.
    """
    told = CliRunner().invoke(obs, [name, "--help"])
    command = obs.get_command(None, name)  # type: ignore[arg-type]  # It looks at the name only.
    parts = [CliRunner().invoke(obs, [name, part, "--help"]) for part in getattr(command, "commands", {})]

    for each in (told, *parts):
        assert 0 == each.exit_code
        assert len(each.output.splitlines()) <= (48 if name == "exporter" else 24)
