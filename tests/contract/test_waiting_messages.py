"""
Our own entries and their messages, on a real Redis: one waits at a time, and all of them can be taken away.

Quick, so that they run with the unit tests; beats that live for hours are in `test_one_waiting_message`.
"""

from __future__ import annotations

import json
import shelve

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from redis import Redis

import celery_obs

from celery_obs.areas.tasks.events import TaskDiscarded
from celery_obs.runtime.builtin_tasks import registration
from celery_obs.runtime.builtin_tasks.removal import Names, RedBeat, Shelf, WaitingMessages, django_rows, names_of
from celery_obs.runtime.builtin_tasks.waiting import Discards, Waiting, taken, waiting_in
from celery_obs.settings import load
from celery_obs.state import keys
from celery_obs.state.connection import connect
from celery_obs.testing import FakeClock
from tests.servers import RedisServer, free_port, wait_until


TASK = "channel_manager.take_census"
NAMES = Names(frozenset({"celery_obs.take_census"}), frozenset({TASK, "team.take_census"}))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """
    One for all of this file.
    """
    with RedisServer() as found:
        yield found


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    """
    A client of an empty one.
    """
    with Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def app(server: RedisServer) -> Iterator[Celery]:
    """
    An app on that Redis, which is not observed.
    """
    made = Celery("shop", broker=server.url, set_as_current=False)
    made.conf.beat_schedule = {}
    yield made
    made.close()


class Marks:
    """
    What beat asks before it publishes, with clocks that are moved by hand.
    """

    def __init__(self, redis: Redis) -> None:
        self.clock = FakeClock()
        self.depth: int | None = 0
        self.errors: list[str] = []
        self.waiting = Waiting(
            redis,
            ours={TASK},
            depth=lambda entry: self.depth,
            on_error=self._fail,
            clock=self.clock,
            monotonic=self.clock,
        )

    def _fail(self, error: Exception, *, component: str) -> None:
        self.errors.append(component)

    def may_publish(self, entry: ScheduleEntry, *, published: bool = True) -> bool:
        """
        Ask for *entry*, and say how its publish went.
        """
        claim = self.waiting.claim(entry)
        if claim is not None:
            claim.settle(published=published)
        return claim is not None


@pytest.fixture
def marks(redis: Redis) -> Marks:
    """
    Those of a beat.
    """
    return Marks(redis)


def entry(app: Celery, name: str = "celery_obs.take_census", task: str = TASK) -> ScheduleEntry:
    return ScheduleEntry(name=name, task=task, schedule=60.0, app=app)


def test_a_message_waits_alone_until_it_is_taken(app: Celery, redis: Redis, marks: Marks) -> None:
    """
    The next one is published once a worker has the last.
    """
    census = entry(app)

    before = [marks.may_publish(census) for _ in range(3)]
    taken(redis, TASK)

    assert ([True, False, False], True) == (before, marks.may_publish(census))


@pytest.mark.parametrize("name", ["mine", "celery_obs.other"])
def test_entries_of_the_users_always_publish(app: Celery, redis: Redis, marks: Marks, name: str) -> None:
    """
    Also one that publishes a task of ours; nothing is written for them.
    """
    theirs = entry(app, name, task=TASK if name == "mine" else "shop.order")

    assert [True, True] == [marks.may_publish(theirs) for _ in range(2)]
    assert [] == redis.keys("*")


def test_a_publish_that_failed_leaves_no_mark(app: Celery, marks: Marks) -> None:
    """
    The next time is as the first.
    """
    assert [True, True] == [marks.may_publish(entry(app), published=False) for _ in range(2)]


@pytest.mark.parametrize(("depth", "again"), [(0, True), (3, False), (None, False)])
def test_a_message_that_was_lost_is_published_again(app: Celery, marks: Marks, depth: int | None, again: bool) -> None:
    """
    Its mark is old, and the broker says that nothing waits; where something does, or cannot be known, it may still come.
    """
    marks.may_publish(entry(app))
    marks.depth = depth
    marks.clock.advance(301.0)

    assert again is marks.may_publish(entry(app))


def test_a_mark_that_is_none_of_ours_counts_as_old(app: Celery, redis: Redis, marks: Marks) -> None:
    """
    What anyone wrote there keeps nothing from being published for ever.
    """
    redis.set(keys.waiting(TASK), "nonsense")

    assert marks.may_publish(entry(app))


def test_without_redis_beat_publishes_and_asks_again_a_minute_later(app: Celery) -> None:
    """
    One error is told for that minute, and not one an entry.
    """
    with connect(f"redis://127.0.0.1:{free_port()}/0") as gone:
        marks = Marks(gone)

        assert [True, True] == [marks.may_publish(entry(app)) for _ in range(2)]
        assert ["beat.waiting"] == marks.errors
        marks.clock.advance(61.0)
        assert marks.may_publish(entry(app))
        assert 2 == len(marks.errors)


def test_a_redis_that_goes_between_mark_and_message_stops_nothing(app: Celery) -> None:
    """
    The claim is settled as well as that goes, and never raises.
    """
    with RedisServer() as passing, connect(passing.url) as client:
        marks = Marks(client)
        claim = marks.waiting.claim(entry(app))
        assert claim is not None
        passing.stop()

        claim.settle(published=True)

    assert ["beat.waiting"] == marks.errors


def test_a_message_that_is_thrown_away_makes_room(redis: Redis) -> None:
    """
    One of ours that expired or was revoked; those of others leave nothing to remove.
    """
    redis.set(keys.waiting(TASK), "mark")
    redis.set(keys.waiting("shop.order"), "theirs")
    discards = Discards(redis, {TASK})

    discards.discarded(TaskDiscarded("shop.order", "celery", "revoked"))
    discards.discarded(TaskDiscarded(TASK, "celery", "revoked"))

    wait_until(lambda: not redis.exists(keys.waiting(TASK)), what="the mark to go")
    assert redis.exists(keys.waiting("shop.order"))


@pytest.mark.parametrize("is_late", [False, True])
def test_a_task_that_runs_makes_room(app: Celery, redis: Redis, is_late: bool) -> None:
    """
    When a worker takes it; of one that comes back when its worker dies, when it is done.
    """
    seen: list[int] = []
    spec = SimpleNamespace(
        run=lambda: seen.append(int(redis.exists(keys.waiting(TASK)))),
        options={"acks_late": is_late},
    )
    redis.set(keys.waiting(TASK), "mark")
    registration.connect(lambda _: {}, redis=lambda: redis)
    try:
        registration._taking(spec, TASK)()  # type: ignore[arg-type]  # As much of a spec as it reads.
    finally:
        registration.disconnect()

    assert ([int(is_late)], 0) == (seen, redis.exists(keys.waiting(TASK)))


def test_what_waits_is_asked_of_the_broker(app: Celery) -> None:
    """
    How many wait in the queue that an entry leads to; none where there is no such queue, and no answer where the broker gives none.
    """
    scheduler, census = Scheduler(app=app, lazy=True), entry(app)

    before = waiting_in(scheduler, census)
    app.send_task(TASK)
    app.send_task("shop.order")

    assert (0, 2) == (before, waiting_in(scheduler, census))
    assert waiting_in(SimpleNamespace(app=app, producer=None), census) is None


# -- taking away ------------------------------------------------------------------------------------------------------


def test_the_names_of_ours_are_those_of_the_namespace_and_the_usual_ones(tmp_path: Path) -> None:
    """
    An app that changed its namespace may have messages of before.
    """
    names = names_of(load({}, {}, {"metrics_dir": str(tmp_path), "task_namespace": "team"}))

    assert {"team.take_census", "channel_manager.take_census"} <= names.tasks
    assert "celery_obs.take_census" in names.entries


def test_waiting_messages_of_ours_go_and_those_of_the_app_stay(app: Celery, redis: Redis) -> None:
    """
    In each queue and at each priority; what is no message of Celery's is left alone.
    """
    app.conf.task_queues = None
    for name in (TASK, "shop.order"):
        app.send_task(name)
        app.send_task(name, priority=6)
    redis.lpush("celery", "no message", json.dumps({"headers": None}))
    messages = WaitingMessages(app, NAMES.tasks)

    assert (2, 2, 0) == (messages.found(), messages.remove(), messages.found())
    [left] = [json.loads(each)["headers"]["task"] for each in redis.lrange("celery", 0, -1) if b"shop.order" in each]
    assert "shop.order" == left
    assert 3 == redis.llen("celery")


def test_on_another_broker_none_are_found() -> None:
    """
    There they expire with their period.
    """
    messages = WaitingMessages(Celery("shop", broker="memory://", set_as_current=False), NAMES.tasks)

    assert (0, 0) == (messages.found(), len(messages._all()))


def test_entries_of_ours_go_from_the_file_of_beat(app: Celery, tmp_path: Path) -> None:
    """
    By their name or by their task, and the others stay; a file that is not there has none.
    """
    path = tmp_path / "celerybeat-schedule"
    empty = Shelf(path, NAMES)
    assert (False, [], 0) == (empty.exists, empty.found(), empty.remove())
    with shelve.open(str(path)) as store:  # noqa: S301 -- our own.
        named = SimpleNamespace(task="other")
        renamed = SimpleNamespace(task="team.take_census")
        store["entries"] = {"celery_obs.take_census": named, "renamed": renamed, "mine": SimpleNamespace(task="shop.order")}

    found, removed = Shelf(path, NAMES).found(), Shelf(path, NAMES).remove()

    assert (["celery_obs.take_census", "renamed"], 2) == (found, removed)
    assert (True, []) == (Shelf(path, NAMES).exists, Shelf(path, NAMES).found())
    with shelve.open(str(path), flag="r") as store:  # noqa: S301 -- as above.
        assert ["mine"] == list(store["entries"])


def test_entries_of_ours_go_from_redbeat(app: Celery, server: RedisServer, redis: Redis) -> None:
    """
    By their name or by their task, with what RedBeat keeps of them, and the others stay.
    """
    redbeat = pytest.importorskip("redbeat.schedulers")
    app.conf.redbeat_redis_url = server.url
    assert RedBeat.may_be_used(app)
    for name, task in (("celery_obs.take_census", TASK), ("renamed", "team.take_census"), ("mine", "shop.order")):
        redbeat.RedBeatSchedulerEntry(name, task, 60.0, app=app).save()
    ours = RedBeat(app, NAMES)

    found, removed = ours.found(), ours.remove()

    assert (["redbeat:celery_obs.take_census", "redbeat:renamed"], 2, []) == (found, removed, ours.found())
    assert [b"redbeat:mine"] == redis.zrange("redbeat::schedule", 0, -1)
    assert not redis.exists("redbeat:renamed")


def test_redbeat_is_not_looked_for_where_its_broker_is_none(app: Celery) -> None:
    """
    On RabbitMQ it would have to be given a Redis.
    """
    assert not RedBeat.may_be_used(Celery("shop", broker="amqp://", set_as_current=False))


def test_without_django_there_are_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whether it is not installed or not the app's.
    """
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    assert django_rows(NAMES) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert django_rows(NAMES) is None


def test_our_schedule_has_the_names_that_are_taken_away(tmp_path: Path) -> None:
    """
    What beat is given is what is found later.
    """
    names = names_of(load({}, {}, {"metrics_dir": str(tmp_path)}))

    assert celery_obs.beat.schedule().keys() <= names.entries
    assert {each["task"] for each in celery_obs.beat.schedule().values()} <= names.tasks
