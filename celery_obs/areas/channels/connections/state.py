"""
What the cluster knows of its connections: written one fact at a time by workers and beat tasks, read all at once by the exporter.

Each fact is a field of one hash, so that everything about ten thousand connections is read in one round trip, and writers never meet.
"""

from __future__ import annotations

import json
import math

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.state import hashes, keys
from celery_obs.state.scripts import text

from .metrics import STATUSES, ConnectionStatus


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["OWNED_BY_CONNECTION", "Connection", "Drift", "Facts", "Snapshot", "TokenExpiry"]


OWNED_BY_CONNECTION: Final = (
    keys.CONNECTIONS,
    keys.STATUSES,
    keys.LAST_SYNCS,
    keys.ERRORS,
    keys.TOKEN_EXPIRIES,
    keys.REFRESHING,
    keys.DRIFT,
    keys.PENDING,
    keys.URL_PARAMETERS,
)
"""
The hashes whose fields are connection ids.
"""


_MEND: Final = """
if redis.call('HGET', KEYS[1], ARGV[1]) == 'error' then
    redis.call('HSET', KEYS[1], ARGV[1], 'active')
end
"""


class Connection(NamedTuple):
    """
    One customer's account at a channel.

    Attributes:
        connection_id: Its name, unchecked text.

        channel_type: The channel.

        status: active, paused, error or disconnected.

        created_at: Seconds since the epoch; None where unknown.

        url_parameters:
            What is filled into the token URL of its channel, such as ``{"shop": "acme"}`` for ``https://{shop}.example/token``.
            None leaves what is known as it is; it is not read back with the connection, see `Facts.url_parameters`.

    Since 0.1.
    """

    connection_id: str
    channel_type: str
    status: ConnectionStatus = "active"
    created_at: float | None = None
    url_parameters: Mapping[str, str] | None = None


class TokenExpiry(NamedTuple):
    """
    How long a connection's token is good for.

    Attributes:
        expires_at: Seconds since the epoch; None for a token that does not expire.

        lifetime: Seconds that it was good for when it was given; None where unknown.
    """

    expires_at: float | None
    lifetime: float | None


class Drift(NamedTuple):
    """
    What the last check of a connection's calendar found.

    Attributes:
        days: Days on which the two sides differ.

        checked: Days that were compared.

        at: When, in seconds since the epoch.
    """

    days: int
    checked: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """
    Everything that is known, at one moment; facts of connections that are not registered are left out.
    """

    connections: Mapping[str, Connection]
    last_syncs: Mapping[str, float]
    errors: Mapping[str, int]
    tokens: Mapping[str, TokenExpiry]
    drift: Mapping[str, Drift]
    last_runs: Mapping[str, float]
    reviews: Mapping[str, int]


class Facts:
    """
    Write and read the facts.

    Args:
        redis: A client; every method raises what it raises.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._read_identities = hashes.Decoder(_identity_of)
        self._read_tokens = hashes.Decoder(_token_expiry_of)
        self._read_drift = hashes.Decoder(_drift_of)

    # -- connections --------------------------------------------------------------------------------------------------

    def register(self, connections: Iterable[Connection]) -> None:
        """
        Make connections known, or say again what they are.
        """
        identities: dict[str, str] = {}
        statuses: dict[str, str] = {}
        parameters: dict[str, str] = {}
        for each in connections:
            identities[each.connection_id] = json.dumps({"channel_type": each.channel_type, "created_at": each.created_at})
            statuses[each.connection_id] = each.status
            if each.url_parameters is not None:
                parameters[each.connection_id] = json.dumps(dict(each.url_parameters))
        if identities:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.hset(keys.CONNECTIONS, mapping=identities)  # type: ignore[arg-type]  # Invariant mapping in the stubs.
                pipe.hset(keys.STATUSES, mapping=statuses)  # type: ignore[arg-type]  # As above.
                if parameters:
                    pipe.hset(keys.URL_PARAMETERS, mapping=parameters)  # type: ignore[arg-type]  # As above.
                pipe.execute()

    def set_status(self, connection_id: str, status: ConnectionStatus) -> None:
        """
        Say how a connection is.
        """
        self._redis.hset(keys.STATUSES, connection_id, status)

    def mend_status(self, connection_id: str) -> None:
        """
        Make a connection in ``error`` active; one of another status stays as it is.
        """
        self._redis.eval(_MEND, 1, keys.STATUSES, connection_id)

    def url_parameters(self, connection_id: str) -> Mapping[str, str]:
        """
        Return what is filled into the token URL of a connection's channel.
        """
        written: Any = self._redis.hget(keys.URL_PARAMETERS, connection_id)
        found = None if written is None else hashes.one_object(text(written))
        return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}

    def forget(self, connection_ids: Iterable[str]) -> None:
        """
        Remove connections and everything that is known of them, their tokens too.
        """
        gone = list(connection_ids)
        if gone:
            with self._redis.pipeline(transaction=False) as pipe:
                for key in OWNED_BY_CONNECTION:
                    pipe.hdel(key, *gone)
                for connection_id in gone:
                    pipe.delete(keys.token(connection_id))
                    pipe.delete(keys.parked_token(connection_id))
                pipe.execute()

    def connection(self, connection_id: str) -> Connection | None:
        """
        Return one connection, or None where it is not registered.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.CONNECTIONS, connection_id)
            pipe.hget(keys.STATUSES, connection_id)
            identity, status = pipe.execute()
        return None if identity is None else _connection(connection_id, identity, status)

    def connections(self) -> Mapping[str, Connection]:
        """
        Return all connections by their ids.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            hashes.read(pipe, keys.CONNECTIONS)
            hashes.read(pipe, keys.STATUSES)
            identities, statuses = map(hashes.fields, pipe.execute())
        return _connections(self._read_identities(identities), statuses)

    # -- one fact each ------------------------------------------------------------------------------------------------

    def token_stored(self, connection_id: str, expiry: TokenExpiry) -> None:
        """
        Note how long a connection's new token is good for.
        """
        self._redis.hset(keys.TOKEN_EXPIRIES, connection_id, json.dumps(expiry._asdict()))

    def refresh_began(self, connection_id: str, *, at: float) -> None:
        """
        Note that this process is about to trade a connection's refresh token for a new one.
        """
        self._redis.hset(keys.REFRESHING, connection_id, repr(at))

    def refresh_ended(self, connection_id: str) -> None:
        """
        Note that nothing is open.
        """
        self._redis.hdel(keys.REFRESHING, connection_id)

    def refreshes(self) -> Mapping[str, float]:
        """
        Return when each refresh began that has not ended; who died in the middle of one has left it here.
        """
        written: Any = self._redis.hgetall(keys.REFRESHING)
        return _read(written, _number)

    def reconciled(self, connection_id: str, channel_type: str, drift: Drift) -> None:
        """
        Note what a check found.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(keys.DRIFT, connection_id, json.dumps(drift._asdict()))
            pipe.hset(keys.LAST_RUNS, channel_type, repr(drift.at))
            pipe.execute()

    def token_expiries(self) -> Mapping[str, TokenExpiry]:
        """
        Return how long the tokens of all connections are good for.
        """
        written: Any = self._redis.hgetall(keys.TOKEN_EXPIRIES)
        return _read(written, _token_expiry)

    def drifts(self) -> Mapping[str, Drift]:
        """
        Return what the last checks of all connections found.
        """
        written: Any = self._redis.hgetall(keys.DRIFT)
        return _read(written, _drift)

    # -- all of them --------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """
        Read everything in one round trip (one for each node of a Redis Cluster); again, and it takes half the time.
        """
        wanted = (
            keys.CONNECTIONS,
            keys.STATUSES,
            keys.LAST_SYNCS,
            keys.ERRORS,
            keys.TOKEN_EXPIRIES,
            keys.DRIFT,
            keys.LAST_RUNS,
            keys.REVIEWS,
        )
        with self._redis.pipeline(transaction=False) as pipe:
            for key in wanted:
                hashes.read(pipe, key)
            identities, statuses, syncs, errors, tokens, drift, runs, reviews = map(hashes.fields, pipe.execute())
        connections = _connections(self._read_identities(identities), statuses)
        return Snapshot(
            connections=connections,
            last_syncs=_of(connections, _read(syncs, _number)),
            errors=_of(connections, _read(errors, _count)),
            tokens=_of(connections, self._read_tokens(tokens)),
            drift=_of(connections, self._read_drift(drift)),
            last_runs=_read(runs, _number),
            reviews=_read(reviews, _count),
        )


# --- what lies there, unchecked text --------------------------------------------------------------------------------------


class _Identity(NamedTuple):
    channel_type: str
    created_at: float | None


def _identity_of(data: Any) -> _Identity:
    channel = data["channel_type"]
    if not isinstance(channel, str):
        raise TypeError
    return _Identity(channel, _maybe(data.get("created_at")))


def _connections(identities: Mapping[str, _Identity], statuses: Mapping[str, str]) -> dict[str, Connection]:
    return {
        name: Connection(name, channel, _STATUSES.get(statuses.get(name, ""), "active"), created)
        for name, (channel, created) in identities.items()
    }


def _connection(connection_id: str, identity: bytes | str, status: bytes | str | None) -> Connection | None:
    found = hashes.Decoder(_identity_of)({connection_id: text(identity)})
    return _connections(found, {} if status is None else {connection_id: text(status)}).get(connection_id)


_STATUSES: Final[Mapping[str, ConnectionStatus]] = {status: status for status in STATUSES}


def _token_expiry(written: bytes | str) -> TokenExpiry:
    return _token_expiry_of(json.loads(written))


def _token_expiry_of(data: Any) -> TokenExpiry:
    return TokenExpiry(_maybe(data["expires_at"]), _maybe(data["lifetime"]))


def _drift(written: bytes | str) -> Drift:
    return _drift_of(json.loads(written))


def _drift_of(data: Any) -> Drift:
    return Drift(_count(data["days"]), _count(data["checked"]), _number(data["at"]))


def _count(written: Any) -> int:
    number = int(written)
    if abs(number) >= _NO_COUNT:
        raise ValueError
    return number


def _number(written: Any) -> float:
    number = float(written)
    if not math.isfinite(number):
        raise ValueError
    return number


def _maybe(value: Any) -> float | None:
    kind = type(value)
    return float(value) if (kind is float or kind is int) and -_NO_TIME < value < _NO_TIME else None


_NO_COUNT: Final = 1 << 63
_NO_TIME: Final = 1e300
"""
From here on it is no plausible number, and none that every reader of a page can read.
"""


def _read(written: Mapping[Any, Any], decode: Callable[[Any], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in written.items():
        try:
            found[text(name)] = decode(value)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue  # A field that is none of ours is no fact.
    return found


def _of(connections: Mapping[str, Connection], facts: Mapping[str, Any]) -> dict[str, Any]:
    return {connection_id: fact for connection_id, fact in facts.items() if connection_id in connections}
