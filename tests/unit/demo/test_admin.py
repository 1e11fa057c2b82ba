"""
What the demo tells its own servers.
"""

from __future__ import annotations

import json
import threading

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from celery_obs.demo.admin import ask, wait_for
from tests.servers import free_port


class _Echo(BaseHTTPRequestHandler):
    """
    Answers with what it was asked; at /refused, that it will not.
    """

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = json.dumps({"method": self.command, "path": self.path, "body": json.loads(sent or b"null")}).encode()
        self.send_response(422 if self.path == "/refused" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *args: Any) -> None:
        """
        Say nothing.
        """


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """
    A server, in an environment whose proxy leads nowhere.
    """
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with HTTPServer(("127.0.0.1", 0), _Echo) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_what_is_asked_arrives_as_json_past_any_proxy(server: str) -> None:
    """
    The body with its method and path, and the answer read.
    """
    assert {"method": "POST", "path": "/admin/x", "body": {"a": 1}} == ask(server, "POST", "/admin/x", {"a": 1})


def test_a_server_that_says_no_is_an_error(server: str) -> None:
    """
    The demo would go on with half of what it needs.
    """
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        ask(server, "POST", "/refused", {})


def test_a_server_that_is_there_is_not_waited_for_and_one_that_never_comes_not_for_ever(server: str) -> None:
    """
    It is asked at once, and the last error is told.
    """
    wait_for(server, "/admin/state", patience=0.0)
    with pytest.raises(httpx.HTTPError):
        wait_for(f"http://127.0.0.1:{free_port()}", "/admin/state", patience=0.2)
