"""
A Sentinel failover loses a write that the old master had acknowledged: what that costs a rotated token, without and with waiting for replicas.
"""

from __future__ import annotations

import time

from collections.abc import Iterator

import pytest

from redis import Redis
from redis.exceptions import RedisError

from celery_obs.areas.channels.connections.state import Connection
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.api import RedisTokens, Token
from celery_obs.areas.channels.tokens.events import TokenAtRisk
from celery_obs.demo.provider.zoo import Zoo
from tests.servers import RedisSentinel, wait_until
from tests.tokens import KEY, rig_of


pytestmark = [pytest.mark.integration, pytest.mark.faults]

ONE = "conn-1"


@pytest.fixture
def sentinel() -> Iterator[RedisSentinel]:
    with RedisSentinel() as sentinel:
        yield sentinel


class _Splitting:
    """
    Cuts the replica off when a refresh has its answer, and kills the master once the token is acknowledged there.
    """

    def __init__(self, sentinel: RedisSentinel, *, kill_at: str) -> None:
        self._old, self._other = sentinel.master, next(each for each in (sentinel._first, sentinel._second) if each is not sentinel.master)
        self._kill_at = kill_at
        self.was_stored = False

    def __call__(self, point: str) -> None:
        if point == "understood":
            with Redis(port=self._other.port) as replica:
                replica.replicaof("NO", "ONE")
        if point == self._kill_at:
            self.kill()

    def kill(self) -> None:
        """
        Kill the master, which has what the replica has not.
        """
        with Redis(port=self._old.port) as master:
            blob = master.hget(f"celery_obs:token:{ONE}", "blob")
        with Redis(port=self._other.port) as replica:
            self.was_stored = blob is not None and blob != replica.hget(f"celery_obs:token:{ONE}", "blob")
        self._old.kill()


@pytest.mark.parametrize("replicas", [0, 1])
def test_a_token_that_a_failover_would_lose_is_stored_again(
    sentinel: RedisSentinel, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    """
    The master acknowledges the rotated token, and dies before its replica has it.  Who does not wait has the old token afterwards, and the channel
    refuses it; who waits sees that the token is gone, and stores it again on the new master.
    """
    with (
        Zoo() as zoo,
        rig_of(sentinel.url, oauth_clients={"fitbit": zoo.client("fitbit")}, token_replicas=replicas, token_replicas_timeout=10) as rig,
    ):
        monkeypatch.setattr(rig.engine.hub, "on_error", lambda *_, **__: None)  # Redis is away for a while.
        risks: list[TokenAtRisk] = []
        rig.engine.hub.subscribe(TokenAtRisk, risks.append)
        given = zoo.authorize("fitbit", ONE)
        rig.facts.register([Connection(ONE, "fitbit")])
        tokens.store(ONE, Token(access_token=given.access_token, refresh_token=given.refresh_token))
        wait_until(lambda: _has_token(sentinel), what="the replica to have the first token")
        split = _Splitting(sentinel, kill_at="" if replicas else "stored")
        monkeypatch.setattr(tokens, "reached", split)
        if replicas:
            _kill_at_the_first_wait(monkeypatch, split)
        began = time.monotonic()

        tokens.refresh(ONE, force=True)

        took = time.monotonic() - began
        assert split.was_stored
        monkeypatch.setattr(tokens, "reached", lambda _: None)
        wait_until(_master_knows, what="the new master")
        found = tokens.get(ONE)
        assert found is not None
        assert bool(replicas) == zoo.accepts("fitbit", found.refresh_token)
        print(f"replicas={replicas}: refreshed in {took:.1f} s, at risk: {[risk.risk for risk in risks]}")  # noqa: T201 -- for who runs it.
        if replicas:
            # The other server is dead, so that there is nothing to wait for.
            assert {"not_replicated"} == {risk.risk for risk in risks}
            assert "refreshed" == tokens.refresh(ONE, force=True).status
            assert [] == [entry for entry in zoo.ledger if entry.reused]
        else:
            with pytest.raises(tokens.TokenRefusedError):
                tokens.refresh(ONE, force=True)


def _kill_at_the_first_wait(monkeypatch: pytest.MonkeyPatch, split: _Splitting) -> None:
    wait = RedisTokens.replicated
    done: list[bool] = []

    def killing(self: RedisTokens, connection_id: str, token: Token, *, replicas: int, within: float) -> int | None:
        if not done:
            done.append(True)
            split.kill()
        return wait(self, connection_id, token, replicas=replicas, within=within)

    monkeypatch.setattr(RedisTokens, "replicated", killing)


def _has_token(sentinel: RedisSentinel) -> bool:
    for server in (sentinel._first, sentinel._second):
        with Redis(port=server.port) as client:
            if RedisTokens(client, [KEY]).get(ONE) is None:
                return False
    return True


def _master_knows() -> bool:
    try:
        return tokens.get(ONE) is not None
    except RedisError:  # Until the sentinels have elected one.
        return False
