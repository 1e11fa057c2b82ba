"""
Tokens: kept encrypted, refreshed by one of many, and stored before any caller gets them.

::

    tokens.store("conn-1", Token(access_token=..., refresh_token=..., expires_at=...))   # after the customer has consented
    tokens.get("conn-1").access_token                                                     # for a call
    tokens.refresh("conn-1")                                                              # beat does that ahead of the expiry

What a customer consented to wins over a refresh that is under way, whichever of the two is stored first.

A token never stands in a log, an exception, a span, or the argument or result of a task: a `Token` does not show what it holds, and cannot be pickled.
Our errors are made anew at the border to the libraries that have seen one, without their texts, causes and frames.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels import errors
from celery_obs.areas.channels.api_calls.api import ApiCall, api_call
from celery_obs.areas.channels.connections.api import find_connection
from celery_obs.areas.channels.connections.events import ConnectionErrored
from celery_obs.areas.channels.connections.state import Connection, Facts, TokenExpiry
from celery_obs.areas.channels.errors import UnknownConnectionError
from celery_obs.areas.channels.pauses.state import Pauses
from celery_obs.areas.channels.sources import named
from celery_obs.exceptions import CeleryObsError, ConfigurationError, MissingExtraError
from celery_obs.runtime.hub import guarded
from celery_obs.settings.oauth import OAuthClient
from celery_obs.state.locks import Flight, Flights, FlightTimeoutError
from celery_obs.vocabulary.spec import is_utf8

from . import oauth
from .answers import Answer as TokenAnswer
from .answers import Meaning, read
from .events import TokenAtRisk, TokenRefreshed, TokenRefreshEnded, TokenRefreshStarted
from .metrics import RefreshStatus, Risk
from .oauth import ClientRefusedError, Exchanged, TokenRefusedError, TokenRequest
from .providers import Provider
from .vault import RedisTokens, Rotation, Token, TokenSource, TokenUnreadableError, Version, VersionedTokenSource, same, shown


if TYPE_CHECKING:
    from redis import Redis


__all__ = [
    "ClientRefusedError",
    "NoTokenError",
    "Provider",
    "RedisTokens",
    "Refreshed",
    "Rotation",
    "Token",
    "TokenAnswer",
    "TokenNotStoredError",
    "TokenRefusedError",
    "TokenRequest",
    "TokenSource",
    "TokenUnreadableError",
    "Tokens",
    "UnknownConnectionError",
    "VersionedTokenSource",
    "from_answer",
    "get",
    "meaning",
    "refresh",
    "rotate",
    "store",
]


# --- what can go wrong, beside what can with any channel --------------------------------------------------------------------------


class NoTokenError(CeleryObsError):
    """
    The connection has no token that can be refreshed.

    Since 0.1.
    """


class TokenNotStoredError(errors.ChannelError):
    """
    The channel gave a new token, and it could not be stored.  The old one may still be taken for a while.

    Since 0.1.
    """


# --- refreshing -------------------------------------------------------------------------------------------------------------------


class Refreshed(NamedTuple):
    """
    The result of a successful refresh.

    Attributes:
        connection_id: Whose token it is.

        channel_type: The channel.

        status:
            *refreshed*; *fresh* where the token is so new that the channel was not asked; *superseded* where another token was stored meanwhile,
            as after the customer has authorised again: that one counts.

        expires_at, lifetime: Of the token that is stored now; see `Token`.

    Since 0.1.
    """

    connection_id: str
    channel_type: str
    status: Literal["refreshed", "fresh", "superseded"]
    expires_at: float | None
    lifetime: float | None


POINTS: Final = ("begun", "read", "permitted", "intended", "asking", "answered", "understood", "stored", "noted", "cleared")
"""
The points of a refresh, in order, that a test kills it at.  Between *asking* and *stored* the channel may have a new token for us that is nowhere yet.
"""

FRESH: Final = 60.0
"""
Seconds for which a token is new, or a third of its life where that is less: calls that come late to a refresh change nothing.
"""

LEAD: Final = 15.0
"""
Seconds after which another process takes over from a process that died in the middle.
"""

PAUSE: Final = 10.0
"""
Seconds for which a token endpoint is left alone that was asked too often and did not say when to ask again.
"""

_RATE_LIMIT_WAIT: Final = 5.0
_STORE_PATIENCE: Final = 20.0
_LAST_PATIENCE: Final = 2.0
_UNSTORED_PATIENCE: Final = 600.0
_UNSTORED_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 3600.0
_LONGEST_WAIT: Final = 0.2
_LONGEST_ID: Final = 1024
_UNVERSIONED: Final = object()


def guard_of(channel: str) -> str:
    """
    Return the name that a channel's token endpoint has for its own breaker, limit and pause, in settings and commands: ``airbnb.token``.
    """
    return f"{channel}.token"


def reached(point: str) -> None:
    """
    Do nothing: tests that end a process at one of the :data:`POINTS` put something else here.
    """


class Tokens:
    """
    The tokens of one process's engine: ``engine.part(Tokens)``.

    Since 0.1.
    """

    def __init__(self, engine: engines.Engine) -> None:
        self._engine = engine
        self.unstored = _Unstored(self, engine)

    def after_fork(self) -> None:
        """
        Leave unstored tokens to the parent, which has the thread that retries.
        """
        self.unstored = _Unstored(self, self._engine)

    def flush(self, *, within: float) -> None:
        """
        Try once more to store unstored tokens, because this process is about to end.
        """
        self.unstored.flush()

    @cached_property
    def redis(self) -> Redis:
        """
        The shared state.

        Raises:
            ConfigurationError: without one, for then two processes could spend one refresh token.
        """
        if self._engine.redis is None:
            message = (
                "Tokens are refreshed by one process at a time, which needs Redis, and there is none. Set redis_url (CELERY_OBS_REDIS_URL)."
            )
            raise ConfigurationError(message)
        return self._engine.redis

    @cached_property
    def source(self) -> TokenSource:
        """
        Where tokens are kept, as the setting ``token_source`` says.

        Raises:
            ConfigurationError: if what it names is not there, or is no token source.
        """
        place = self._engine.settings.token_source
        if place is None:
            return RedisTokens(self.redis, self._engine.settings.token_keys)
        source: TokenSource = named("token_source", place, "get", "put")
        return source

    @cached_property
    def facts(self) -> Facts:
        """
        What the cluster knows of connections.
        """
        return Facts(self.redis)

    # -- for application code -----------------------------------------------------------------------------------------

    def get(self, connection_id: str, *, fresh_for: float | None = None) -> Token | None:
        """
        Return a connection's token, or None.

        Args:
            connection_id: Whose token.

            fresh_for:
                Seconds that it has to be good for: where it is not, it is refreshed first, by one of all that ask.  By default what the setting
                ``token_refresh_on_get`` says.  While that fails, a token that is not over yet is returned as it is.

        Raises:
            ChannelError, FlightTimeoutError: if a token that is over could not be refreshed.
        """
        token = _is_token(self.source.get(_checked(connection_id)))
        wanted = self._engine.settings.token_refresh_on_get if fresh_for is None else fresh_for
        if token is None or wanted is None or token.expires_at is None or token.expires_at - self._engine.clock() > wanted:
            return token
        failures: tuple[type[Exception], ...] = (CeleryObsError, *self.away)
        try:
            # One that was just given and lives for less than that is as good as it gets.
            self.refresh(connection_id)
        except failures:
            if token.expires_at <= self._engine.clock():
                raise
            return token
        return _is_token(self.source.get(connection_id))

    @cached_property
    def away(self) -> tuple[type[Exception], ...]:
        from redis.exceptions import RedisClusterException, RedisError

        return (RedisError, RedisClusterException, OSError)

    def from_answer(self, channel: str, answer: Mapping[str, Any]) -> Token:
        """
        Make a token of what the channel's token endpoint answered when the customer authorised, as its client in ``oauth_clients`` reads it.

        Raises:
            ChannelError: if there is no token in it.
            ConfigurationError: if the channel has no client.
        """
        return oauth.token_of(oauth.client_of(channel, self._engine.settings), answer, channel=channel, now=self._engine.clock())

    def meaning(self, channel: str, answer: Mapping[str, Any], *, status: int = 200) -> Meaning:
        """
        Tell what an answer of the channel's token endpoint would mean, to try out what a provider documents.

        Args:
            channel: Has a client in ``oauth_clients``; its hooks are left out.

            answer: The object in the answer.

            status: Its status code.
        """
        return read(TokenAnswer(status, {}, answer), oauth.client_of(channel, self._engine.settings).provider).meaning

    def store(self, connection_id: str, token: Token) -> None:
        """
        Store the first token of a connection, or one after the customer has authorised again; the connection is active from then on.

        It wins over a refresh that is under way.
        """
        connection = self.connection(connection_id)
        if not isinstance(token, Token):
            message = f"What is to be stored for the connection {shown(connection_id)} is of type {type(token).__name__}. Expected a celery_obs.tokens.Token."
            raise TypeError(message)
        self._store(connection, token)
        self._note(connection, token)
        self.facts.set_status(connection_id, "active")

    def _store(self, connection: Connection, token: Token) -> None:
        """
        Store a consent's token, again where a failover lost it before the replicas that are wanted have it.
        """
        source: Any = self.source
        version = source.put(connection.connection_id, token)
        by = time.monotonic() + self._engine.settings.token_replicas_timeout
        while not self.is_replicated(connection, token, by=by):
            try:
                found = source.read(connection.connection_id)
                if found is not None and found[1] > version:
                    return  # A refresh of it was quicker, or another consent.
                version = source.put(connection.connection_id, token)
            except self.away:
                if time.monotonic() >= by:
                    raise

    def is_replicated(self, connection: Connection, token: Token, *, by: float) -> bool:
        """
        Wait for the replicas that the settings want; False where the token was lost, as after a failover, or Redis is away.

        Replicas that do not show up by *by* are told and not waited for any longer.
        """
        source, wanted = self.source, self._engine.settings.token_replicas
        if not wanted or not isinstance(source, RedisTokens):
            return True
        while True:
            try:
                found = source.replicated(connection.connection_id, token, replicas=wanted, within=_LONGEST_WAIT)
            except self.away:
                time.sleep(_LONGEST_WAIT)
                return False
            if found is None or found >= wanted:
                return found is not None
            if time.monotonic() >= by:
                self._engine.hub.emit(TokenAtRisk(connection.channel_type, connection.connection_id, "not_replicated"))
                return True

    def held(self, connection_id: str) -> Held:
        """
        Return what is stored for a connection, with what tells it from a later one.
        """
        source: Any = self.source
        if not _compares(source):
            return Held(_is_token(source.get(connection_id)), _UNVERSIONED)
        found = source.read(connection_id)
        return Held(None, None) if found is None else Held(_is_token(found[0]), found[1])

    def replace(self, connection_id: str, token: Token, held: Held) -> bool:
        """
        Store a token in place of what was *held*; return False where something newer is stored by now.
        """
        source: Any = self.source
        if held.token is not None:
            if held.version is not _UNVERSIONED:
                return bool(source.replace(connection_id, token, held.version))
            if _is_newer(_is_token(source.get(connection_id)), held.token, token):
                return False
        source.put(connection_id, token)
        return True

    def reconnect(self) -> None:
        """
        Have the token source take new connections for the next try: one that is dead stays so.
        """
        again = getattr(self.source, "reconnect", None)
        if not callable(again):
            # Django keeps a connection until a request or a task ends, and this one goes on.
            again = getattr(sys.modules.get("django.db"), "close_old_connections", None)
        if again is not None:
            with contextlib.suppress(Exception):
                again()

    @cached_property
    def park(self) -> RedisTokens | None:
        """
        Where a token goes that a source of the user's could not store; None where that cannot be.
        """
        if isinstance(self.source, RedisTokens) or not self._engine.settings.token_keys:
            return None
        return RedisTokens(self.redis, self._engine.settings.token_keys)

    def rotate(self) -> Rotation:
        """
        Encrypt the tokens of all connections anew, with the first of ``token_keys``.

        Raises:
            ConfigurationError: where tokens are kept elsewhere.
        """
        source = self.source
        if not isinstance(source, RedisTokens):
            message = "rotate() works only with the built-in token store, and the setting token_source names another one. Rotate the tokens there."
            raise ConfigurationError(message)
        return source.rotate(self.facts.connections())

    def connection(self, connection_id: str) -> Connection:
        """
        Return a connection.

        Raises:
            UnknownConnectionError: if it is not registered.
        """
        _ = self.redis  # Without it, that is what is wrong, and not the id.
        return find_connection(self._engine, _checked(connection_id))

    def refresh(self, connection_id: str, *, force: bool = False, wait: float = 30.0) -> Refreshed:
        """
        Get a new token for a connection, and store it.  Of all callers at a time one does it, and the others get its result or its error.

        Args:
            connection_id: Whose token.

            force: Refresh even if the token is new.

            wait: Seconds to wait for another process that is refreshing it.

        Raises:
            ChannelError: of one class or another, as the channel's answer was; see `errors`, `TokenRefusedError` and `ClientRefusedError`.
            UnknownConnectionError, NoTokenError, TokenUnreadableError: when there is nothing to refresh.
            FlightTimeoutError: if another process was not done in time.
        """
        connection = self.connection(connection_id)
        attempt = _Refresh(self._engine, self, connection, force=force)
        landing = Flights(self.redis, ttl=LEAD).fly(f"token:{connection_id}", attempt, wait=wait)
        if attempt.failure is not None:
            raise attempt.failure
        return _outcome(connection, landing.result)

    def note(self, connection: Connection, token: Token) -> None:
        """
        Let the cluster know how long a stored token is good for.  What is stored counts; when this fails, the next scan repairs it.
        """
        with guarded(self._engine.hub.on_error, "sync.tokens"):  # The token is safe, and that is what the caller is told.
            self._note(connection, token)

    def _note(self, connection: Connection, token: Token) -> None:
        self.facts.token_stored(connection.connection_id, TokenExpiry(token.expires_at, token.lifetime))


class Held(NamedTuple):
    """
    What was stored when a refresh began.

    Attributes:
        token: None where there was none.

        version: See `VersionedTokenSource`; for one that cannot compare, something that says so.
    """

    token: Token | None
    version: Version


class _Unstored:
    """
    New tokens that could not be stored anywhere, in the memory of the process that got them, with a thread that goes on trying.

    Threads: safe.  Forks: a child begins with none.
    """

    def __init__(self, tokens: Tokens, engine: engines.Engine) -> None:
        self._tokens = tokens
        self._engine = engine
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Connection, Token, Held, float]] = {}
        self._thread: threading.Thread | None = None

    def has(self, connection_id: str) -> bool:
        """
        Tell whether there is one of this connection's.
        """
        return connection_id in self._kept

    def keep(self, connection: Connection, token: Token, held: Held) -> None:
        """
        Go on trying.
        """
        with self._lock:
            self._kept[connection.connection_id] = (connection, token, held, time.monotonic() + _UNSTORED_PATIENCE)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="celery_obs.unstored_tokens", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """
        Try once more; what is left is lost, and told.
        """
        with self._lock:
            self._try_all(last=True)

    def _run(self) -> None:
        while True:
            time.sleep(_UNSTORED_PAUSE)
            with self._lock:
                self._try_all(last=False)
                if not self._kept:
                    self._thread = None
                    return

    def _try_all(self, *, last: bool) -> None:
        for connection_id, (connection, token, held, until) in list(self._kept.items()):
            try:
                if self._tokens.replace(connection_id, token, held):
                    self._tokens.note(connection, token)
                # Another process may have asked with the old one meanwhile.
                self._tokens.facts.mend_status(connection_id)
            except Exception:  # noqa: BLE001 -- a store of the application's; that it fails was told.
                self._tokens.reconnect()
                if not last and time.monotonic() < until:
                    continue
                self._engine.hub.emit(TokenAtRisk(connection.channel_type, connection_id, "lost"))
            del self._kept[connection_id]


class _Refresh:
    """
    One refresh, done by the leader of a flight.

    Attributes:
        failure: What the leader has to raise; None when all is well.
    """

    def __init__(self, engine: engines.Engine, tokens: Tokens, connection: Connection, *, force: bool) -> None:
        self.failure: errors.ChannelError | None = None
        self._status: RefreshStatus | Literal["fresh"] = "fresh"
        self._engine = engine
        self._tokens = tokens
        self._connection = connection
        self._force = force
        self._refused: Held | None = None
        self._interruption: Exception | None = None

    def __call__(self, flight: Flight) -> str:
        """
        Do it, and say how it ended: what those who wait get.
        """
        hub = self._engine.hub
        started = TokenRefreshStarted(self._connection.channel_type, self._connection.connection_id)
        hub.emit(started)
        try:
            result = self._refresh(flight)
        except BaseException as exc:
            hub.emit(TokenRefreshEnded(started, "abandoned", type(exc).__name__))
            raise
        hub.emit(TokenRefreshEnded(started, self._status, "" if self.failure is None else type(self.failure).__name__))
        return result

    def _refresh(self, flight: Flight) -> str:
        reached("begun")
        began = time.monotonic()
        try:
            held = self._held()
            reached("read")
            if not self._force and held.token is not None and _is_fresh(held.token, self._engine.clock()):
                self._tokens.note(self._connection, held.token)  # Who stored it may have died right after.
                self._clear()
                return _success_result(status="fresh", token=held.token)
            return self._exchange(held, flight, began)
        except errors.ChannelError as exc:
            self.failure = exc
            self._failed(exc, began)
            return _failure_result(exc)
        except (ConfigurationError, MissingExtraError):
            self._quietly(lambda: self._tokens.facts.refresh_ended(self._connection.connection_id))  # Nothing was sent.
            raise

    def _held(self) -> Held:
        """
        Return what is stored; what could not be stored at the last refresh is stored first.

        Raises:
            NoTokenError: if there is nothing to refresh.
            TokenNotStoredError: if a parked token cannot be stored now either: the channel is not asked for another one meanwhile.
        """
        tokens, connection_id = self._tokens, self._connection.connection_id
        if tokens.unstored.has(connection_id):
            message = (
                f"The last new token of the connection {shown(connection_id)} is not stored yet. Nothing to do: this process keeps trying."
            )
            raise TokenNotStoredError(message, channel=self._connection.channel_type)
        held = tokens.held(connection_id)
        parked = None if tokens.park is None or held.token is None else tokens.park.parked(connection_id, instead_of=held.token)
        if parked is not None and tokens.park is not None:
            unstored = self._keep(parked, held)
            if isinstance(unstored, TokenNotStoredError):
                raise _kept_in_redis(unstored)
            tokens.park.unpark(connection_id)
            held = tokens.held(connection_id)
        client = (self._engine.settings.oauth_clients or {}).get(self._connection.channel_type)
        for_itself = client is not None and not client.has_refresh_tokens
        if not for_itself and (held.token is None or not held.token.refresh_token):
            message = (
                f"The connection {shown(connection_id)} has no token that can be refreshed. "
                "Expected one with a refresh_token, stored by celery_obs.tokens.store(); let the customer authorise again."
            )
            raise NoTokenError(message)
        return held

    def _exchange(self, held: Held, flight: Flight, began: float) -> str:
        """
        Trade the refresh token, unless the channel says that it is over and another one is stored by now.
        """
        try:
            new, status = self._renew(held, flight)
        except TokenRefusedError as exc:
            newer = self._newer(held)
            if newer is None:
                self._refused = held
                raise
            self._emit("failure", began, error=type(exc).__name__)
            self._settle(newer)
            return _success_result(status="superseded", token=newer)
        self._emit("success", began)
        return _success_result(status=status, token=new)

    def _renew(self, held: Held, flight: Flight) -> tuple[Token, Literal["refreshed", "superseded"]]:
        """
        Trade the refresh token, and store what came of it before anything else.
        """
        connection = self._connection
        client = oauth.client_of(connection.channel_type, self._engine.settings)
        url = oauth.url_of(client, connection.channel_type, lambda: self._tokens.facts.url_parameters(connection.connection_id))
        self._check_pause()
        with self._call(client) as call:
            reached("permitted")
            self._tokens.facts.refresh_began(connection.connection_id, at=self._engine.clock())
            reached("intended")
            if not flight.is_ours:
                message = "Another process has taken over the refresh, because this one did not respond for a while. Nothing to do: its result counts."
                raise FlightTimeoutError(message)
            about = Exchanged(
                connection,
                url,
                call.response,
                reached,
                lambda exc: self._engine.hub.on_error(exc, component="sync.tokens"),
            )
            new = oauth.renew(client, held.token if client.has_refresh_tokens else None, about, now=self._engine.clock)
            # Before any observer is told of the call, which may take a while: until it is stored, the token is nowhere.
            kept = self._keep(new, held)
        unstored = self._parked(new, held, kept) if isinstance(kept, TokenNotStoredError) else None
        if self._interruption is not None:
            raise self._interruption
        if unstored is not None:
            raise unstored  # Not in the block: the channel is well.
        stored = new if kept else self._tokens.held(connection.connection_id).token
        if stored is None:
            self._clear()
            message = f"The token of the connection {shown(connection.connection_id)} was deleted while it was refreshed. Nothing to do."
            raise NoTokenError(message)
        self._settle(stored)
        return stored, "refreshed" if kept else "superseded"

    def _settle(self, token: Token) -> None:
        """
        Note what is stored, and that the connection is well.
        """
        self._tokens.note(self._connection, token)
        reached("noted")
        self._clear()
        reached("cleared")

    def _call(self, client: OAuthClient) -> ApiCall:
        """
        Return the block of a call of the token endpoint, which a breaker and a limit of its own have to let through: the customer's data is another
        matter, and a channel that is overloaded there may well give tokens.
        """
        channel, connection_id = self._connection.channel_type, self._connection.connection_id
        return api_call(
            channel, oauth.endpoint_of(client), "POST", connection_id=connection_id, wait=_RATE_LIMIT_WAIT, guarded_as=guard_of(channel)
        )

    # -- the pause: what a channel said to one of us, all of us keep --------------------------------------------------

    def _check_pause(self) -> None:
        """
        Ask whether the token endpoint may be asked.

        Raises:
            RateLimitError: if it said a moment ago that it may not, or an operator did.
        """
        name = guard_of(self._connection.channel_type)
        pauses = Pauses(self._tokens.redis, clock=self._engine.clock)
        info = pauses.paused([name]).get(name)
        if info is None:
            return
        left = None if info.until is None else max(0.0, info.until - self._engine.clock())
        until = "until it is resumed" if left is None else f"for another {left:.0f} s"
        message = f"The token endpoint {name!r:.100} is paused {until}, so it was not asked. Nothing to do: it is tried again after that."
        raise errors.RateLimitError(message, channel=self._connection.channel_type, retry_after=left)

    def _pause_everywhere(self, failure: errors.ChannelError) -> None:
        """
        Have all processes wait for as long as the channel said to one, unless they wait for longer already.
        """
        throttled = isinstance(failure, errors.RateLimitError)
        if failure.status_code is None or not (throttled or failure.retry_after):
            return
        seconds = min(failure.retry_after or PAUSE, _LONGEST_PAUSE)
        name = guard_of(self._connection.channel_type)
        pauses = Pauses(self._tokens.redis, clock=self._engine.clock)
        info = pauses.paused([name]).get(name)
        if info is None or (info.until is not None and info.until < self._engine.clock() + seconds):
            pauses.pause(name, actor="celery_obs", reason=f"the token endpoint answered {failure.status_code}", seconds=seconds)

    # -- storing ------------------------------------------------------------------------------------------------------

    def _keep(self, new: Token, held: Held) -> bool | TokenNotStoredError:
        """
        Store the token, however often it takes: the channel may have taken the old one back already.

        Returns:
            Whether it is stored: False where a newer one is; else what went wrong at last.
        """
        deadline, pause = time.monotonic() + _STORE_PATIENCE, 0.05
        replicated_by = time.monotonic() + self._engine.settings.token_replicas_timeout
        while True:
            kept = self._try_to_keep(new, held)
            if kept is False or (kept is True and self._tokens.is_replicated(self._connection, new, by=replicated_by)):
                if kept:
                    reached("stored")
                return kept
            if time.monotonic() + pause > deadline:
                message = (
                    f"The channel gave a new token for the connection {shown(self._connection.connection_id)}, and it could not be stored "
                    f"within {_STORE_PATIENCE:g} s ({kept}). Find out what is wrong with the token source, then refresh again."
                )
                return TokenNotStoredError(message, channel=self._connection.channel_type)
            deadline = min(deadline, time.monotonic() + self._sleep(pause))
            pause = min(2 * pause, 1.0)
            if kept is not True:
                self._tokens.reconnect()

    def _sleep(self, seconds: float) -> float:
        """
        Wait, and return the seconds that are left for storing: few when a time limit strikes, for the next one kills.
        """
        try:
            time.sleep(seconds)
        except Exception as exc:  # noqa: BLE001 -- what a soft time limit raises; the token comes first, and then that.
            self._interruption = exc
        return _STORE_PATIENCE if self._interruption is None else _LAST_PATIENCE

    def _try_to_keep(self, new: Token, held: Held) -> bool | str:
        """
        Store the token, or return the class of what went wrong; its text may hold what could not be stored.
        """
        try:
            return self._tokens.replace(self._connection.connection_id, new, held)
        except Exception as exc:  # noqa: BLE001 -- a user's store, and a soft time limit: the token comes first.
            return type(exc).__name__

    def _parked(self, new: Token, held: Held, unstored: TokenNotStoredError) -> TokenNotStoredError:
        """
        Keep what could not be stored: in Redis, where the next refresh looks, else in this process until it can be; return the error that says so.
        """
        park = self._tokens.park
        self._risk("parked")
        if park is not None and held.token is not None:
            with contextlib.suppress(Exception):
                park.park(self._connection.connection_id, new, instead_of=held.token)
                return _kept_in_redis(unstored)
        self._tokens.unstored.keep(self._connection, new, held)
        message = f"{unstored} Until then this process keeps the token, and keeps trying for {_UNSTORED_PATIENCE / 60:g} minutes."
        return TokenNotStoredError(message, channel=self._connection.channel_type)

    def _risk(self, risk: Risk) -> None:
        self._engine.hub.emit(TokenAtRisk(self._connection.channel_type, self._connection.connection_id, risk))

    # -- how it ended -------------------------------------------------------------------------------------------------

    def _newer(self, held: Held) -> Token | None:
        """
        Return what is stored in place of what was *held*; None where that is it, or cannot be told.
        """
        for last in (False, True):
            try:
                found = self._tokens.held(self._connection.connection_id).token
            except Exception as exc:  # noqa: BLE001 -- a store of the application's.
                if last:
                    self._engine.hub.on_error(_silenced(exc), component="sync.tokens")
                self._tokens.reconnect()
            else:
                changed = found is not None and held.token is not None and found.refresh_token != held.token.refresh_token
                return found if changed else None
        return None

    def _clear(self) -> None:
        """
        Note that nothing is open, and that the connection is well again.  The token is safe; what fails here, the next scan repairs.
        """
        facts, connection = self._tokens.facts, self._connection
        if connection.status == "error":
            self._quietly(lambda: facts.mend_status(connection.connection_id))
        self._quietly(lambda: facts.refresh_ended(connection.connection_id))

    def _quietly(self, write: Callable[[], object]) -> None:
        with guarded(self._engine.hub.on_error, "sync.tokens"):  # The caller learns what the channel said.
            write()

    def _failed(self, failure: errors.ChannelError, began: float) -> None:
        facts, connection_id = self._tokens.facts, self._connection.connection_id
        refused = isinstance(failure, TokenRefusedError)
        if refused:
            self._quietly(self._mark)
        if not isinstance(failure, (errors.ApiError, errors.NetworkError, TokenNotStoredError)):
            self._quietly(lambda: facts.refresh_ended(connection_id))
        self._quietly(lambda: self._pause_everywhere(failure))
        self._emit("refused" if refused else "held_back" if _is_held_back(failure) else "failure", began, error=type(failure).__name__)
        if not isinstance(failure, (errors.CircuitOpenError, errors.RateLimitError)):
            self._engine.hub.emit(ConnectionErrored(self._connection.channel_type, connection_id))

    def _mark(self) -> None:
        """
        Say that the connection waits for its customer, who may have been quicker: then that is taken back.
        """
        facts, connection_id = self._tokens.facts, self._connection.connection_id
        facts.set_status(connection_id, "error")
        if self._refused is not None and self._newer(self._refused) is not None:
            facts.mend_status(connection_id)

    def _emit(self, status: RefreshStatus, began: float, *, error: str = "") -> None:
        self._status = status
        channel, connection_id = self._connection.channel_type, self._connection.connection_id
        self._engine.hub.emit(TokenRefreshed(channel, connection_id, status, time.monotonic() - began, error))


def _kept_in_redis(unstored: TokenNotStoredError) -> TokenNotStoredError:
    message = f"{unstored} Until then the token is kept encrypted in Redis, and the next refresh stores it."
    return TokenNotStoredError(message, channel=unstored.channel)


def _is_held_back(failure: errors.ChannelError) -> bool:
    """
    Tell whether the token endpoint was not asked, because of our own breaker, rate limit or pause.
    """
    return isinstance(failure, errors.HeldBackError) or (isinstance(failure, errors.RateLimitError) and failure.status_code is None)


def _silenced(error: Exception) -> Exception:
    """
    Return an error that may be told of one of a store's, whose text and frames may hold a token.
    """
    return RuntimeError(f"The token source failed ({type(error).__name__}). Expected it to return what is stored.")


def _compares(source: Any) -> bool:
    return all(callable(getattr(source, method, None)) for method in ("read", "replace"))


def _is_token(found: Any) -> Token | None:
    """
    Return what a source gave if it is a token, or None.

    Raises:
        ConfigurationError: if it is another thing; it is not shown.
    """
    if found is None or isinstance(found, Token):
        return found
    message = f"The setting token_source gave a {type(found).__name__}. Expected a celery_obs.tokens.Token, or None."
    raise ConfigurationError(message)


def _is_newer(found: Token | None, held: Token, new: Token) -> bool:
    """
    Tell whether what a source holds by now is something newer than what was *held*, of which *new* was made; None is newer: it was deleted.
    """
    if found is None:
        return True
    if same(found, held) or same(found, new):
        return False
    # An older one is what a failover of the source's brought back.
    return found.issued_at is None or held.issued_at is None or found.issued_at >= held.issued_at


def _is_fresh(token: Token, now: float) -> bool:
    if token.issued_at is None or (token.expires_at is not None and token.expires_at <= now):
        return False
    # Either way: the clock of the process that got it may be ahead of ours.
    return abs(now - token.issued_at) < min(FRESH, (token.lifetime or math.inf) / 3)


# --- what those who wait are told -------------------------------------------------------------------------------------------------

_FAILURES: Final[Mapping[str, type[errors.ChannelError]]] = MappingProxyType(
    {
        each.__name__: each
        for each in (
            errors.ApiError,
            errors.ApiTimeoutError,
            errors.AuthError,
            errors.CircuitOpenError,
            errors.HeldBackError,
            errors.LimitReachedError,
            errors.NetworkError,
            errors.RateLimitError,
            errors.ValidationError,
            ClientRefusedError,
            TokenNotStoredError,
            TokenRefusedError,
        )
    }
)


def _success_result(status: Literal["refreshed", "fresh", "superseded"], token: Token) -> str:
    return json.dumps({"status": status, "expires_at": token.expires_at, "lifetime": token.lifetime})


def _failure_result(failure: errors.ChannelError) -> str:
    return json.dumps(
        {
            "failed": type(failure).__name__,
            "message": str(failure),
            "status_code": failure.status_code,
            "retry_after": failure.retry_after,
        }
    )


def _outcome(connection: Connection, result: str) -> Refreshed:
    """
    Turn what the leader said into a result.

    Raises:
        ChannelError: what the leader has met.
    """
    decoded = json.loads(result)
    if "failed" in decoded:
        kind = _FAILURES.get(decoded["failed"], errors.ApiError)
        raise kind(
            decoded["message"], channel=connection.channel_type, status_code=decoded["status_code"], retry_after=decoded["retry_after"]
        )
    return Refreshed(connection.connection_id, connection.channel_type, decoded["status"], decoded["expires_at"], decoded["lifetime"])


# --- helpers ----------------------------------------------------------------------------------------------------------------------


def _checked(connection_id: Any) -> str:
    if isinstance(connection_id, str) and 0 < len(connection_id) <= _LONGEST_ID and is_utf8(connection_id):
        return connection_id
    what = f"{len(connection_id)} characters long" if isinstance(connection_id, str) else f"of type {type(connection_id).__name__}"
    message = f"The connection id {shown(connection_id)} is {what}. Expected a text of 1 to {_LONGEST_ID} characters."
    raise UnknownConnectionError(message)


# --- in this process --------------------------------------------------------------------------------------------------------------


def get(connection_id: str, *, fresh_for: float | None = None) -> Token | None:
    """
    Return a connection's token, or None; one that is about to run out is refreshed first where that is wanted, see `Tokens.get`.  Since 0.1.
    """
    return engines.current().part(Tokens).get(connection_id, fresh_for=fresh_for)


def from_answer(channel: str, answer: Mapping[str, Any]) -> Token:
    """
    Make a token of what a channel's token endpoint answered when the customer authorised; see `Tokens.from_answer`.  Since 0.1.
    """
    return engines.current().part(Tokens).from_answer(channel, answer)


def meaning(channel: str, answer: Mapping[str, Any], *, status: int = 200) -> Meaning:
    """
    Tell what an answer of a channel's token endpoint would mean; see `Tokens.meaning`.  Since 0.1.
    """
    return engines.current().part(Tokens).meaning(channel, answer, status=status)


def store(connection_id: str, token: Token) -> None:
    """
    Store a connection's first token, or one after the customer has authorised again; see `Tokens.store`.  Since 0.1.
    """
    engines.current().part(Tokens).store(connection_id, token)


def refresh(connection_id: str, *, force: bool = False, wait: float = 30.0) -> Refreshed:
    """
    Get a new token for a connection, and store it; see `Tokens.refresh`.  Since 0.1.
    """
    return engines.current().part(Tokens).refresh(connection_id, force=force, wait=wait)


def rotate() -> Rotation:
    """
    Encrypt the tokens of all connections anew, with the first of ``token_keys``; see `Tokens.rotate`.  Since 0.1.
    """
    return engines.current().part(Tokens).rotate()
