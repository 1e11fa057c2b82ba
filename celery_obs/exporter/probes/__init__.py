"""
Probes ask a broker how its queues are, each broker in its own way; this page says what all of them answer and picks the right one.
"""

from __future__ import annotations

import difflib

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from celery_obs.areas.queues.announcements import QueueAnnouncement
from celery_obs.exceptions import ConfigurationError
from celery_obs.state.broker import Broker, is_redis, of_url, scheme_of
from celery_obs.telemetry.redaction import redact_url


__all__ = ["Announced", "QueueProbe", "QueueReading", "is_redis", "probe_for", "scheme_of"]


Announced = Callable[[], Mapping[str, QueueAnnouncement]]
"""
Returns what workers announced so far, by queue.
"""

_AMQP_SCHEMES: Final = frozenset({"amqp", "amqps", "pyamqp"})


@dataclass(frozen=True, slots=True)
class QueueReading:
    """
    What a broker said of one queue that exists.

    Attributes:
        depth: Messages that wait, all priorities together.

        by_priority: The same by priority step; None where the broker has no steps.

        unacked: Messages that were delivered and not acknowledged; None where it cannot tell.

        consumers: Who listens; None where it cannot tell.

        oldest_due_at: When the message that waits longest was published or due, the later of both, in seconds since the epoch; what a worker took,
            such as a task with an ETA, waits no more.  None without our stamp, and where the broker cannot tell.
    """

    depth: int
    by_priority: Mapping[int, int] | None = None
    unacked: int | None = None
    consumers: int | None = None
    oldest_due_at: float | None = None


class QueueProbe(Protocol):
    """
    A broker that can be asked.
    """

    def probe(self, queues: Collection[str]) -> Mapping[str, QueueReading]:
        """
        Read *queues*; one that does not exist is absent from the answer.

        Blocks for a second or two at most, raises what its client library raises, and starts afresh at the next call.
        """

    def close(self) -> None:
        """
        Let go of the connection.
        """


@dataclass(frozen=True, slots=True)
class _Nothing:
    announced: Mapping[str, QueueAnnouncement] = field(default_factory=dict)

    def __call__(self) -> Mapping[str, QueueAnnouncement]:
        return self.announced


def probe_for(place: str | Broker, *, announced: Announced | None = None, transport_options: Mapping[str, Any] | None = None) -> QueueProbe:
    """
    Make the probe for a broker, or for the one at a URL; it connects when it is first asked.

    Raises:
        ConfigurationError: if it cannot be one of a broker that we can ask.
    """
    broker = of_url(place, transport_options=transport_options) if isinstance(place, str) else place
    if broker.url:
        _refuse_bad_url(broker.url)
    if broker.is_redis:
        from .redis import RedisProbe, connect

        return RedisProbe(connect(broker), announced=announced or _Nothing(), transport_options=broker.options)
    if broker.is_amqp:
        from .amqp import AmqpProbe

        return AmqpProbe(broker)
    from .generic import GenericProbe

    return GenericProbe(broker)


def _refuse_bad_url(url: str) -> None:
    scheme = scheme_of(url)
    if not scheme:
        message = (
            f"The broker URL {redact_url(url)!r} has no scheme. Expected something like redis://host:6379/0 or amqp://user:password@host//."
        )
        raise ConfigurationError(message)
    _refuse_bad_place(url)
    known = _kombu_schemes()
    if scheme in _AMQP_SCHEMES:
        _refuse_without_host(url)
    elif not is_redis(url) and scheme.partition("+")[0] not in known:
        near = difflib.get_close_matches(scheme, known, n=1)
        hint = f" Did you mean {near[0]}://?" if near else ""
        message = f"The broker URL {redact_url(url)!r} has the scheme {scheme!r}, which is not one of a transport of kombu's.{hint} Known are {', '.join(known)}."
        raise ConfigurationError(message)


def _refuse_bad_place(url: str) -> None:
    if "+socket" in scheme_of(url) or ";" in url:
        return
    try:
        urlsplit(url).port  # noqa: B018 -- raises for what is no port.
    except ValueError as error:
        reason = "the port is not a number up to 65535" if "port" in str(error).lower() else "it is malformed"
        message = (
            f"The broker URL {redact_url(url)!r} cannot be read: {reason}. "
            "Expected scheme://user:password@host:port/name; write / @ : ; ? # % and spaces in a password as %2F %40 %3A %3B %3F %23 %25 %20."
        )
        # Without the cause: it may quote a part of the password.
        raise ConfigurationError(message) from None


def _refuse_without_host(url: str) -> None:
    place = urlsplit(url.split(";", maxsplit=1)[0])
    if not place.hostname:
        message = f"The broker URL {redact_url(url)!r} names no host. Expected amqp://user:password@host:5672/virtual-host."
        raise ConfigurationError(message)
    if place.username is None and place.hostname not in {"localhost", "127.0.0.1", "::1"}:
        message = (
            f"The broker URL {redact_url(url)!r} has no credentials; RabbitMQ lets guest in from its own machine only. "
            "Expected amqp://user:password@host:5672/virtual-host, best given as CELERY_OBS_BROKER_URL."
        )
        raise ConfigurationError(message)


def _kombu_schemes() -> list[str]:
    from kombu.transport import TRANSPORT_ALIASES

    return sorted({name.lower() for name in TRANSPORT_ALIASES} | {"redis", "rediss", "sentinel"})
