"""
Twelve token endpoints that exist, played on loopback: each takes the request that its provider documents, and answers as that does.

::

    with Zoo() as zoo:
        grant = zoo.authorize("fitbit", "conn-1")     # the customer has consented
        zoo.answer_next("fitbit", "throttled")        # and then something goes wrong
        zoo.ledger                                    # what was asked, and what came of it

``python -m celery_obs.demo.provider.zoo`` plays them as a process of its own, which is told the same by HTTP: POST ``/admin/authorize`` and
``/admin/revoke`` with ``{"provider": …, "account": …}``, ``/admin/answer_next`` with ``{"provider": …, "kind": …}``, and GET ``/admin/ledger``.

Written by hand from the providers' pages, and not from `celery_obs.areas.channels.tokens.providers`, so that each can be held against the other.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import json
import re
import signal
import sys
import threading
import time

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit

import click


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["SPECIES", "Consent", "Entry", "Kind", "Species", "Zoo", "client_of"]


Kind: TypeAlias = Literal["good", "dead", "wrong_client", "malformed", "throttled", "broken", "timeout", "gibberish", "form"]
"""
What an endpoint can answer.  *dead*: the refresh token is unknown, revoked or used up.  *malformed*: the request is not as the provider documents it.
*form*: a token as OAuth2's drafts had it.
"""

CLIENT_ID: Final = "zoo-client"
CLIENT_SECRET: Final = "zoo-secret"  # noqa: S105 -- of a fake, on loopback.


class Consent(NamedTuple):
    """
    What a customer's consent brings.
    """

    access_token: str
    refresh_token: str


class Entry(NamedTuple):
    """
    One request, in the order in which they came.

    Attributes:
        provider: Which endpoint was asked.

        account: Whose refresh token it was; empty for one that was never given.

        refresh_token: The token itself.

        kind: What was answered.

        reused: Whether the token had been traded for another one before.
    """

    provider: str
    account: str
    refresh_token: str
    kind: Kind
    reused: bool


class _Answer(NamedTuple):
    """
    An answer.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = {}


_PAGE: Final = "<!doctype html><html><body>We will be back soon</body></html>"
_WAIT: Final = {"Retry-After": "30"}
_ANY_ANSWER: Final[Mapping[Kind, _Answer]] = {
    "throttled": _Answer(429, {"error": "rate_limit_exceeded"}, _WAIT),
    "broken": _Answer(503, _PAGE),
    "timeout": _Answer(408, ""),
    "gibberish": _Answer(200, _PAGE),
    "dead": _Answer(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}),
    "wrong_client": _Answer(401, {"error": "invalid_client", "error_description": "The client is unknown."}),
    "malformed": _Answer(400, {"error": "invalid_request"}),
}


class Species(NamedTuple):
    """
    One provider.

    Attributes:
        good: Makes the answer with a token, of the access token, the refresh token and the time.

        answers: What it says otherwise, where that is not as OAuth2 has it.

        path: Its path below its name; ``{name}`` differs from customer to customer.

        client: Where it wants to be told who asks.

        body: How it wants the parameters.

        needs: Parameters that have to be there.

        rotates: Whether a refresh token works once.
    """

    good: Callable[[str, str, float], Mapping[str, Any]]
    answers: Mapping[Kind, _Answer] = {}
    path: str = "/oauth/token"
    client: Literal["basic", "form"] = "form"
    body: Literal["form", "json"] = "form"
    needs: Mapping[str, str] = {"grant_type": "refresh_token"}
    rotates: bool = True


def _fitbit(code: str, message: str) -> Any:
    return {
        "errors": [{"errorType": code, "message": f"{message} Visit https://dev.fitbit.com/docs/oauth2 for more information."}],
        "success": False,
    }


def _strava(resource: str, field: str) -> Any:
    return {"message": "Bad Request", "errors": [{"resource": resource, "field": field, "code": "invalid"}]}


def _withings(status: int, error: str) -> _Answer:
    return _Answer(200, {"status": status, "body": {}, "error": error})


def _plain(lifetime: int, **more: Any) -> Callable[[str, str, float], Mapping[str, Any]]:
    return lambda access, refresh, _: {
        "access_token": access,
        "refresh_token": refresh,
        "token_type": "bearer",
        "expires_in": lifetime,
        **more,
    }


SPECIES: Final[Mapping[str, Species]] = {
    "airbnb": Species(
        lambda access, refresh, now: {"access_token": access, "refresh_token": refresh, "expires_at": int(now) + 86_400, "user_id": 1},
        client="basic",
    ),
    "booking": Species(
        lambda access, _, __: {"jwt": access, "ruid": "980ceb59-2790-7841-b172-57f1c9489653"},
        {"wrong_client": _Answer(401, {"message": "Unauthorized"}), "throttled": _Answer(429, {"message": "Too many tokens"}, _WAIT)},
        path="/token-based-authentication/exchange",
        body="json",
        needs={},
        rotates=False,
    ),
    "fitbit": Species(
        _plain(28_800, scope="activity sleep", user_id="26FWFL"),
        {
            "dead": _Answer(400, _fitbit("invalid_grant", "Refresh token invalid.")),
            "wrong_client": _Answer(401, _fitbit("invalid_client", "Invalid authorization header.")),
            "malformed": _Answer(400, _fitbit("invalid_request", "Missing parameters: refresh_token.")),
            "throttled": _Answer(429, _fitbit("system", "Too Many Requests."), _WAIT),
        },
        path="/oauth2/token",
        client="basic",
    ),
    "github": Species(
        _plain(28_800, scope="", refresh_token_expires_in=15_897_600),
        {
            "dead": _Answer(200, {"error": "bad_refresh_token", "error_description": "The refresh token passed is incorrect or expired."}),
            "wrong_client": _Answer(200, {"error": "incorrect_client_credentials", "error_description": "The client_secret is incorrect."}),
        },
        path="/login/oauth/access_token",
    ),
    "google": Species(
        lambda access, _, __: {"access_token": access, "expires_in": 3599, "scope": "calendar", "token_type": "Bearer"},
        path="/token",
        rotates=False,
    ),
    "hubspot": Species(
        _plain(1800, hub_id=62_515),
        {
            "dead": _Answer(400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token"}),
            "wrong_client": _Answer(400, {"status": "BAD_CLIENT_ID", "message": "missing or unknown client id"}),
        },
        path="/oauth/v3/token",
        rotates=False,
    ),
    "microsoft": Species(
        _plain(3599, ext_expires_in=3599, scope="calendars.readwrite"),
        {
            "dead": _Answer(400, {"error": "interaction_required", "error_description": "AADSTS50076: …", "error_codes": [50_076]}),
            "wrong_client": _Answer(401, {"error": "invalid_client", "error_description": "AADSTS7000215: …", "error_codes": [7_000_215]}),
            "broken": _Answer(400, {"error": "temporarily_unavailable", "error_description": "…"}),
        },
        path="/{tenant}/oauth2/v2.0/token",
        rotates=False,
    ),
    "quickbooks": Species(
        _plain(3600, x_refresh_token_expires_in=8_726_400),
        {"dead": _Answer(400, {"error": "invalid_grant"})},
        path="/oauth2/v1/tokens/bearer",
        client="basic",
    ),
    "shopify": Species(
        _plain(3600, refresh_token_expires_in=7_776_000, scope="write_orders"),
        {"wrong_client": _Answer(400, {"error": "application_cannot_be_found"})},
        path="/{shop}/admin/oauth/access_token",
    ),
    "slack": Species(
        _plain(43_200, ok=True, team={"id": "T9TK3CUKW"}),
        {
            "dead": _Answer(200, {"ok": False, "error": "invalid_refresh_token"}),
            "wrong_client": _Answer(200, {"ok": False, "error": "bad_client_secret"}),
            "throttled": _Answer(429, {"ok": False, "error": "ratelimited"}, _WAIT),
            "broken": _Answer(200, {"ok": False, "error": "internal_error"}),
            "malformed": _Answer(200, {"ok": False, "error": "invalid_grant_type"}),
        },
        path="/api/oauth.v2.access",
        client="basic",
    ),
    "strava": Species(
        lambda access, refresh, now: {**_plain(21_600)(access, refresh, now), "expires_at": int(now) + 21_600},
        {
            "dead": _Answer(400, _strava("RefreshToken", "refresh_token")),
            "wrong_client": _Answer(401, _strava("Application", "client_id")),
            "malformed": _Answer(400, _strava("Application", "client_secret")),
        },
    ),
    "withings": Species(
        lambda access, refresh, now: {"status": 0, "body": {**_plain(10_800, userid="363")(access, refresh, now), "csrf_token": "x"}},
        {
            "dead": _withings(503, "Invalid Params: invalid refresh_token"),
            "wrong_client": _withings(503, "Invalid Params: invalid client_id/client_secret"),
            "malformed": _withings(2554, "Unknown action"),
            "throttled": _withings(601, "Too Many Request"),
            "broken": _withings(522, "Timeout"),
        },
        path="/v2/oauth2",
        needs={"action": "requesttoken", "grant_type": "refresh_token"},
    ),
}
"""
By name.
"""


def client_of(url: str, provider: str) -> dict[str, Any]:
    """
    Return a client of *provider* at the zoo at *url*, for the setting ``oauth_clients``.
    """
    return {
        "provider": provider,
        "token_url": f"{url}/{provider}{SPECIES[provider].path}",
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }


class Zoo:
    """
    All of them, on one port; as a context it serves until the context is left.

    Args:
        port: On loopback; 0 for any free one.

    Attributes:
        ledger: What was asked, and what came of it.

    Threads: safe.
    """

    def __init__(self, *, port: int = 0) -> None:
        self.ledger: list[Entry] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._accounts: dict[tuple[str, str], str] = {}
        self._live: dict[tuple[str, str], str] = {}
        self._given: dict[tuple[str, str], str] = {}
        self._traded: set[tuple[str, str]] = set()
        self._next: dict[str, deque[Kind]] = defaultdict(deque)
        self._server = _server(self, port)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="zoo", daemon=True)

    @property
    def url(self) -> str:
        """
        Where it is.
        """
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def token_url(self, provider: str) -> str:
        """
        Return where an endpoint is, with ``{name}`` for what differs from customer to customer.
        """
        return str(client_of(self.url, provider)["token_url"])

    def client(self, provider: str, **changes: Any) -> dict[str, Any]:
        """
        Return a client for the setting ``oauth_clients``.
        """
        return {**client_of(self.url, provider), **changes}

    def authorize(self, provider: str, account: str) -> Consent:
        """
        Give an account its first tokens, or new ones that end what it had.
        """
        with self._lock:
            self._end(provider, account)
            return self._issue(provider, account)

    def revoke(self, provider: str, account: str) -> None:
        """
        End an account's tokens, as its owner may at any time.
        """
        with self._lock:
            self._end(provider, account)

    def accepts(self, provider: str, refresh_token: str) -> bool:
        """
        Tell whether a refresh with this token would work now.
        """
        with self._lock:
            return (provider, str(refresh_token)) in self._live

    def answer_next(self, provider: str, kind: Kind, *, times: int = 1) -> None:
        """
        Have the next requests be answered in this way, whatever they are.
        """
        with self._lock:
            self._next[provider].extend([kind] * times)

    def asked(self, provider: str) -> list[Kind]:
        """
        Return what was answered by one endpoint, in order.
        """
        with self._lock:
            return [entry.kind for entry in self.ledger if entry.provider == provider]

    def _issue(self, provider: str, account: str) -> Consent:
        number = next(self._numbers)
        keeps = not SPECIES[provider].rotates and (provider, account) in self._accounts
        refresh = self._accounts[provider, account] if keeps else f"rt-{provider}-{number}"
        self._accounts[provider, account] = refresh
        self._live[provider, refresh] = self._given[provider, refresh] = account
        return Consent(f"at-{provider}-{number}", refresh)

    def _end(self, provider: str, account: str) -> None:
        self._live.pop((provider, self._accounts.pop((provider, account), "")), None)

    def answer(self, provider: str, parameters: Mapping[str, str], credentials: tuple[str, str, str], body: str) -> _Answer:
        """
        Answer a request, and write it down.

        Args:
            provider: Whose endpoint was asked.

            parameters: What was sent.

            credentials: Where it said who asks, and its id and secret.

            body: How the parameters came.
        """
        species, refresh = SPECIES[provider], parameters.get("refresh_token", "")
        with self._lock:
            account = self._live.get((provider, refresh), "")
            kind = self._kind(provider, parameters, credentials, body)
            reused = (provider, refresh) in self._traded
            self.ledger.append(Entry(provider, self._given.get((provider, refresh), ""), refresh, kind, reused))
            if kind not in {"good", "form"}:
                return species.answers.get(kind, _ANY_ANSWER[kind])
            if species.rotates:
                self._live.pop((provider, refresh), None)
                self._traded.add((provider, refresh))
            granted = species.good(*self._issue(provider, account), time.time())
        return _Answer(200, urlencode(dict(granted)) if kind == "form" else granted)

    def _kind(self, provider: str, parameters: Mapping[str, str], credentials: tuple[str, str, str], body: str) -> Kind:
        species = SPECIES[provider]
        if self._next[provider]:
            return self._next[provider].popleft()
        if (
            body != species.body
            or credentials[0] != species.client
            or any(parameters.get(name) != value for name, value in species.needs.items())
        ):
            return "malformed"
        if credentials[1:] != (CLIENT_ID, CLIENT_SECRET):
            return "wrong_client"
        asks_for_itself = "grant_type" not in species.needs
        return "good" if asks_for_itself or (provider, parameters.get("refresh_token", "")) in self._live else "dead"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


_LONGEST_BODY: Final = 1 << 16


def _server(zoo: Zoo, port: int) -> ThreadingHTTPServer:
    paths = {
        name: re.compile(re.sub(r"\\\{\w+\\\}", r"[A-Za-z0-9.-]+", re.escape(f"/{name}{each.path}"))) for name, each in SPECIES.items()
    }

    class Handler(BaseHTTPRequestHandler):
        """
        One request.
        """

        def do_GET(self) -> None:
            self._send(_administer(zoo, self.command, self.path, {}))

        def do_POST(self) -> None:
            sent = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _LONGEST_BODY)).decode("utf-8", "replace")
            path = urlsplit(self.path).path
            provider = next((name for name, pattern in paths.items() if pattern.fullmatch(path)), None)
            if provider is None:
                self._send(_administer(zoo, self.command, path, _object(sent)))
                return
            is_json = self.headers.get("Content-Type", "").startswith("application/json")
            parameters = _object(sent) if is_json else dict(parse_qsl(sent))
            self._send(zoo.answer(provider, parameters, _client(self.headers, parameters), "json" if is_json else "form"))

        def _send(self, answer: _Answer) -> None:
            is_text = isinstance(answer.body, str)
            content = (answer.body if is_text else json.dumps(answer.body)).encode()
            kind = (
                "application/json" if not is_text else "text/html" if answer.body.startswith("<") else "application/x-www-form-urlencoded"
            )
            self.send_response(answer.status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """
            Say nothing.
            """

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def _administer(zoo: Zoo, method: str, path: str, asked: Mapping[str, Any]) -> _Answer:
    if (method, path) == ("GET", "/admin/ledger"):
        return _Answer(200, [entry._asdict() for entry in zoo.ledger])
    if method != "POST" or path not in {"/admin/authorize", "/admin/revoke", "/admin/answer_next"}:
        return _Answer(404, _PAGE)
    provider, account, kind = (str(asked.get(name, "")) for name in ("provider", "account", "kind"))
    if provider not in SPECIES:
        return _Answer(422, {"error": f"There is no provider {provider!r}. Expected one of {', '.join(SPECIES)}."})
    if path == "/admin/authorize":
        return _Answer(200, zoo.authorize(provider, account)._asdict())
    if path == "/admin/revoke":
        zoo.revoke(provider, account)
        return _Answer(200, {})
    if kind not in get_args(Kind):
        return _Answer(422, {"error": f"There is no answer {kind!r}. Expected one of {', '.join(get_args(Kind))}."})
    zoo.answer_next(provider, kind)  # type: ignore[arg-type]  # Looked up in the line before.
    return _Answer(200, {})


def _object(sent: str) -> dict[str, str]:
    try:
        found = json.loads(sent)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _client(headers: Any, parameters: Mapping[str, str]) -> tuple[str, str, str]:
    word, _, coded = headers.get("Authorization", "").partition(" ")
    if word == "Basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            name, _, secret = base64.b64decode(coded).decode().partition(":")
            return "basic", name, secret
    return "form", parameters.get("client_id", ""), parameters.get("client_secret", "")


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port on loopback; 0 for any free one.")
def main(port: int) -> None:
    """
    Play twelve token endpoints on loopback, until it is ended; the first line that it prints is where they are.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Zoo(port=port) as zoo:
        sys.stdout.write(f"{zoo.url}\n")
        sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
