"""
What the demo tells its own servers, the fake channels and the token endpoints, at their ``/admin``.
"""

from __future__ import annotations

import time

from collections.abc import Mapping
from typing import Any

import httpx


__all__ = ["ask", "wait_for"]


def ask(server: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """
    Ask the server at the URL *server*; return what it answers, read as JSON.

    Raises:
        httpx.HTTPError: if it does not answer within three seconds, or says no.
    """
    # A proxy of the environment has no business between us and loopback.
    with httpx.Client(base_url=server, timeout=3.0, trust_env=False) as client:
        return client.request(method, path, json=body).raise_for_status().json()


def wait_for(server: str, path: str, *, patience: float = 20.0) -> None:
    """
    Wait until a server that was just started answers a GET of *path*.

    Raises:
        httpx.HTTPError: if it does not within *patience* seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            ask(server, "GET", path)
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
