"""
Four processes refresh what they can while customers consent anew, endpoints fail and Redis fails over: no good token is lost, and none is marked.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from redis.exceptions import RedisError

from celery_obs.areas.channels.connections.state import Connection
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.api import Token, guard_of
from celery_obs.demo.provider.zoo import SPECIES, Kind, Zoo
from celery_obs.exceptions import CeleryObsError
from celery_obs.state import keys
from tests.servers import RedisSentinel, wait_until
from tests.tokens import Rig, rig_of


pytestmark = [pytest.mark.integration, pytest.mark.faults]

SECONDS = 30.0
PROVIDERS = ("fitbit", "slack", "strava", "withings")
"""
Their refresh tokens work once, and each says what is wrong in another way.
"""

PROGRAM = """
import json, random, sys, time
from celery_obs.exceptions import CeleryObsError
from celery_obs.areas.channels.tokens import api as tokens
from redis.exceptions import RedisError
from tests.tokens import rig_of

url, clients, seconds, connections = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4])
until = time.monotonic() + seconds
with rig_of(url, oauth_clients=clients, token_replicas=1, token_replicas_timeout=3) as rig:
    rig.engine.hub.on_error = lambda *_, **__: None
    while time.monotonic() < until:
        try:
            tokens.refresh(random.choice(connections), force=True, wait=5)
        except (CeleryObsError, RedisError):
            time.sleep(0.05)
"""


@pytest.fixture
def sentinel() -> Iterator[RedisSentinel]:
    with RedisSentinel() as sentinel:
        yield sentinel


def test_no_good_token_is_lost_or_marked(sentinel: RedisSentinel) -> None:
    """
    In the end every connection is active, with a token that its provider takes.
    """
    connections = {f"{provider}-{number}": provider for provider in PROVIDERS for number in range(5)}
    with Zoo() as zoo:
        clients = {provider: zoo.client(provider, timeout=5) for provider in PROVIDERS}
        with rig_of(sentinel.url, oauth_clients=clients, token_replicas=1, token_replicas_timeout=0.5) as rig:
            rig.engine.hub.on_error = lambda *_, **__: None  # Redis is away for a while.
            for connection_id, provider in connections.items():
                _consent(rig, zoo, provider, connection_id)
            workers = [_worker(sentinel.url, clients, list(connections)) for _ in range(4)]
            try:
                # Failures that pile up before the first request would only open the breakers.
                wait_until(lambda: all("good" in zoo.asked(provider) for provider in PROVIDERS), within=60, what="the workers to refresh")
                consents = _disturb(rig, zoo, sentinel, connections)
                for worker in workers:
                    assert "" == worker.communicate(timeout=60)[1][-2000:]
            finally:
                for worker in workers:
                    worker.kill()
                    worker.wait()
            for provider in PROVIDERS:
                rig.redis.delete(keys.breaker(guard_of(provider)), keys.paused(guard_of(provider)))
                zoo._next[provider].clear()

            kinds = Counter(entry.kind for entry in zoo.ledger)
            print(f"consents {consents}, {dict(kinds)}, reused {sum(entry.reused for entry in zoo.ledger)}")  # noqa: T201 -- for who runs it.
            assert kinds["good"] > 50
            known = rig.facts.connections()
            for connection_id, provider in connections.items():
                found = tokens.get(connection_id)
                assert found is not None
                assert ("active", True) == (known[connection_id].status, zoo.accepts(provider, found.refresh_token)), connection_id
                assert "refreshed" == tokens.refresh(connection_id, force=True).status


def test_twelve_processes_ask_once(sentinel: RedisSentinel) -> None:
    """
    All of them want a new token in the same moment; one asks, and the others have what it got.
    """
    program = PROGRAM.replace("while time.monotonic() < until:", "while True:").replace(
        "        try:\n            tokens.refresh(random.choice(connections), force=True, wait=5)",
        "        try:\n            print('ready', flush=True)\n            sys.stdin.readline()\n"
        "            print(tokens.refresh(connections[0], wait=20).status)\n            break",
    )
    with Zoo() as zoo:
        clients = {"fitbit": zoo.client("fitbit")}
        with rig_of(sentinel.url, oauth_clients=clients) as rig:
            _consent(rig, zoo, "fitbit", "conn-1")
            arguments = [sys.executable, "-c", program, sentinel.url, json.dumps(clients), "60", '["conn-1"]']
            root = Path(__file__).parents[2]
            workers = [
                subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
                for _ in range(12)
            ]
            try:
                assert ["ready\n"] * 12 == [worker.stdout.readline() for worker in workers if worker.stdout is not None]
                ended = [worker.communicate("go\n", timeout=60) for worker in workers]
            finally:
                for worker in workers:
                    worker.kill()
                    worker.wait()

        assert {"refreshed\n", "fresh\n"} >= {said for said, _ in ended}
        assert ["good"] == zoo.asked("fitbit")


def _consent(rig: Rig, zoo: Zoo, provider: str, connection_id: str) -> None:
    """
    Have a customer authorise, and store what came of it, as a web application does that is asked again when that fails.
    """
    given = zoo.authorize(provider, connection_id)
    for _ in range(100):
        with contextlib.suppress(RedisError, CeleryObsError):
            rig.facts.register([Connection(connection_id, provider)])
            tokens.store(connection_id, Token(access_token=given.access_token, refresh_token=given.refresh_token))
            return
        time.sleep(0.1)
    pytest.fail("A consent could not be stored for ten seconds.")


def _worker(url: str, clients: object, connections: list[str]) -> subprocess.Popen[str]:
    arguments = [url, json.dumps(clients), str(SECONDS + 10), json.dumps(connections)]
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, cwd=root)


def _disturb(rig: Rig, zoo: Zoo, sentinel: RedisSentinel, connections: dict[str, str]) -> int:
    """
    Let things go wrong at random until the time is over; return how many customers consented anew.
    """
    chosen = random.Random(7)
    kinds: tuple[Kind, ...] = ("broken", "timeout", "gibberish")
    began, consents, failed_over, pace = time.monotonic(), 0, False, threading.Event()
    while time.monotonic() - began < SECONDS:
        connection_id = chosen.choice(list(connections))
        if chosen.random() < 0.5:
            _consent(rig, zoo, connections[connection_id], connection_id)
            consents += 1
        elif not zoo._next[connections[connection_id]]:
            zoo.answer_next(connections[connection_id], chosen.choice(kinds))
        if not failed_over and time.monotonic() - began > SECONDS / 3:
            sentinel.fail_over()
            failed_over = True
        pace.wait(0.1)
    assert SPECIES.keys() >= set(connections.values())
    return consents
