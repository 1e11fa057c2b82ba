"""
OAuth clients: what a channel has to be told so that it gives us a new token.
"""

from __future__ import annotations

import math

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from celery_obs.exceptions import ConfigurationError

from .checks import seconds, text
from .secrets import Secret


__all__ = ["OAuthClient", "oauth_clients"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """
    How a channel's tokens are refreshed.

    Attributes:
        token_url: The channel's token endpoint.

        client_id, client_secret: Who we are to the channel.

        token_endpoint_auth_method: Where we say that: ``client_secret_basic``, ``client_secret_post`` or ``none``.

        scope: What we ask for; empty for what was granted.

        timeout: Seconds that one refresh may take.

        lifetime: Seconds that a token is good for where the channel does not say; None where nobody knows.
    """

    token_url: str
    client_id: str
    client_secret: Secret = Secret()  # noqa: RUF009 -- immutable as any text.
    token_endpoint_auth_method: str = "client_secret_basic"  # noqa: S105 -- the name of a method.
    scope: str = ""
    timeout: float = 10.0
    lifetime: float | None = None

    def __post_init__(self) -> None:
        """
        See to it that the secret is one.
        """
        object.__setattr__(self, "client_secret", Secret(self.client_secret))  # It is frozen.


AUTH_METHODS: Final = ("client_secret_basic", "client_secret_post", "none")
_LONGEST_TIMEOUT: Final = 60.0
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def oauth_clients(value: Any) -> Mapping[str, OAuthClient] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    return MappingProxyType({text(channel): _oauth_client(channel, given) for channel, given in value.items()})


def _oauth_client(channel: str, given: Any) -> OAuthClient:
    known = {each.name for each in fields(OAuthClient)}
    if isinstance(given, OAuthClient):
        given = {name: getattr(given, name) for name in known}
    if not isinstance(given, Mapping) or not given.keys() <= known:
        wrong = ", ".join(sorted(repr(key) for key in given.keys() - known)) if isinstance(given, Mapping) else type(given).__name__
        raise _wrong_client(channel, f"has {wrong:.200}", f"a dict with some of {', '.join(sorted(known))}")
    for name in ("token_url", "client_id"):
        if not isinstance(given.get(name), str) or not given[name].strip():
            raise _wrong_client(channel, f"has no {name}", "token_url and client_id, which every client has")
    _token_url(channel, given["token_url"])
    for name in ("client_secret", "scope"):
        if not isinstance(given.get(name, ""), str):
            raise _wrong_client(channel, f"has a {name} of type {type(given[name]).__name__}", "a text")
    method = given.get("token_endpoint_auth_method", "client_secret_basic" if given.get("client_secret") else "none")
    if method not in AUTH_METHODS:
        raise _wrong_client(channel, "has a token_endpoint_auth_method that does not exist", f"one of {', '.join(AUTH_METHODS)}")
    return OAuthClient(
        token_url=given["token_url"],
        client_id=given["client_id"],
        client_secret=Secret(given.get("client_secret", "")),
        token_endpoint_auth_method=method,
        scope=given.get("scope", ""),
        timeout=_client_seconds(channel, "timeout", given.get("timeout", 10.0), most=_LONGEST_TIMEOUT),
        lifetime=None if given.get("lifetime") is None else _client_seconds(channel, "lifetime", given["lifetime"], most=math.inf),
    )


def _client_seconds(channel: str, name: str, value: Any, *, most: float) -> float:
    try:
        found = seconds(value)
    except ValueError:
        found = math.inf
    if found > most or not math.isfinite(found):
        limit = f", at most {most:g}" if math.isfinite(most) else ""
        raise _wrong_client(
            channel, f"has a {name} that is no such number, but of type {type(value).__name__}", f"a number of seconds above 0{limit}"
        )
    return found


def _token_url(channel: str, url: str) -> None:
    """
    Refuse what would send our secrets over the network in clear.
    """
    expected = "https://…, without a user, a password or a fragment in it; http:// only to this machine itself"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _wrong_client(channel, "has a malformed token_url", expected) from None
    secure = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    if not secure or not host or "@" in parts.netloc or parts.fragment or not url.isprintable() or " " in url:
        raise _wrong_client(channel, f"has a token_url that begins with {parts.scheme!r:.20} and cannot be used", expected)


def _wrong_client(channel: Any, problem: str, expected: str) -> ConfigurationError:
    return ConfigurationError(f"The setting oauth_clients is wrong: the client of {channel!r:.100} {problem}. Expected {expected}.")
