"""
At most one message of each of our periodic tasks waits for a worker, on a real broker, whatever happens to the message.
"""

from __future__ import annotations

import json
import time

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from celery import Celery
from celery.beat import Scheduler
from redis import Redis

import celery_obs

from celery_obs.areas.schedules import firing
from celery_obs.areas.schedules.events import EntryFired
from celery_obs.areas.schedules.freshness import ScheduleWatch
from celery_obs.areas.tasks.events import TaskDiscarded
from celery_obs.runtime.builtin_tasks.waiting import Discards, Waiting, taken, waiting_in
from celery_obs.runtime.hub import Hub
from celery_obs.state import keys
from celery_obs.state.connection import connect
from tests.servers import RabbitMQServer, RedisServer, free_port, wait_until


pytestmark = pytest.mark.integration

OURS = celery_obs.beat.schedule()
TASKS = {entry["task"] for entry in OURS.values()}
EXPORT = "channel_manager.export_breaker_states"


class Beat:
    """
    A beat with our entries and one of the user's, whose clock is moved on by hand.
    """

    def __init__(self, broker: str, redis: str) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=timezone.utc)
        self.app = Celery("beat", broker=broker, set_as_current=False)
        mine = {"mine": {"task": EXPORT, "schedule": 600.0}}
        self.app.conf.update(beat_schedule={**OURS, **mine}, timezone="UTC", result_expires=None)
        vars(self.app)["now"] = lambda: self.now
        self.scheduler = Scheduler(app=self.app)
        self.fired: list[str] = []
        self.errors: list[Exception] = []
        hub = Hub(on_error=self._fail)
        hub.subscribe(EntryFired, lambda event: self.fired.append(event.entry))
        self.redis = connect(redis)
        waiting = Waiting(
            self.redis,
            ours=TASKS,
            depth=lambda entry: waiting_in(self.scheduler, entry),
            on_error=hub.on_error,
            clock=self.clock,
            monotonic=self.clock,
        )
        ScheduleWatch(self.scheduler, hub, clock=self.clock, waiting=waiting).install()

    def _fail(self, error: Exception, *, component: str) -> None:
        self.errors.append(error)

    def clock(self) -> float:
        """
        Tell the time.
        """
        return self.now.timestamp()

    def live(self, seconds: float) -> None:
        """
        Go through *seconds* in steps of fifteen.
        """
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now += timedelta(seconds=15)
            while self.scheduler.tick() == 0:
                pass

    def close(self) -> None:
        """
        Let go of the broker and Redis.
        """
        self.scheduler.close()
        self.app.close()
        self.redis.close()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """
    The cluster's state.
    """
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """
    A client, on an empty Redis.
    """
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def beats(redis: Redis, redis_server: RedisServer) -> Iterator[tuple[Beat, Beat]]:
    """
    Two beats that run by accident.
    """
    made = (Beat(redis_server.url, redis_server.url), Beat(redis_server.url, redis_server.url))
    yield made
    for each in made:
        each.close()


def waiting(redis: Redis) -> Counter[str]:
    """
    Count the messages that wait, by task.
    """
    return Counter(json.loads(message)["headers"]["task"] for message in redis.lrange("celery", 0, -1))


def live_together(beats: tuple[Beat, Beat], seconds: float) -> None:
    for _ in range(int(seconds // 15)):
        for each in beats:
            each.live(15)


def test_two_beats_without_a_worker_leave_one_message_of_each_task_in_an_hour(redis: Redis, beats: tuple[Beat, Beat]) -> None:
    """
    Of the 480 firings of the export one message waits, and beat counts as having done its part; an entry of the user's is left alone.
    """
    live_together(beats, 3700)

    found = waiting(redis)
    users = 2 * 6
    assert {task: 1 + (users if task == EXPORT else 0) for task in TASKS} == found
    assert 2 * 240 <= sum(each.fired.count("celery_obs.export_breaker_states") for each in beats)
    assert [] == [error for each in beats for error in each.errors]


@pytest.mark.faults
def test_the_same_on_rabbitmq(redis: Redis, redis_server: RedisServer) -> None:
    """
    Where the broker and the cluster's state are two servers, too.
    """
    with RabbitMQServer() as broker:
        beat = Beat(broker.url, redis_server.url)
        del beat.scheduler.schedule["mine"]

        beat.live(1200)

        with beat.app.connection_for_read() as connection, connection.channel() as channel:
            found: Counter[str] = Counter()
            while (message := channel.basic_get("celery", no_ack=True)) is not None:
                found[message.headers["task"]] += 1
        beat.close()
    assert set(found.values()) == {1}
    assert EXPORT in found


def test_a_message_that_was_taken_makes_room_for_the_next(redis: Redis, beats: tuple[Beat, Beat]) -> None:
    """
    A worker that runs the task, or throws its message away because it expired, removes the mark.
    """
    live_together(beats, 60)
    assert 1 == waiting(redis)[EXPORT]
    redis.delete("celery")

    taken(redis, EXPORT)
    live_together(beats, 30)
    assert 1 == waiting(redis)[EXPORT]
    redis.delete("celery")

    Discards(redis, TASKS).discarded(TaskDiscarded(EXPORT, "celery", "revoked"))
    wait_until(lambda: not redis.exists(keys.waiting(EXPORT)), what="the mark to be removed")
    live_together(beats, 30)
    assert 1 == waiting(redis)[EXPORT]


def test_a_lost_message_does_not_stop_its_task_for_ever(redis: Redis, beats: tuple[Beat, Beat]) -> None:
    """
    A flushed queue, or a worker killed with the message in its hands, costs five minutes.
    """
    for each in beats:
        each.scheduler.schedule = {"celery_obs.export_breaker_states": each.scheduler.schedule["celery_obs.export_breaker_states"]}
    live_together(beats, 60)
    redis.delete("celery")

    live_together(beats, 180)
    assert EXPORT not in waiting(redis)
    live_together(beats, 120)

    assert 1 == waiting(redis)[EXPORT]


def test_a_beat_that_died_between_mark_and_message_costs_half_a_minute(redis: Redis, beats: tuple[Beat, Beat]) -> None:
    """
    Until the broker has the message, its mark has a short life; afterwards it has six hours.
    """
    redis.flushall()
    beats[0].live(15)

    assert 6 * 3600 - 60 < redis.ttl(keys.waiting(EXPORT)) <= 6 * 3600

    redis.flushall()
    vars(beats[1].scheduler)["send_task"] = lambda *_, **__: (_ for _ in ()).throw(SystemExit())
    with pytest.raises(SystemExit):
        beats[1].live(15)
    assert -2 == redis.ttl(keys.waiting(EXPORT))


@pytest.mark.parametrize("how", ["dead", "silent"])
def test_beat_is_not_kept_waiting_by_a_redis_that_does_not_answer(redis_server: RedisServer, how: str) -> None:
    """
    It publishes as if there were no mark, and asks again a minute later: a second and a half in a minute at most.
    """
    broker = RedisServer()
    with broker:
        url = redis_server.url if how == "silent" else f"redis://127.0.0.1:{free_port()}/0"
        beat = Beat(broker.url, url)
        beat.live(15)

        def live() -> float:
            began = time.monotonic()
            beat.live(60)
            return time.monotonic() - began

        if how == "silent":
            with redis_server.hanging():
                took = live()
        else:
            took = live()

        assert took < 4
        assert len(beat.errors) <= 2
        with Redis.from_url(broker.url) as client:
            assert waiting(client)[EXPORT] >= 3
        beat.close()


def test_nothing_is_asked_for_entries_of_the_users() -> None:
    """
    An entry that is not ours costs no look into Redis, even if it publishes a task of ours.
    """

    class Untouchable:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    entry = type("Entry", (), {"name": "mine", "task": EXPORT})()
    marks = Waiting(Untouchable(), ours=TASKS, depth=lambda _: 0, on_error=lambda *_, **__: None)  # type: ignore[arg-type]  # That is the point.

    assert marks.claim(entry) is not None
    assert firing.current() is None
