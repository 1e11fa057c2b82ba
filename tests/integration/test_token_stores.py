"""
Where tokens are kept, while a refresh is under way: a consent wins, a failover is no consent, and what could not be stored is not lost.
"""

from __future__ import annotations

import contextlib
import signal
import threading

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_obs.areas.channels import errors
from celery_obs.areas.channels.connections.state import Connection, TokenExpiry
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.api import RedisTokens, Token, Tokens
from celery_obs.areas.channels.tokens.events import TokenAtRisk
from celery_obs.demo.provider.zoo import Zoo
from celery_obs.exceptions import ConfigurationError
from celery_obs.state import keys
from tests.servers import RedisServer, Relay, wait_until
from tests.tokens import KEY, Rig, rig_of


pytestmark = pytest.mark.integration

ONE = "conn-1"
PROVIDER = "fitbit"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    # A master waits five seconds for more replicas otherwise.
    with RedisServer(options={"repl-diskless-sync-delay": "0"}) as server:
        yield server


class Shelf:
    """
    A source that can only get and put.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, Token] = {}
        self.failures = 0
        self.reconnected = 0

    def get(self, connection_id: str) -> Token | None:
        return self.tokens.get(connection_id)

    def put(self, connection_id: str, token: Token) -> None:
        self._fail()
        self.tokens[connection_id] = token

    def reconnect(self) -> None:
        self.reconnected += 1

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise LookupError("on purpose")


class Table(Shelf):
    """
    A source that compares, as one on a database does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self._lock = threading.Lock()

    def put(self, connection_id: str, token: Token) -> None:
        super().put(connection_id, token)
        self.version += 1

    def read(self, connection_id: str) -> tuple[Token, int] | None:
        found = self.tokens.get(connection_id)
        return None if found is None else (found, self.version)

    def replace(self, connection_id: str, token: Token, version: int) -> bool:
        with self._lock:
            if version != self.version:
                return False
            self.put(connection_id, token)
            return True


STORES: dict[str, Callable[[], Any]] = {"redis": lambda: None, "get and put": Shelf, "compares": Table}


@contextlib.contextmanager
def rigged(redis_server: RedisServer, zoo: Zoo, store: Any = None, **more: Any) -> Iterator[Rig]:
    """
    An engine that keeps tokens in *store*, with a connection whose customer has authorised.
    """
    with rig_of(redis_server.url, oauth_clients={PROVIDER: zoo.client(PROVIDER)}, token_source=store, **more) as rig:
        rig.redis.flushall()
        rig.facts.register([Connection(ONE, PROVIDER)])
        consent(zoo)
        yield rig


def consent(zoo: Zoo) -> str:
    """
    Have the customer authorise, and store what came of it, as an application does; return the refresh token.
    """
    given = zoo.authorize(PROVIDER, ONE)
    tokens.store(ONE, Token(access_token=given.access_token, refresh_token=given.refresh_token))
    return given.refresh_token


def stored() -> Token:
    found = tokens.get(ONE)
    assert found is not None
    return found


def at(monkeypatch: pytest.MonkeyPatch, point: str, do: Callable[[], object]) -> None:
    """
    Do something once when a refresh reaches a point.
    """
    left = [do]

    def reached(found: str) -> None:
        if found == point and left:
            left.pop()()

    monkeypatch.setattr(tokens, "reached", reached)


def status(rig: Rig) -> str:
    return rig.facts.connections()[ONE].status


# --- a consent wins ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["asking", "answered", "understood"])
@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
def test_a_consent_during_a_refresh_is_what_is_stored(
    redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, store: Callable[[], Any], point: str
) -> None:
    """
    Whether the channel still gave a token for the old one or refused it: the customer's new one is kept, and the connection stays active.
    """
    with rigged(redis_server, zoo, store()) as rig:
        new: list[str] = []
        at(monkeypatch, point, lambda: new.append(consent(zoo)))

        outcome = tokens.refresh(ONE, force=True)

        assert ("superseded", new) == (outcome.status, [stored().refresh_token])
        assert ("active", {}) == (status(rig), rig.facts.refreshes())
        assert "refreshed" == tokens.refresh(ONE, force=True).status
        assert zoo.accepts(PROVIDER, stored().refresh_token)
        assert [] == [entry for entry in zoo.ledger if entry.reused]


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
def test_a_consent_between_the_last_look_and_the_mark_ends_in_active(
    redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, store: Callable[[], Any]
) -> None:
    """
    A refused refresh looks again after it has marked the connection.
    """
    with rigged(redis_server, zoo, store()) as rig:
        zoo.revoke(PROVIDER, ONE)
        facts = rig.engine.part(Tokens).facts
        mark = facts.set_status

        def late(connection_id: str, word: Any) -> None:
            if word == "error":
                monkeypatch.undo()
                consent(zoo)
            mark(connection_id, word)

        monkeypatch.setattr(facts, "set_status", late)

        with pytest.raises(tokens.TokenRefusedError):
            tokens.refresh(ONE, force=True)

        assert "active" == status(rig)
        assert zoo.accepts(PROVIDER, stored().refresh_token)


def test_a_connection_that_was_paused_meanwhile_stays_paused(redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    To end an error is not to end a pause.
    """
    with rigged(redis_server, zoo) as rig:
        rig.facts.set_status(ONE, "error")
        at(monkeypatch, "stored", lambda: rig.facts.set_status(ONE, "paused"))

        tokens.refresh(ONE, force=True)

        assert "paused" == status(rig)


def test_a_token_that_was_deleted_during_a_refresh_is_not_brought_back(
    redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A customer who disconnects has no token in the application's table afterwards.
    """
    shelf = Shelf()
    with rigged(redis_server, zoo, shelf) as rig:
        at(monkeypatch, "understood", shelf.tokens.clear)

        with pytest.raises(tokens.NoTokenError, match="was deleted while it was refreshed"):
            tokens.refresh(ONE, force=True)

        assert ({}, {}) == (shelf.tokens, rig.facts.refreshes())


# --- compare and set in Redis -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["redis", "get and put"])
def test_what_a_failover_brought_back_is_no_consent(
    redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """
    The store lost the last token while the next one was on its way: the new one is stored over what came back.
    """
    source = STORES[store]()
    with rigged(redis_server, zoo, source) as rig:
        tokens.refresh(ONE, force=True)
        before: Any = rig.redis.dump(keys.token(ONE)) if source is None else dict(source.tokens)
        tokens.refresh(ONE, force=True)

        def fail_over() -> None:
            if source is None:
                rig.redis.restore(keys.token(ONE), 0, before, replace=True)
            else:
                source.tokens = before

        at(monkeypatch, "understood", fail_over)

        assert "refreshed" == tokens.refresh(ONE, force=True).status
        assert zoo.accepts(PROVIDER, stored().refresh_token)


def test_a_store_whose_answer_got_lost_is_no_consent(redis_server: RedisServer) -> None:
    """
    The same token again is stored already.
    """
    with Relay(redis_server.port) as relay, Redis(port=relay.port, retry=None) as client:  # type: ignore[arg-type]  # None is none.
        vault = RedisTokens(client, [KEY])
        vault.put("lost", token(1))
        _, version = vault.read("lost") or (None, 0)
        relay.loses = 1
        with pytest.raises(RedisConnectionError):
            vault.replace("lost", token(2), version)

        assert vault.replace("lost", token(2), version)
        assert not vault.replace("lost", token(3), version)
        assert token(2) == vault.get("lost")


def token(number: int) -> Token:
    return Token(access_token=f"at-{number}", refresh_token=f"rt-{number}")


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(["read", "put", "replace", "rotate"]), max_size=12))
def test_a_replace_works_if_nothing_was_stored_since_the_read(redis_server: RedisServer, steps: list[str]) -> None:
    """
    In any order of reads, puts, replaces and new encryptions; what is stored is what was stored last.
    """
    with Redis(port=redis_server.port) as client:
        client.delete(keys.token("c"))
        vault = RedisTokens(client, [KEY])
        numbers, last, is_current = iter(range(1, 100)), None, True
        version: Any = 0
        for step in steps:
            if step == "read":
                found = vault.read("c")
                version, is_current = (0 if found is None else found[1]), True
            elif step == "rotate":
                vault.rotate(["c"])
            elif step == "put":
                last = token(next(numbers))
                vault.put("c", last)
                is_current = False
            else:
                new = token(next(numbers))
                assert is_current == vault.replace("c", new, version)
                last, is_current = (new, False) if is_current else (last, False)
        assert last == vault.get("c")


# --- what could not be stored -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [Shelf, Table], ids=["get and put", "compares"])
def test_what_could_not_be_stored_is_kept_for_the_next_refresh(
    redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, store: Callable[[], Any]
) -> None:
    """
    The application's database is away for long: the rotated token lies encrypted in Redis, and the channel is not asked with the old one.
    """
    monkeypatch.setattr(tokens, "_STORE_PATIENCE", 0.1)
    source = store()
    with rigged(redis_server, zoo, source) as rig:
        risks: list[TokenAtRisk] = []
        rig.engine.hub.subscribe(TokenAtRisk, risks.append)
        source.failures = 1000

        for _ in range(2):
            with pytest.raises(tokens.TokenNotStoredError, match="kept encrypted in Redis"):
                tokens.refresh(ONE, force=True)

            assert ["good"] == zoo.asked(PROVIDER)
        source.failures = 0
        assert "refreshed" == tokens.refresh(ONE, force=True).status
        assert zoo.accepts(PROVIDER, stored().refresh_token)
        assert [] == [entry for entry in zoo.ledger if entry.reused]
        assert not rig.redis.exists(keys.parked_token(ONE))
        assert {TokenAtRisk(PROVIDER, ONE, "parked")} == set(risks)
        assert source.reconnected > 0


class TimeLimit(Exception):  # noqa: N818 -- as Celery's.
    """
    What a soft time limit raises, wherever the task is.
    """


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_time_limit_while_the_store_is_away_costs_no_token(
    redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    """
    The task ends as its limit wants it, once the token is stored, or kept for the next refresh.
    """
    monkeypatch.setattr(tokens, "_LAST_PATIENCE", 0.2)

    def strike(*_: object) -> None:
        shelf.failures = 0 if comes_back else 1000
        raise TimeLimit

    shelf = Shelf()
    with rigged(redis_server, zoo, shelf):
        shelf.failures = 1000
        before = signal.signal(signal.SIGALRM, strike)
        at(monkeypatch, "understood", lambda: signal.setitimer(signal.ITIMER_REAL, 0.3))
        try:
            with pytest.raises(TimeLimit):
                tokens.refresh(ONE, force=True)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        shelf.failures = 0

        assert comes_back == zoo.accepts(PROVIDER, stored().refresh_token)
        assert "refreshed" == tokens.refresh(ONE, force=True).status
        assert zoo.accepts(PROVIDER, stored().refresh_token)
        assert [] == [entry for entry in zoo.ledger if entry.reused]


def test_a_consent_wins_over_what_was_parked(redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What replaces a token that is not there any more is of no use.
    """
    monkeypatch.setattr(tokens, "_STORE_PATIENCE", 0.1)
    shelf = Shelf()
    with rigged(redis_server, zoo, shelf):
        shelf.failures = 1000
        with pytest.raises(tokens.TokenNotStoredError):
            tokens.refresh(ONE, force=True)
        shelf.failures = 0
        new = consent(zoo)

        tokens.refresh(ONE, force=True)

        assert ["good", "good"] == zoo.asked(PROVIDER)
        assert new == zoo.ledger[-1].refresh_token


@pytest.mark.parametrize("comes_back", [True, False])
def test_without_a_key_what_cannot_be_stored_stays_in_the_process(
    redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    """
    Nothing lies in Redis in clear.  The process goes on trying, and asks for nothing meanwhile; what it has when it ends is lost, and told.
    """
    monkeypatch.setattr(tokens, "_STORE_PATIENCE", 0.1)
    monkeypatch.setattr(tokens, "_UNSTORED_PAUSE", 0.05)
    shelf = Shelf()
    with rigged(redis_server, zoo, shelf, token_keys=[]) as rig:
        risks: list[TokenAtRisk] = []
        rig.engine.hub.subscribe(TokenAtRisk, risks.append)
        shelf.failures = 10_000
        with pytest.raises(tokens.TokenNotStoredError, match=r"\(LookupError\).* this process keeps the token"):
            tokens.refresh(ONE, force=True)
        with pytest.raises(tokens.TokenNotStoredError, match="is not stored yet"):
            tokens.refresh(ONE, force=True)
        rig.facts.set_status(ONE, "error")  # As another process that asked with the old one.

        if comes_back:
            shelf.failures = 0
            wait_until(lambda: not rig.engine.part(Tokens).unstored.has(ONE), what="the token to be stored")
            assert zoo.accepts(PROVIDER, stored().refresh_token)
            assert ("active", ["good"]) == (status(rig), zoo.asked(PROVIDER))
        else:
            rig.engine.flush(within=1.0)
        assert [TokenAtRisk(PROVIDER, ONE, "parked"), *([] if comes_back else [TokenAtRisk(PROVIDER, ONE, "lost")])] == risks
        assert not rig.redis.exists(keys.parked_token(ONE))


def test_a_redis_that_is_away_for_long_gets_the_token_when_it_is_back(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where Redis itself is the store, the process that has the token stores it once Redis answers.
    """
    monkeypatch.setattr(tokens, "_STORE_PATIENCE", 0.1)
    monkeypatch.setattr(tokens, "_UNSTORED_PAUSE", 0.05)
    with RedisServer(options={"appendonly": "yes", "appendfsync": "always"}) as server, rigged(server, zoo) as rig:
        rig.engine.hub.on_error = lambda *_, **__: None  # Redis is away for a while.
        at(monkeypatch, "understood", server.kill)
        with pytest.raises(tokens.TokenNotStoredError, match="this process keeps the token"):
            tokens.refresh(ONE, force=True)

        server.start()

        wait_until(lambda: not rig.engine.part(Tokens).unstored.has(ONE), what="the token to be stored")
        assert zoo.accepts(PROVIDER, stored().refresh_token)


def test_a_forgotten_connection_takes_what_was_parked_along(redis_server: RedisServer) -> None:
    """
    Nothing of it stays.
    """
    with rig_of(redis_server.url) as rig:
        RedisTokens(rig.redis, [KEY]).park(ONE, token(2), instead_of=token(1))

        rig.facts.forget([ONE])

        assert not rig.redis.exists(keys.parked_token(ONE))


# --- replicas ---------------------------------------------------------------------------------------------------------------------


def test_a_refresh_waits_for_replicas_and_tells_when_they_do_not_come(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    With a replica that follows there is nothing to tell; without one the token is stored all the same, and counted.
    """
    with rigged(redis_server, zoo, token_replicas=1, token_replicas_timeout=2.0) as rig:
        risks: list[TokenAtRisk] = []
        rig.engine.hub.subscribe(TokenAtRisk, risks.append)
        with RedisServer(options={"replicaof": f"127.0.0.1 {redis_server.port}"}) as replica, Redis(port=replica.port) as other:
            # Its master calls it online up to a second before it sends it anything: only a replica that has confirmed a write follows.
            rig.redis.set("a write", "to confirm")
            wait_until(lambda: rig.redis.wait(1, 100) == 1, what="the replica to follow")

            assert "refreshed" == tokens.refresh(ONE, force=True).status
            assert [] == risks
            # No poll: that is what the refresh has waited for.
            assert other.hget(keys.token(ONE), "blob") == rig.redis.hget(keys.token(ONE), "blob")
        wait_until(lambda: rig.redis.info("replication")["connected_slaves"] == 0, what="the replica to be gone")

        assert "refreshed" == tokens.refresh(ONE, force=True).status
        assert [TokenAtRisk(PROVIDER, ONE, "not_replicated")] == risks
        assert zoo.accepts(PROVIDER, stored().refresh_token)


def test_a_consent_that_a_failover_lost_is_stored_again(redis_server: RedisServer, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Before the customer is told that all is well; and one that was refreshed meanwhile is left alone.
    """
    with rigged(redis_server, zoo, token_replicas=1, token_replicas_timeout=0.3) as rig:
        wait = RedisTokens.replicated
        meanwhile: list[Callable[[], object]] = [
            lambda: rig.redis.delete(keys.token(ONE)),
            lambda: RedisTokens(rig.redis, [KEY]).put(ONE, token(9)),
        ]

        def losing(*arguments: Any, **more: Any) -> int | None:
            meanwhile.pop(0)()
            monkeypatch.undo()
            return wait(*arguments, **more)

        monkeypatch.setattr(RedisTokens, "replicated", losing)
        new = consent(zoo)
        assert new == stored().refresh_token
        monkeypatch.setattr(RedisTokens, "replicated", losing)
        consent(zoo)
        assert token(9) == stored()


# --- what a source gives ----------------------------------------------------------------------------------------------------------


def test_a_source_that_gives_something_else_is_found_out_before_the_channel_is_asked(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    A dict is no token: no refresh token is spent for one that could not be used afterwards.
    """
    shelf = Shelf()
    with rigged(redis_server, zoo, shelf):
        shelf.tokens[ONE] = {"refresh_token": "rt"}  # type: ignore[assignment]  # That is the mistake.

        for use in (tokens.get, tokens.refresh):
            with pytest.raises(ConfigurationError, match=r"token_source gave a dict\. Expected a celery_obs\.tokens\.Token"):
                use(ONE)
        with pytest.raises(TypeError, match=r"Expected a celery_obs\.tokens\.Token"):
            tokens.store(ONE, {"access_token": "at"})  # type: ignore[arg-type]  # As above.
        assert [] == zoo.ledger


@pytest.mark.parametrize("written", ["2030-12-31T00:00:00Z", 1_924_905_600_000], ids=["text", "milliseconds"])
def test_the_scan_sees_an_expiry_however_it_was_written(redis_server: RedisServer, zoo: Zoo, written: Any) -> None:
    """
    What the cluster knows is a number.
    """
    with rigged(redis_server, zoo) as rig:
        tokens.store(ONE, Token(access_token="at", refresh_token="rt", expires_at=written))

        assert {ONE: TokenExpiry(1_924_905_600.0, None)} == rig.facts.token_expiries()


# --- a token that is about to run out ---------------------------------------------------------------------------------------------


def short_lived(zoo: Zoo, left: float, rig: Rig) -> Token:
    given = zoo.authorize(PROVIDER, ONE)
    made = Token(access_token=given.access_token, refresh_token=given.refresh_token, expires_at=rig.engine.clock() + left, lifetime=3600)
    tokens.store(ONE, made)
    return made


def test_who_gets_a_token_that_is_about_to_run_out_gets_a_new_one(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    Of twenty that ask at a time one refreshes; with time enough left none does.
    """
    with rigged(redis_server, zoo, token_refresh_on_get=60) as rig:
        old = short_lived(zoo, 30, rig)
        found: list[Token | None] = []
        threads = [threading.Thread(target=lambda: found.append(tokens.get(ONE))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 1 == len({each.access_token for each in found if each is not None})
        assert old.access_token not in {each.access_token for each in found if each is not None}
        assert ["good"] == zoo.asked(PROVIDER)
        assert stored() == found[0]
        assert ["good"] == zoo.asked(PROVIDER)


def test_without_the_setting_getting_is_only_that(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    The caller may ask for it, too.
    """
    with rigged(redis_server, zoo) as rig:
        old = short_lived(zoo, 30, rig)

        assert old == tokens.get(ONE)
        assert [] == zoo.ledger
        assert old != tokens.get(ONE, fresh_for=60)


def test_a_refresh_that_fails_on_the_way_spares_a_token_that_is_good(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    Until it is over: then the caller learns why there is no other.
    """
    with rigged(redis_server, zoo, token_refresh_on_get=60) as rig:
        old = short_lived(zoo, 30, rig)
        zoo.answer_next(PROVIDER, "broken", times=2)

        assert old == tokens.get(ONE)
        short_lived(zoo, 0, rig)
        with pytest.raises(errors.ApiError):
            tokens.get(ONE)
