"""
A Sentry for tests: a real HTTP server on loopback that takes envelopes, keeps what came, and answers as it is told.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
import zlib

from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["PUBLIC_KEY", "Item", "SentryServer"]


PUBLIC_KEY: Final = "0c5ffee0c5ffee0c5ffee0c5ffee0c5f"
_DELAY_STEP: Final = 0.02


class Item(NamedTuple):
    """
    One item of an envelope.

    Attributes:
        type: ``event``, ``check_in``, ``transaction``, ``client_report``, ``session``, …

        payload: What it holds.
    """

    type: str
    payload: Mapping[str, Any]


class SentryServer:
    """
    Take envelopes.

    Args:
        status: What every envelope is answered with.

        delay: Seconds before an answer.

    Attributes:
        raw: Every body that came, decompressed, in order.

        requests: How many came, also those whose answer said no.
    """

    def __init__(self, *, status: int = 200, delay: float = 0.0) -> None:
        self.status = status
        self.delay = delay
        self.raw: list[bytes] = []
        self.requests = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"sentry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.server_address[1])

    @property
    def dsn(self) -> str:
        """
        What a program is given to send here.
        """
        return f"http://{PUBLIC_KEY}@127.0.0.1:{self.port}/42"

    def take(self, body: bytes, encoding: str) -> int:
        """
        Keep what came, and return the status to answer with.
        """
        plain = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body) if encoding == "deflate" else body
        until = time.monotonic() + self.delay
        while time.monotonic() < until and not self._stopping.wait(_DELAY_STEP):
            pass
        with self._lock:
            self.requests += 1
            if self.status == 200:
                self.raw.append(plain)
        return self.status

    def items(self, kind: str = "") -> list[Item]:
        """
        Return what came so far, or all of one *kind*.
        """
        with self._lock:
            bodies = list(self.raw)
        return [item for body in bodies for item in items_of(body) if not kind or item.type == kind]

    def events(self, task: str = "") -> list[Mapping[str, Any]]:
        """
        Return the error events that came so far, or those with the tag *task*.

        That a busy machine forked slowly, which Celery's pool logs as an error, is none of what tests wait for.
        """
        found = [item.payload for item in self.items("event") if item.payload.get("logger") != "celery.concurrency.asynpool"]
        return [event for event in found if not task or (event.get("tags") or {}).get("task") == task]

    def check_ins(self, slug: str = "") -> list[Mapping[str, Any]]:
        """
        Return the check-ins of crons that came so far, or those of one monitor.
        """
        found = [item.payload for item in self.items("check_in")]
        return [check_in for check_in in found if not slug or check_in["monitor_slug"] == slug]

    def forget(self) -> None:
        """
        Let the next test begin with nothing.
        """
        with self._lock:
            self.raw.clear()
            self.requests = 0


def items_of(envelope: bytes) -> Iterator[Item]:
    """
    Read an envelope: a line of JSON, and then for each item a line of JSON and its payload, by its length or up to the end of the line.
    """
    at = envelope.index(b"\n") + 1
    while at < len(envelope):
        end = envelope.index(b"\n", at)
        if end == at:
            at += 1
            continue
        header = json.loads(envelope[at:end])
        begin = end + 1
        length = header.get("length")
        if length is None:
            found = envelope.find(b"\n", begin)
            length = (found if found >= 0 else len(envelope)) - begin
        payload = envelope[begin : begin + length]
        at = begin + length + 1
        yield Item(header["type"], json.loads(payload) if payload[:1] in {b"{", b"["} else {})


class _Handler(BaseHTTPRequestHandler):
    """
    What `SentryServer` answers with.
    """

    protocol_version = "HTTP/1.1"
    sentry: SentryServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.sentry.take(body, self.headers.get("Content-Encoding", ""))
        answer = b'{"id":"0"}' if status == 200 else b'{"detail":"on purpose"}'
        with contextlib.suppress(ConnectionError):  # Who sent may be gone.
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the standard library's name.
        """
        Say nothing.
        """
