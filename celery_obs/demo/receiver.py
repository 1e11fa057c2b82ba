"""
The sample app's web side: takes in the webhooks of the fake channel, as ``docs/how-to/receive-webhooks.md`` shows it for real frameworks.

It serves loopback, beside the load generator.
"""

from __future__ import annotations

import json

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from celery_obs.areas.channels.webhooks.api import BodyTooLargeError, EventBusyError, InvalidSignatureError, webhook

from .provider.events import SIGNATURE


__all__ = ["Receiver"]


_STATUSES: Final = {BodyTooLargeError: 413, InvalidSignatureError: 401, EventBusyError: 409}
_MOST_DIGITS: Final = 12


class Receiver(ThreadingHTTPServer):
    """
    A server on loopback that takes webhooks at ``/webhooks/{channel}``.

    Args:
        port: Where; 0 for any free port.

        secret: What the channel signs with.

        channels: Those that it knows; others are answered with 404.

        work: What is done with an event's channel and listing.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, *, secret: str, channels: frozenset[str], work: Callable[[str, str], object]) -> None:
        self.secret = secret
        self.channels = channels
        self.work = work
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """
        Where webhooks go, without the channel.
        """
        return f"http://127.0.0.1:{self.server_address[1]}/webhooks"


class _Handler(BaseHTTPRequestHandler):
    """
    One request.
    """

    timeout = 10
    server: Receiver

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class calls it so.
        """
        Say nothing: what came in is in the metrics.
        """

    def do_POST(self) -> None:
        channel = self.path.removeprefix("/webhooks/")
        length = self.headers.get("Content-Length", "0")
        if channel not in self.server.channels or not length.isdecimal() or len(length) > _MOST_DIGITS:
            self.send_error(404)
            return
        try:
            with webhook(channel) as hook:
                body = hook.read(_Part(self.rfile, int(length)))
                hook.verify(body, self.headers.get(SIGNATURE), secret=self.server.secret)
                event = json.loads(body)
                hook.event_type = event["type"]
                if hook.once(event["id"]):
                    self.server.work(channel, event["listing"])
        except (BodyTooLargeError, InvalidSignatureError, EventBusyError) as refused:
            self.send_error(_STATUSES[type(refused)])
        except Exception as error:  # noqa: BLE001 -- as a framework does: the channel gets a 500, and the webhook is counted by now.
            self.send_error(500, type(error).__name__)
        else:
            self.send_response(204)
            self.end_headers()


class _Part:
    """
    The part of a stream that is the body.
    """

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self._left = length

    def read(self, size: int, /) -> bytes:
        """
        Return up to *size* bytes of it.
        """
        piece: bytes = self._stream.read(min(size, self._left))
        self._left -= len(piece)
        return piece
