"""
Tokens: kept encrypted, refreshed by one of many, and stored before anybody hears that it worked.

::

    tokens.store("conn-1", Token(access_token=..., refresh_token=..., expires_at=...))   # after the customer has consented
    tokens.get("conn-1").access_token                                                     # for a call
    tokens.refresh("conn-1")                                                              # beat does that ahead of the expiry

A token never stands in a log, an exception, a span, or the argument or result of a task: a `Token` does not show what it holds, and cannot be pickled.
Our errors are made anew at the border to the libraries that have seen one, without their texts, causes and frames.
"""

from __future__ import annotations

import json
import math
import time

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from celery_obs.exceptions import CeleryObsError, ConfigurationError
from celery_obs.settings import OAuthClient
from celery_obs.state.facts import Connection, Facts, TokenExpiry
from celery_obs.state.locks import Flight, Flights, FlightTimeoutError
from celery_obs.vocabulary.connections import ConnectionErrored
from celery_obs.vocabulary.tokens import RefreshStatus, TokenRefreshed, TokenRefreshEnded, TokenRefreshStarted

from . import engine as engines
from . import errors, oauth
from .api_calls import ApiCall, api_call
from .connections import find_connection
from .errors import UnknownConnectionError
from .oauth import ClientRefusedError, TokenRefusedError
from .sources import named
from .vault import RedisTokens, Rotation, Token, TokenSource, TokenUnreadableError, shown


if TYPE_CHECKING:
    from redis import Redis


__all__ = [
    "POINTS",
    "ClientRefusedError",
    "NoTokenError",
    "RedisTokens",
    "Refreshed",
    "Rotation",
    "Token",
    "TokenNotStoredError",
    "TokenRefusedError",
    "TokenSource",
    "TokenUnreadableError",
    "Tokens",
    "UnknownConnectionError",
    "get",
    "refresh",
    "rotate",
    "store",
]


# --- what can go wrong, beside what can with any channel --------------------------------------------------------------------------


class NoTokenError(CeleryObsError):
    """
    The connection has no token, or none that can be refreshed.
    """


class TokenNotStoredError(errors.ChannelError):
    """
    The channel gave a new token, and it could not be stored.  The old one may still be taken for a while.
    """


# --- refreshing -------------------------------------------------------------------------------------------------------------------


class Refreshed(NamedTuple):
    """
    How a refresh ended well.

    Attributes:
        connection_id: Whose token it is.

        channel_type: The channel.

        status: *refreshed*, or *fresh* where the token is so new that the channel was not asked.

        expires_at, lifetime: Of the token that is stored now; see `Token`.
    """

    connection_id: str
    channel_type: str
    status: Literal["refreshed", "fresh"]
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
Seconds after which somebody else takes over from a process that died in the middle.
"""

_RATE_LIMIT_WAIT: Final = 5.0
_STORE_PATIENCE: Final = 20.0
_LONGEST_ID: Final = 1024


def reached(point: str) -> None:
    """
    Do nothing: tests that end a process at one of the :data:`POINTS` put something else here.
    """


class Tokens:
    """
    The tokens of one process's engine: ``engine.part(Tokens)``.
    """

    def __init__(self, engine: engines.Engine) -> None:
        self._engine = engine

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

    def get(self, connection_id: str) -> Token | None:
        """
        Return a connection's token, or None.
        """
        return self.source.get(_checked(connection_id))

    def store(self, connection_id: str, token: Token) -> None:
        """
        Store the first token of a connection, or one after the customer has authorised again; the connection is active from then on.
        """
        connection = self.connection(connection_id)
        self.source.put(connection_id, token)
        self._note(connection, token)
        self.facts.set_status(connection_id, "active")

    def rotate(self) -> Rotation:
        """
        Encrypt the tokens of all connections anew, with the first of ``token_keys``.

        Raises:
            ConfigurationError: where tokens are kept elsewhere.
        """
        source = self.source
        if not isinstance(source, RedisTokens):
            message = "The setting token_source keeps the tokens in a place of yours. Expected none: only tokens in Redis are encrypted with token_keys."
            raise ConfigurationError(message)
        return source.rotate(self.facts.connections())

    def connection(self, connection_id: str) -> Connection:
        """
        Return what is known of a connection.

        Raises:
            UnknownConnectionError: if that is nothing.
        """
        _ = self.redis  # Without it, that is what is wrong, and not the id.
        return find_connection(self._engine, _checked(connection_id))

    def refresh(self, connection_id: str, *, force: bool = False, wait: float = 30.0) -> Refreshed:
        """
        Get a new token for a connection, and store it.  Of all that ask at a time one does it, and the others get its result or its error.

        Args:
            connection_id: Whose token.

            force: Ask the channel, however new the token is.

            wait: Seconds to wait for somebody else who is at it.

        Raises:
            ChannelError: of one class or another, as the channel's answer was; see `errors`, `TokenRefusedError` and `ClientRefusedError`.
            UnknownConnectionError, NoTokenError, TokenUnreadableError: when there is nothing to refresh.
            FlightTimeoutError: if somebody else was not done in time.
        """
        connection = self.connection(connection_id)
        attempt = _Attempt(self._engine, self, connection, force=force)
        landing = Flights(self.redis, ttl=LEAD).fly(f"token:{connection_id}", attempt, wait=wait)
        if attempt.failure is not None:
            raise attempt.failure
        return _outcome(connection, landing.result)

    def note(self, connection: Connection, token: Token) -> None:
        """
        Let the cluster know how long a stored token is good for.  What is stored counts; when this fails, the next scan mends it.
        """
        try:
            self._note(connection, token)
        except Exception as exc:  # noqa: BLE001 -- the token is safe, and that is what the caller is told.
            self._engine.hub.on_error(exc, component="sync.tokens")

    def _note(self, connection: Connection, token: Token) -> None:
        self.facts.token_stored(connection.connection_id, TokenExpiry(token.expires_at, token.lifetime))


class _Attempt:
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

    def __call__(self, flight: Flight) -> str:
        """
        Do it, and say how it ended: what those who wait get.
        """
        hub = self._engine.hub
        started = TokenRefreshStarted(self._connection.channel_type, self._connection.connection_id)
        hub.emit(started)
        try:
            told = self._refresh(flight)
        except BaseException as exc:
            hub.emit(TokenRefreshEnded(started, "abandoned", type(exc).__name__))
            raise
        hub.emit(TokenRefreshEnded(started, self._status, "" if self.failure is None else type(self.failure).__name__))
        return told

    def _refresh(self, flight: Flight) -> str:
        reached("begun")
        connection, tokens = self._connection, self._tokens
        old = tokens.source.get(connection.connection_id)
        reached("read")
        if old is None or not old.refresh_token:
            message = (
                f"The connection {shown(connection.connection_id)} has no token that can be refreshed. "
                "Expected one with a refresh_token, stored by celery_obs.tokens.store(); let the customer authorise again."
            )
            raise NoTokenError(message)
        if not self._force and _is_fresh(old, self._engine.clock()):
            tokens.note(connection, old)  # Who stored it may have died right after.
            self._clear()
            return _told(status="fresh", token=old)
        began = time.monotonic()
        try:
            new = self._renew(old, flight)
        except errors.ChannelError as exc:
            self.failure = exc
            self._failed(exc, began)
            return _told_failure(exc)
        self._emit("success", began)
        return _told(status="refreshed", token=new)

    def _renew(self, old: Token, flight: Flight) -> Token:
        """
        Trade the refresh token, and store what came of it before anything else.
        """
        connection = self._connection
        client = oauth.client_of(connection.channel_type, self._engine.settings)
        unstored = None
        with self._call(client) as call:
            reached("permitted")
            self._tokens.facts.refresh_began(connection.connection_id, at=self._engine.clock())
            reached("intended")
            if not flight.is_ours:
                message = "Somebody else has taken over the refresh, because this process did not show up for a while. Nothing to do: theirs counts."
                raise FlightTimeoutError(message)
            new = oauth.renew(client, old, channel=connection.channel_type, now=self._engine.clock, answered=call.response, reached=reached)
            # Before anybody is told of the call, which may take a while: until it is stored, the token is nowhere.
            unstored = self._keep(new)
        if unstored is not None:
            raise unstored  # Not in the block: the channel is well.
        self._tokens.note(connection, new)
        reached("noted")
        self._clear()
        reached("cleared")
        return new

    def _call(self, client: OAuthClient) -> ApiCall:
        """
        Return the block of a call of the token endpoint, which the breaker and the limiter have to let through.
        """
        channel, connection_id = self._connection.channel_type, self._connection.connection_id
        return api_call(channel, oauth.endpoint_of(client), "POST", connection_id=connection_id, wait=_RATE_LIMIT_WAIT)

    def _keep(self, new: Token) -> TokenNotStoredError | None:
        """
        Store the token, however often it takes: the channel may have taken the old one back already.  Returns what went wrong at last.
        """
        deadline, pause = time.monotonic() + _STORE_PATIENCE, 0.05
        while True:
            failed = self._try_to_keep(new)
            if failed is None:
                reached("stored")
                return None
            if time.monotonic() + pause > deadline:
                message = (
                    f"The channel gave a new token for the connection {shown(self._connection.connection_id)}, and it could not be stored "
                    f"within {_STORE_PATIENCE:g} s ({failed}). See what is wrong with the token source; then refresh again, for the channel may "
                    "still take the old one."
                )
                return TokenNotStoredError(message, channel=self._connection.channel_type)
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _try_to_keep(self, new: Token) -> str | None:
        """
        Store the token, or return the class of what went wrong; its text may hold what could not be stored.
        """
        try:
            self._tokens.source.put(self._connection.connection_id, new)
        except Exception as exc:  # noqa: BLE001 -- anybody's store, and a soft time limit: the token comes first.
            return type(exc).__name__
        return None

    def _clear(self) -> None:
        """
        Note that nothing is open, and that the connection is well again.
        """
        facts, connection = self._tokens.facts, self._connection
        try:
            if connection.status == "error":
                facts.set_status(connection.connection_id, "active")
            facts.refresh_ended(connection.connection_id)
        except Exception as exc:  # noqa: BLE001 -- the token is safe; the next scan mends the rest.
            self._engine.hub.on_error(exc, component="sync.tokens")

    def _failed(self, failure: errors.ChannelError, began: float) -> None:
        facts, connection = self._tokens.facts, self._connection
        refused = isinstance(failure, TokenRefusedError)
        try:
            if refused:
                facts.set_status(connection.connection_id, "error")
            if not isinstance(failure, (errors.ApiError, errors.NetworkError, TokenNotStoredError)):
                facts.refresh_ended(connection.connection_id)
        except Exception as exc:  # noqa: BLE001 -- the caller learns what the channel said.
            self._engine.hub.on_error(exc, component="sync.tokens")
        self._emit("refused" if refused else "failure", began, error=type(failure).__name__)
        if not isinstance(failure, (errors.CircuitOpenError, errors.RateLimitError)):
            self._engine.hub.emit(ConnectionErrored(connection.channel_type, connection.connection_id))

    def _emit(self, status: RefreshStatus, began: float, *, error: str = "") -> None:
        self._status = status
        channel, connection_id = self._connection.channel_type, self._connection.connection_id
        self._engine.hub.emit(TokenRefreshed(channel, connection_id, status, time.monotonic() - began, error))


def _is_fresh(token: Token, now: float) -> bool:
    if token.issued_at is None or (token.expires_at is not None and token.expires_at <= now):
        return False
    # Either way: the clock of whoever got it may be ahead of ours.
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


def _told(status: Literal["refreshed", "fresh"], token: Token) -> str:
    return json.dumps({"status": status, "expires_at": token.expires_at, "lifetime": token.lifetime})


def _told_failure(failure: errors.ChannelError) -> str:
    return json.dumps(
        {
            "failed": type(failure).__name__,
            "message": str(failure),
            "status_code": failure.status_code,
            "retry_after": failure.retry_after,
        }
    )


def _outcome(connection: Connection, told: str) -> Refreshed:
    """
    Turn what the leader said into a result.

    Raises:
        ChannelError: what the leader has met.
    """
    said = json.loads(told)
    if "failed" in said:
        kind = _FAILURES.get(said["failed"], errors.ApiError)
        raise kind(said["message"], channel=connection.channel_type, status_code=said["status_code"], retry_after=said["retry_after"])
    return Refreshed(connection.connection_id, connection.channel_type, said["status"], said["expires_at"], said["lifetime"])


# --- helpers ----------------------------------------------------------------------------------------------------------------------


def _checked(connection_id: Any) -> str:
    if (
        isinstance(connection_id, str)
        and 0 < len(connection_id) <= _LONGEST_ID
        and connection_id.encode(errors="replace").decode() == connection_id
    ):
        return connection_id
    what = f"{len(connection_id)} characters long" if isinstance(connection_id, str) else f"of type {type(connection_id).__name__}"
    message = f"The connection id {shown(connection_id)} is {what}. Expected a text of 1 to {_LONGEST_ID} characters."
    raise UnknownConnectionError(message)


# --- in this process --------------------------------------------------------------------------------------------------------------


def get(connection_id: str) -> Token | None:
    """
    Return a connection's token, or None; see `Tokens.get`.  Since 0.1.
    """
    return engines.current().part(Tokens).get(connection_id)


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
