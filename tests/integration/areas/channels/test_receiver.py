"""
The demo's receiver of webhooks and the fake channel's sender, talking to each other.
"""

from __future__ import annotations

import http.client
import itertools
import threading

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from redis import Redis

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.webhooks.events import WebhookProcessed
from celery_obs.demo.provider.events import Delivery, Sender, deliveries
from celery_obs.demo.receiver import Receiver
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.testing import RaisingErrors
from tests.servers import RedisServer


pytestmark = pytest.mark.integration


@pytest.fixture
def outcomes(redis_server: RedisServer) -> Iterator[list[WebhookProcessed]]:
    """
    What became of each webhook, with an engine on an empty Redis.
    """
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    found: list[WebhookProcessed] = []
    hub = Hub(on_error=RaisingErrors())
    hub.subscribe(WebhookProcessed, found.append)
    made = engine.Engine(hub=hub, settings=Settings(metrics_dir=Path("/nonexistent"), redis_url=redis_server.url))
    engine.connect(lambda: made)
    yield found
    engine.disconnect()
    assert made.redis is not None
    made.redis.close()


def work(channel: str, listing: str) -> None:
    """
    Refuse events without a listing.
    """
    if not listing:
        raise ValueError


@pytest.fixture
def receiver(outcomes: list[WebhookProcessed]) -> Iterator[Receiver]:
    """
    A receiver that knows airbnb.
    """
    with Receiver(0, secret="s3cret", channels=frozenset({"airbnb"}), work=work) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_ten_deliveries_of_a_channel_show_every_outcome(receiver: Receiver, outcomes: list[WebhookProcessed]) -> None:
    """
    Six that are new, one that comes twice, one forged, and one that makes no sense, however often it comes.
    """
    sender = Sender(receiver.url, secret="s3cret", channels=["airbnb"], every=1)

    answers = [sender.send(each) for each in itertools.islice(deliveries(["airbnb"]), 10)]

    assert [204] * 7 + [401, 500, 500] == answers
    assert {"success": 6, "duplicate": 1, "invalid_signature": 1, "error": 2} == Counter(each.status for each in outcomes)


def test_an_unknown_channel_is_no_label(receiver: Receiver, outcomes: list[WebhookProcessed]) -> None:
    """
    It is answered with 404, and not counted.
    """
    sender = Sender(receiver.url, secret="s3cret", channels=["airbnb"], every=1)

    assert 404 == sender.send(Delivery("x" * 1000, b"{}", is_signed=True))
    assert [] == outcomes


def test_a_body_of_fifty_megabytes_is_refused_before_it_has_come(receiver: Receiver, outcomes: list[WebhookProcessed]) -> None:
    """
    The answer comes after the first megabyte.
    """
    connection = http.client.HTTPConnection("127.0.0.1", receiver.server_address[1], timeout=10)
    connection.putrequest("POST", "/webhooks/airbnb")
    connection.putheader("Content-Length", "50000000")
    connection.endheaders()
    connection.send(b"x" * ((1 << 20) + 1))

    assert 413 == connection.getresponse().status
    assert ["error"] == [each.status for each in outcomes]
    connection.close()


def test_the_sender_goes_on_whoever_answers(outcomes: list[WebhookProcessed]) -> None:
    """
    A Redis that is away is no reason to stop.
    """
    sender = Sender("http://127.0.0.1:1/webhooks", secret="s3cret", channels=["airbnb"], every=0.01)

    assert 0 == sender.send(Delivery("airbnb", b"{}", is_signed=True))
    sender.start()
    sender.stop()
