"""
sentry-sdk: where a delivery ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


__all__ = ["replace_send", "send_of"]


def send_of(transport: Any) -> Callable[[Any], None] | None:
    """
    Return the method by which *transport* sends an envelope, in its own thread; None where it has none.

    Assumes: ``HttpTransport._send_envelope(envelope)``, called once for each envelope that was taken, and back when it was delivered or given up.
    Seen on: sentry-sdk 2.59 to 2.75.
    Lost: reports that are still under way when a process ends are not counted as dropped.
    """
    send: Callable[[Any], None] | None = getattr(transport, "_send_envelope", None)
    return send


def replace_send(transport: Any, send: Callable[[Any], None]) -> None:
    """
    Have *transport* send by *send* from now on.

    Assumes: as `send_of`, and that the transport looks its method up each time.
    Seen on: sentry-sdk 2.59 to 2.75.
    Lost: as for `send_of`.
    """
    transport._send_envelope = send
