"""
Hooks of clients against a real server that misbehaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.api_calls.api import AsyncHttpxTransport, HttpxTransport, RequestsAdapter, api_call, endpoint
from celery_obs.areas.channels.api_calls.events import ApiCallFinished
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.testing import RaisingErrors


pytestmark = pytest.mark.integration


class Channel(BaseHTTPRequestHandler):
    """
    A channel: each path misbehaves in its own way.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.split("/")[1]
        if name == "loop":
            self._answer(302, b"", Location=self.path)
        elif name == "html":
            self._answer(200, b"<html>maintenance</html>")
        elif name == "slowly":
            self._answer(429, b"", **{"Retry-After": "7"})
        elif name == "endless":
            self._endless()
        elif name == "hang":
            self.server.released.wait(10)  # type: ignore[attr-defined]  # set below.
        else:
            self._answer(200, b"{}")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    def log_message(self, *_: object) -> None:
        """
        Say nothing.
        """


@pytest.fixture(scope="module")
def channel() -> Iterator[str]:
    """
    The channel's address.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Channel)
    server.daemon_threads = True
    server.released = threading.Event()  # type: ignore[attr-defined]  # for hanging handlers.
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.released.set()  # type: ignore[attr-defined]  # as above.
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[list[ApiCallFinished]]:
    """
    The calls of this test.
    """
    events: list[ApiCallFinished] = []
    hub = Hub(on_error=RaisingErrors())
    hub.subscribe(ApiCallFinished, events.append)
    made = engine.Engine(hub=hub, settings=Settings(metrics_dir=tmp_path))
    engine.connect(lambda: made)
    yield events
    engine.disconnect()


def told(heard: list[ApiCallFinished]) -> list[tuple[str, str, str]]:
    return [(event.endpoint, event.status_code, event.error_type) for event in heard]


def test_httpx_requests_are_calls(channel: str, heard: list[ApiCallFinished]) -> None:
    """
    The template comes with the request, from the block around it, or out of the path; the connection from the request or the transport.
    """
    with httpx.Client(transport=HttpxTransport("airbnb", connection_id="c-1"), base_url=channel) as client:
        client.get("/listings/a", extensions={"celery_obs": {"endpoint": "/listings/{id}", "connection_id": "c-2"}})
        with endpoint("/rooms/{id}"):
            client.get("/rooms/b")
        client.get("/listings/42?token=hush")

    assert [("/listings/{id}", "200", ""), ("/rooms/{id}", "200", ""), ("/listings/{id}", "200", "")] == told(heard)
    assert ["c-2", "c-1", "c-1"] == [event.connection_id for event in heard]


def test_async_httpx_requests_are_calls(channel: str, heard: list[ApiCallFinished]) -> None:
    """
    The same holds for the asynchronous client, several at once and one that is cancelled included.
    """

    async def work() -> None:
        async with httpx.AsyncClient(transport=AsyncHttpxTransport("airbnb"), base_url=channel) as client:
            await asyncio.gather(*(client.get("/listings") for _ in range(3)))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.get("/hang"), 0.2)

    asyncio.run(work())

    assert [*[("/listings", "200", "")] * 3, ("/hang", "none", "")] == told(heard)


def test_requests_requests_are_calls(channel: str, heard: list[ApiCallFinished]) -> None:
    """
    A session with our adapter tells of every request.
    """
    with requests.Session() as session:
        session.mount(channel, RequestsAdapter("airbnb", connection_id="c-1"))
        session.get(f"{channel}/listings/42")
        with endpoint("/listings/{listing}"):
            session.get(f"{channel}/listings/42")

    assert [("/listings/{id}", "200", ""), ("/listings/{listing}", "200", "")] == told(heard)


def test_a_redirect_loop_ends_and_is_told(channel: str, heard: list[ApiCallFinished]) -> None:
    """
    Each answer counts; the client gives up as it always does, and the error reaches the caller.
    """
    client = httpx.Client(transport=HttpxTransport("airbnb"), base_url=channel, follow_redirects=True, max_redirects=5)
    with client, pytest.raises(httpx.TooManyRedirects):
        client.get("/loop")

    assert [("/loop", "302", "")] * 6 == told(heard)


def test_a_body_without_an_end_is_not_read_by_us(channel: str, heard: list[ApiCallFinished]) -> None:
    """
    A call ends with the headers, so the caller's own limit is what bounds a body.
    """
    with httpx.Client(transport=HttpxTransport("airbnb"), base_url=channel) as client, client.stream("GET", "/endless") as response:
        next(response.iter_raw())

    assert [("/endless", "200", "")] == told(heard)


def test_no_answer_in_time_is_a_timeout(channel: str, heard: list[ApiCallFinished]) -> None:
    """
    The client's own exception goes on, and the call has no status.
    """
    with httpx.Client(transport=HttpxTransport("airbnb"), base_url=channel, timeout=0.2) as client, pytest.raises(httpx.ReadTimeout):
        client.get("/hang")
    with requests.Session() as session:
        session.mount(channel, RequestsAdapter("airbnb"))
        with pytest.raises(requests.ReadTimeout):
            session.get(f"{channel}/hang", timeout=0.2)

    assert [("/hang", "none", "timeout")] * 2 == told(heard)


def test_html_in_place_of_json_is_the_channels_failure(channel: str, heard: list[ApiCallFinished]) -> None:
    """
    An answer that cannot be read counts as an error, whatever its status says, and the caller sees why.
    """

    def ask() -> object:
        with httpx.Client(base_url=channel) as client, api_call("airbnb", "/html", "GET") as call:
            response = client.get("/html")
            call.response(response.status_code, headers=response.headers)
            return response.json()

    with pytest.raises(json.JSONDecodeError):
        ask()

    assert [("/html", "200", "server_error")] == told(heard)


def test_a_channel_that_asks_for_patience_is_understood(channel: str, heard: list[ApiCallFinished]) -> None:
    """
    The seconds of *Retry-After* are on the call, and on the error that it raises.
    """
    call: Any = api_call("airbnb", "/slowly", "GET")
    with httpx.Client(base_url=channel) as client, call:
        response = client.get("/slowly")
        call.response(response.status_code, headers=response.headers)

    assert (7.0, [("/slowly", "429", "rate_limit")]) == (call.retry_after, told(heard))
