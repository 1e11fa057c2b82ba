"""
A channel for tests: a real HTTP server on loopback that answers as it is told, and keeps a ledger of every request that reached it.
"""

from __future__ import annotations

import contextlib
import json
import threading

from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


__all__ = ["Answer", "ChannelServer"]


class Answer(NamedTuple):
    """
    What a request is answered.

    Attributes:
        status: The status; 0 hangs up without an answer.

        headers: The headers, besides the length of the body.

        body: Anything that JSON can say.
    """

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 -- never written to.
    body: Any = {}  # noqa: RUF012 -- never written to.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.next_answer(f"{self.command} {self.path}")
        if answer.status == 0:
            self.close_connection = True
            return
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = _any  # noqa: N815 -- http.server's names.

    def log_message(self, *_: object) -> None:
        """
        Say nothing.
        """


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.script: deque[Answer] = deque()
        self.always = Answer()
        self.ledger: list[str] = []

    def next_answer(self, request: str) -> Answer:
        with self.lock:
            self.ledger.append(request)
            return self.script.popleft() if self.script else self.always


class ChannelServer:
    """
    The server; a context manager.

    Attributes:
        url: Its address.

        ledger: Every request that reached it, as method and path.
    """

    def __init__(self) -> None:
        self._server = _Server()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def ledger(self) -> list[str]:
        """
        Every request that reached the channel.
        """
        return list(self._server.ledger)

    def answer(self, *script: Answer, always: Answer | None = None) -> None:
        """
        Forget the ledger, and answer the next requests as *script* says, and all after them as *always* does.
        """
        with self._server.lock:
            self._server.ledger.clear()
            self._server.script = deque(script)
            self._server.always = always or Answer()

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[ChannelServer]:
        """
        Serve, and stop at the end.
        """
        made = cls()
        thread = threading.Thread(target=made._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made._server.shutdown()
            made._server.server_close()
            thread.join(5)
