"""
The fake channel on the wire: HTTP/1.1 on loopback, one thread a connection.

=========  ===============================================  ========================================================================
method     path (``/{channel}`` before it, where named)     what
=========  ===============================================  ========================================================================
POST       ``/oauth/token``                                 OAuth2, grant ``refresh_token``; client by Basic or in the form
GET, PUT   ``/listings/{id}/calendar?start=…&end=…``        free rooms by day, with a bearer token
POST       ``/admin/accounts``                              ``{"account"}``: a first pair of tokens
DELETE     ``/admin/accounts/{account}``                    its tokens are revoked
POST       ``/admin/faults``                                `Fault` as JSON: something goes wrong from now on
DELETE     ``/admin/faults?path=…``                         it is over
POST       ``/admin/drift``                                 ``{"channel", "listing", "start", "days"}``: rooms are sold behind our back
GET        ``/admin/state``                                 what was asked how often, and what goes wrong
=========  ===============================================  ========================================================================
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import itertools
import json
import re
import socket
import threading

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta, timezone
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

from celery_obs.clock import Clock, wall

from .accounts import Accounts, GrantRefusedError
from .faults import Fault, Faults, fault_of
from .inventory import Inventory, days_between


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["Provider"]


MOST_DAYS: Final = 731
"""
Days that one request may be about.
"""

_LONGEST_BODY: Final = 1 << 20
_MOST_PATHS: Final = 1000
_OTHER_PATHS: Final = "_other"
_CALENDAR: Final = re.compile(r"/listings/([^/]{1,600})/calendar")
_ACCOUNT: Final = re.compile(r"/admin/accounts/([^/]+)")
_PAGE: Final = b"<!doctype html><html><body><h1>We are improving things for you</h1></body></html>"


class _Answer(NamedTuple):
    """
    What is sent back.
    """

    status: int
    body: Any = None
    headers: Mapping[str, str] = {}


class _Request(NamedTuple):
    """
    What came in.
    """

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Any
    body: bytes


class _RefusedError(Exception):
    """
    The request ends here, with an answer.
    """

    def __init__(self, status: int, error: str, description: str, **headers: str) -> None:
        super().__init__(error)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = _Answer(status, {"error": error, "error_description": description}, named)


class Provider:
    """
    The fake channel; as a context it serves until the context is left.

    Args:
        port: Where to listen on loopback; 0 for any free port.

        channels: Channels that it plays, each below a path of its own name; below ``/`` it plays one without a name, always.

        client_id, client_secret: What a client of the token endpoint says.

        token_lifetime, reuse_grace: See `Accounts`.

        rate_limit: Calls of the inventory that a channel takes within *rate_window* seconds; None for any number.

        retry_after: How ``Retry-After`` is written.

        clock: Tells the time.

    Attributes:
        accounts, inventory, faults: What it is made of, for tests to turn.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        channels: Iterable[str] = (),
        client_id: str = "demo-client",
        client_secret: str = "demo-secret",  # noqa: S107 -- of a fake, on loopback.
        token_lifetime: float = 3600.0,
        reuse_grace: bool = False,
        rate_limit: int | None = None,
        rate_window: float = 10.0,
        retry_after: Literal["seconds", "date"] = "seconds",
        clock: Clock = wall,
    ) -> None:
        self.accounts = Accounts(lifetime=token_lifetime, reuse_grace=reuse_grace, clock=clock)
        self.inventory = Inventory()
        self.faults = Faults(clock=clock)
        self.channels = frozenset(channels)
        self.client_id = client_id
        self.client_secret = client_secret
        self.clock = clock
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._calls: dict[str, deque[float]] = {channel: deque(maxlen=rate_limit) for channel in ("", *self.channels)}
        self._rate_limit = rate_limit
        self._rate_window = rate_window
        self._retry_after = retry_after
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="provider", daemon=True)

    @property
    def url(self) -> str:
        """
        Where it is; a channel's own place is its name below that.
        """
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def token_url(self) -> str:
        """
        The token endpoint of the channel without a name.
        """
        return f"{self.url}/oauth/token"

    def start(self) -> None:
        """
        Serve, in a thread.
        """
        self._thread.start()

    def stop(self) -> None:
        """
        Serve no more; requests that still wait get no answer.
        """
        self.stopping.set()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def requests(self, path: str) -> int:
        """
        Return how many requests for exactly *path* came in so far, whatever became of them.
        """
        with self._lock:
            return self._requests[path]

    def all_requests(self) -> dict[str, int]:
        """
        Return how many requests came in so far by path; those of too many different paths are under ``_other``.
        """
        with self._lock:
            return dict(self._requests)

    def forget_requests(self) -> None:
        """
        Begin to count anew.
        """
        with self._lock:
            self._requests.clear()

    def note(self, path: str) -> None:
        """
        Count a request.
        """
        with self._lock:
            self._requests[path if path in self._requests or len(self._requests) < _MOST_PATHS else _OTHER_PATHS] += 1

    def wait_for_turn(self, channel: str) -> float:
        """
        Take a place in *channel*'s window; return the seconds until there is one, 0 when it was taken.
        """
        if self._rate_limit is None:
            return 0.0
        with self._lock:
            now = self.clock()
            calls = self._calls[channel]
            if len(calls) == self._rate_limit and now - calls[0] < self._rate_window:
                return self._rate_window - (now - calls[0])
            calls.append(now)
            return 0.0

    def written_retry_after(self, seconds: float) -> str:
        """
        Return what ``Retry-After`` says for *seconds*, which are rounded up.
        """
        whole = int(-(-seconds // 1))
        if self._retry_after == "seconds":
            return str(whole)
        # A date has whole seconds, too, and now is within one.
        return format_datetime(datetime.fromtimestamp(self.clock() + whole + 1, timezone.utc), usegmt=True)


class _Server(ThreadingHTTPServer):
    """
    A server that knows its connections, so that it can end them.
    """

    daemon_threads = False
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], provider: Provider) -> None:
        self.provider = provider
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        Say nothing: clients go away in the middle of things, that is what tests are for.
        """

    def close_connections(self) -> None:
        for each in tuple(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """
    One connection.
    """

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class calls it so.
        """
        Say nothing: paths hold ids, and the demo has a screen to keep.
        """

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 -- as the base class looks for them.

    def _serve(self) -> None:
        provider = self.server.provider
        place = urlsplit(self.path)
        is_admin = place.path.startswith("/admin/")
        if not is_admin:
            provider.note(place.path)
        try:
            body = self._body()
            fault = None if is_admin else provider.faults.hits(place.path)
            if fault is not None and self._fail(fault):
                return
            self._send(_route(provider, _Request(self.command, place.path, parse_qs(place.query), self.headers, body), fault))
        except _RefusedError as refused:
            self._send(refused.answer)

    def _body(self) -> bytes:
        written = self.headers.get("Content-Length", "0")
        if not written.isdecimal() or int(written) > _LONGEST_BODY:
            self.close_connection = True
            raise _RefusedError(413, "invalid_request", f"Expected a Content-Length up to {_LONGEST_BODY}.")
        return self.rfile.read(int(written))

    def _send(self, answer: _Answer) -> None:
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.body is not None:
            self.send_header("Content-Type", "application/json")
            self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _fail(self, fault: Fault) -> bool:
        """
        Let *fault* happen; False when the request is to be answered all the same.
        """
        if fault.kind == "slow":
            self.server.provider.stopping.wait(float(fault.value))
            return self.server.provider.stopping.is_set()
        if fault.kind == "expires_in":
            return False
        if fault.kind == "drop":
            self.close_connection = True
        elif fault.kind == "endless":
            self._go_on_and_on()
        elif fault.kind == "html":
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(_PAGE)))
            self.end_headers()
            self.wfile.write(_PAGE)
        else:
            self._send(self._failure(fault))
        return True

    def _failure(self, fault: Fault) -> _Answer:
        if fault.kind == "redirect":
            return _Answer(HTTPStatus.TEMPORARY_REDIRECT, None, {"Location": self.path})
        if fault.kind == "rate_limit":
            wait = self.server.provider.written_retry_after(float(fault.value or 1))
            return _Answer(HTTPStatus.TOO_MANY_REQUESTS, {"error": "rate_limited"}, {"Retry-After": wait})
        status = int(fault.value) if fault.kind == "status" else HTTPStatus.SERVICE_UNAVAILABLE
        return _Answer(status, {"error": "fault", "error_description": "The fake channel fails because it was told to."})

    def _go_on_and_on(self) -> None:
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = b"2000\r\n" + b'{"a":' * (0x2000 // 5) + b"  \r\n"
        with contextlib.suppress(OSError):
            self.wfile.write(piece)
            while not self.server.provider.stopping.wait(0.001):
                self.wfile.write(piece)


# --- routes -----------------------------------------------------------------------------------------------------------------------


def _route(provider: Provider, request: _Request, fault: Fault | None) -> _Answer:
    if request.path.startswith("/admin/"):
        return _administer(provider, request)
    channel, rest = _channel_of(provider, request.path)
    if rest == "/oauth/token":
        _expect(request.method, "POST")
        return _token(provider, request, fault)
    calendar = _CALENDAR.fullmatch(rest)
    if calendar is None:
        raise _RefusedError(404, "not_found", "There is nothing here.")
    _expect(request.method, "GET", "PUT")
    account = _bearer(provider, request)
    wait = provider.wait_for_turn(channel)
    if wait > 0:
        raise _RefusedError(429, "rate_limited", "Too many calls.", Retry_After=provider.written_retry_after(wait))
    listing = unquote(calendar[1])
    if request.method == "GET":
        return _read_calendar(provider, channel, listing, request.query, account)
    return _write_calendar(provider, channel, listing, request.body)


def _channel_of(provider: Provider, path: str) -> tuple[str, str]:
    first, slash, rest = path[1:].partition("/")
    return (first, slash + rest) if slash and first in provider.channels else ("", path)


def _expect(method: str, *wanted: str) -> None:
    if method not in wanted:
        raise _RefusedError(405, "invalid_request", f"Expected {' or '.join(wanted)}.", Allow=", ".join(wanted))


def _json(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise _RefusedError(400, "invalid_request", "Expected a JSON object.")
    return data


# --- tokens -----------------------------------------------------------------------------------------------------------------------


def _token(provider: Provider, request: _Request, fault: Fault | None) -> _Answer:
    form = parse_qs(request.body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    client = _client(request, form)
    if not _same(client, (provider.client_id, provider.client_secret)):
        raise _RefusedError(401, "invalid_client", "The client is unknown.", WWW_Authenticate='Basic realm="token"')
    if form.get("grant_type") != ["refresh_token"]:
        raise _RefusedError(400, "unsupported_grant_type", "Expected refresh_token.")
    try:
        grant = provider.accounts.refresh(form.get("refresh_token", [""])[0])
    except GrantRefusedError as refused:
        raise _RefusedError(400, "invalid_grant", str(refused)) from None
    answer = {**grant._asdict(), "token_type": "Bearer"}
    if fault is not None and fault.kind == "expires_in":
        answer["expires_in"] = fault.value
    return _Answer(HTTPStatus.OK, answer)


def _client(request: _Request, form: Mapping[str, list[str]]) -> tuple[str, str]:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return unquote_plus(name), unquote_plus(secret)
    return form.get("client_id", [""])[0], form.get("client_secret", [""])[0]


def _same(given: tuple[str, str], expected: tuple[str, str]) -> bool:
    return hmac.compare_digest(repr(given).encode(), repr(expected).encode())


def _bearer(provider: Provider, request: _Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    account = provider.accounts.who(token) if scheme.lower() == "bearer" else None
    if account is None:
        raise _RefusedError(401, "invalid_token", "The access token is unknown or over.", WWW_Authenticate='Bearer error="invalid_token"')
    return account


# --- the inventory ----------------------------------------------------------------------------------------------------------------


def _read_calendar(provider: Provider, channel: str, listing: str, query: Mapping[str, list[str]], account: str) -> _Answer:
    start, end = (_day(query.get(name, [""])[0]) for name in ("start", "end"))
    if not 0 <= (end - start).days < MOST_DAYS:
        raise _RefusedError(422, "invalid_request", f"Expected an end up to {MOST_DAYS - 1} days after the start.")
    days = provider.inventory.calendar(channel, listing, start, end)
    written = [{"date": day.isoformat(), "available": rooms} for day, rooms in days.items()]
    return _Answer(HTTPStatus.OK, {"listing": listing, "account": account, "days": written})


def _write_calendar(provider: Provider, channel: str, listing: str, body: bytes) -> _Answer:
    days = _json(body).get("days")
    if not isinstance(days, list) or not 0 < len(days) <= MOST_DAYS or not all(_is_day(each) for each in days):
        raise _RefusedError(422, "invalid_request", f'Expected {{"days": [{{"date", "available"}}]}}, up to {MOST_DAYS} of them.')
    try:
        changed = provider.inventory.write(channel, listing, {_day(each["date"]): each["available"] for each in days})
    except ValueError as error:
        raise _RefusedError(507, "full", str(error)) from None
    return _Answer(HTTPStatus.OK, {"listing": listing, "changed": changed})


def _is_day(written: Any) -> bool:
    rooms = written.get("available") if isinstance(written, dict) else None
    return isinstance(rooms, int) and not isinstance(rooms, bool) and 0 <= rooms <= 1000 and isinstance(written.get("date"), str)  # noqa: PLR2004 -- no hotel has more.


def _day(written: str) -> date:
    try:
        return date.fromisoformat(written)
    except ValueError:
        raise _RefusedError(422, "invalid_request", "Expected a day such as 2030-01-31.") from None


# --- administration ---------------------------------------------------------------------------------------------------------------


def _administer(provider: Provider, request: _Request) -> _Answer:
    account = _ACCOUNT.fullmatch(request.path)
    if account:
        _expect(request.method, "DELETE")
        return _Answer(HTTPStatus.OK, {"revoked": provider.accounts.revoke(unquote(account[1]))})
    act = _ADMINISTRATION.get((request.method, request.path))
    if act is None:
        raise _RefusedError(404, "not_found", "There is nothing here.")
    try:
        return _Answer(HTTPStatus.OK, act(provider, request))
    except (ValueError, TypeError, KeyError, OverflowError, GrantRefusedError) as error:
        raise _RefusedError(422, "invalid_request", f"{type(error).__name__}: {error}") from None


def _authorize(provider: Provider, request: _Request) -> Mapping[str, Any]:
    return provider.accounts.authorize(str(_json(request.body)["account"]))._asdict()


def _switch_on(provider: Provider, request: _Request) -> Mapping[str, Any]:
    fault = fault_of(_json(request.body))
    provider.faults.switch_on(fault)
    return {"on": fault._asdict()}


def _switch_off(provider: Provider, request: _Request) -> Mapping[str, Any]:
    provider.faults.clear(request.query.get("path", ["/"])[0])
    return {"on": [each._asdict() for each in provider.faults.active()]}


def _drift(provider: Provider, request: _Request) -> Mapping[str, Any]:
    asked = _json(request.body)
    start = date.fromisoformat(asked["start"])
    days = itertools.islice(days_between(start, start + timedelta(days=MOST_DAYS)), int(asked.get("days", 1)))
    return {"drifted": provider.inventory.drift(str(asked.get("channel", "")), str(asked["listing"]), days)}


def _state(provider: Provider, request: _Request) -> Mapping[str, Any]:
    return {
        "requests": provider.all_requests(),
        "faults": [each._asdict() for each in provider.faults.active()],
        "drifted_days": provider.inventory.drifted(),
    }


_ADMINISTRATION: Final[Mapping[tuple[str, str], Callable[[Provider, _Request], Mapping[str, Any]]]] = {
    ("POST", "/admin/accounts"): _authorize,
    ("POST", "/admin/faults"): _switch_on,
    ("DELETE", "/admin/faults"): _switch_off,
    ("POST", "/admin/drift"): _drift,
    ("GET", "/admin/state"): _state,
}
