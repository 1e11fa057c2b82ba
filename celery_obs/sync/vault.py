"""
What a channel gave us for a connection, and where that is kept: as a `Token`, which shows no secret, in a `TokenSource`.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol

from celery_obs.exceptions import CeleryObsError, ConfigurationError, MissingExtraError
from celery_obs.settings import Secret
from celery_obs.state import keys


if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet
    from redis import Redis


__all__ = ["RedisTokens", "Rotation", "Token", "TokenSource", "TokenUnreadableError", "shown"]


class TokenUnreadableError(CeleryObsError):
    """
    What is stored cannot be decrypted, or belongs to another connection.
    """


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Token:
    """
    What a channel gave us for one connection.

    Attributes:
        access_token: For calls.

        refresh_token: For the next pair; empty where there is none.

        expires_at: Seconds since the epoch until which the access token is good; None where unknown, or for ever.

        lifetime: Seconds that it was good for when it was given; None where unknown.

        scope: What it is good for, as the channel says.

        extra: What else the channel said.  It may hold secrets, too.

        issued_at: When we got it, in seconds since the epoch; None where unknown.

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
        See to it that the secrets are such.
        """
        for name in ("access_token", "refresh_token"):
            value = getattr(self, name)
            if not isinstance(value, str):
                message = f"The {name} of a Token is of type {type(value).__name__}. Expected a text."
                raise TypeError(message)
            object.__setattr__(self, name, Secret(value))  # It is frozen.
        if not self.access_token:
            message = "A Token has an empty access_token. Expected the text that the channel gave."
            raise ValueError(message)

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


class TokenSource(Protocol):
    """
    Where tokens are kept: named in the setting ``token_source``, for those who keep them in a place of their own.

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


class Rotation(NamedTuple):
    """
    What came of encrypting anew.

    Attributes:
        rotated: Tokens that the first key encrypts now.

        unreadable: Connections whose token none of the keys decrypts.
    """

    rotated: int
    unreadable: tuple[str, ...]


_REPLACE: Final = """
if redis.call('HGET', KEYS[1], 'blob') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'blob', ARGV[2])
return 1
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
        blob: Any = self._redis.hget(keys.token(connection_id), "blob")
        return None if blob is None else self._open(connection_id, blob)

    def put(self, connection_id: str, token: Token) -> None:
        """
        Store a connection's token in place of the old one, in one command.
        """
        self._redis.hset(keys.token(connection_id), "blob", self._fernet.encrypt(_encode(connection_id, token)))

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
                rotated += bool(self._redis.eval(_REPLACE, 1, key, blob, renewed))
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
    Return somebody's text as it may stand in a message: short, and on one line.
    """
    text = repr(value[:_LONGEST_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
