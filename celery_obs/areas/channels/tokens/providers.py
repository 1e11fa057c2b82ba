"""
Token endpoints that differ from OAuth2, as data: how they are asked, how their answers are read, and what their error codes mean.

Each entry names the documents that it was written from.  One for a provider that is not here is made the same way, see `Provider`, and named in
the setting ``oauth_clients``.
"""

from __future__ import annotations

import fnmatch
import math
import re

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final


__all__ = ["ANY_PROVIDER", "AUTH_METHODS", "BODIES", "PROVIDERS", "Provider", "ProviderError", "provider_of"]


AUTH_METHODS: Final = ("client_secret_basic", "client_secret_post", "none", "private_key_jwt", "tls_client_auth")
"""
How a client may say who it is, by the names that OAuth2 has for that.
"""

BODIES: Final = ("form", "json")
GRANT_TYPES: Final = ("refresh_token", "client_credentials", "")

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class ProviderError(ValueError):
    """
    A provider is not described as it should be; the message says what is wrong and what was expected.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """
    What is special about one provider's token endpoint.

    The codes of an error are patterns with ``*``, ``?`` and ``[…]``, read without regard to case.  Those of OAuth2 itself need not be repeated.

    Attributes:
        name: What it is called in settings.

        documents: Addresses of what this was written from.

        token_url: The endpoint; ``{name}`` in it is filled from a connection's or the client's ``url_parameters``.  Empty where each client says.

        url_parameters: What fills placeholders that neither connection nor client fill.

        token_endpoint_auth_method: One of :data:`AUTH_METHODS`.

        body: How parameters are sent: ``form`` or ``json``.

        grant_type: ``refresh_token``; ``client_credentials`` where there is no refresh token and each new one comes for the client itself;
            empty for the latter at an endpoint that does not take the parameter.

        parameters: What is sent besides.

        envelope: Name of the field in which the token lies; empty where the answer itself is it.

        success: Fields that an answer with a token has, with their values.

        access_token: Name of that field.

        lifetime: Seconds that a token is good for where the answer does not say; None where that is unknown.

        rotates: Whether an answer brings a new refresh token that ends the old one.

        errors:
            Where an answer says what is wrong: ``error``; ``error.code`` for a field in an object; ``errors[].code`` for one in each of a list;
            ``errors[].resource/code`` for several fields that say it together.

        dead: Codes after which only the customer can help: the grant is over.

        throttled: Codes that say that we asked too often.

        later: Codes of what passes by itself.

        ours: Codes that mean that the client in the settings, or what it sends, is wrong.

    Since 0.1.
    """

    name: str
    documents: tuple[str, ...] = ()
    token_url: str = ""
    url_parameters: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    token_endpoint_auth_method: str = "client_secret_basic"  # noqa: S105 -- the name of a method.
    body: str = "form"
    grant_type: str = "refresh_token"
    parameters: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    envelope: str = ""
    success: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    access_token: str = "access_token"  # noqa: S105 -- the name of a field.
    lifetime: float | None = None
    rotates: bool = False
    errors: tuple[str, ...] = ("error",)
    dead: tuple[str, ...] = ()
    throttled: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """
        See to it that a typing error is found when the program starts, and not at the first refresh.
        """
        for name in ("documents", "errors", "dead", "throttled", "later", "ours"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))  # It is frozen.
        for name in ("url_parameters", "parameters", "success"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise _wrong(value, name, "a dict with texts for keys")
            object.__setattr__(self, name, MappingProxyType(dict(value)))
        for name, words in (("token_endpoint_auth_method", AUTH_METHODS), ("body", BODIES), ("grant_type", GRANT_TYPES)):
            if getattr(self, name) not in words:
                raise _wrong(getattr(self, name), name, f"one of {', '.join(map(repr, words))}")
        for name in ("name", "token_url", "envelope", "access_token"):
            if not isinstance(getattr(self, name), str):
                raise _wrong(getattr(self, name), name, "a text")
        if self.lifetime is not None and (isinstance(self.lifetime, bool) or not 0 < self.lifetime < math.inf):
            raise _wrong(self.lifetime, "lifetime", "a number of seconds above 0, or None")


def provider_of(value: Any, *, channel: str, token_url: Any = "") -> Provider:
    """
    Return the provider that a client names: by name, as a `Provider`, or as a dict of its fields.

    Args:
        value: What the client says; None takes the provider whose host *token_url* leads to, whatever the channel is called.

        channel: The client's channel; where there is no *token_url* and no *value* either, its name is the provider's.

        token_url: The client's.

    Raises:
        ProviderError: for what is none of these.
    """
    if value is None:
        return _at(token_url) if token_url else PROVIDERS.get(channel.lower(), ANY_PROVIDER)
    if isinstance(value, Provider):
        return value
    if isinstance(value, str):
        if value not in PROVIDERS:
            raise _wrong(value, "provider", f"one of {', '.join(PROVIDERS)}, or a Provider of your own")
        return PROVIDERS[value]
    known = {each.name for each in fields(Provider)}
    if not isinstance(value, Mapping) or not value.keys() <= known | {"like"}:
        what = ", ".join(sorted(map(repr, value.keys() - known))) if isinstance(value, Mapping) else type(value).__name__
        raise _wrong(what, "provider", f"a name, or a dict with some of like, {', '.join(sorted(known))}")
    given = {"name": channel, **value}
    base = provider_of(given.pop("like", "none"), channel=channel)
    try:
        return replace(base, **given)
    except TypeError as error:
        raise _wrong(type(error).__name__, "provider", "each field of the type that its description says") from None


def _at(token_url: Any) -> Provider:
    """
    Return the provider whose host a URL leads to.
    """
    host = _host(token_url)
    found = (each for each in _KNOWN if each.token_url and host and fnmatch.fnmatchcase(host, _PLACEHOLDER.sub("*", _host(each.token_url))))
    return next(found, ANY_PROVIDER)


def _host(url: Any) -> str:
    return url.partition("://")[2].partition("/")[0].lower() if isinstance(url, str) else ""


_PLACEHOLDER: Final = re.compile(r"\{\w+\}")


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise _wrong(value, name, "a list of texts")


def _wrong(value: Any, name: str, expected: str) -> ProviderError:
    return ProviderError(f"{name} is {value!r:.200}; expected {expected}")


# --- what is known --------------------------------------------------------------------------------------------------------------------


ANY_PROVIDER: Final = Provider(
    name="none",
    documents=(
        "https://www.rfc-editor.org/rfc/rfc6749#section-5.2",
        "https://openid.net/specs/openid-connect-core-1_0.html#AuthError",
        "https://www.rfc-editor.org/rfc/rfc8628#section-3.5",
    ),
    dead=("invalid_grant", "interaction_required", "login_required", "consent_required"),
    throttled=("slow_down",),
    later=("temporarily_unavailable", "server_error"),
    ours=("invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_request", "invalid_scope"),
)
"""
OAuth2 as its documents have it.  Its codes hold for all others, too.
"""

_KNOWN: Final = (
    ANY_PROVIDER,
    Provider(
        name="airbnb",
        # Its pages are for partners.  What is public says the lifetime as expires_at.
        documents=("https://www.npmjs.com/package/airbnb-oauth",),
    ),
    Provider(
        name="booking",
        documents=("https://developers.booking.com/connectivity/docs/token-based-authentication",),
        token_url="https://connectivity-authentication.booking.com/token-based-authentication/exchange",
        token_endpoint_auth_method="client_secret_post",
        body="json",
        grant_type="",
        access_token="jwt",
        lifetime=3600.0,
    ),
    Provider(
        name="fitbit",
        documents=(
            "https://dev.fitbit.com/build/reference/web-api/authorization/refresh-token/",
            "https://dev.fitbit.com/build/reference/web-api/troubleshooting-guide/error-messages/",
            "https://github.com/home-assistant/core/issues/141223",
        ),
        token_url="https://api.fitbit.com/oauth2/token",
        rotates=True,
        errors=("errors[].errorType", "error"),
        ours=("unauthorize_client", "validation", "not_found"),
        later=("request", "system"),
    ),
    Provider(
        name="github",
        documents=(
            "https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/refreshing-user-access-tokens",
            "https://docs.github.com/en/apps/oauth-apps/maintaining-oauth-apps/troubleshooting-oauth-app-access-token-request-errors",
        ),
        token_url="https://github.com/login/oauth/access_token",
        token_endpoint_auth_method="client_secret_post",
        rotates=True,
        dead=("bad_refresh_token", "unverified_user_email"),
        ours=("incorrect_client_credentials", "redirect_uri_mismatch", "application_suspended"),
    ),
    Provider(
        name="google",
        documents=("https://developers.google.com/identity/protocols/oauth2/web-server#offline",),
        token_url="https://oauth2.googleapis.com/token",
        token_endpoint_auth_method="client_secret_post",
        dead=("admin_policy_enforced",),
        ours=("deleted_client", "disabled_client", "org_internal"),
    ),
    Provider(
        name="hubspot",
        documents=(
            "https://developers.hubspot.com/docs/api-reference/auth-oauth-v3/guide",
            "https://www.nango.dev/blog/hubspot-oauth-bad-refresh-token",
        ),
        token_url="https://api.hubapi.com/oauth/v3/token",
        token_endpoint_auth_method="client_secret_post",
        errors=("error", "status", "subCategory"),
        dead=("BAD_REFRESH_TOKEN", "unauthorized"),
        ours=("BAD_CLIENT_ID", "BAD_CLIENT_SECRET", "BAD_GRANT_TYPE", "BAD_REDIRECT_URI"),
    ),
    Provider(
        name="microsoft",
        documents=(
            "https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-auth-code-flow#refresh-the-access-token",
            "https://learn.microsoft.com/en-us/entra/identity-platform/reference-error-codes",
        ),
        token_url="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        url_parameters={"tenant": "common"},
        token_endpoint_auth_method="client_secret_post",
        dead=("bad_token",),
        ours=("invalid_resource",),
    ),
    Provider(
        name="quickbooks",
        documents=(
            "https://developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization/oauth-2.0",
            "https://developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization/faq",
        ),
        token_url="https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
        rotates=True,
    ),
    Provider(
        name="shopify",
        documents=("https://shopify.dev/docs/apps/build/authentication-authorization/access-tokens/offline-access-tokens",),
        token_url="https://{shop}.myshopify.com/admin/oauth/access_token",
        token_endpoint_auth_method="client_secret_post",
        rotates=True,
        ours=("application_cannot_be_found",),
    ),
    Provider(
        name="slack",
        documents=(
            "https://docs.slack.dev/authentication/using-token-rotation",
            "https://docs.slack.dev/reference/methods/oauth.v2.access",
        ),
        token_url="https://slack.com/api/oauth.v2.access",
        rotates=True,
        success={"ok": True},
        dead=("invalid_refresh_token", "token_expired", "token_revoked", "account_inactive"),
        throttled=("ratelimited", "rate_limited"),
        later=("internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"),
        ours=("bad_client_secret", "invalid_client_id", "invalid_grant_type", "token_rotation_not_enabled"),
    ),
    Provider(
        name="strava",
        documents=("https://developers.strava.com/docs/authentication/", "https://github.com/dreeveapp/dreeve/issues/1449"),
        token_url="https://www.strava.com/oauth/token",
        token_endpoint_auth_method="client_secret_post",
        rotates=True,
        errors=("errors[].resource/field/code", "error"),
        dead=("RefreshToken/*",),
        ours=("Application/*",),
    ),
    Provider(
        name="withings",
        documents=(
            "https://support.withings.com/hc/en-us/articles/360016745358--BREAKING-Shutting-down-access-and-refresh-tokens-endpoints",
            "https://developer.withings.com/api-reference/#section/Response-status",
            "https://developer.withings.com/developer-guide/v3/integration-guide/public-health-data-api/get-access/access-and-refresh-tokens-no-recover/",
        ),
        token_url="https://wbsapi.withings.net/v2/oauth2",
        token_endpoint_auth_method="client_secret_post",
        parameters={"action": "requesttoken"},
        envelope="body",
        success={"status": 0},
        rotates=True,
        errors=("status/error",),
        dead=("503/*refresh_token*", "401/*refresh_token*", "401/*invalid_token*"),
        throttled=("601/*",),
        later=("522/*", "524/*"),
        ours=("[1234]??/*", "50?/*"),
    ),
)

PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType({each.name: each for each in _KNOWN})
"""
By name.
"""
