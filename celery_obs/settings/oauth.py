"""
OAuth clients: what a channel has to be told so that it gives us a new token.
"""

from __future__ import annotations

import math
import re

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from celery_obs.areas.channels.tokens.providers import ANY_PROVIDER, AUTH_METHODS, BODIES, Provider, ProviderError, provider_of
from celery_obs.exceptions import ConfigurationError

from .checks import place, seconds, text
from .secrets import Secret


__all__ = ["OAuthClient", "filled", "oauth_clients", "placeholders"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """
    How a channel's tokens are refreshed.

    Attributes:
        token_url: The channel's token endpoint; ``{name}`` in it is filled for each connection, see *url_parameters*.

        client_id, client_secret: Who we are to the channel.

        token_endpoint_auth_method: Where we say that: one of `vocabulary.providers.AUTH_METHODS`.

        scope: What we ask for; empty for what was granted.

        timeout: Seconds that one refresh may take.

        lifetime: Seconds that a token is good for where the channel does not say; None where it is unknown.

        provider: What is special about the endpoint.

        body: ``form`` or ``json``.

        parameters: What is sent besides.

        url_parameters: What fills the placeholders of *token_url* for connections that have no value of their own.

        private_key, private_key_id, signing_algorithm: What ``private_key_jwt`` signs with: a key as PEM, its id (empty for none), and such as RS256.

        audience: Whom a signed assertion is for; empty for the token endpoint.

        certificate, certificate_key: Files for ``tls_client_auth``, as PEM, read anew for each refresh; a key may be in the certificate's.

        before_request, after_response: What changes a request before it is sent and an answer before it is read: a place such as ``proj.hooks:sign``,
            or something to call; None for nothing.
    """

    token_url: str
    client_id: str
    client_secret: Secret = Secret()  # noqa: RUF009 -- immutable as any text.
    token_endpoint_auth_method: str = "client_secret_basic"  # noqa: S105 -- the name of a method.
    scope: str = ""
    timeout: float = 10.0
    lifetime: float | None = None
    provider: Provider = ANY_PROVIDER
    body: str = "form"
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    url_parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    private_key: Secret = Secret()  # noqa: RUF009 -- as above.
    private_key_id: str = ""
    signing_algorithm: str = "RS256"
    audience: str = ""
    certificate: str = ""
    certificate_key: str = ""
    before_request: Any = None
    after_response: Any = None

    def __post_init__(self) -> None:
        """
        See to it that the secrets are such.
        """
        for name in ("client_secret", "private_key"):
            object.__setattr__(self, name, Secret(getattr(self, name)))  # It is frozen.

    @property
    def has_refresh_tokens(self) -> bool:
        """
        Whether a new token is got for an old one, and not for the client itself.
        """
        return self.provider.grant_type == "refresh_token"


ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_TEXTS: Final = ("client_secret", "scope", "private_key", "private_key_id", "audience", "certificate", "certificate_key")
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
    provider = _provider(channel, given)
    given = {"token_url": provider.token_url, **given}
    for name in ("token_url", "client_id"):
        if not isinstance(given.get(name), str) or not given[name].strip():
            raise _wrong_client(channel, f"has no {name}", "token_url and client_id, which every client has")
    for name in _TEXTS:
        if not isinstance(given.get(name, ""), str):
            raise _wrong_client(channel, f"has a {name} of type {type(given[name]).__name__}", "a text")
    client = OAuthClient(
        token_url=given["token_url"],
        client_id=given["client_id"],
        **{name: given[name] for name in _TEXTS if name in given},
        token_endpoint_auth_method=_method(channel, given, provider),
        timeout=_client_seconds(channel, "timeout", given.get("timeout", 10.0), most=_LONGEST_TIMEOUT),
        lifetime=provider.lifetime
        if given.get("lifetime") is None
        else _client_seconds(channel, "lifetime", given["lifetime"], most=math.inf),
        provider=provider,
        body=_word(channel, "body", given.get("body", provider.body), BODIES),
        # One of them may be a key.
        parameters=MappingProxyType(
            {name: Secret(value) for name, value in {**provider.parameters, **_mapping(channel, "parameters", given)}.items()}
        ),
        url_parameters=MappingProxyType({**provider.url_parameters, **_mapping(channel, "url_parameters", given)}),
        signing_algorithm=_word(channel, "signing_algorithm", given.get("signing_algorithm", "RS256"), ALGORITHMS),
        **{name: _hook(channel, name, given.get(name)) for name in ("before_request", "after_response")},
    )
    _token_url(channel, PLACEHOLDER.sub("x", client.token_url))
    return client


def _provider(channel: str, given: Mapping[str, Any]) -> Provider:
    try:
        return provider_of(given.get("provider"), channel=channel, token_url=given.get("token_url"))
    except ProviderError as error:
        raise _wrong_client(channel, f"names a provider that is wrong: {error}", "such as the page on adding a provider shows") from None


def _method(channel: str, given: Mapping[str, Any], provider: Provider) -> str:
    method = given.get("token_endpoint_auth_method")
    if method is None:
        method = provider.token_endpoint_auth_method
        if method.startswith("client_secret") and not given.get("client_secret"):
            method = "none"
    found = _word(channel, "token_endpoint_auth_method", method, AUTH_METHODS)
    for needs, name in (("private_key_jwt", "private_key"), ("tls_client_auth", "certificate")):
        if found == needs and not given.get(name):
            raise _wrong_client(channel, f"has no {name}", f"one, which {needs} needs")
    return found


def _word(channel: str, name: str, value: Any, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in words:
        raise _wrong_client(channel, f"has a {name} that does not exist", f"one of {', '.join(words)}")
    return value


def _mapping(channel: str, name: str, given: Mapping[str, Any]) -> Mapping[str, str]:
    value = given.get(name, {})
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise _wrong_client(channel, f"has {name} of type {type(value).__name__}", "a dict from text to text")
    return value


def _hook(channel: str, name: str, value: Any) -> Any:
    if value is None or (callable(value) and not isinstance(value, type)):
        return value
    try:
        return place("__call__")(value)
    except ValueError:
        expected = "a place such as 'proj.hooks:sign', something to call, or None"
        raise _wrong_client(channel, f"has an invalid {name} of type {type(value).__name__}", expected) from None


def _client_seconds(channel: str, name: str, value: Any, *, most: float) -> float:
    try:
        found = seconds(value)
    except ValueError:
        found = math.inf
    if found > most or not math.isfinite(found):
        limit = f", at most {most:g}" if math.isfinite(most) else ""
        raise _wrong_client(channel, f"has an invalid {name} of type {type(value).__name__}", f"a number of seconds above 0{limit}")
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
    if not secure or not host or "@" in parts.netloc or parts.fragment or not url.isprintable() or set(" {}\\") & set(url):
        raise _wrong_client(channel, f"has a token_url that begins with {parts.scheme!r:.20} and cannot be used", expected)


def _wrong_client(channel: Any, problem: str, expected: str) -> ConfigurationError:
    return ConfigurationError(f"The setting oauth_clients is wrong: the client of {channel!r:.100} {problem}. Expected {expected}.")


# --- the URL of one connection ----------------------------------------------------------------------------------------------------


PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_]\w{0,39})\}", re.ASCII)
_VALUE: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", re.ASCII)
_LONGEST_VALUE: Final = 200


def placeholders(url: str) -> tuple[str, ...]:
    """
    Return the names that stand in braces in a token URL.
    """
    return tuple(dict.fromkeys(PLACEHOLDER.findall(url)))


def filled(channel: str, url: str, values: Mapping[str, str]) -> str:
    """
    Fill a token URL.  Values are of letters, digits, ``-`` and single dots between them, so that none leads to another host or path than was meant.

    Raises:
        ConfigurationError: for a missing or invalid value; it is not shown, for a customer may have typed it.
    """
    for name in placeholders(url):
        value: object = values.get(name)
        if value is None:
            message = (
                f"The token_url of {channel!r:.100} needs {name}, and this connection has none. Expected it in url_parameters, "
                f"as in celery_obs.register_connection(..., url_parameters={{{name!r}: '…'}}) or in the client in oauth_clients."
            )
            raise ConfigurationError(message)
        if not isinstance(value, str) or len(value) > _LONGEST_VALUE or _VALUE.fullmatch(value) is None:
            message = (
                f"The {name} of this connection cannot stand in the token_url of {channel!r:.100}. "
                "Expected letters, digits, hyphens, and single dots between them."
            )
            raise ConfigurationError(message)
    found = PLACEHOLDER.sub(lambda match: values[match[1]], url)
    _token_url(channel, found)
    return found
