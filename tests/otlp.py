"""
A collector for tests: an HTTP server on loopback that takes what OTLP exporters send, and shows the spans in it.

It can also be what collectors are on bad days: slow, or full of errors.
"""

from __future__ import annotations

import gzip
import threading
import time

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.servers import wait_until


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = ["Collector", "Event", "Received"]


_KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES: Final = ("UNSET", "OK", "ERROR")


@dataclass(frozen=True, slots=True)
class Event:
    """
    An event on a span that arrived.
    """

    name: str
    at: float
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Received:
    """
    A span that arrived.  Ids are in hexadecimal, times in seconds since the epoch; *parent* is empty for a root.
    """

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    status: str
    message: str
    began: float
    ended: float
    attributes: Mapping[str, Any]
    events: tuple[Event, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    resource: Mapping[str, Any] = field(default_factory=dict)
    scope: str = ""


class Collector:
    """
    The collector: it serves from entering to leaving.

    Attributes:
        status: What it answers with.

        delay: Seconds that it takes for an answer.

        bodies: All that it was sent, as it came: what a test for secrets has to look through.

        requests: How often it was asked.
    """

    def __init__(self) -> None:
        self.status = 200
        self.delay = 0.0
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.requests = 0
        self._spans: list[Received] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        handler = type("Handler", (_Handler,), {"collector": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """
        Where it is.
        """
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environ(self) -> dict[str, str]:
        """
        What has a program send its spans here, soon.
        """
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_SERVICE_NAME": "tested"}

    def take(self, body: bytes, headers: Mapping[str, str]) -> int:
        """
        Take what was sent, and return the status to answer with.
        """
        with self._lock:
            self.requests += 1
            self.bodies.append(body)
            self.headers.append(headers)
        if self.delay:
            self._closing.wait(self.delay)
        if self.status == 200:
            found = _spans(body)
            with self._lock:
                self._spans.extend(found)
        return self.status

    def spans(self, name: str = "", **attributes: Any) -> list[Received]:
        """
        Return the spans that arrived and are called *name*, and have *attributes*, whose dots are underscores here.
        """
        wanted = attributes.items()
        with self._lock:
            return [
                span
                for span in self._spans
                if name in {"", span.name}
                and all({key.replace(".", "_"): value for key, value in span.attributes.items()}.get(key) == value for key, value in wanted)
            ]

    def wait_for(self, count: int, name: str = "", *, within: float = 30.0, **attributes: Any) -> list[Received]:
        """
        Wait until *count* such spans are there, and return them; fail when there are more, or not so many in time.
        """
        wait_until(
            lambda: len(self.spans(name, **attributes)) >= count,
            within=within,
            what=f"{count} spans {name} {attributes}",
        )
        found = self.spans(name, **attributes)
        assert count == len(found), f"Expected {count} spans {name!r}, got {len(found)}: {found}"
        return found

    def one(self, name: str, *, within: float = 30.0, **attributes: Any) -> Received:
        """
        Wait for the only such span.
        """
        return self.wait_for(1, name, within=within, **attributes)[0]

    def settled(self, count: Callable[[], int], *, steady: float = 0.5) -> int:
        """
        Wait until *count* has not changed for a while, and return it.
        """
        last, since = count(), time.monotonic()
        while time.monotonic() < since + steady:
            if (now := count()) != last:
                last, since = now, time.monotonic()
            time.sleep(0.02)
        return last

    def clear(self) -> None:
        """
        Forget what came.
        """
        with self._lock:
            self._spans.clear()
            self.bodies.clear()


class _Handler(BaseHTTPRequestHandler):
    """
    One request.
    """

    protocol_version = "HTTP/1.1"
    collector: ClassVar[Collector]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status = self.collector.take(body, dict(self.headers)) if self.path == "/v1/traces" else 404
        try:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            self.close_connection = True  # The client has gone.

    def log_message(self, *_: Any) -> None:
        """
        Say nothing.
        """


def _spans(body: bytes) -> list[Received]:
    """
    Read the spans in a request.
    """
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Received(
            name=span.name,
            kind=_KINDS[span.kind],
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            status=_STATUSES[span.status.code],
            message=span.status.message,
            began=span.start_time_unix_nano / 1e9,
            ended=span.end_time_unix_nano / 1e9,
            attributes=_attributes(span.attributes),
            events=tuple(Event(event.name, event.time_unix_nano / 1e9, _attributes(event.attributes)) for event in span.events),
            links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
            resource=_attributes(resource.resource.attributes),
            scope=scope.scope.name,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
