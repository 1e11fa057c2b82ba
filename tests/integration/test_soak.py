"""
The soak: syncs with tokens that run out all the time, while the channel has outages, Redis fails over, workers are killed and customers consent again.

Three ledgers judge: the channel's own of every refresh token, the syncs' own of every attempt, and what the killer knows that it killed.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from celery_obs.areas.channels.syncs.metrics import RECORDS, TOTAL
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.metrics import REFRESH_TOTAL
from celery_obs.demo.provider import Fault, Grant, Provider
from celery_obs.demo.provider.accounts import GrantRefusedError
from tests.clients import client_of
from tests.integration.test_ledger import Killer
from tests.servers import RedisSentinel, RedisServer, wait_until
from tests.tokens import KEY, rig_of
from tests.workers import Metrics, Worker, settle_at


pytestmark = [pytest.mark.integration, pytest.mark.faults]

SECONDS = float(os.environ.get("CELERY_OBS_TESTS_SOAK_SECONDS", "1800"))
SEED = int(os.environ.get("CELERY_OBS_TESTS_SOAK_SEED", "11"))
CONNECTIONS = [f"c-{number}" for number in range(12)]
CHANNELS = {"airbnb": {"circuit_breaker": {"failure_threshold": 5, "success_threshold": 1, "timeout": 2}, "rate_limits": "200/10s"}}


class Ledger:
    """
    What the channel knows of each refresh token: whose it is, of which consent, and how often it was taken or refused.
    """

    def __init__(self, provider: Provider) -> None:
        self.taken: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.consents: Counter[str] = Counter()
        self._of: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._authorize, self._refresh = provider.accounts.authorize, provider.accounts.refresh
        provider.accounts.authorize = self.authorize  # type: ignore[method-assign]
        provider.accounts.refresh = self.refresh  # type: ignore[method-assign]

    def authorize(self, name: str) -> Grant:
        with self._lock:
            grant = self._authorize(name)
            self.consents[name] += 1
            self._of[grant.refresh_token] = (name, self.consents[name])
            return grant

    def refresh(self, refresh_token: str) -> Grant:
        with self._lock:
            try:
                grant = self._refresh(refresh_token)
            except GrantRefusedError:
                self.refused[refresh_token] += 1
                raise
            self.taken[refresh_token] += 1
            self._of[grant.refresh_token] = self._of[refresh_token]
            return grant

    def unexplained(self) -> list[str]:
        """
        Return the refresh tokens that were refused, and not because their customer had consented anew.
        """
        return [token for token in self.refused if self._of.get(token, ("", 0))[1] >= self.consents[self._of.get(token, ("", 0))[0]]]

    def reused(self) -> int:
        """
        Count how often a token that was taken was shown again.
        """
        return sum(times - 1 for times in self.taken.values())


class Chaos(threading.Thread):
    """
    Does one bad thing after the other, each a few seconds after the one before, and tells what failed of that itself.

    Args:
        deeds: What it does, by name.

        seed: Makes its choices.
    """

    def __init__(self, deeds: dict[str, Callable[[random.Random], None]], *, seed: int) -> None:
        super().__init__(daemon=True)
        self.done: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._deeds = deeds
        self._random = random.Random(seed)
        self._over = threading.Event()

    def run(self) -> None:
        try:
            while not self._over.wait(self._random.uniform(0.5, 4)):
                what = self._random.choice([*self._deeds])
                self._deeds[what](self._random)
                self.done[what] += 1
        except BaseException as error:  # noqa: BLE001 -- told by stop().
            self.error = error

    def stop(self) -> None:
        self._over.set()
        self.join()
        if self.error is not None:
            raise self.error


def test_no_token_and_no_sync_is_lost_through_outages_failovers_kills_and_consents(tmp_path: Path) -> None:
    """
    Every sync ends in one success, every connection keeps a token that its channel takes, and every number is that of the ledgers.
    """
    with (
        Provider(channels=["airbnb"], token_lifetime=20, reuse_grace=True) as provider,
        RedisServer() as broker,
        RedisSentinel() as state,
        rig_of(state.url, token_url=provider.token_url, token_replicas=1, token_replicas_timeout=15.0) as rig,
    ):
        channel = Ledger(provider)
        for connection_id in CONNECTIONS:
            rig.connect(connection_id, provider.accounts.authorize(connection_id), expires_at=time.time() + 20)
        environ = _environ(state, provider)
        workers = [
            Worker(
                "--concurrency=3",
                "--max-tasks-per-child=200",
                redis=broker.url,
                folder=tmp_path,
                name=f"w{number}@test",
                app="soaking",
                **environ,
            )
            for number in range(2)
        ]
        client = client_of(broker.url)
        with workers[0], workers[1]:
            killers = [Killer(worker, pause=7) for worker in workers]
            chaos = Chaos(_deeds(provider, state, workers), seed=SEED)
            for thread in (*killers, chaos):
                thread.start()
            sent = _send(client, broker)
            chaos.stop()
            for killer in killers:
                killer.stop()
            provider.faults.clear()

            redis = workers[0].redis
            wait_until(lambda: redis.hlen("done") == sent, within=180, what=f"{sent} syncs, of which are done {redis.hlen('done')}")
            wait_until(lambda: redis.hlen("unacked") == 0 and redis.hlen("inside") == 0, within=60, what="the workers to be idle")
            shot = sum((killer.killed for killer in killers), Counter[str]())
            _judge(Metrics(workers[0].metrics_dir), redis, shot)

        # -- tokens
        for connection_id in CONNECTIONS:
            kept = tokens.get(connection_id)
            assert kept is not None
            assert provider.accounts.accepts(kept.refresh_token or ""), connection_id
        assert {"active"} == {connection.status for connection in rig.facts.snapshot().connections.values()}
        assert [] == channel.unexplained()
        # Shown again is only what a killed process or a lost master did not make unknown.
        assert channel.reused() <= sum(shot.values()) + chaos.done["failover"] + chaos.done["restart"]
        print(  # noqa: T201 -- for the one who runs it.
            f"\n{sent} syncs, {dict(redis.hgetall('left'))}, {sum(shot.values())} kills, {dict(chaos.done)}, {sum(channel.taken.values())} refreshes, "
            f"{channel.reused()} shown again, {sum(channel.refused.values())} refused after a consent, reasons {_reasons(redis)}"
        )


def _environ(state: RedisSentinel, provider: Provider) -> dict[str, str]:
    client = {"token_url": provider.token_url, "client_id": "demo-client", "client_secret": "demo-secret"}
    return {
        "TEST_PROVIDER": provider.url,
        "CELERY_OBS_REDIS_URL": state.url,
        "CELERY_OBS_TOKEN_KEYS": KEY,
        "CELERY_OBS_OAUTH_CLIENTS": json.dumps({"airbnb": client}),
        "CELERY_OBS_CHANNELS": json.dumps(CHANNELS),
        "CELERY_OBS_TOKEN_REPLICAS": "1",
        "CELERY_OBS_TOKEN_REPLICAS_TIMEOUT": "15",
        "CELERY_OBS_PAUSE_RETRY_DELAY": "0.5",
        "CELERY_OBS_BEAT_SCHEDULE": "1",
        "CELERY_OBS_BEAT_PERIODS": "refresh_expiring_tokens=5",
    }


def _deeds(provider: Provider, state: RedisSentinel, workers: list[Worker]) -> dict[str, Callable[[random.Random], None]]:
    def consents_while_refreshing(_: random.Random) -> None:
        provider.faults.switch_on(Fault("slow", "/oauth", 1, seconds=4))
        for connection_id in CONNECTIONS:
            pause(0.3)
            _consent(provider, connection_id)

    def fault(kind: Any, path: str, value: Any = None) -> Callable[[random.Random], None]:
        return lambda choose: provider.faults.switch_on(Fault(kind, path, value, seconds=choose.uniform(1, 4)))

    def failover(_: random.Random) -> None:
        state.fail_over()
        state.come_back()

    def restart(choose: random.Random) -> None:
        worker = choose.choice(workers)
        worker.stop(within=60)
        worker.start()

    return {
        "consent": lambda choose: _consent(provider, choose.choice(CONNECTIONS)),
        "consents while refreshes are slow": consents_while_refreshing,
        "outage": fault("outage", "/airbnb"),
        "outage of the token endpoint": fault("outage", "/oauth"),
        "limit": fault("rate_limit", "/airbnb", 2),
        "limit of the token endpoint": fault("rate_limit", "/oauth", 2),
        "drop": fault("drop", "/"),
        "slow": fault("slow", "/airbnb", 1),
        "page": fault("html", "/oauth"),
        "failover": failover,
        "restart": restart,
    }


def _consent(provider: Provider, connection_id: str) -> None:
    """
    Store what the channel gives a customer who consents, as a web request would until it is stored: a failover may be under way.
    """
    grant = provider.accounts.authorize(connection_id)
    token = tokens.Token(
        access_token=grant.access_token,
        refresh_token=grant.refresh_token,
        expires_at=time.time() + grant.expires_in,
        lifetime=grant.expires_in,
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            tokens.store(connection_id, token)
        except Exception:
            if time.monotonic() > deadline:
                raise
        else:
            return


def _send(client: Any, broker: RedisServer) -> int:
    """
    Send ten syncs a second, and fewer while more than fifty wait; return how many that were.
    """
    choose, sent, end = random.Random(SEED), 0, time.monotonic() + SECONDS
    with client.connection_for_write() as connection, client.amqp.Producer(connection) as producer:
        while time.monotonic() < end:
            if connection.default_channel.client.llen("work") < 50:
                client.send_task("soaking.push", args=(choose.choice(CONNECTIONS), sent), producer=producer)
                sent += 1
            pause(0.1)
    return sent


def pause(seconds: float) -> None:
    """
    Keep the pace.
    """
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, within=seconds + 30, what="the next turn")


def _judge(metrics: Metrics, redis: Any, killed: Counter[str]) -> None:
    left = {way: int(times) for way, times in redis.hgetall("left").items()}
    entered = sum(int(times) for times in redis.hvals("entered"))
    assert {"success", "retry", "held_back"} >= left.keys(), redis.hgetall("why")
    again = {number: redis.lrange(f"story:{number}", 0, -1) for number, times in redis.hgetall("done").items() if times != "1"}
    # A broker may deliver again what a killed process or a worker that left was at, and says so.  We never make two of one.
    assert [] == [story for story in again.values() if not any("redelivered=True" in line for line in story)]
    done = sum(int(times) for times in redis.hvals("done"))
    assert done == left["success"]
    assert entered == sum(left.values()) + sum(killed.values())

    task = "soaking.push"
    settle_at(done, lambda: metrics.states_of(task).get("success"), within=60)
    states = metrics.states_of(task)
    assert sum(killed.values()) == states.get("lost", 0)
    assert left.get("retry", 0) == states.get("retry", 0)
    assert {"success", "lost", "retry", "ignored"} >= states.keys()
    assert metrics.find("celery_task_started_total", task=task) == sum(states.values())
    assert done == metrics.find(RECORDS.name, result="updated")
    assert done == metrics.by("status", TOTAL.name)["success"]
    refreshes = metrics.by("status", REFRESH_TOTAL.name)
    assert "refused" not in refreshes, refreshes
    assert {} == dict(metrics.errors.snapshot())


def _reasons(redis: Any) -> dict[str, int]:
    found: Counter[str] = Counter()
    for message, times in redis.hgetall("reasons").items():
        found[message.partition(":")[0]] += int(times)
    return dict(found)
