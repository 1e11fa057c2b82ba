"""
The broker of an app, as one value that can travel: what the app itself connects with, and not the text of one setting.

Kombu reads the configuration; we keep what it read.  Nothing here shows a password: not ``repr``, not a name, not an error.
"""

from __future__ import annotations

import contextlib
import re

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from celery_obs.exceptions import ConfigurationError
from celery_obs.settings.checks import REDIS_SCHEMES


__all__ = ["Broker", "alternatives", "is_redis", "mask", "of_app", "of_url", "reach", "reason_of", "scheme_of", "with_options"]


_REDIS_SCHEMES: Final = frozenset({*REDIS_SCHEMES, "rediss+socket", "valkey+socket"})
_AMQP_TRANSPORTS: Final = frozenset({"amqp", "amqps", "pyamqp", "py-amqp", "librabbitmq"})
_REDIS_TRANSPORTS: Final = frozenset({"redis", "rediss", "sentinel", "valkey", "valkeys"})


def scheme_of(url: str) -> str:
    """
    Return a URL's scheme in lower case; empty when it has none.
    """
    return url.partition("://")[0].lower() if "://" in url else ""


def is_redis(url: str) -> bool:
    """
    Tell whether *url* leads to a Redis or one of its kind.
    """
    return scheme_of(url) in _REDIS_SCHEMES


def mask(url: str) -> str:
    """
    Return *url*, or several divided by ``;``, without secrets: the passwords of all its hosts, and the values of its query.

    Where a password is not escaped as it should be, rather too much is hidden.
    """
    return ";".join(_mask_one(part) for part in alternatives(url))


def alternatives(url: str) -> list[str]:
    """
    Divide a list of URLs at ``;``; what follows one that stands in a password belongs to it.
    """
    parts: list[str] = []
    for part in url.split(";"):
        if parts and "://" not in part and "@" in part:
            parts[-1] += ";" + part
        else:
            parts.append(part)
    return parts


def _mask_one(url: str) -> str:
    scheme, found, rest = url.partition("://")
    if not found:
        scheme, rest = "", url
    # The last @ divides: passwords that were not quoted hold some, too.
    login, at, after = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    if at and re.search(r"[?/#;&=\s]", user):  # No user is called so: the @ stands in a query, or a password before it begins anywhere.
        return f"{scheme}{found}**"
    place, question, _ = (after if at else rest).partition("?")
    return f"{scheme}{found}{user}{':**' if colon else ''}{at}{place}{'?**' if question else ''}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Broker:
    """
    A broker: one server, several that stand in for each other, or the sentinels that know it.

    Attributes:
        arguments: What a `kombu.Connection` to it is made with.

        url: The URL that was given; empty where an app's configuration was read.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    url: str = ""

    def __repr__(self) -> str:
        """
        Show everything but secrets.
        """
        return f"Broker({self.shown!r})"

    @property
    def options(self) -> Mapping[str, Any]:
        """
        The transport options.
        """
        return self.arguments.get("transport_options") or {}

    @property
    def scheme(self) -> str:
        """
        What kind of broker it is, as the scheme of a URL.
        """
        return scheme_of(self.url) if self.url else str(self.arguments.get("transport") or "").lower()

    @property
    def is_redis(self) -> bool:
        """
        Whether it is a Redis or one of its kind.
        """
        return is_redis(self.url) if self.url else self.scheme in _REDIS_TRANSPORTS

    @property
    def is_amqp(self) -> bool:
        """
        Whether it speaks AMQP 0.9.1.
        """
        return self.scheme in _AMQP_TRANSPORTS

    def secrets(self) -> Iterator[str]:
        """
        Go through the passwords in it, for who has to keep them out of what is reported.
        """
        urls = [self.url] if self.url else [str(each) for each in self.arguments.get("alternates") or ()]
        for url in urls:
            for part in alternatives(url):
                with contextlib.suppress(ValueError):
                    written = urlsplit(part).password or ""
                    yield from {written, unquote(written)}
        sentinel = self.options.get("sentinel_kwargs")
        ssl = self.arguments.get("ssl")
        for value in (
            self.arguments.get("password"),
            sentinel.get("password") if isinstance(sentinel, Mapping) else None,
            ssl.get("ssl_password") if isinstance(ssl, Mapping) else None,
        ):
            if isinstance(value, str):
                yield value

    def connection(self, **changes: Any) -> Any:
        """
        Make a `kombu.Connection`, which connects when it is first used; *changes* replace arguments of its, and add transport options.
        """
        from kombu import Connection

        changes["transport_options"] = {**self.options, **changes.get("transport_options", {})}
        return Connection(**{**self.arguments, **changes})

    def servers(self) -> Iterator[Any]:
        """
        Go through the servers that stand in for each other, each as a `kombu.Connection` that has read how it is reached.
        """
        others = list(self.arguments.get("alternates") or ())[1:]
        first = self.connection()
        yield first
        for url in others:
            if url.partition("://")[0].count("+"):  # Kombu's switch() does not know what its constructor knows: redis+socket.
                yield self.connection(hostname=url, transport=None, uri_prefix=None, alternates=[])
                continue
            server = self.connection()
            server.switch(url)
            yield server

    @property
    def shown(self) -> str:
        """
        Where it is, for people: all servers, without secrets.
        """
        if self.url:
            return mask(self.url)
        urls = [str(each) for each in self.arguments.get("alternates") or ()]
        if urls:
            return ";".join(_mask_one(url) for url in urls)
        return _shown(self.arguments)

    @property
    def name(self) -> str:
        """
        Its host and database: what tells it from others, without credentials.
        """
        shown = _without_login(self.shown.split(";")[0])
        master = self.options.get("master_name") if self.scheme == "sentinel" else None
        return f"{shown}/{master}" if master else shown


def _shown(arguments: Mapping[str, Any]) -> str:
    """
    Write as a URL how kombu reaches a single server.
    """
    scheme, host = str(arguments.get("transport") or "amqp"), str(arguments.get("hostname") or "")
    if "://" in host:  # A transport that reads its URL itself: sqla+sqlite:///file, redis+socket:///path.
        return _mask_one(host if "+" in host.partition("://")[0] else f"{scheme}+{host}")
    login = str(arguments.get("userid") or "") + (":**" if arguments.get("password") else "")
    port = f":{arguments['port']}" if arguments.get("port") else ""
    path = str(arguments.get("virtual_host") or "").removeprefix("/")
    return f"{scheme}://{login}{'@' if login else ''}{host}{port}/{path}"


def _without_login(shown: str) -> str:
    scheme, _, rest = shown.partition("://")
    rest = rest.rpartition("@")[2]
    query = rest.partition("?")[0]
    return query.rstrip("/") or scheme


def of_app(app: Any, *, write: bool = False) -> Broker:
    """
    Read what *app* consumes from, or with *write* what it publishes to: URL or list, TLS, transport options and all.

    Raises:
        ConfigurationError: if kombu cannot make a connection of it.
    """
    which = "broker_write_url" if write else "broker_read_url"
    had_amqp = "amqp" in vars(app)
    try:
        connection = app.connection_for_write() if write else app.connection_for_read()
        arguments = dict(connection.info())
    except Exception as error:  # noqa: BLE001 -- kombu raises whatever its parts raise.
        # The error's own words may quote a part of the password, except where they name what is not installed.
        reason = f"{error}" if isinstance(error, ImportError | KeyError) else "it is malformed"
        message = (
            f"The app's broker ({which} or broker_url) cannot be used: {mask(reason)}. Expected scheme://user:password@host:port/name; "
            "write / @ : ; ? # % and spaces in a password as %2F %40 %3A %3B %3F %23 %25 %20."
        )
        raise ConfigurationError(message) from None
    finally:
        if not had_amqp:  # It was made to make a connection; the app makes its own when it needs it, with the configuration of then.
            vars(app).pop("amqp", None)
    # Alternates are kept as they were written, and switched to by kombu; the first is what the other arguments say.
    return Broker(arguments={**arguments, "transport_options": dict(arguments.get("transport_options") or {})})


def of_url(url: str, *, transport_options: Mapping[str, Any] | None = None, ssl: Mapping[str, Any] | bool | None = None) -> Broker:
    """
    Return the broker at *url*, or at several divided by ``;``; nothing is read of it yet.

    Args:
        url: As kombu spells it.

        transport_options: As Celery's ``broker_transport_options``.

        ssl: As Celery's ``broker_use_ssl``.
    """
    arguments = {"hostname": url, "transport_options": dict(transport_options or {}), **({"ssl": ssl} if ssl else {})}
    return Broker(arguments=arguments, url=url)


def with_options(broker: Broker, options: Mapping[str, Any], *, tls: Mapping[str, Any] | None = None) -> Broker:
    """
    Return *broker* with more transport options, and with *tls* in the place of its own; what is given wins.
    """
    changes: dict[str, Any] = {"transport_options": {**broker.options, **options}, **({"ssl": dict(tls)} if tls else {})}
    return replace(broker, arguments={**broker.arguments, **changes})


def reach(broker: Broker, *, within: float = 3.0) -> str:
    """
    Connect once, trying all servers that stand in for each other, and return the reason where none can be reached; empty where one answers.

    Blocks up to *within* seconds for each of them.  The reason shows no secret.
    """
    try:
        if broker.is_redis:
            from .connection import connect

            with contextlib.closing(connect(broker, patience=within)) as client:
                client.ping()
            return ""
        connection = broker.connection(connect_timeout=within)
        with connection:
            tries = max(1, len(connection.alt or ()))
            connection.ensure_connection(max_retries=tries, interval_start=0, interval_step=0, timeout=within * tries)
            connection.default_channel.close()
    except Exception as error:  # noqa: BLE001 -- every transport raises its own.
        return reason_of(error)
    return ""


def reason_of(error: Exception) -> str:
    """
    Return why a broker could not be reached, without what may be a secret.
    """
    text = str(error)
    if "port" in text.lower() and isinstance(error, ValueError) and not isinstance(error, ConfigurationError):
        return "the port is not a number up to 65535"  # Python's own words quote it, and it may be a part of the password.
    return mask(text) if "://" in text else text or type(error).__name__
