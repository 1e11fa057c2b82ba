"""
Webhooks that come twice, against a real Redis.
"""

from __future__ import annotations

import asyncio
import threading

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redis import Redis

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.webhooks.api import EventBusyError, webhook
from celery_obs.areas.channels.webhooks.events import WebhookProcessed
from celery_obs.areas.channels.webhooks.state import Deliveries
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.state import keys
from tests.servers import RedisServer, wait_until


pytestmark = pytest.mark.integration

EVENT = "evt-1"


class Log:
    """
    What became of each webhook, and which of our errors were kept from it.
    """

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.errors: list[str] = []

    def __call__(self, error: Exception, *, component: str) -> None:
        """
        Take note of an error.
        """
        self.errors.append(component)


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """
    An empty Redis.
    """
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def log(redis_server: RedisServer, redis: Redis) -> Iterator[Log]:
    """
    An engine on it.
    """
    found = Log()
    hub = Hub(on_error=found)
    hub.subscribe(WebhookProcessed, lambda event: found.statuses.append(event.status))
    made = engine.Engine(hub=hub, settings=Settings(metrics_dir=Path("/nonexistent"), redis_url=redis_server.url))
    engine.connect(lambda: made)
    yield found
    engine.disconnect()
    assert made.redis is not None
    made.redis.close()


class ReservationError(Exception):
    """
    What a handler may raise.
    """


def deliver(event_id: str = EVENT, *, fails: bool = False) -> bool:
    """
    Take a webhook in as an application does; tell whether it did the work.
    """
    with webhook("airbnb", "reservation_created") as hook:
        if not hook.once(event_id):
            assert hook.is_duplicate
            return False
        if fails:
            raise ReservationError
        return True


def test_what_was_done_is_not_done_again(log: Log, redis: Redis) -> None:
    """
    The second delivery is a duplicate, and it is remembered for days.
    """
    assert [True, False, False] == [deliver(), deliver(), deliver()]

    assert ["success", "duplicate", "duplicate"] == log.statuses
    assert 2 * 24 * 3600 < redis.ttl(keys.once("webhook.airbnb", EVENT)) <= 3 * 24 * 3600
    assert [] == log.errors


def test_what_failed_is_new_when_it_comes_again(log: Log, redis: Redis) -> None:
    """
    The channel's second attempt is not lost.
    """
    with pytest.raises(ReservationError):
        deliver(fails=True)

    assert deliver()
    assert ["error", "success"] == log.statuses


def test_what_is_being_worked_on_is_neither_new_nor_done(log: Log, redis: Redis) -> None:
    """
    Its sender is told to come again, for the work may yet fail.
    """
    with webhook("airbnb", "reservation_created") as hook:
        assert hook.once(EVENT)
        with pytest.raises(EventBusyError, match="Answer 409 or 503"):
            deliver()
        assert hook.once(EVENT)

    assert ["duplicate", "success"] == log.statuses
    assert not deliver()


def test_what_a_dead_process_held_is_new_again_after_a_while(log: Log, redis: Redis) -> None:
    """
    A SIGKILL in the middle of the work loses nothing.
    """
    assert ("new", "") != Deliveries(redis).claim("webhook.airbnb", EVENT, hold=0.2)

    wait_until(lambda: Deliveries(redis).claim("webhook.airbnb", EVENT, hold=60)[0] == "new", what="the hold to end")


def test_whoever_took_too_long_does_not_release_what_is_no_longer_his(log: Log, redis: Redis) -> None:
    """
    Only the holder can make an event new again.
    """
    known = Deliveries(redis)
    _, first = known.claim("webhook.airbnb", EVENT, hold=60)
    redis.delete(keys.once("webhook.airbnb", EVENT))
    _, second = known.claim("webhook.airbnb", EVENT, hold=60)

    known.release("webhook.airbnb", EVENT, first)
    assert ("held", "") == known.claim("webhook.airbnb", EVENT, hold=60)
    known.release("webhook.airbnb", EVENT, second)
    assert "new" == known.claim("webhook.airbnb", EVENT, hold=60)[0]


def test_of_many_deliveries_at_once_one_is_worked_on(log: Log, redis: Redis) -> None:
    """
    Whatever the others are told, the work is done once.
    """
    start = threading.Barrier(16)

    def race(_: int) -> str:
        start.wait(10)
        try:
            return "worked" if deliver() else "duplicate"
        except EventBusyError:
            return "busy"

    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(race, range(16)))

    assert 1 == verdicts.count("worked")


def test_a_webhook_of_several_events_remembers_each(log: Log, redis: Redis) -> None:
    """
    With one that is new among them, it is no duplicate.
    """
    deliver("evt-1")

    with webhook("airbnb", "batch") as hook:
        assert [False, True, True] == [hook.once(event) for event in ("evt-1", "evt-2", "evt-3")]
    with webhook("airbnb", "batch") as hook:
        assert [True, False] == [hook.once(event) for event in ("evt-4", "evt-1")]
    with webhook("airbnb", "batch") as hook:
        assert [False, False] == [hook.once(event) for event in ("evt-2", "evt-3")]

    assert ["success", "success", "success", "duplicate"] == log.statuses


def test_the_same_holds_without_blocking_an_event_loop(log: Log, redis: Redis) -> None:
    """
    Also when the client goes away and the work is cancelled.
    """

    async def adeliver(*, is_cancelled: bool = False) -> bool:
        async with webhook("airbnb", "reservation_created") as hook:
            is_new = await hook.aonce(EVENT)
            if is_cancelled:
                raise asyncio.CancelledError
            return is_new

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(adeliver(is_cancelled=True))

    assert [True, False] == [asyncio.run(adeliver()), asyncio.run(adeliver())]
    assert ["error", "success", "duplicate"] == log.statuses


@pytest.mark.parametrize("event_id", ['it\'s "quoted"\nand\r\nbroken', "x" * 10_240, "\udcff", "*", "a:b"])
def test_any_text_is_an_event_id(log: Log, redis: Redis, event_id: str) -> None:
    """
    Quotes, newlines and ten kilobytes of it make one short key.
    """
    assert [True, False] == [deliver(event_id), deliver(event_id)]

    (key,) = list(redis.scan_iter("celery_obs:once:*"))
    assert len(key) < 150


def test_events_without_an_id_are_all_new(log: Log, redis: Redis) -> None:
    """
    They are not taken for one another.
    """
    assert [True, True] == [deliver(""), deliver("")]
    assert [] == list(redis.scan_iter("celery_obs:once:*"))


def test_a_redis_that_is_away_lets_every_event_through(log: Log) -> None:
    """
    Also when it goes in the middle of the work; each time is counted.
    """
    with RedisServer() as server:
        made = engine.Engine(hub=engine.current().hub, settings=Settings(metrics_dir=Path("/nonexistent"), redis_url=server.url))
        engine.connect(lambda: made)
        with webhook("airbnb", "reservation_created") as hook:
            assert hook.once(EVENT)
            server.kill()
        assert [True, True] == [deliver(), deliver()]
        assert made.redis is not None
        made.redis.close()

    assert ["success"] * 3 == log.statuses
    assert ["webhooks"] * 3 == log.errors
