"""
Pauses in a real Redis, those included that were set by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from redis import Redis

from celery_obs.areas.channels.pauses.state import PauseInfo, Pauses
from celery_obs.testing import FakeClock
from tests.servers import RedisServer


pytestmark = pytest.mark.integration

KEY = "channel_manager:airbnb:paused"


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """
    An empty Redis.
    """
    client = Redis.from_url(redis_server.url)
    client.flushall()
    yield client
    client.close()


def test_a_channel_is_paused_until_somebody_resumes_it(redis: Redis) -> None:
    """
    Resuming tells whether there was anything to resume.
    """
    pauses = Pauses(redis)

    pauses.pause("airbnb", actor="ada", reason="audit")

    assert (True, False) == (pauses.is_paused("airbnb"), pauses.is_paused("booking"))
    assert (True, False, False) == (pauses.resume("airbnb"), pauses.resume("airbnb"), pauses.is_paused("airbnb"))


def test_who_paused_and_why_is_told(redis: Redis) -> None:
    """
    A look at several channels returns those that are paused, with actor, reason and end.
    """
    clock = FakeClock(1000.0)
    pauses = Pauses(redis, clock=clock)
    pauses.pause("airbnb", actor="ada", reason="audit", seconds=60)
    pauses.pause("a channel: with spaces", actor="bob", reason="")

    found = pauses.paused(["airbnb", "booking", "a channel: with spaces", "airbnb"])

    assert ["airbnb", "a channel: with spaces"] == list(found)
    assert ("ada", "audit", 1000.0) == found["airbnb"][:3]
    assert found["airbnb"].until == pytest.approx(1060.0, abs=5)
    assert PauseInfo("bob", "", 1000.0, None) == found["a channel: with spaces"]


@pytest.mark.parametrize("value", [b"true", b"", b"[1]", b"{", b'{"actor": 7, "reason": [], "since": true}', b"\xff", b"[" * 100_000])
def test_whatever_somebody_wrote_pauses(redis: Redis, value: bytes) -> None:
    """
    ``SET channel_manager:airbnb:paused`` pauses, whatever the value.
    """
    redis.set(KEY, value)

    assert {"airbnb": PauseInfo()} == Pauses(redis).paused(["airbnb"])
    assert Pauses(redis).is_paused("airbnb")


def test_a_key_that_is_no_text_pauses_too(redis: Redis) -> None:
    """
    The existence of the key is what counts.
    """
    redis.hset(KEY, "a", "b")

    assert {"airbnb": PauseInfo()} == Pauses(redis).paused(["airbnb"])


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_pause_without_a_length_is_refused(redis: Redis, seconds: float) -> None:
    """
    A pause of no time would be none.
    """
    with pytest.raises(ValueError, match="Expected more than 0"):
        Pauses(redis).pause("airbnb", actor="ada", reason="audit", seconds=seconds)


def test_nothing_is_asked_about_no_channels(redis: Redis) -> None:
    """
    No channels, no round trip.
    """
    assert {} == Pauses(redis).paused([])
