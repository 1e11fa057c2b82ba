"""
What tests of tokens share: an engine on a real Redis, a connection with a token from a real channel, and eyes that look for secrets.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
import traceback

from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from redis import Redis

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.api_calls.events import ApiCallFinished
from celery_obs.areas.channels.connections.events import ConnectionErrored
from celery_obs.areas.channels.connections.state import Connection, Facts
from celery_obs.areas.channels.tokens.api import Token, guard_of
from celery_obs.areas.channels.tokens.events import TokenRefreshed
from celery_obs.clock import Clock, wall
from celery_obs.demo.provider import Grant
from celery_obs.runtime.hub import Hub
from celery_obs.settings import load
from celery_obs.state import keys
from celery_obs.state.connection import connect
from celery_obs.testing import RaisingErrors
from tests.certificates import Certificate


__all__ = ["CHANNEL", "Rig", "answering", "dripping", "rig_of", "secrets_in", "texts_of"]


CHANNEL = "airbnb"
KEY = base64.urlsafe_b64encode(b"0123456789abcdef" * 2).decode()
EVENTS = (TokenRefreshed, ConnectionErrored, ApiCallFinished)


class Rig:
    """
    One process's engine.

    Attributes:
        events: What happened, in order.

        refreshes: The `TokenRefreshed` among them.
    """

    def __init__(self, engine: engines.Engine, redis: Redis) -> None:
        self.engine = engine
        self.redis = redis
        self.facts = Facts(redis)
        self.events: list[Any] = []
        for kind in EVENTS:
            engine.hub.subscribe(kind, self.events.append)

    @property
    def refreshes(self) -> list[TokenRefreshed]:
        return [event for event in self.events if isinstance(event, TokenRefreshed)]

    def connect(self, connection_id: str, grant: Grant, *, expires_at: float | None = None, channel: str = CHANNEL) -> None:
        """
        Register a connection, and store the token that its channel gave.
        """
        from celery_obs.areas.channels.tokens import api as tokens

        self.facts.register([Connection(connection_id, channel)])
        token = Token(access_token=grant.access_token, refresh_token=grant.refresh_token, expires_at=expires_at, lifetime=grant.expires_in)
        tokens.store(connection_id, token)


@contextlib.contextmanager
def rig_of(redis_url: str, *, token_url: str = "", clock: Clock | None = None, **overrides: Any) -> Iterator[Rig]:
    """
    Have this process use an engine of the test's own.
    """
    client = {"token_url": token_url, "client_id": "demo-client", "client_secret": "demo-secret", "timeout": 20.0}
    given: dict[str, Any] = {"redis_url": redis_url, "token_keys": [KEY], "metrics_dir": "/nonexistent"}
    if token_url:
        given["oauth_clients"] = {CHANNEL: client}
    settings = load({}, {}, {**given, **overrides})
    engine = engines.Engine(hub=Hub(on_error=RaisingErrors()), settings=settings, clock=clock or wall)
    pool = getattr(engine.redis, "connection_pool", None)
    if pool is not None:  # Hundreds of threads on a busy machine.
        pool.connection_kwargs.update(socket_timeout=20, socket_connect_timeout=20)
    before = engines._provide
    engines.connect(lambda: engine)
    try:
        with contextlib.closing(connect(redis_url)) as redis:
            for name in (CHANNEL, guard_of(CHANNEL)):  # Other tests may have had failures.
                redis.delete(keys.breaker(name), keys.paused(name))
            yield Rig(engine, redis)
    finally:
        engines._provide = before
        if engine.redis is not None:
            engine.redis.close()


@contextlib.contextmanager
def answering(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """
    Serve one answer to whatever is asked: its URL, and the bodies that came.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        """
        One request.
        """

        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """
            Say nothing.
            """

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/oauth/token", asked
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def dripping(said: bytes, certificate: Certificate | None = None) -> Iterator[str]:
    """
    Serve an answer that begins with *said* and then goes on one byte at a time, over TLS where there is a certificate; its URL.
    """
    over = threading.Event()

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError), _secured(server.accept()[0], certificate) as client:
            client.recv(65536)
            client.sendall(said)
            while not over.wait(0.05):
                client.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield f"http{'s' if certificate else ''}://127.0.0.1:{server.getsockname()[1]}/oauth/token"
        finally:
            over.set()
            thread.join()


def _secured(client: socket.socket, certificate: Certificate | None) -> socket.socket:
    if certificate is None:
        return client
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with client:
        return context.wrap_socket(client, server_side=True)


def texts_of(error: BaseException) -> Iterator[str]:
    """
    Go through everything that an error tells: its text, what caused it, and the locals of every frame it came through.
    """
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield from (str(each), repr(each), repr(vars(each)))
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:  # Tests may know secrets.
                yield from (f"{frame.f_code.co_name}: {name}={value!r}" for name, value in frame.f_locals.items())
        todo += [each.__cause__, each.__context__]


def secrets_in(texts: Iterator[str], *secrets: str) -> list[str]:
    """
    Return the texts that hold one of *secrets*.
    """
    return [text for text in texts if any(str(secret) in text for secret in secrets if secret)]
