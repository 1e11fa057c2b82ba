"""
OAuth2: trade a refresh token for a new pair at a channel's token endpoint, by Authlib on httpx.

Authlib words the request and says who we are, also by a signed assertion; what is special about a provider is data, see `vocabulary.providers`.
The request itself is ours: it follows no redirect (that would take our secrets elsewhere), reads no more than :data:`LONGEST_ANSWER`, and gives up
in time.

Nothing that has seen a secret leaves this module: what goes wrong inside is told by an error made anew, without the texts, causes and frames of the old one.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import zlib

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl, urlencode, urlsplit

from celery_obs.areas.channels.api_calls.endpoints import template_of
from celery_obs.areas.channels.connections.state import Connection
from celery_obs.areas.channels.errors import (
    ApiError,
    ApiTimeoutError,
    AuthError,
    ChannelError,
    NetworkError,
    RateLimitError,
    ValidationError,
    header,
    seconds_of,
)
from celery_obs.areas.channels.sources import named
from celery_obs.areas.channels.times import time_of
from celery_obs.clock import Clock
from celery_obs.exceptions import ConfigurationError, MissingExtraError
from celery_obs.settings import Settings
from celery_obs.settings.oauth import OAuthClient, filled, placeholders

from .answers import Answer, Reading, answer_of, read
from .vault import Token


if TYPE_CHECKING:
    import httpx

    from typing_extensions import Self


__all__ = [
    "LONGEST_ANSWER",
    "ClientRefusedError",
    "Exchanged",
    "TokenRefusedError",
    "TokenRequest",
    "client_of",
    "endpoint_of",
    "lifetime_of",
    "renew",
    "token_of",
    "url_of",
]


LONGEST_ANSWER: Final = 256 * 1024
"""
Bytes that a token endpoint's answer may have, unpacked.
"""

LONGEST_LIFETIME: Final = 10 * 365 * 24 * 3600.0
"""
Seconds; a token that is said to last longer is taken to last so long.
"""


class TokenRefusedError(AuthError):
    """
    The channel no longer accepts the refresh token: the customer has to authorise again.

    Since 0.1.
    """


class ClientRefusedError(AuthError):
    """
    The channel rejects our client: the credentials in the settings are wrong, not the token.

    Since 0.1.
    """


def client_of(channel: str, settings: Settings) -> OAuthClient:
    """
    Return how the tokens of *channel* are refreshed.

    Raises:
        ConfigurationError: if the settings do not say.
        MissingExtraError: if Authlib or httpx is not installed.
    """
    _libraries()
    found = (settings.oauth_clients or {}).get(channel)
    if found is None:
        known = ", ".join(sorted(settings.oauth_clients or ())) or "none"
        message = (
            f"The setting oauth_clients has no client for the channel {channel!r:.100}; it has {known:.200}. "
            "Expected its token_url, client_id and client_secret, from the channel's page for developers."
        )
        raise ConfigurationError(message)
    return found


def endpoint_of(client: OAuthClient) -> str:
    """
    Return the route template of a client's token endpoint: without what differs from tenant to tenant.
    """
    return template_of(urlsplit(client.token_url).path or "/")


def url_of(client: OAuthClient, channel: str, url_parameters: Callable[[], Mapping[str, str]]) -> str:
    """
    Return where a connection's token is refreshed.

    Args:
        client: The channel's.

        channel: For messages.

        url_parameters: Tells what the connection has for the placeholders of the token URL; asked only where there are some.

    Raises:
        ConfigurationError: if something is missing, or would lead elsewhere.
    """
    if not placeholders(client.token_url):
        return client.token_url
    return filled(channel, client.token_url, {**client.url_parameters, **url_parameters()})


@dataclass(slots=True)
class TokenRequest:
    """
    What is about to be sent to a token endpoint; a ``before_request`` hook changes it in place.  All of it may be secret.

    Attributes:
        connection: Whose token it is for.

        url: Where to.

        headers: With ours, such as ``Authorization``.

        parameters: What is sent as a form or as JSON.

    Since 0.1.
    """

    connection: Connection
    url: str
    headers: dict[str, str]
    parameters: dict[str, str]


class Exchanged(NamedTuple):
    """
    What `renew` needs besides the client.

    Attributes:
        connection: Whose token.

        url: Where to, see `url_of`.

        answered: Hears the answer's status code and headers as soon as they are there.

        reached: Hears of each point.

        complain: Hears of a hook that failed after the channel had given a token: that is read without the hook.
    """

    connection: Connection
    url: str
    answered: Callable[[int, Any], None]
    reached: Callable[[str], None]
    complain: Callable[[Exception], None]


def renew(client: OAuthClient, old: Token | None, about: Exchanged, *, now: Clock) -> Token:
    """
    Trade *old* for a new token.

    Args:
        client: How.

        old: Its refresh token is used up by this, at most channels.  None where tokens come for the client itself.

        about: What else is needed.

        now: Tells the time.

    Raises:
        TokenRefusedError: if the channel does not take the refresh token any more.
        ClientRefusedError: if it does not take us for whom we say to be.
        ChannelError: of another class for everything else.
        ConfigurationError: if a hook, a key or a certificate is wrong: nothing was sent then.
    """
    caught: BaseException | None = None
    sent_at = now()
    channel = about.connection.channel_type
    try:
        # The answer is no variable here: what is raised below tells the locals of this frame to any reporter of errors.
        new = _token(_Exchange(client, about).ask(old), old=old, client=client, now=sent_at)
    except BaseException as exc:  # noqa: BLE001 -- raised again below, without what it has seen.
        caught = exc
    # Outside of the handler, or Python would chain what is raised to what was caught.
    failure = None if caught is None else _translated(caught, channel, client)
    caught = None
    if failure is not None:
        raise failure
    about.reached("understood")
    return new


def token_of(client: OAuthClient, data: Mapping[str, Any], *, channel: str, now: float) -> Token:
    """
    Make a token of what a channel's token endpoint answered to the application, after the customer has authorised it.

    Raises:
        ChannelError: if it is no token; with no word of the answer.
    """
    answer = Answer(200, None, data)
    reading = read(answer, client.provider)
    if reading.meaning != "token":
        raise _failure(answer, reading, channel)
    try:
        return _token(reading.token, old=None, client=client, now=now)
    except (TypeError, ValueError) as exc:
        raise _no_token(channel, type(exc).__name__) from None


def _libraries() -> tuple[Any, Any]:
    """
    Return Authlib's client and httpx.
    """
    try:
        import httpx

        from authlib.oauth2 import OAuth2Client
    except ImportError as exc:
        what = "Refreshing tokens by OAuth2"
        raise MissingExtraError(what, extra="oauth") from exc
    return OAuth2Client, httpx


class _TooLateError(Exception):
    """
    The whole exchange took too long, although no part of it did.
    """


class _Deadline:
    """
    End a request in time: httpx bounds each wait for a few bytes, and a server that sends one byte at a time can make that for ever.

    Attributes:
        has_passed: Whether it did.
    """

    def __init__(self, seconds: float) -> None:
        self.has_passed = False
        self._socket: Any = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """
        Take note of the connection, as httpcore makes it.
        """
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            self._socket = info["return_value"].get_extra_info("socket")

    def _end(self) -> None:
        self.has_passed = True
        if self._socket is not None:
            with contextlib.suppress(OSError, ValueError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()


class _Exchange:
    """
    One request to a token endpoint: the session that Authlib sends by.
    """

    def __init__(self, client: OAuthClient, about: Exchanged) -> None:
        self._client = client
        self._about = about
        self._channel = about.connection.channel_type
        self._status: int | None = None
        self._token: Mapping[str, Any] = {}

    def ask(self, old: Token | None) -> Mapping[str, Any]:
        """
        Send the request, and return the token that is in the answer.
        """
        client = self._client
        # Authlib's own httpx client reads answers of any size; its core takes any session that can post.
        oauth = _libraries()[0](
            self,
            client_id=client.client_id,
            client_secret=str(client.client_secret),
            token_endpoint_auth_method=self._says_who_we_are(),
            scope=client.scope or None,
            token={},
        )
        url = self._about.url
        if old is not None:
            oauth.refresh_token(url, refresh_token=str(old.refresh_token))
        else:
            oauth.fetch_token(url, grant_type="client_credentials")
        return self._token

    def _says_who_we_are(self) -> Any:
        """
        Return what Authlib takes for a method: the name of one of its own, or something to call.
        """
        method = self._client.token_endpoint_auth_method
        if method == "tls_client_auth":
            return "none"  # It is the connection that says it; the form has our name.
        return self._sign if method == "private_key_jwt" else method

    def _sign(self, auth: Any, method: str, url: str, headers: dict[str, str], body: str) -> tuple[str, dict[str, str], str]:
        """
        Say who we are by an assertion that our key signs (RFC 7523).
        """
        from authlib.oauth2.rfc7523 import private_key_jwt_sign

        client = self._client
        try:
            assertion = private_key_jwt_sign(
                _key_of(client),
                client.client_id,
                client.audience or url,
                alg=client.signing_algorithm,
                header={"alg": client.signing_algorithm, **({"kid": client.private_key_id} if client.private_key_id else {})},
                expires_in=_ASSERTION_LIFETIME,
            )
        except Exception as exc:  # noqa: BLE001 -- two libraries read the key; none of their texts is told.
            raise _unusable(self._channel, "private_key", exc, f"a PEM that {client.signing_algorithm} can sign with") from None
        text = assertion if isinstance(assertion, str) else assertion.decode()
        more = urlencode({"client_id": client.client_id, "client_assertion_type": _ASSERTION_TYPE, "client_assertion": text})
        return url, headers, f"{body}&{more}"

    def post(self, url: str, *, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> _Answer:
        """
        Send what Authlib worded, and keep the token of an answer that makes sense.
        """
        httpx = _libraries()[1]
        request = self._request(*auth.prepare("POST", url, dict(headers), urlencode(data)))
        # To make one takes longer than the request; without TLS it is to this machine itself, and needs none.
        context = self._tls(httpx) if request.url.startswith("https:") else False
        body = json.dumps(request.parameters) if self._client.body == "json" else urlencode(request.parameters)
        with (
            _Deadline(self._client.timeout) as deadline,
            httpx.Client(timeout=self._client.timeout, follow_redirects=False, verify=context) as http,
        ):
            self._about.reached("asking")
            watched = {"trace": deadline.trace}
            try:
                with http.stream("POST", request.url, content=body.encode(), headers=request.headers, extensions=watched) as response:
                    self._about.reached("answered")
                    self._status = response.status_code
                    self._about.answered(response.status_code, response.headers)
                    self._token = self._read(response)
                    return _Answer(self._status)
            except httpx.HTTPError:
                if not deadline.has_passed:
                    raise
        raise _TooLateError

    def _request(self, url: str, headers: Mapping[str, str], body: str) -> TokenRequest:
        client = self._client
        parameters = {**dict(parse_qsl(body, keep_blank_values=True)), **client.parameters}
        if client.provider.grant_type == "":
            parameters.pop("grant_type", None)
        kind = "application/json" if client.body == "json" else "application/x-www-form-urlencoded"
        # What is packed can grow without a bound while it is unpacked.
        given = {**headers, "Content-Type": kind, "Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "celery_obs"}
        request = TokenRequest(self._about.connection, url, given, parameters)
        if client.before_request is not None:
            _call(self._channel, "before_request", client.before_request, request)
            request.url = filled(self._channel, request.url, {})
        return request

    def _tls(self, httpx: Any) -> Any:
        """
        Return what httpx checks the channel's certificate with, and shows ours.
        """
        client = self._client
        context = httpx.create_ssl_context()
        if client.certificate:
            try:
                context.load_cert_chain(client.certificate, client.certificate_key or None)
            except (OSError, ValueError) as exc:  # What is no certificate is an OSError, too.
                raise _unusable(self._channel, "certificate", exc, "files with a certificate and its key as PEM") from None
        return context

    def _read(self, response: httpx.Response) -> Mapping[str, Any]:
        """
        Return the token in an answer.

        Raises:
            ChannelError: if there is none.
        """
        status = response.status_code
        failure = _failure_of(status, response.headers, self._channel)
        if failure is not None:
            raise failure
        if 300 <= status < 400:  # noqa: PLR2004 -- redirects.
            self._refuse(f"redirects elsewhere ({status}), which is not followed, for it would take our secrets there")
        encoding, kind = response.headers.get("content-encoding", "identity"), response.headers.get("content-type", "")
        data = answer_of(self._unpacked(b"".join(self._chunks(response)), encoding), kind)
        if data is None and status < 400:  # noqa: PLR2004 -- where HTTP's errors begin.
            self._refuse("answered with something that is not a JSON object")
        answer = Answer(status, response.headers, data or {})
        reading = self._reading(answer)
        if reading.meaning == "token":
            return reading.token
        raise _failure(answer, reading, self._channel)

    def _reading(self, answer: Answer) -> Reading:
        provider, hook = self._client.provider, self._client.after_response
        reading = read(answer, provider)
        if hook is None:
            return reading
        try:
            changed = _call(self._channel, "after_response", hook, answer)
        except ConfigurationError as exc:
            if reading.meaning != "token":
                raise
            # The channel has given a token and will not give it again.
            _bare(exc)
            self._about.complain(exc)
            return reading
        return reading if changed is None else read(answer._replace(data=changed), provider)

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        size = 0
        for chunk in response.iter_raw(16 * 1024):
            size += len(chunk)
            if size > LONGEST_ANSWER:
                self._refuse(f"answered with more than {LONGEST_ANSWER} bytes")
            yield chunk

    def _unpacked(self, body: bytes, encoding: str) -> bytes:
        if encoding.lower() not in {"gzip", "deflate"}:
            return body
        unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            body = unpacking.decompress(body, LONGEST_ANSWER)
        except zlib.error:
            return b""
        if unpacking.unconsumed_tail:
            self._refuse(f"answered with more than {LONGEST_ANSWER} bytes")
        return body

    def _refuse(self, what: str) -> NoReturn:
        message = f"The token endpoint of {self._channel!r:.100} {what}. Expected a JSON object from the token_url in oauth_clients; see whether that is right."
        raise ApiError(message, channel=self._channel, status_code=self._status)


_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_LIFETIME: Final = 300
_KEY_TYPES: Final[Mapping[str, str]] = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


def _key_of(client: OAuthClient) -> Any:
    """
    Return the key as Authlib takes it: up to version 1.6 the text, and after that one that joserfc has read.
    """
    from authlib.oauth2.rfc7523 import auth

    if not hasattr(auth, "RSAKey"):
        return str(client.private_key)
    from joserfc.jwk import import_key

    return import_key(str(client.private_key), _KEY_TYPES[client.signing_algorithm[:2]])  # type: ignore[call-overload]  # One of the literals.


def _call(channel: str, name: str, hook: Any, argument: Any) -> Any:
    """
    Call a hook.

    Raises:
        ChannelError: what it raised on purpose.
        ConfigurationError: if it cannot be found, or failed: without what it raised, which may tell what it has seen.
    """
    try:
        found = named(f"oauth_clients[{channel!r:.100}][{name!r}]", hook, "__call__")
        return found(argument)
    except (ChannelError, ConfigurationError):
        raise
    except Exception as exc:  # noqa: BLE001 -- a hook of the application's.
        raise _unusable(channel, name, exc, "something that takes a request or an answer and raises a ChannelError at most") from None


def _unusable(channel: str, name: str, error: Exception, expected: str) -> ConfigurationError:
    return ConfigurationError(
        f"The client of {channel!r:.100} in oauth_clients has a {name} that does not work ({type(error).__name__}). Expected {expected}."
    )


class _Answer:
    """
    An answer as Authlib reads it: one that is fine, for what is not was raised, and what it holds was taken out.
    """

    def __init__(self, status: int) -> None:
        self.status_code = status

    def json(self) -> dict[str, Any]:
        """
        Return nothing that Authlib would have to understand.
        """
        return {"access_token": "taken"}

    def raise_for_status(self) -> None:
        """
        Do nothing: what is no answer was refused before.
        """


_KNOWN: Final = frozenset({"access_token", "refresh_token", "scope", "expires_at", "expires_in"})


def _token(answer: Mapping[str, Any], *, old: Token | None, client: OAuthClient, now: float) -> Token:
    access, refresh = answer.get("access_token"), answer.get("refresh_token")
    if not isinstance(access, str) or not access or not isinstance(refresh, (str, type(None))):
        raise TypeError
    lifetime = lifetime_of(answer.get("expires_in"))
    if lifetime is None:
        lifetime = _left(answer.get("expires_at"), now)
    if lifetime is None:
        lifetime = client.lifetime or (None if old is None else old.lifetime)
    scope = answer.get("scope")
    return Token(
        access_token=access,
        refresh_token=refresh or ("" if old is None else old.refresh_token),
        expires_at=None if lifetime is None else now + lifetime,
        lifetime=lifetime,
        scope=scope if isinstance(scope, str) else "" if old is None else old.scope,
        extra={key: value for key, value in answer.items() if key not in _KNOWN},
        issued_at=now,
    )


def _left(value: Any, now: float) -> float | None:
    """
    Read ``expires_at``, however it is written, as seconds from now on; None for what is no time, or over.
    """
    try:
        until = time_of(value, "expires_at")
    except (TypeError, ValueError):
        return None
    return None if until is None else lifetime_of(until - now)


def lifetime_of(value: Any) -> float | None:
    """
    Read ``expires_in``: seconds, also as a text, at most :data:`LONGEST_LIFETIME`.  None for what is no time to live: 0, -1, "soon", nothing.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return LONGEST_LIFETIME if isinstance(value, int) and value > 0 else None
    if math.isnan(seconds) or seconds <= 0:
        return None
    return min(seconds, LONGEST_LIFETIME)


# --- errors that have seen nothing ------------------------------------------------------------------------------------------------


def _failure_of(status: int, headers: Any, channel: str) -> ChannelError | None:
    """
    Return what a status code alone says, whatever the answer holds; None where the answer has to be read.
    """
    retry_after = seconds_of(header(headers, "Retry-After"))
    if status == 429:  # noqa: PLR2004 -- too many requests.
        return _too_often(channel, "429", status, retry_after)
    if status in {408, 425}:
        message = f"The token endpoint of {channel!r:.100} gave up waiting ({status}). Nothing to do: it is tried again later."
        return ApiTimeoutError(message, channel=channel, status_code=status, retry_after=retry_after)
    if status >= 500:  # noqa: PLR2004 -- the server's fault.
        message = f"The token endpoint of {channel!r:.100} failed ({status}). Nothing to do: it is tried again later."
        return ApiError(message, channel=channel, status_code=status, retry_after=retry_after)
    return None


def _failure(answer: Answer, reading: Reading, channel: str) -> ChannelError:
    """
    Return the error that an answer without a token stands for.
    """
    status, code = answer.status, reading.code
    if reading.meaning == "dead":
        message = (
            f"The channel {channel!r:.100} no longer accepts the connection's refresh token ({code}). "
            "Trying again does not help: let the customer authorise again."
        )
        return TokenRefusedError(message, channel=channel, status_code=400)
    retry_after = seconds_of(header(answer.headers, "Retry-After"))
    if reading.meaning == "throttled":
        return _too_often(channel, code, status, retry_after)
    if reading.meaning == "later":
        message = f"The token endpoint of {channel!r:.100} cannot answer now ({code}). It is tried again later."
        return ApiError(message, channel=channel, retry_after=retry_after)
    if reading.meaning in {"ours", "unknown"}:
        shown = code or "a code that OAuth2 does not have"
        message = f"The token endpoint of {channel!r:.100} refuses our client ({shown}). The tokens may be fine: see client_id, client_secret and scope in oauth_clients."
        return ClientRefusedError(message, channel=channel, status_code=401)
    if status in {401, 403}:
        message = (
            f"The token endpoint of {channel!r:.100} rejected our credentials ({status}). See token_url and the client in oauth_clients."
        )
        return AuthError(message, channel=channel, status_code=status)
    if status >= 400:  # noqa: PLR2004 -- as above.
        message = f"The token endpoint of {channel!r:.100} does not take our request ({status}). See token_url in oauth_clients."
        return ValidationError(message, channel=channel, status_code=status)
    return _no_token(channel, "nothing in place of one")


def _too_often(channel: str, code: str, status: int, retry_after: float | None) -> RateLimitError:
    message = f"The token endpoint of {channel!r:.100} was asked too often ({code}). Nothing to do: it is tried again later."
    return RateLimitError(message, channel=channel, status_code=status, retry_after=retry_after)


def _no_token(channel: str, what: str) -> ApiError:
    message = (
        f"The token endpoint of {channel!r:.100} gave an answer that holds no token ({what}). "
        "Expected access_token, and maybe refresh_token and expires_in; see whether the token_url in oauth_clients is right."
    )
    return ApiError(message, channel=channel)


def _translated(error: BaseException, channel: str, client: OAuthClient) -> BaseException:
    """
    Say what went wrong by an error that knows no secret.
    """
    if isinstance(error, (ChannelError, ConfigurationError, MissingExtraError)) or not isinstance(error, Exception):
        return _bare(error)
    httpx = _libraries()[1]
    if isinstance(error, (httpx.TimeoutException, _TooLateError)):
        message = (
            f"The token endpoint of {channel!r:.100} did not answer within {client.timeout:g} s. Nothing to do: it is tried again later."
        )
        return ApiTimeoutError(message, channel=channel)
    if isinstance(error, httpx.TransportError):
        message = f"The token endpoint of {channel!r:.100} cannot be reached ({type(error).__name__}). It is tried again later; if that stays so, see token_url in oauth_clients."
        return NetworkError(message, channel=channel)
    if isinstance(error, (ValueError, TypeError, LookupError, AttributeError, RuntimeError, httpx.HTTPError, httpx.InvalidURL)):
        return _no_token(channel, type(error).__name__)
    # Not about the request, but the end of the process or the task: a soft time limit, for example.
    return _bare(error)


def _bare(error: BaseException) -> BaseException:
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
