"""
OAuth2: trade a refresh token for a new pair at a channel's token endpoint, by Authlib on httpx.

Authlib words the request and reads the answer's errors.  The request itself is ours: it follows no redirect (that would take our secrets elsewhere),
reads no more than :data:`LONGEST_ANSWER`, and gives up in time.

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
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import urlencode, urlsplit

from celery_obs.clock import Clock
from celery_obs.exceptions import ConfigurationError, MissingExtraError
from celery_obs.settings import OAuthClient, Settings

from .errors import ApiError, ApiTimeoutError, AuthError, ChannelError, NetworkError, RateLimitError, ValidationError, header, seconds_of
from .vault import Token


if TYPE_CHECKING:
    import httpx

    from typing_extensions import Self


__all__ = ["LONGEST_ANSWER", "ClientRefusedError", "TokenRefusedError", "client_of", "endpoint_of", "lifetime_of", "renew"]


LONGEST_ANSWER: Final = 256 * 1024
"""
Bytes that a token endpoint's answer may have, unpacked.
"""

LONGEST_LIFETIME: Final = 10 * 365 * 24 * 3600.0
"""
Seconds; a token that is said to last longer is taken to last so long.
"""

_CLIENT_ERRORS: Final = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_request", "invalid_scope"})
_PASSING_ERRORS: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})


class TokenRefusedError(AuthError):
    """
    The channel takes the refresh token no more: somebody has to authorise again.
    """


class ClientRefusedError(AuthError):
    """
    The channel does not accept how we ask: the client in the settings is wrong, not the token.
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
    Return the route of a client's token endpoint.
    """
    return urlsplit(client.token_url).path or "/"


def renew(
    client: OAuthClient, old: Token, *, channel: str, now: Clock, answered: Callable[[int, Any], None], reached: Callable[[str], None]
) -> Token:
    """
    Trade *old* for a new token.

    Args:
        client: How.

        old: Its refresh token is used up by this, at most channels.

        channel: For messages.

        now: Tells the time.

        answered: Hears the answer's status code and headers as soon as they are there.

        reached: Hears of each point.

    Raises:
        TokenRefusedError: if the channel does not take the refresh token any more.
        ClientRefusedError: if it does not take us for whom we say to be.
        ChannelError: of another class for everything else.
    """
    caught: BaseException | None = None
    sent_at = now()
    try:
        exchange = _Exchange(client, channel, answered, reached)
        # The answer is no variable here: what is raised below tells the locals of this frame to whoever shows them.
        new = _token(exchange.refresh(old), exchange, old=old, client=client, now=sent_at)
    except BaseException as exc:  # noqa: BLE001 -- raised again below, without what it has seen.
        caught = exc
    # Outside of the handler, or Python would chain what is raised to what was caught.
    failure = None if caught is None else _told_anew(caught, channel, client)
    caught = None
    if failure is not None:
        raise failure
    reached("understood")
    return new


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


class _Refusal(Exception):  # noqa: N818 -- never leaves this module.
    """
    The answer is an error as OAuth2 words it.  Only its code is kept: the description may say our token again.
    """

    def __init__(self, error: Any = None, description: Any = None) -> None:
        super().__init__()
        self.error = error if isinstance(error, str) else ""


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

    Attributes:
        said_lifetime: What it says for ``expires_in``, whatever that is.
    """

    def __init__(self, client: OAuthClient, channel: str, answered: Callable[[int, Any], None], reached: Callable[[str], None]) -> None:
        self.said_lifetime: Any = None
        self._status: int | None = None
        self._client = client
        self._channel = channel
        self._answered = answered
        self._reached = reached

    def refresh(self, old: Token) -> Mapping[str, Any]:
        """
        Send the request, and return the answer.
        """
        client = self._client
        # Authlib's own httpx client reads answers of any size; its core takes any session that can post.
        oauth = _libraries()[0](
            self,
            client_id=client.client_id,
            client_secret=str(client.client_secret),
            token_endpoint_auth_method=client.token_endpoint_auth_method,
            scope=client.scope or None,
            token={},
        )
        oauth.oauth_error_class = _Refusal
        answer: Mapping[str, Any] = oauth.refresh_token(client.token_url, refresh_token=str(old.refresh_token))
        return answer

    def post(self, url: str, *, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> _Answer:
        """
        Send a form, and return an answer that makes sense.
        """
        httpx = _libraries()[1]
        url, given, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        # What is packed can grow without a bound while it is unpacked.
        given = {**given, "Accept-Encoding": "identity", "User-Agent": "celery_obs"}
        with _Deadline(self._client.timeout) as deadline, httpx.Client(timeout=self._client.timeout, follow_redirects=False) as http:
            self._reached("asking")
            watched = {"trace": deadline.trace}
            try:
                with http.stream("POST", url, content=body.encode(), headers=given, extensions=watched) as response:
                    self._reached("answered")
                    self._status = response.status_code
                    self._answered(response.status_code, response.headers)
                    return self._read(response)
            except httpx.HTTPError:
                if not deadline.has_passed:
                    raise
        raise _TooLateError

    def _read(self, response: httpx.Response) -> _Answer:
        """
        Read the answer as far as it is one of a token endpoint's.

        Raises:
            ChannelError: if it is none.
        """
        status = response.status_code
        if status == 429:  # noqa: PLR2004 -- too many requests.
            message = f"The token endpoint of {self._channel!r:.100} was asked too often (429). Nothing to do: it is tried again later."
            raise RateLimitError(
                message, channel=self._channel, status_code=status, retry_after=seconds_of(header(response.headers, "Retry-After"))
            )
        if status >= 500:  # noqa: PLR2004 -- the server's fault.
            message = f"The token endpoint of {self._channel!r:.100} failed ({status}). Nothing to do: it is tried again later."
            raise ApiError(
                message, channel=self._channel, status_code=status, retry_after=seconds_of(header(response.headers, "Retry-After"))
            )
        if 300 <= status < 400:  # noqa: PLR2004 -- redirects.
            self._refuse(f"redirects elsewhere ({status}), which is not followed, for it would take our secrets there")
        data = self._data(b"".join(self._chunks(response)), response.headers.get("content-encoding", "identity"))
        if not isinstance(data, dict) or (status >= 400 and "error" not in data):  # noqa: PLR2004 -- refusals.
            if status in {401, 403}:
                message = f"The token endpoint of {self._channel!r:.100} lets us not in ({status}). See token_url and the client in oauth_clients."
                raise AuthError(message, channel=self._channel, status_code=status)
            if status >= 400:  # noqa: PLR2004 -- as above.
                message = (
                    f"The token endpoint of {self._channel!r:.100} does not take our request ({status}). See token_url in oauth_clients."
                )
                raise ValidationError(message, channel=self._channel, status_code=status)
            self._refuse("answered with something that is no JSON object")
        # Authlib would turn them into numbers, and fail where they are none.
        self.said_lifetime = data.pop("expires_in", None)
        data.pop("expires_at", None)
        return _Answer(status, data)

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        size = 0
        for chunk in response.iter_raw(16 * 1024):
            size += len(chunk)
            if size > LONGEST_ANSWER:
                self._refuse(f"answered with more than {LONGEST_ANSWER} bytes")
            yield chunk

    def _data(self, body: bytes, encoding: str) -> Any:
        if encoding.lower() in {"gzip", "deflate"}:
            unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                body = unpacking.decompress(body, LONGEST_ANSWER)
            except zlib.error:
                return None
            if unpacking.unconsumed_tail:
                self._refuse(f"answered with more than {LONGEST_ANSWER} bytes")
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None

    def _refuse(self, what: str) -> NoReturn:
        message = f"The token endpoint of {self._channel!r:.100} {what}. Expected a JSON object from the token_url in oauth_clients; see whether that is right."
        raise ApiError(message, channel=self._channel, status_code=self._status)


class _Answer:
    """
    An answer as Authlib reads it.
    """

    def __init__(self, status: int, data: dict[str, Any]) -> None:
        self.status_code = status
        self._data = data

    def json(self) -> dict[str, Any]:
        """
        Return the object in it.
        """
        return self._data

    def raise_for_status(self) -> None:
        """
        Do nothing: what is no answer was refused before.
        """


_KNOWN: Final = frozenset({"access_token", "refresh_token", "scope", "expires_at"})


def _token(answer: Mapping[str, Any], exchange: _Exchange, *, old: Token, client: OAuthClient, now: float) -> Token:
    access, refresh = answer.get("access_token"), answer.get("refresh_token")
    if not isinstance(access, str) or not access or not isinstance(refresh, (str, type(None))):
        raise TypeError
    lifetime = lifetime_of(exchange.said_lifetime)
    if lifetime is None:
        lifetime = client.lifetime or old.lifetime
    scope = answer.get("scope")
    return Token(
        access_token=access,
        refresh_token=refresh or old.refresh_token,
        expires_at=None if lifetime is None else now + lifetime,
        lifetime=lifetime,
        scope=scope if isinstance(scope, str) else old.scope,
        extra={key: value for key, value in answer.items() if key not in _KNOWN},
        issued_at=now,
    )


def lifetime_of(said: Any) -> float | None:
    """
    Read ``expires_in``: seconds, also as a text, at most :data:`LONGEST_LIFETIME`.  None for what is no time to live: 0, -1, "soon", nothing.
    """
    if isinstance(said, bool) or not isinstance(said, (int, float, str)):
        return None
    try:
        seconds = float(said)
    except (ValueError, OverflowError):
        return LONGEST_LIFETIME if isinstance(said, int) and said > 0 else None
    if math.isnan(seconds) or seconds <= 0:
        return None
    return min(seconds, LONGEST_LIFETIME)


# --- errors that have seen nothing ------------------------------------------------------------------------------------------------


def _told_anew(error: BaseException, channel: str, client: OAuthClient) -> BaseException:
    """
    Say what went wrong by an error that knows no secret.
    """
    if isinstance(error, _Refusal):
        return _refused(error.error, channel)
    if isinstance(error, (ChannelError, MissingExtraError)) or not isinstance(error, Exception):
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
        message = (
            f"The token endpoint of {channel!r:.100} gave an answer that holds no token ({type(error).__name__}). "
            "Expected access_token, and maybe refresh_token and expires_in; see whether the token_url in oauth_clients is right."
        )
        return ApiError(message, channel=channel)
    # Not about the request, but the end of the process or the task: a soft time limit, for example.
    return _bare(error)


def _refused(error: str, channel: str) -> ChannelError:
    if error == "invalid_grant":
        message = (
            f"The channel {channel!r:.100} does not take the connection's refresh token any more (invalid_grant). "
            "Trying again does not help: let the customer authorise again."
        )
        return TokenRefusedError(message, channel=channel, status_code=400)
    if error in _PASSING_ERRORS:
        return ApiError(f"The token endpoint of {channel!r:.100} cannot answer now ({error}). It is tried again later.", channel=channel)
    code = error if error in _CLIENT_ERRORS else "a code that OAuth2 does not have"
    message = f"The token endpoint of {channel!r:.100} refuses our client ({code}). The tokens may be well: see client_id, client_secret and scope in oauth_clients."
    return ClientRefusedError(message, channel=channel, status_code=401)


def _bare(error: BaseException) -> BaseException:
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
