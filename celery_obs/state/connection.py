"""
How one gets to Redis, whatever kind of Redis it is: from a URL to a client with short timeouts.

Forks: a client's pool notices that it is in a child and connects anew.  Threads: a client may be shared.
"""

from __future__ import annotations

import os
import ssl

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from celery_obs.exceptions import ConfigurationError
from celery_obs.settings.checks import REDIS_SCHEMES


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["connect", "is_redis", "mask", "of_broker", "scheme_of"]


CONNECT_TIMEOUT: Final = 0.5
READ_TIMEOUT: Final = 1.0
"""
Seconds.  Whoever waits for Redis here is a scrape, a task or a web request.
"""


_SCHEMES: Final = frozenset({*REDIS_SCHEMES, "rediss+socket", "valkey+socket"})


def scheme_of(url: str) -> str:
    """
    Return a URL's scheme in lower case; empty when it has none.
    """
    return url.partition("://")[0].lower() if "://" in url else ""


def is_redis(url: str) -> bool:
    """
    Tell whether *url* leads to a Redis or one of its kind.
    """
    return scheme_of(url) in _SCHEMES


def of_broker(url: str, transport_options: Mapping[str, Any] | None = None) -> str | None:
    """
    Return the URL of the Redis that a broker is, None for one that is none; with Sentinel, the master's name comes from the transport's options.
    """
    if not is_redis(url):
        return None
    master = (transport_options or {}).get("master_name")
    if scheme_of(url) != "sentinel" or not master or "master_name=" in url:
        return url
    return f"{url}{'&' if '?' in url.rpartition(';')[2] else '?'}{urlencode({'master_name': master})}"


def mask(url: str) -> str:
    """
    Return *url* without its secrets: the passwords of all its hosts, and the values of its query.
    """
    return ";".join(_mask_one(part) for part in url.split(";"))


def _mask_one(url: str) -> str:
    scheme, found, rest = url.partition("://")
    if not found:
        scheme, rest = "", url
    place, question, _ = rest.partition("?")
    # The last @ divides: passwords that were not quoted hold some, too.
    login, at, host = place.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = f"{user}{':**' if colon else ''}{at}{host}" if at else place
    return f"{scheme}{found}{shown}{'?**' if question else ''}"


def connect(url: str, transport_options: Mapping[str, Any] | None = None) -> Redis:
    """
    Make a client from a URL as kombu spells it; it connects when it is first used, and again after each failure.

    Raises:
        ConfigurationError: if *url* cannot be read.
    """
    import redis

    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options = dict(transport_options or {})
    common: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": READ_TIMEOUT,
        "client_name": "celery-obs",
        # As redis-py had it up to 7: the hundred of later versions are fewer than a pool of threads or greenlets may have.
        "max_connections": 1 << 31,
        # The next scrape, and the next call, is the retry.
        "retry": Retry(NoBackoff(), 0),
    }
    scheme = scheme_of(url)
    try:
        if scheme == "sentinel":
            return _connect_sentinel(url, options, common)
        if scheme.endswith("+cluster"):
            return _connect_cluster(url, common)
        if scheme == "unix" or scheme.endswith("+socket"):
            place = urlsplit("unix://" + url.partition("://")[2])
            query = dict(parse_qsl(place.query))
            common.pop("socket_connect_timeout")
            return redis.Redis(
                unix_socket_path=unquote(place.path),
                username=unquote(place.username or "") or None,
                password=unquote(place.password or "") or query.get("password") or None,
                db=_database(query.get("virtual_host", query.get("db", "0")), url),
                **common,
            )
        place = urlsplit(url)
        if scheme in {"rediss", "valkeys"}:
            common.update(_tls(dict(parse_qsl(place.query))), ssl=True)
        return redis.Redis(
            host=unquote(place.hostname or "") or "127.0.0.1",
            port=place.port or 6379,
            username=unquote(place.username or "") or None,
            password=unquote(place.password or "") or None,
            db=_database(place.path.strip("/"), url),
            **common,
        )
    except ValueError as error:
        reason = "the port is not a number up to 65535" if "port" in str(error).lower() else "it is malformed"
        message = f"The Redis URL {mask(url)!r} cannot be read: {reason}. Expected redis://user:password@host:6379/0."
        raise ConfigurationError(message) from None


def _connect_sentinel(url: str, options: Mapping[str, Any], common: Mapping[str, Any]) -> Redis:
    from redis.sentinel import Sentinel

    master = options.get("master_name") or dict(parse_qsl(urlsplit(url.rsplit(";", maxsplit=1)[-1]).query)).get("master_name")
    if not master:
        message = (
            f"The Redis URL {mask(url)!r} leads to Sentinel, which needs the name of the master. "
            "Expected the transport option master_name, or ?master_name=… at the end of the URL."
        )
        raise ConfigurationError(message)
    places = [urlsplit(part if "://" in part else f"sentinel://{part}") for part in url.split(";")]
    first, last = places[0], places[-1]
    credentials = {"username": unquote(first.username or "") or None, "password": unquote(first.password or "") or None}
    sentinels = Sentinel(
        [(place.hostname or "127.0.0.1", place.port or 26379) for place in places],
        sentinel_kwargs={**common, **options.get("sentinel_kwargs", {})},
        db=_database(last.path.strip("/"), url),
        **credentials,
        **common,
    )
    client: Redis = sentinels.master_for(master)
    return client


def _connect_cluster(url: str, common: Mapping[str, Any]) -> Redis:
    # Imported before it is needed, for that may be in a thread, and a child that is forked in the middle of an import waits for ever.
    import redis.cluster  # noqa: F401

    scheme, _, rest = url.partition("://")
    whole, _, query = rest.partition("?")
    netloc, _, path = whole.partition("/")
    if path.strip("/") not in {"", "0"}:
        message = f"The Redis URL {mask(url)!r} names the database {path!r}, and a Redis Cluster has none but 0. Expected no database."
        raise ConfigurationError(message)
    login, _, hosts = netloc.rpartition("@")
    user, _, password = login.partition(":")
    places = [urlsplit(f"redis://{host}") for host in hosts.split(",") if host]
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
        connection_pool: None, for each node has its own; whoever asks for it does not connect.

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
        message = f"The Redis URL says ssl_cert_reqs={wanted!r}. Expected required, optional or none."
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
        message = f"The Redis URL {mask(url)!r} names the database {text!r}. Expected a number, such as 0."
        raise ConfigurationError(message)
    return int(text)
