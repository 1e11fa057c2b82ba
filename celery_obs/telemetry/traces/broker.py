"""
What messages go through, in the words of the semantic conventions: the broker, not Celery.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit


__all__ = ["Broker", "broker"]


_SYSTEMS: Final[Mapping[str, str]] = {
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "azurestoragequeues": "azurestoragequeues",
    "azureservicebus": "servicebus",
    "confluentkafka": "kafka",
    "gcpubsub": "gcp_pubsub",
    "kafka": "kafka",
    "librabbitmq": "rabbitmq",
    "pyamqp": "rabbitmq",
    "py-amqp": "rabbitmq",
    "redis": "redis",
    "rediss": "redis",
    "redis+socket": "redis",
    "sentinel": "redis",
    "sqs": "aws_sqs",
    "valkey": "redis",
    "valkeys": "redis",
}
_LONGEST: Final = 255


class Broker(NamedTuple):
    """
    A broker.

    Attributes:
        system: What it is.

        address: Where it is; empty where that is not known, or there are several of them.

        port: Where it is there; None where that is not said.
    """

    system: str
    address: str = ""
    port: int | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """
        What every span of a message says.
        """
        attributes: dict[str, Any] = {"messaging.system": self.system}
        if self.address:
            attributes["server.address"] = self.address
            if self.port is not None:
                attributes["server.port"] = self.port
        return attributes


def broker(url: Any) -> Broker:
    """
    Read what a broker URL, or a list of them, leads to.  Never a password.
    """
    urls = url if isinstance(url, (list, tuple)) else str(url or "amqp://").split(";")
    first = str(urls[0]).strip() if urls else "amqp://"
    scheme = first.partition("://")[0].lower() if "://" in first else first.lower().rstrip(":/")
    system = _SYSTEMS.get(scheme) or _SYSTEMS.get(scheme.partition("+")[0]) or (scheme if scheme.isidentifier() else "unknown")
    if len(urls) > 1 or system == "unknown" or "://" not in first:
        return Broker(system)
    try:
        parts = urlsplit(first)
        address, port = parts.hostname or "", parts.port
    except ValueError:
        return Broker(system)
    return Broker(system, address[:_LONGEST] if "," not in parts.netloc else "", port)
