"""
Webhooks without Redis: what is counted, and that nothing gets in the way of the work.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.webhooks.api import BodyTooLargeError, InvalidSignatureError, webhook
from celery_obs.areas.channels.webhooks.events import WebhookProcessed, WebhookReceived
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.testing import FakeClock


class Kept:
    """
    What the hub heard, and what was kept from the program.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.errors: list[str] = []

    def __call__(self, error: Exception, *, component: str) -> None:
        """
        Take note of an error.
        """
        self.errors.append(f"{component}: {error}")

    def outcomes(self) -> list[tuple[str, str, str]]:
        """
        Return type of event, status and error of each webhook that was dealt with.
        """
        return [(each.event_type, each.status, each.error) for each in self.events if isinstance(each, WebhookProcessed)]

    def received(self) -> list[tuple[str, ...]]:
        """
        Return what came in.
        """
        return [tuple(each) for each in self.events if isinstance(each, WebhookReceived)]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """
    An engine without Redis, and its listener.
    """
    found = Kept()
    hub = Hub(on_error=found)
    for event_type in (WebhookReceived, WebhookProcessed):
        hub.subscribe(event_type, found.events.append)
    made = engine.Engine(hub=hub, settings=Settings(metrics_dir=Path("/nonexistent")), clock=FakeClock(1_800_000_000.0))
    engine.connect(lambda: made)
    yield found
    engine.disconnect()


class ReservationError(Exception):
    """
    What a handler may raise.
    """


def test_a_webhook_is_counted_and_timed(kept: Kept) -> None:
    """
    Once as received, once as dealt with.
    """
    with webhook("airbnb", "reservation_created"):
        pass

    assert [("airbnb", "reservation_created")] == kept.received()
    assert [("reservation_created", "success", "")] == kept.outcomes()
    assert 0 <= kept.events[-1].duration < 5


def test_what_the_handler_raises_goes_on_and_is_counted(kept: Kept) -> None:
    """
    The framework answers, we count.
    """
    with pytest.raises(ReservationError), webhook("airbnb", "reservation_created"):
        raise ReservationError

    assert [("reservation_created", "error", "ReservationError")] == kept.outcomes()


def test_a_handler_that_answers_by_itself_can_say_that_it_failed(kept: Kept) -> None:
    """
    Not every error is raised.
    """
    with webhook("airbnb", "reservation_created") as hook:
        hook.fail("RoomError")

    assert [("reservation_created", "error", "RoomError")] == kept.outcomes()


@pytest.mark.parametrize("is_caught", [True, False])
def test_a_wrong_signature_is_counted_as_such_whether_it_is_caught_or_not(kept: Kept, *, is_caught: bool) -> None:
    """
    And what a stranger calls the event is no label.
    """
    try:
        with webhook("airbnb", "x" * 1000) as hook:
            try:
                hook.verify(b"{}", "00" * 32, secret="s3cret")
            except InvalidSignatureError:
                if not is_caught:
                    raise
    except InvalidSignatureError:
        assert not is_caught

    assert [("airbnb", "unverified")] == kept.received()
    assert [("unverified", "invalid_signature", "InvalidSignatureError")] == kept.outcomes()


def test_a_right_signature_is_told_by_silence(kept: Kept) -> None:
    """
    With the time by the engine's clock.
    """
    signature = hmac.new(b"new", b"1800000000.{}", hashlib.sha256).hexdigest()

    with webhook("airbnb") as hook:
        hook.verify(b"{}", f"t=1800000000,v1={signature}", secret=["old", "new"], tolerance=60)
        hook.event_type = "reservation_created"

    assert [("airbnb", "reservation_created")] == kept.received()
    assert [("reservation_created", "success", "")] == kept.outcomes()


def test_without_redis_every_event_is_new_and_that_is_told(kept: Kept) -> None:
    """
    Rather twice than never.
    """
    for _ in range(2):
        with webhook("airbnb", "reservation_created") as hook:
            assert hook.once("evt-1")
            assert not hook.is_duplicate

    assert ["success", "success"] == [status for _, status, _ in kept.outcomes()]
    assert 2 == len(kept.errors)
    assert kept.errors[0].startswith("webhooks: Webhooks are not remembered, because there is no Redis. Set redis_url")


class Endless(io.RawIOBase):
    """
    Fifty megabytes, of which it tells how many were taken.
    """

    def __init__(self, size: int = 50_000_000) -> None:
        self.left = size
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        """
        Return the next bytes.
        """
        assert size > 0
        piece = b"x" * min(size, self.left)
        self.left -= len(piece)
        self.taken += len(piece)
        return piece

    async def stream(self) -> AsyncIterator[bytes]:
        """
        Return all of it piece by piece.
        """
        while piece := self.read(65536):
            yield piece


def test_of_a_body_of_fifty_megabytes_only_the_limit_is_read(kept: Kept) -> None:
    """
    It is refused with a clear word, and counted as an error.
    """
    body = Endless()

    with pytest.raises(BodyTooLargeError, match=r"longer than 1048576 bytes.*Answer 413"), webhook("airbnb", "reservation_created") as hook:
        hook.read(body)

    assert body.taken <= (1 << 20) + 1
    assert [("unverified", "error", "BodyTooLargeError")] == kept.outcomes()


def test_the_same_holds_for_a_body_that_comes_in_pieces(kept: Kept) -> None:
    """
    As ASGI servers hand it out.
    """
    body = Endless()

    async def take() -> None:
        async with webhook("airbnb") as hook:
            await hook.aread(body.stream(), limit=100_000)

    with pytest.raises(BodyTooLargeError):
        asyncio.run(take())

    assert body.taken <= 200_000
    assert [("unverified", "error", "BodyTooLargeError")] == kept.outcomes()


@pytest.mark.parametrize("size", [0, 1, 65_536, 100_000])
def test_a_body_up_to_the_limit_is_read_whole(kept: Kept, size: int) -> None:
    """
    To the byte.
    """

    async def take() -> bytes:
        async with webhook("airbnb") as hook:
            return await hook.aread(Endless(size).stream(), limit=100_000)

    with webhook("airbnb") as hook:
        assert size == len(hook.read(Endless(size), limit=100_000))
    assert size == len(asyncio.run(take()))


def test_without_setup_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No observer hears, nothing raises.
    """
    engine.disconnect()
    done = []

    with webhook("airbnb", "reservation_created"):
        done.append(1)

    assert [1] == done
