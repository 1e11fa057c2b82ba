"""
What the fake channel tells of its own accord: webhooks, signed, and with everything that happens to webhooks in life.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import json
import threading
import urllib.error
import urllib.request

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple


__all__ = ["SIGNATURE", "Delivery", "Sender", "deliveries"]


SIGNATURE: Final = "X-Channel-Signature"
"""
The header that the signature stands in.
"""

_TYPES: Final = ("reservation_created", "calendar_changed", "reservation_cancelled")
_PATIENCE: Final = 5.0


class Delivery(NamedTuple):
    """
    One attempt to tell something.

    Attributes:
        channel: Who says it.

        body: What it says.

        is_signed: False for the attempts of a stranger, who does not know the secret.
    """

    channel: str
    body: bytes
    is_signed: bool


def deliveries(channels: Sequence[str]) -> Iterator[Delivery]:
    """
    Tell an endless story: of ten deliveries of a channel one comes twice, one is forged, and one makes no sense, which is tried twice.
    """
    for number in itertools.count():
        channel = channels[number % len(channels)]
        turn = number // len(channels)
        step = turn % 10
        same = turn - 1 if step in {6, 9} else turn
        event = {"id": f"{channel}-{same}", "type": _TYPES[same % len(_TYPES)], "listing": f"{channel}-listing-{same % 3 + 1}"}
        if step in {8, 9}:
            event["listing"] = None  # type: ignore[assignment]  # That is what makes no sense.
        yield Delivery(channel, json.dumps(event).encode(), is_signed=step != 7)  # noqa: PLR2004 -- one of ten.


class Sender:
    """
    Sends webhooks to ``{url}/{channel}``, in a thread.

    Args:
        url: The receiver's.

        secret: What both sides know.

        channels: Who speaks, in turn.

        every: Seconds between two deliveries.
    """

    def __init__(self, url: str, *, secret: str, channels: Iterable[str], every: float) -> None:
        self._url = url
        self._secret = secret.encode()
        self._deliveries = deliveries(tuple(channels))
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        # A proxy of the environment has no business between us and loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def start(self) -> None:
        """
        Begin to send.
        """
        self._thread.start()

    def stop(self) -> None:
        """
        Send no more.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)

    def send(self, delivery: Delivery) -> int:
        """
        Send one; return the status of the answer, 0 where none came.
        """
        key = self._secret if delivery.is_signed else b"a guess"
        signature = hmac.new(key, delivery.body, hashlib.sha256).hexdigest()
        request = urllib.request.Request(  # noqa: S310 -- the receiver's URL, from our own command line.
            f"{self._url}/{delivery.channel}",
            data=delivery.body,
            headers={"Content-Type": "application/json", SIGNATURE: f"sha256={signature}"},
        )
        try:
            with self._opener.open(request, timeout=_PATIENCE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            refused.close()
            return refused.code
        except OSError:
            return 0

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            with contextlib.suppress(Exception):  # A receiver that talks nonsense is not the end of the story.
                self.send(next(self._deliveries))
