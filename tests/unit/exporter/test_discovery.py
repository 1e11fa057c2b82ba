"""
Which queues are shown: for how long after their last announcement, and under which label value.
"""

from __future__ import annotations

from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.queues.announcements import QueueAnnouncement, encode_queue
from celery_obs.areas.queues.collector import QueuesCollector
from celery_obs.exporter.discovery import FORGOTTEN_AFTER, MISSING_FOR, TEMPORARY_FOR, Discovery
from celery_obs.exporter.probes import QueueReading
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.state.keys import PUBLISHED, QUEUES
from celery_obs.testing import FakeClock


class Redis:
    """
    Two hashes.
    """

    def __init__(self) -> None:
        self.hashes: dict[str, dict[bytes, bytes]] = {QUEUES: {}, PUBLISHED: {}}

    def announce(self, queue: str, *, key: str = QUEUES, **fields: Any) -> None:
        self.hashes[key][queue.encode()] = encode_queue(QueueAnnouncement(**fields)).encode()

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        return self.hashes[key]


class Probe:
    """
    A broker with these depths.
    """

    def __init__(self, **depths: int) -> None:
        self.depths = depths

    def probe(self, queues: Any) -> dict[str, QueueReading]:
        return {queue: QueueReading(depth=self.depths[queue]) for queue in queues if queue in self.depths}

    def close(self) -> None:
        raise NotImplementedError


def depths(redis: Redis, clock: FakeClock, probe: Probe, **options: Any) -> list[str]:
    """
    Return the lines about depths on the page.
    """
    client: Any = redis
    names = Discovery(client=client, clock=clock, **options)
    page = QueuesCollector(probe, names, errors=InternalErrors(), clock=clock).collect()
    return [line for line in page.text.splitlines() if line.startswith("celery_queue_depth{")]


@pytest.mark.parametrize(
    ("age", "depth", "shown"),
    [(FORGOTTEN_AFTER - 1, 0, True), (FORGOTTEN_AFTER + 1, 0, False), (FORGOTTEN_AFTER + 1, 3, True), (20 * 86400, 1, True)],
)
def test_a_queue_ends_an_hour_after_its_last_announcement_once_it_is_empty(age: float, depth: int, shown: bool) -> None:
    """
    What waits is shown whether or not there is still a worker for it.
    """
    clock, redis = FakeClock(1e9), Redis()
    redis.announce("orders", seen=1e9 - age)

    lines = depths(redis, clock, Probe(orders=depth))

    assert ([f'celery_queue_depth{{queue="orders"}} {float(depth)}'] if shown else []) == lines


def test_queues_of_one_kind_are_added_up_under_one_label_value() -> None:
    """
    The broadcast queues of two workers are one series; that of a worker that died without a word is left out, whatever lies in it.
    """
    clock, redis = FakeClock(1e9), Redis()
    for name, age in (("bcast.1", 1.0), ("bcast.2", 2.0), ("bcast.3", TEMPORARY_FOR + 1)):
        redis.announce(name, seen=1e9 - age, exchange="news", label="news")

    lines = depths(redis, clock, Probe(**{"bcast.1": 2, "bcast.2": 3, "bcast.3": 50}))

    assert ['celery_queue_depth{queue="news"} 5.0'] == lines


def test_a_redis_that_lost_everything_hides_no_queue() -> None:
    """
    Workers announce again within half a minute, and until then the names are remembered; two minutes later they are not.
    """
    clock, redis = FakeClock(1e9), Redis()
    client: Any = redis
    redis.announce("orders", seen=1e9)
    names = Discovery(client=client, clock=clock)
    names.refresh()

    redis.hashes[QUEUES].clear()
    clock.advance(MISSING_FOR / 2)
    names.refresh()
    assert ("orders",) == names.names()

    clock.advance(MISSING_FOR)
    names.refresh()
    assert () == names.names()


def test_what_workers_say_counts_more_than_what_publishers_say() -> None:
    """
    Of a queue that both know, the worker's spelling is used, and it exists though it is empty.
    """
    redis = Redis()
    client: Any = redis
    redis.announce("orders", seen=1.0, sep="theirs")
    redis.announce("orders", key=PUBLISHED, seen=2.0, sep="ours")
    redis.announce("mails", key=PUBLISHED, seen=2.0)
    names = Discovery(client=client)

    names.refresh()

    assert {"orders": ("theirs", True), "mails": (":", False)} == {
        name: (each.sep if name == "orders" else ":", each.consumed) for name, each in names.announced().items()
    }


def test_of_several_brokers_each_shows_what_was_announced_for_it() -> None:
    """
    A queue that a worker announced for the other broker is not asked for here.
    """
    redis = Redis()
    client: Any = redis
    redis.announce("here", seen=1.0, broker="a:1/0")
    redis.announce("there", seen=1.0, broker="b:1/0")
    redis.announce("anywhere", seen=1.0, broker="known-by-another-name:1/0")
    names = Discovery(client=client, broker="a:1/0", others=["a:1/0", "b:1/0"])

    names.refresh()

    assert {"here", "anywhere"} == set(names.names())


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), min_size=1), st.integers(1, 3))
def test_nothing_is_lost_where_queues_share_a_label_value(lengths: dict[str, int], labels: int) -> None:
    """
    The depths shown add up to the messages there are.
    """
    clock, redis = FakeClock(1e9), Redis()
    for number, name in enumerate(lengths):
        redis.announce(name, seen=1e9, label=f"x{number % labels}")

    lines = depths(redis, clock, Probe(**lengths))

    assert sum(lengths.values()) == sum(float(line.split()[1]) for line in lines)
    assert min(labels, len(lengths)) == len(lines)
