"""
What a channel gave us for a connection, and where that is kept: as a `Token`, which shows no secret, in a `TokenSource`.
"""

from __future__ import annotations

import hashlib
import json
import math

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol, TypeAlias

from celery_obs.areas.channels.times import time_of, wrong_type
from celery_obs.exceptions import CeleryObsError, ConfigurationError, MissingExtraError
from celery_obs.settings import Secret
from celery_obs.state import keys
from celery_obs.state.scripts import TIME, Script, Scripts, call, text


if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet
    from redis import Redis


__all__ = [
    "RedisTokens",
    "Rotation",
    "Token",
    "TokenSource",
    "TokenUnreadableError",
    "Version",
    "VersionedTokenSource",
    "same",
    "shown",
]


class TokenUnreadableError(CeleryObsError):
    """
    What is stored cannot be decrypted, or belongs to another connection.

    Since 0.1.
    """


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Token:
    """
    The token that a channel issued for one connection.

    Attributes:
        access_token: For calls.

        refresh_token: For the next pair; empty where there is none.

        expires_at:
            Seconds since the epoch until which the access token is good; None where unknown, or for ever.  An aware datetime, ISO 8601 with
            a time zone, and milliseconds are converted.

        lifetime: Seconds that it was valid for when it was issued, or a timedelta; None where unknown.

        scope: The scope that the channel granted; a list is joined.

        extra: The other fields of the channel's answer.  They may hold secrets, too.

        issued_at: When we got it, as *expires_at*; None where unknown.

    Raises:
        TypeError, ValueError: for what is none of these, without showing it.

    Since 0.1.
    """

    access_token: str
    refresh_token: str = ""
    expires_at: float | None = None
    lifetime: float | None = None
    scope: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    issued_at: float | None = None

    def __post_init__(self) -> None:
        """
        See to it that everything is what every store, worker and page can read: what is wrong fails here, before a refresh token is spent.
        """
        for name in ("access_token", "refresh_token"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise wrong_type(value, name, "a text")
            object.__setattr__(self, name, Secret(value))  # It is frozen.
        if not self.access_token:
            message = "A Token has an empty access_token. Expected the text that the channel gave."
            raise ValueError(message)
        for name in ("expires_at", "issued_at"):
            object.__setattr__(self, name, time_of(getattr(self, name), name))
        object.__setattr__(self, "lifetime", _seconds_of(self.lifetime))
        object.__setattr__(self, "scope", _scope_of(self.scope))
        if not isinstance(self.extra, Mapping):
            raise wrong_type(self.extra, "extra", "a dict")

    def describe(self) -> dict[str, Any]:
        """
        Return what may be shown, logged and sent.
        """
        return {
            "expires_at": self.expires_at,
            "lifetime": self.lifetime,
            "scope": self.scope,
            "issued_at": self.issued_at,
            "has_refresh_token": bool(self.refresh_token),
        }

    def __repr__(self) -> str:
        """
        Show no secret.
        """
        return f"Token({', '.join(f'{name}={value!r}' for name, value in self.describe().items())})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """
        Refuse to be sent anywhere.
        """
        message = "A Token cannot be pickled or copied, so that it never stands in a task's argument or result. Pass the connection's id."
        raise TypeError(message)


def _seconds_of(value: Any) -> float | None:
    if value is None:
        return None
    seconds: Any = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, str):
        try:
            seconds = float(seconds)
        except ValueError:
            seconds = math.nan
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise wrong_type(value, "lifetime", "a number of seconds, or a timedelta")
    if not 0 <= seconds < math.inf:
        message = "The lifetime of a Token is not a number of seconds. Expected 0 or more, or None where the channel does not say."
        raise ValueError(message)
    return float(seconds)


def _scope_of(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(each, str) for each in value):
        return " ".join(sorted(value) if isinstance(value, (set, frozenset)) else value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong_type(value, "scope", "a text, or a list of texts")
    return value


Version: TypeAlias = Any
"""
What a `VersionedTokenSource` tells one state of a token from another by; only that source looks into it.
"""


class TokenSource(Protocol):
    """
    A store of tokens of your own, named in the setting ``token_source``.

    A source that can compare and set is safer, see `VersionedTokenSource`.  One that has a method ``reconnect`` is asked to get new connections
    before each further try of a ``put`` or ``replace`` that failed.

    Since 0.1.
    """

    def get(self, connection_id: str) -> Token | None:
        """
        Return a connection's token, or None.
        """

    def put(self, connection_id: str, token: Token) -> None:
        """
        Store a connection's token in place of the old one, at once and for good: when this returns, the old one may be lost.
        """


class VersionedTokenSource(TokenSource, Protocol):
    """
    A source that stores a refreshed token only if nothing newer was stored meanwhile, such as that of a customer who authorised again.

    Of a source that has only ``get`` and ``put`` the token is read again right before it is stored: that leaves the moment between the two.

    Since 0.1.
    """

    def read(self, connection_id: str) -> tuple[Token, Version] | None:
        """
        Return a connection's token with its version, which every ``put`` and every ``replace`` changes; or None.
        """

    def replace(self, connection_id: str, token: Token, version: Version) -> bool:
        """
        Store a token in place of the one of that *version*, at once and for good; return False where there is another one, or none, by now.

        It may be called again with the same token after an error, when it is not known whether that was stored.
        """


class Rotation(NamedTuple):
    """
    The result of a rotation.

    Attributes:
        rotated: Tokens that the first key encrypts now.

        unreadable: Connections whose token none of the keys decrypts.

    Since 0.1.
    """

    rotated: int
    unreadable: tuple[str, ...]


_RENEW: Final = """
if redis.call('HGET', KEYS[1], 'blob') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'blob', ARGV[2])
return 1
"""

_NEXT: Final = (
    TIME
    + """
local held = tonumber(redis.call('HGET', KEYS[1], 'version') or '0') or 0
local function store()
  local next = string.format('%.0f', math.max(now, held + 1))
  redis.call('HSET', KEYS[1], 'blob', ARGV[1], 'version', next)
  return next
end
"""
)
"""
Lua that stores a token under the next version: the time, so that one which a failover lost is never taken for a newer one.
"""

_PUT: Final = Script(_NEXT + "return store()")

_SET: Final = Script(
    _NEXT
    + """
if held > tonumber(ARGV[2]) then
  return false
end
return store()
"""
)
"""
Lua that stores a token unless there is a newer version than the one that was read.  An older one is what a failover brought back.
"""


_TOUCH: Final = """
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'confirmed', ARGV[1])
return 1
"""
"""
Lua that writes something to a token of one version, so that there is something to wait for.
"""


class RedisTokens:
    """
    Keep tokens in Redis, encrypted and each bound to its connection, so that one which was copied to another connection is refused.

    Args:
        redis: A client of whatever kind; what it raises is raised.

        token_keys: Keys of Fernet's.  The first encrypts, all decrypt.

    Since 0.1.
    """

    def __init__(self, redis: Redis, token_keys: Iterable[str]) -> None:
        self._redis = redis
        self._scripts = Scripts(redis)
        self._keys = tuple(Secret(key) for key in token_keys)

    @cached_property
    def _fernet(self) -> MultiFernet:
        try:
            from cryptography.fernet import Fernet, MultiFernet
        except ImportError as exc:
            what = "Keeping tokens in Redis"
            raise MissingExtraError(what, extra="oauth") from exc
        if not self._keys:
            message = (
                "Tokens in Redis are encrypted, and the setting token_keys is empty. Expected a key: make one with "
                'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())" and set CELERY_OBS_TOKEN_KEYS.'
            )
            raise ConfigurationError(message)
        return MultiFernet([Fernet(key) for key in self._keys])

    def get(self, connection_id: str) -> Token | None:
        """
        Return a connection's token, or None.

        Raises:
            TokenUnreadableError: if it cannot be decrypted, or is another connection's.
        """
        found = self.read(connection_id)
        return None if found is None else found[0]

    def put(self, connection_id: str, token: Token) -> Version:
        """
        Store a connection's token in place of the old one, in one command; return its version.
        """
        return _version_of(self._scripts.run(call(_PUT, keys.token(connection_id), self._sealed(connection_id, token))))

    def read(self, connection_id: str) -> tuple[Token, Version] | None:
        """
        Return a connection's token and its version, or None.

        Raises:
            TokenUnreadableError: if it cannot be decrypted, or is another connection's.
        """
        found: Any = self._redis.hmget(keys.token(connection_id), "blob", "version")
        blob, version = found
        return None if blob is None else (self._open(connection_id, blob), _version_of(version))

    def replace(self, connection_id: str, token: Token, version: Version) -> bool:
        """
        Store a connection's token unless there is a newer one than *version*, in one command.
        """
        if self._scripts.run(call(_SET, keys.token(connection_id), self._sealed(connection_id, token), version)) is not None:
            return True
        # It may be ours: the answer to an earlier try got lost, and not the command.
        found = self.get(connection_id)
        return found is not None and same(found, token)

    def replicated(self, connection_id: str, token: Token, *, replicas: int, within: float) -> int | None:
        """
        Wait until so many replicas have what is stored, or *within* seconds are over.

        Returns:
            How many have it; None where what is stored is not *token*: a failover lost it, or there is a newer one.
        """
        found = self.read(connection_id)
        if found is None or not same(found[0], token):
            return None
        key = keys.token(connection_id)
        # One connection has to write and to wait: replicas are asked for what that connection has written.
        with self._node_of(key).pipeline(transaction=False) as pipe:
            pipe.execute_command("EVAL", _TOUCH, 1, key, found[1])
            pipe.execute_command("WAIT", replicas, max(1, round(within * 1000)))
            ours, reached = pipe.execute()
        return int(reached) if ours else None

    def _node_of(self, key: str) -> Any:
        client: Any = self._redis
        find = getattr(client, "get_node_from_key", None)
        return client if find is None else client.get_redis_connection(find(key))

    # -- what a source of the user's could not store ------------------------------------------------------------------

    def park(self, connection_id: str, token: Token, *, instead_of: Token) -> None:
        """
        Keep a token that the token source could not store, for the next process that looks; see `parked`.
        """
        written = {"blob": self._sealed(connection_id, token), "replaces": _digest(instead_of)}
        self._redis.hset(keys.parked_token(connection_id), mapping=written)  # type: ignore[arg-type]  # Invariant mapping in the stubs.

    def parked(self, connection_id: str, *, instead_of: Token) -> Token | None:
        """
        Return the parked token that is to replace *instead_of*; None where none is, or where another token was stored since.
        """
        found: Any = self._redis.hmget(keys.parked_token(connection_id), "blob", "replaces")
        blob, replaces = found
        if blob is None or text(replaces or "") != _digest(instead_of):
            return None
        return self._open(connection_id, blob)

    def unpark(self, connection_id: str) -> None:
        """
        Forget a parked token.
        """
        self._redis.delete(keys.parked_token(connection_id))

    def _sealed(self, connection_id: str, token: Token) -> str:
        return self._fernet.encrypt(_encode(connection_id, token)).decode()

    def rotate(self, connection_ids: Iterable[str]) -> Rotation:
        """
        Encrypt the tokens of these connections anew, with the first key; after that the other keys may go.

        A token that is refreshed in the meantime is left as it is, which is encrypted with the first key already.
        """
        fernet = self._fernet
        from cryptography.fernet import InvalidToken

        rotated, unreadable = 0, []
        for connection_id in connection_ids:
            key = keys.token(connection_id)
            blob: Any = self._redis.hget(key, "blob")
            if blob is None:
                continue
            try:
                renewed = fernet.rotate(blob)
            except (InvalidToken, TypeError, ValueError):
                unreadable.append(connection_id)
            else:
                rotated += bool(self._redis.eval(_RENEW, 1, key, blob, renewed))
        return Rotation(rotated, tuple(unreadable))

    def _open(self, connection_id: str, blob: bytes | str) -> Token:
        fernet = self._fernet
        from cryptography.fernet import InvalidToken

        try:
            found = _decode(connection_id, fernet.decrypt(blob))
        except (InvalidToken, TypeError, ValueError, KeyError, AttributeError, RecursionError):
            found = None
        if found is None:
            message = (
                f"The token that is stored for the connection {shown(connection_id)} cannot be read: none of the keys in the setting token_keys "
                "decrypts it, or it was made for another connection. Add the key that it was encrypted with, or let the customer authorise again."
            )
            raise TokenUnreadableError(message)
        return found


def same(one: Token, other: Token) -> bool:
    """
    Tell whether two tokens are one, by what the channel gave.
    """
    return (one.access_token, one.refresh_token) == (other.access_token, other.refresh_token)


def _digest(token: Token) -> str:
    return hashlib.sha256(f"{token.refresh_token}\0{token.access_token}".encode("utf-8", "surrogatepass")).hexdigest()


def _version_of(written: Any) -> int:
    try:
        return int(written or 0)
    except ValueError:
        return 0  # None of ours: the next store gives it one.


def _encode(connection_id: str, token: Token) -> bytes:
    kept = {name: getattr(token, name) for name in _KEPT}
    return json.dumps({"connection": connection_id, "token": {**kept, "extra": dict(token.extra)}}, default=repr).encode()


def _decode(connection_id: str, plain: bytes) -> Token | None:
    data = json.loads(plain)
    if data["connection"] != connection_id:
        return None
    kept = data["token"]
    return Token(**{name: kept[name] for name in _KEPT}, extra=MappingProxyType(kept["extra"]))


_KEPT: Final = ("access_token", "refresh_token", "expires_at", "lifetime", "scope", "issued_at")


_LONGEST_SHOWN: Final = 80


def shown(value: Any) -> str:
    """
    Return a foreign text as it may stand in a message: short, and on one line.
    """
    shortened = repr(value[:_LONGEST_SHOWN] if isinstance(value, str) else value)
    return shortened if len(shortened) <= _LONGEST_SHOWN else f"{shortened[:_LONGEST_SHOWN]}…"
