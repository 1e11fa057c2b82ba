"""
How one gets to Redis, whatever kind of Redis it is: from a URL to a client with short timeouts.

Forks: a client's pool notices that it is in a child and connects anew.  Threads: a client may be shared.
"""

from __future__ import annotations

import os
import ssl
import time

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from celery_obs.compat.redis import READ
from celery_obs.exceptions import ConfigurationError
from celery_obs.telemetry.redaction import alternatives, redact_url

from .broker import Broker, is_redis, of_app, scheme_of


if TYPE_CHECKING:
    from redis import ConnectionPool, Redis


__all__ = ["connect", "is_cluster", "is_redis", "node_of", "scheme_of", "shared_by"]


CONNECT_TIMEOUT: Final = 0.5
READ_TIMEOUT: Final = 1.0
"""
Seconds.  What waits for Redis here is a scrape, a task or a web request.
"""


def shared_by(app: Any) -> Broker | None:
    """
    Return *app*'s broker where that is a Redis, so that the cluster's state can be kept there; None where it is none.

    What all processes publish to counts before what workers consume from, because every process knows it.

    Raises:
        ConfigurationError: if it is one, and no client can be made for it.
    """
    for write in (True, False):
        broker = of_app(app, write=write)
        if broker.is_redis:
            connect(broker).close()  # It does not connect, and refuses what cannot be read.
            return broker
    return None


def connect(place: str | Broker, transport_options: Mapping[str, Any] | None = None, *, patience: float | None = None) -> Redis:
    """
    Make a client; it connects when it is first used, and again after each failure.

    Of several servers that stand in for each other it uses the one that answered last, and the next when that fails.

    Args:
        place: A URL as kombu spells it, several divided by ``;``, or a broker.

        transport_options: Celery's ``broker_transport_options``, beside a URL.

        patience: Seconds to wait for an answer, instead of ours.

    Raises:
        ConfigurationError: if *place* cannot be read.
    """
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    common: dict[str, Any] = {
        "socket_connect_timeout": patience or CONNECT_TIMEOUT,
        "socket_timeout": patience or READ_TIMEOUT,
        "client_name": "celery-obs",
        # As redis-py had it up to 7: the hundred of later versions are fewer than a pool of threads or greenlets may have.
        "max_connections": 1 << 31,
        # The next scrape, and the next call, is the retry.
        "retry": Retry(NoBackoff(), 0),
        "redis_connect_func": partial(_greet, within=patience or READ_TIMEOUT),
    }
    if isinstance(place, Broker):
        if not place.url:
            return _connect_as_kombu(place, common)
        options, tls = dict(place.options), place.arguments.get("ssl")
        return _connect_urls(place.url, options, {**common, **(_given_tls(tls) if tls else {})})
    return _connect_urls(place, dict(transport_options or {}), common)


def _greet(connection: Any, *, within: float) -> None:
    """
    Do what a client does on a new connection, five round trips or so, and give up when together they took too long: a timeout holds for each alone.

    Raises:
        redis.exceptions.TimeoutError: then.
    """
    from redis.exceptions import TimeoutError as TooLate

    ends = time.monotonic() + within
    read = getattr(connection, READ)

    def read_in_time(*args: Any, **options: Any) -> Any:
        if time.monotonic() > ends:
            message = f"Redis took more than {within:g} s to greet a new connection."
            raise TooLate(message)
        return read(*args, **options)

    setattr(connection, READ, read_in_time)
    try:
        connection.on_connect()
    finally:
        delattr(connection, READ)


def _connect_urls(url: str, options: Mapping[str, Any], common: Mapping[str, Any]) -> Redis:
    urls = alternatives(url)
    if scheme_of(url) == "sentinel" or len(urls) == 1:
        return _connect_url(url, options, common)
    if not all("://" in each for each in urls):
        message = (
            f"The Redis URL {redact_url(url)!r} cannot be read: what follows a ; begins with no scheme. "
            "Expected redis://host:6379/0;redis://other:6379/0, and ; in a password written as %3B."
        )
        raise ConfigurationError(message)
    return _failing_over([_connect_url(each, options, common).connection_pool for each in urls])


def _connect_url(url: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> Redis:
    import redis

    common = dict(given)
    scheme = scheme_of(url)
    try:
        if scheme == "sentinel":
            return _connect_sentinel(url, options, common)
        if scheme.endswith("+cluster"):
            return _connect_cluster(url, common)
        if scheme == "unix" or scheme.endswith("+socket"):
            place = urlsplit("unix://" + url.partition("://")[2])
            query = dict(parse_qsl(place.query))
            common = {key: value for key, value in common.items() if key != "socket_connect_timeout" and not key.startswith("ssl")}
            return redis.Redis(
                unix_socket_path=unquote(place.path),
                username=unquote(place.username or "") or None,
                password=unquote(place.password or "") or query.get("password") or None,
                db=_database(query.get("virtual_host", query.get("db", "0")), url),
                **common,
            )
        place = urlsplit(url)
        if scheme in {"rediss", "valkeys"}:
            common.update({**_tls(dict(parse_qsl(place.query))), **_ssl_part(common)}, ssl=True)
        return redis.Redis(
            host=unquote(place.hostname or "") or "127.0.0.1",
            port=place.port or 6379,
            username=unquote(place.username or "") or None,
            password=unquote(place.password or "") or None,
            db=_database(place.path.strip("/") or dict(parse_qsl(place.query)).get("virtual_host", ""), url),
            **common,
        )
    except ValueError as error:
        reason = "the port is not a number up to 65535" if "port" in str(error).lower() else "it is malformed"
        message = (
            f"The Redis URL {redact_url(url)!r} cannot be read: {reason}. Expected redis://user:password@host:6379/0; "
            "write / @ : ; ? # % and spaces in a password as %2F %40 %3A %3B %3F %23 %25 %20."
        )
        raise ConfigurationError(message) from None


def _connect_as_kombu(broker: Broker, common: Mapping[str, Any]) -> Redis:
    """
    Make a client of what kombu read in an app's configuration, as its Redis transport would make one.
    """
    if broker.scheme == "sentinel":
        return _connect_sentinels_of(broker, common)
    clients = [_client_of(server, common) for server in broker.servers()]
    return clients[0] if len(clients) == 1 else _failing_over([client.connection_pool for client in clients])


def _client_of(server: Any, common: Mapping[str, Any]) -> Redis:
    """
    Make a client for one server, which is a `kombu.Connection`.
    """
    import redis

    from kombu.utils.url import url_to_parts

    kind: Any  # redis-py's classes have an abstract parent, which mypy does not take for a type.
    host = server.hostname or "127.0.0.1"
    if "://" not in host:
        kind, wanted = redis.Connection, {"host": host, "port": int(server.port or 6379), **_credentials_of(server)}
        if isinstance(server.ssl, Mapping) and server.ssl:  # As for kombu, the mere True changes nothing.
            kind, wanted = redis.SSLConnection, {**wanted, **server.ssl}
        wanted = {**common, **wanted, "db": _number_of(server.virtual_host)}
    else:
        _, _, _, user, password, path, query = url_to_parts(host)
        kind, wanted = redis.UnixDomainSocketConnection, {key: value for key, value in common.items() if key != "socket_connect_timeout"}
        database = query.get("virtual_host", server.virtual_host)
        wanted.update(path=f"/{path}", username=user, password=password or query.get("password"), db=_number_of(database))
    client = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **wanted))
    client.auto_close_connection_pool = True
    return client


def _credentials_of(server: Any) -> dict[str, Any]:
    provider = getattr(server, "credential_provider", None)
    if not provider:
        password = server.password
        return {"username": server.userid, "password": password() if callable(password) else password}
    if isinstance(provider, str):
        from kombu.utils.imports import symbol_by_name

        provider = symbol_by_name(provider)()
    return {"credential_provider": provider}


def _number_of(virtual_host: Any) -> int:
    text = str(virtual_host if virtual_host is not None else "").removeprefix("/")
    if text and not text.isdecimal():
        # Not shown: with a / in a password that is not escaped, it is a part of that.
        message = "The app's broker names a database that is not a number. Expected one at the end, such as redis://host:6379/0."
        raise ConfigurationError(message)
    return int(text or 0)


def _connect_sentinels_of(broker: Broker, common: Mapping[str, Any]) -> Redis:
    from kombu.utils.url import url_to_parts
    from redis.sentinel import Sentinel

    first = broker.connection()
    places = [url_to_parts(url) for url in first.alt or ()]
    hosts = [(place.hostname or "127.0.0.1", place.port or 26379) for place in places if place.scheme == "sentinel"]
    return _of_sentinels(
        Sentinel(
            hosts or [(first.hostname or "127.0.0.1", int(first.port or 26379))],
            sentinel_kwargs={**common, **(broker.options.get("sentinel_kwargs") or {})},
            min_other_sentinels=int(broker.options.get("min_other_sentinels") or 0),
            db=_number_of(first.virtual_host),
            **(dict(first.ssl, ssl=True) if isinstance(first.ssl, Mapping) and first.ssl else {}),
            **_credentials_of(first),
            **common,
        ),
        broker.options.get("master_name"),
        broker.shown,
    )


def _of_sentinels(sentinels: Any, master: Any, shown: str) -> Redis:
    if not master:
        message = (
            f"The Redis URL {shown!r} leads to Sentinel, which needs the name of the master. "
            "Expected the transport option master_name, or ?master_name=… at the end of the URL."
        )
        raise ConfigurationError(message)
    client: Redis = sentinels.master_for(master)
    return client


def _failing_over(pools: Sequence[ConnectionPool]) -> Redis:
    """
    Make a client of several servers that stand in for each other.
    """
    import redis

    from .failover import FailoverPool

    client = redis.Redis(connection_pool=FailoverPool(pools))
    client.auto_close_connection_pool = True
    return client


def _connect_sentinel(url: str, options: Mapping[str, Any], common: Mapping[str, Any]) -> Redis:
    from redis.sentinel import Sentinel

    query = dict(parse_qsl(urlsplit(url.rsplit(";", maxsplit=1)[-1]).query))
    own = {key.removeprefix("sentinel_"): value for key, value in query.items() if key in {"sentinel_username", "sentinel_password"}}
    places = [urlsplit(part if "://" in part else f"sentinel://{part}") for part in url.split(";")]
    first, last = places[0], places[-1]
    credentials = {"username": unquote(first.username or "") or None, "password": unquote(first.password or "") or None}
    without_tls = {key: value for key, value in common.items() if not key.startswith("ssl")}
    sentinels = Sentinel(
        [(place.hostname or "127.0.0.1", place.port or 26379) for place in places],
        sentinel_kwargs={**without_tls, **own, **(options.get("sentinel_kwargs") or {})},
        db=_database(last.path.strip("/"), url),
        **credentials,
        **common,
    )
    return _of_sentinels(sentinels, options.get("master_name") or query.get("master_name"), redact_url(url))


def _connect_cluster(url: str, common: Mapping[str, Any]) -> Redis:
    # Imported before it is needed, for that may be in a thread, and a child that is forked in the middle of an import waits for ever.
    import redis.cluster  # noqa: F401

    scheme, _, rest = url.partition("://")
    whole, _, query = rest.partition("?")
    netloc, _, path = whole.partition("/")
    if path.strip("/") not in {"", "0"}:
        message = f"The Redis URL {redact_url(url)!r} names a database, and a Redis Cluster has none but 0. Expected no database."
        raise ConfigurationError(message)
    login, _, hosts = netloc.rpartition("@")
    user, _, password = login.partition(":")
    places = [urlsplit(f"redis://{host}") for host in hosts.split(",") if host]
    # The cluster's client greets in its own way.
    common = {key: value for key, value in common.items() if key != "redis_connect_func"}
    options: dict[str, Any] = {**common, "username": unquote(user) or None, "password": unquote(password) or None}
    if scheme.lower().startswith(("rediss", "valkeys")):
        options.update(_tls(dict(parse_qsl(query))), ssl=True)
    nodes = [(unquote(place.hostname or "") or "127.0.0.1", place.port or 6379) for place in places]
    # It does what a client of one Redis does, as far as it is used here; the types of redis-py do not say so.
    client: Any = _LazyCluster(nodes or [("127.0.0.1", 6379)], options)
    return client  # type: ignore[no-any-return]  # See above.


class _LazyCluster:
    """
    A client of a Redis Cluster that looks for the cluster when it is first used, and again until it finds it; redis-py's own does when it is made.

    Attributes:
        connection_pool: None, for each node has its own; asking for it does not connect.

    Threads: safe.  Forks: safe, for a child makes its own.
    """

    connection_pool: Final = None

    def __init__(self, nodes: list[tuple[str, int]], options: Mapping[str, Any]) -> None:
        self._nodes = nodes
        self._options = options
        self._client: Any = None
        self._pid = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        client = self._client
        if client is None or self._pid != os.getpid():
            # Its locks may have been held by another thread of the parent.
            client = self._client = self._connect()
            self._pid = os.getpid()
        return getattr(client, name)

    @property
    def known_client(self) -> Any:
        """
        The client of this process; None where it has not looked for the cluster yet.
        """
        return self._client if self._pid == os.getpid() else None

    def _connect(self) -> Any:
        import redis

        from redis.backoff import NoBackoff
        from redis.cluster import ClusterNode, RedisCluster
        from redis.retry import Retry

        # Up to version 5 the cluster's own attempts are counted apart, and it sleeps between them otherwise.
        attempts = {"cluster_error_retry_attempts": 1} if redis.VERSION[0] < 6 else {}  # noqa: PLR2004 -- a major version.
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in self._nodes],
            **{**self._options, "retry": Retry(NoBackoff(), 1 if not attempts else 0), **attempts},
        )

    def close(self) -> None:
        """
        Let go of all connections.
        """
        if self._client is not None and self._pid == os.getpid():
            self._client.close()


def is_cluster(redis: Any) -> bool:
    """
    Tell whether *redis* is a client of a Redis Cluster.
    """
    return isinstance(redis, _LazyCluster)


def node_of(cluster: Any, key: str) -> str:
    """
    Name the node of a Redis Cluster that has *key*; empty where that is not known, as before the first command.
    """
    client = cluster.known_client
    if client is None:
        return ""
    try:
        return str(client.get_node_from_key(key).name)
    except Exception:  # noqa: BLE001 -- a slot without a node, and topologies that change at this moment, raise this and that.
        return ""


def _given_tls(tls: Any) -> dict[str, Any]:
    """
    Translate what was given beside a URL: as the URL's own ``ssl_…`` parameters, from files and words.
    """
    given = dict(tls) if isinstance(tls, Mapping) else {}
    reqs = given.get("ssl_cert_reqs")
    if isinstance(reqs, int):  # The ssl module's own constants.
        given["ssl_cert_reqs"] = ssl.VerifyMode(reqs).name
    return {**_tls({key: str(value) for key, value in given.items()}), "ssl": True}


def _ssl_part(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key.startswith("ssl")}


def _tls(query: Mapping[str, str]) -> dict[str, Any]:
    """
    Translate the ``ssl_…`` parameters of a URL; certificates are checked unless it says otherwise.
    """
    levels = {
        "cert_required": ssl.CERT_REQUIRED,
        "required": ssl.CERT_REQUIRED,
        "cert_optional": ssl.CERT_OPTIONAL,
        "optional": ssl.CERT_OPTIONAL,
        "cert_none": ssl.CERT_NONE,
        "none": ssl.CERT_NONE,
    }
    given: dict[str, Any] = {key: value for key, value in query.items() if key in {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}}
    wanted = query.get("ssl_cert_reqs", "required")
    if wanted.lower() not in levels:
        message = "The Redis URL has an ssl_cert_reqs that does not exist. Expected required, optional or none."
        raise ConfigurationError(message)
    given["ssl_cert_reqs"] = levels[wanted.lower()]
    # With redis-py, the check of the name is a setting of its own, and the two have to agree.
    given["ssl_check_hostname"] = levels[wanted.lower()] is not ssl.CERT_NONE and query.get("ssl_check_hostname", "true").lower() != "false"
    return given


def _database(text: str, url: str) -> int:
    text = text.strip("/")
    if not text:
        return 0
    if not text.isdecimal():
        message = (
            f"The Redis URL {redact_url(url)!r} names a database that is not a number. Expected one, such as 0; "
            "write / @ : ; ? # % and spaces in a password as %2F %40 %3A %3B %3F %23 %25 %20."
        )
        raise ConfigurationError(message)
    return int(text)
