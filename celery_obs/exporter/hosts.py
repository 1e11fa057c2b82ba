"""
Names under which the sidecar answers: a page in a browser must not reach it by a name that was made to lead here (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re

from collections.abc import Iterable
from typing import Final

from celery_obs.exceptions import ConfigurationError


__all__ = ["AllowedHosts", "is_loopback"]


_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]*)(?::\d{1,5})?")
_PATTERN: Final = re.compile(r"\*|(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*|\[?[0-9A-Fa-f:.]+\]?")


class AllowedHosts:
    """
    What a request's Host header may be, without its port: a name, ``*.example.com`` for all names below it, or ``*`` for any.

    Names of loopback are always among them.

    Args:
        given: What an operator listed; empty for the default: any, unless all of *listening* are loopback.

        listening: The hosts that are listened on; empty for all interfaces.

    Raises:
        ConfigurationError: for an invalid host.
    """

    def __init__(self, given: Iterable[str], *, listening: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._suffixes: tuple[str, ...] = ()
        names = tuple(given)
        hosts = tuple(listening)
        for number, name in enumerate(names, 1):
            if not _PATTERN.fullmatch(name):
                message = (
                    f"Number {number} of --web.allowed-hosts is not a host. "
                    "Expected names or addresses without a port, such as metrics.example.com, *.example.com or 192.0.2.7, or * for any."
                )
                raise ConfigurationError(message)
        self._any = "*" in names or (not names and not all(is_loopback(host) for host in hosts))
        self._names = {_normal(name) for name in (*names, *hosts) if name}
        self._suffixes = tuple(_normal(name[1:]) for name in names if name.startswith("*."))

    def allow(self, header: str | None) -> bool:
        """
        Tell whether a request with this Host header is answered.  One without comes from no browser.
        """
        if self._any or header is None:
            return True
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        host = _normal(match["host"])
        return is_loopback(host) or host in self._names or host.endswith(self._suffixes)


def is_loopback(host: str) -> bool:
    """
    Tell whether *host* is an address or a name that leads to this machine wherever it is asked for.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # RFC 6761, section 6.3: resolvers answer with loopback for all of these.
        return host == "localhost" or host.endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _normal(host: str) -> str:
    return host.strip("[]").removesuffix(".").lower()
