"""
The tasks around tokens, on a real worker, a real Redis and a real OAuth2 endpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from celery import Celery
from celery.result import AsyncResult
from redis import Redis

from celery_obs.areas.channels.connections.state import Connection, TokenExpiry
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.api import Token
from celery_obs.areas.channels.tokens.tasks import TASKS, refresh_expiring_tokens
from celery_obs.demo.provider import Fault, Provider
from celery_obs.state import keys
from celery_obs.testing import FakeClock
from tests.clients import client_of
from tests.servers import RedisServer, wait_until
from tests.tokens import CHANNEL, KEY, Rig, rig_of, secrets_in
from tests.workers import APPS, Metrics, Worker


pytestmark = pytest.mark.integration

FULL, BARE = "channel_manager.refresh_single_token", "refresh_single_token"


class Stage(NamedTuple):
    """
    A channel, a worker that refreshes its tokens, and who looks on.
    """

    provider: Provider
    worker: Worker
    client: Celery
    rig: Rig
    environ: dict[str, str]

    def connect(self, name: str) -> Token:
        """
        Let a customer consent.
        """
        self.rig.connect(name, self.provider.accounts.authorize(name))
        return self.stored(name)

    def stored(self, name: str) -> Token:
        found = tokens.get(name)
        assert found is not None
        return found

    def send(self, connection_id: object, name: str = FULL) -> AsyncResult:
        return self.client.send_task(name, args=[connection_id])


@pytest.fixture(scope="module")
def stage(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """
    One for all tests here; each has connections of its own.
    """
    with Provider(reuse_grace=True) as provider, rig_of(redis_server.url, token_url=provider.token_url) as rig:
        client = {"token_url": provider.token_url, "client_id": "demo-client", "client_secret": "demo-secret", "timeout": 5}
        environ = {"CELERY_OBS_TOKEN_KEYS": KEY, "CELERY_OBS_OAUTH_CLIENTS": json.dumps({CHANNEL: client})}
        folder = tmp_path_factory.mktemp("refreshing")
        worker = Worker("--concurrency=4", "-l", "DEBUG", redis=redis_server.url, folder=folder, app="refreshing", **environ)
        try:
            worker.start()
            yield Stage(provider, worker, client_of(redis_server.url), rig, environ)
        finally:
            worker.kill()
            worker.redis.close()


@pytest.fixture(autouse=True)
def _a_channel_without_faults(stage: Stage) -> None:
    stage.provider.faults.clear()
    stage.provider.forget_requests()


def requests(stage: Stage) -> int:
    return stage.provider.requests("/oauth/token")


@pytest.mark.parametrize("name", [FULL, BARE])
def test_an_operator_refreshes_one_token_by_celery_call(stage: Stage, name: str) -> None:
    """
    ``celery -A proj call …`` refreshes it once; the result tells when it expires, and no secret.
    """
    old = stage.connect(f"called as {name}")
    command = [sys.executable, "-m", "celery", "-A", "refreshing", "call", name, "--args", json.dumps([f"called as {name}"])]
    environ = {
        **os.environ,
        **stage.environ,
        "TEST_BROKER": stage.worker.redis_url,
        "PYTHONPATH": f"{APPS}:{os.environ.get('PYTHONPATH', '')}",
    }

    called = subprocess.run(command, cwd=APPS, env=environ, capture_output=True, text=True, check=True)
    result = AsyncResult(called.stdout.split()[-1], app=stage.client).get(timeout=20)

    assert {"connection_id", "channel_type", "status", "expires_at", "lifetime"} == set(result)
    assert (f"called as {name}", CHANNEL, "refreshed") == (result["connection_id"], result["channel_type"], result["status"])
    new = stage.stored(f"called as {name}")
    assert stage.provider.accounts.who(new.access_token) == f"called as {name}"
    assert new != old
    assert 1 == requests(stage)


def test_two_hundred_messages_for_one_connection_reach_the_channel_once(stage: Stage) -> None:
    """
    Those at the same time and those that come late.
    """
    stage.connect("popular")

    sent = [stage.send("popular") for _ in range(200)]
    results = [each.get(timeout=60) for each in sent]

    assert 200 == len(results)
    assert 1 == requests(stage)
    assert 1 == len({result["expires_at"] for result in results})


@pytest.mark.parametrize(
    "connection_id", ["unknown", "a\"b'c\nd", "x" * 10_240, 5, None], ids=["unknown", "quotes", "10 kB", "number", "none"]
)
def test_an_id_that_is_none_is_an_error_in_a_sentence(stage: Stage, connection_id: object) -> None:
    """
    The result's error is one line that says what is expected; the channel is not asked, and nothing is tried again.
    """
    error = stage.send(connection_id).get(timeout=20, propagate=False)

    assert "UnknownConnectionError" == type(error).__name__
    assert "Expected" in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 400
    assert 0 == requests(stage)


def test_the_log_of_a_wrong_id_is_a_sentence(stage: Stage) -> None:
    """
    An operator finds the line, and no traceback below it.
    """
    before = len(stage.worker.log.read_text())

    stage.send("unknown to all").get(timeout=20, propagate=False)

    wait_until(lambda: "There is no connection 'unknown to all'" in stage.worker.log.read_text()[before:], what="the line")
    assert "Traceback" not in stage.worker.log.read_text()[before:]


def test_a_refusal_is_not_tried_again(stage: Stage) -> None:
    """
    A revoked token needs a person: one request, and the connection is in error.
    """
    stage.connect("revoked")
    stage.provider.accounts.revoke("revoked")

    error = stage.send("revoked").get(timeout=20, propagate=False)

    assert "TokenRefusedError" == type(error).__name__
    assert 1 == requests(stage)
    assert "error" == stage.rig.facts.connections()["revoked"].status


def test_what_may_pass_is_tried_again(stage: Stage) -> None:
    """
    A connection that is dropped once costs a retry, and the token is refreshed.
    """
    stage.connect("dropped")
    stage.provider.faults.switch_on(Fault("drop", times=1))

    assert "refreshed" == stage.send("dropped").get(timeout=30)["status"]
    assert 2 == requests(stage)


@pytest.mark.parametrize("point", ["asking", "answered", "stored"])
def test_a_pool_process_that_dies_in_the_middle_leaves_it_to_the_next(stage: Stage, point: str) -> None:
    """
    Celery delivers the message again, and the token ends refreshed and stored.
    """
    stage.connect(f"dies when {point}")
    stage.worker.redis.sadd("die_at", point)

    result = stage.send(f"dies when {point}").get(timeout=30)

    assert not stage.worker.redis.exists("die_at")
    assert {"refreshed", "fresh"} >= {result["status"]}
    assert stage.provider.accounts.accepts(stage.stored(f"dies when {point}").refresh_token)
    assert {} == stage.rig.facts.refreshes()


def test_two_scans_at_once_refresh_each_token_once(stage: Stage) -> None:
    """
    Two beats run by accident: what expires soon is refreshed, once, and what does not is left alone.
    """
    now = stage.rig.engine.clock()
    for name, left in (("soon-1", 60), ("soon-2", 400), ("later", 3000)):
        stage.connect(name)
        stage.rig.facts.token_stored(name, TokenExpiry(now + left, 3600))
    stage.rig.facts.token_stored("unregistered", TokenExpiry(now + 5, 3600))

    scans = [stage.client.send_task("refresh_expiring_tokens") for _ in range(2)]
    sent = sum(scan.get(timeout=20)["sent"] for scan in scans)

    assert 2 == sent
    wait_until(lambda: all(stage.rig.facts.token_expiries()[name].expires_at > now + 3000 for name in ("soon-1", "soon-2")), what="both")  # type: ignore[operator]  # They do expire.
    assert 2 == requests(stage)


def test_the_refreshes_are_counted(stage: Stage) -> None:
    """
    An operator sees how many worked, per channel.
    """
    stage.connect("counted")
    metrics = Metrics(stage.worker.metrics_dir)
    before = metrics.find("channel_token_refresh_total", channel_type=CHANNEL, status="success") or 0.0

    stage.send("counted").get(timeout=20)

    wait_until(lambda: before + 1 == metrics.find("channel_token_refresh_total", channel_type=CHANNEL, status="success"), what="the count")


def test_no_secret_leaves_the_worker(stage: Stage) -> None:
    """
    Neither in its log at DEBUG, nor in Redis as message, argument, result or error, nor on the metrics page.
    """
    old = stage.connect("canary")
    stage.send("canary").get(timeout=20)
    new = stage.stored("canary")
    stage.provider.accounts.revoke("canary")
    stage.rig.redis.delete(keys.once("token_refresh", "canary"))
    stage.client.send_task(FULL, args=["canary"], task_id="refused-canary").get(timeout=20, propagate=False)

    texts = [*contents(stage.rig.redis), stage.worker.log.read_text(errors="replace"), Metrics(stage.worker.metrics_dir).text()]
    assert any("refused-canary" in text for text in texts)
    assert [] == secrets_in(iter(texts), old.access_token, old.refresh_token, new.access_token, new.refresh_token, "demo-secret", KEY)


def contents(redis: Redis) -> Iterator[str]:
    """
    Go through all that Redis holds, as text.
    """
    for key in redis.scan_iter():
        kind = redis.type(key)
        yield repr(key)
        if kind == b"string":
            yield repr(redis.get(key))
        elif kind == b"hash":
            yield repr(redis.hgetall(key))
        elif kind == b"list":
            yield repr(redis.lrange(key, 0, -1))
        else:
            yield repr(redis.dump(key))


# --- the scan itself --------------------------------------------------------------------------------------------------------------


class Sent:
    """
    An app whose task takes down what it is sent.
    """

    def __init__(self, *, fails: bool = False) -> None:
        self.messages: list[dict[str, Any]] = []
        self.fails = fails
        self.app = SimpleNamespace(tasks={FULL: self})

    def apply_async(self, **message: Any) -> None:
        if self.fails:
            raise ConnectionError("on purpose")
        self.messages.append(message)

    @property
    def ids(self) -> list[str]:
        return [message["args"][0] for message in self.messages]


class Scan(NamedTuple):
    """
    A scan at a fixed time.
    """

    rig: Rig
    clock: FakeClock

    def add(self, name: str, *, left: float, status: Any = "active") -> None:
        self.rig.facts.register([Connection(name, CHANNEL, status)])
        self.rig.facts.token_stored(name, TokenExpiry(self.clock.now + left, 86400))


@pytest.fixture
def scan(redis_server: RedisServer) -> Iterator[Scan]:
    clock = FakeClock()
    with rig_of(redis_server.url_of(1), clock=clock) as rig:
        rig.redis.flushdb()
        yield Scan(rig, clock)


def test_who_waits_for_a_person_or_has_left_is_not_refreshed(scan: Scan) -> None:
    """
    A paused connection keeps its token; one in error, one that is disconnected and one that is not registered are left alone.
    """
    for status in ("active", "paused", "error", "disconnected"):
        scan.add(status, left=10, status=status)
    scan.rig.facts.token_stored("unregistered", TokenExpiry(scan.clock.now, 86400))

    sent = Sent()
    assert {"tokens": 5, "due": 2, "sent": 2} == refresh_expiring_tokens(sent)
    assert {"active", "paused"} == set(sent.ids)


def test_a_refresh_that_died_is_found_by_the_next_scan(scan: Scan) -> None:
    """
    However long the token is good for: while the channel still takes the old refresh token.
    """
    scan.add("died", left=80_000)
    scan.rig.facts.refresh_began("died", at=scan.clock.now)

    at_once, later = Sent(), Sent()
    refresh_expiring_tokens(at_once)
    scan.clock.advance(61)
    refresh_expiring_tokens(later)

    assert ([], ["died"]) == (at_once.ids, later.ids)


def test_many_are_spread_out_and_none_outlives_the_period(scan: Scan) -> None:
    """
    A thousand tokens that expire together do not reach the channel together.
    """
    for number in range(1000):
        scan.add(f"c{number}", left=10)

    sent = Sent()
    refresh_expiring_tokens(sent, period=200.0)

    countdowns = [message["countdown"] for message in sent.messages]
    assert 1000 == len(set(sent.ids))
    assert 0 <= min(countdowns) < 10
    assert 70 < max(countdowns) <= 80
    assert {200.0} == {message["expires"] for message in sent.messages}


def test_one_alone_goes_at_once(scan: Scan) -> None:
    """
    There is nothing to spread.
    """
    scan.add("only", left=10)

    sent = Sent()
    refresh_expiring_tokens(sent)

    assert [None] == [message["countdown"] for message in sent.messages]


def test_what_could_not_be_sent_is_sent_by_the_next_scan(scan: Scan) -> None:
    """
    A broker that is away does not make a token wait for a whole period.
    """
    scan.add("only", left=10)

    with pytest.raises(ConnectionError):
        refresh_expiring_tokens(Sent(fails=True))
    sent = Sent()
    refresh_expiring_tokens(sent)

    assert ["only"] == sent.ids


def test_the_mark_of_a_period_is_gone_before_the_next(scan: Scan) -> None:
    """
    A token whose refresh failed is due again then.
    """
    scan.add("only", left=10)
    refresh_expiring_tokens(Sent(), period=100.0)

    assert 70_000 < scan.rig.redis.pttl(keys.once("token_refresh", "only")) <= 80_000


def test_each_task_has_a_time_limit_and_lets_no_traceback_into_the_log() -> None:
    """
    The contract of our own tasks.
    """
    assert ["refresh_single_token", "refresh_expiring_tokens"] == [spec.name for spec in TASKS]
    assert all(0 < spec.time_limit < 300 for spec in TASKS)
    assert all(spec.options["throws"] for spec in TASKS)
