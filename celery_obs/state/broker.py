"""
The broker of an app, as one value that can travel: what the app itself connects with, and not the text of one setting.

Kombu reads the configuration; we keep what it read.  Nothing here shows a password: not ``repr``, not a name, not an error.
"""

from __future__ import annotations

import contextlib

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from celery_obs.exceptions import ConfigurationError
from celery_obs.settings.checks import REDIS_SCHEMES
from celery_obs.telemetry.redaction import HIDDEN, reason, redact_url, secrets_in


__all__ = ["Broker", "is_redis", "of_app", "of_url", "reach", "reason_of", "scheme_of", "shown", "with_options"]


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
        for url in [self.url, *(str(each) for each in self.arguments.get("alternates") or ())]:
            yield from secrets_in(url)
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
            return redact_url(self.url)
        urls = [str(each) for each in self.arguments.get("alternates") or ()]
        if urls:
            return ";".join(redact_url(url) for url in urls)
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
        return redact_url(host if "+" in host.partition("://")[0] else f"{scheme}+{host}")
    login = str(arguments.get("userid") or "") + (f":{HIDDEN}" if arguments.get("password") else "")
    port = f":{arguments['port']}" if arguments.get("port") else ""
    path = str(arguments.get("virtual_host") or "").removeprefix("/")
    # A configuration that kombu read otherwise than it was meant has the password in the place of the host.
    return redact_url(f"{scheme}://{login}{'@' if login else ''}{host}{port}/{path}")


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
        why = reason(error, *_urls_of(app)) if isinstance(error, ImportError | KeyError) else "it is malformed"
        message = (
            f"The app's broker ({which} or broker_url) cannot be used: {why}. Expected scheme://user:password@host:port/name; "
            "write / @ : ; ? # % and spaces in a password as %2F %40 %3A %3B %3F %23 %25 %20."
        )
        raise ConfigurationError(message) from None
    finally:
        if not had_amqp:  # It was made to make a connection; the app makes its own when it needs it, with the configuration of then.
            vars(app).pop("amqp", None)
    # Alternates are kept as they were written, and switched to by kombu; the first is what the other arguments say.
    return Broker(arguments={**arguments, "transport_options": dict(arguments.get("transport_options") or {})})


def _urls_of(app: Any) -> Iterator[str]:
    for name in ("broker_url", "broker_read_url", "broker_write_url"):
        value = app.conf.get(name)
        yield from [str(value)] if not isinstance(value, list | tuple) else map(str, value)


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
        return reason_of(error, broker)
    return ""


def reason_of(error: Exception, place: str | Broker) -> str:
    """
    Return why the server at *place*, a URL or a broker, could not be reached or did not do what it was asked, without what may be a secret.
    """
    if "port" in str(error).lower() and isinstance(error, ValueError) and not isinstance(error, ConfigurationError):
        return "the port is not a number up to 65535"  # Python's own words quote it, and it may be a part of the password.
    return reason(error, place) if isinstance(place, str) else reason(error, secrets=place.secrets())


def shown(place: str | Broker) -> str:
    """
    Return *place*, a URL or a broker, for people: without secrets.
    """
    return redact_url(place) if isinstance(place, str) else place.shown
