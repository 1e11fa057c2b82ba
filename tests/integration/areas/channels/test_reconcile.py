"""
Connections, conflicts and reconciliation in a real Redis: what application code says, and what the periodic tasks make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from redis import Redis

import celery_obs

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.conflicts.events import ConflictDetected, ConflictResolved, DoubleBookingDetected
from celery_obs.areas.channels.connections.events import ConnectionErrored
from celery_obs.areas.channels.connections.state import Connection, Drift, Facts, TokenExpiry
from celery_obs.areas.channels.connections.tasks import sweep_state, take_census
from celery_obs.areas.channels.errors import ApiError, UnknownConnectionError, ValidationError
from celery_obs.areas.channels.pauses.state import Pauses
from celery_obs.areas.channels.reconciliation.api import CalendarError, Unknown
from celery_obs.areas.channels.reconciliation.events import ConnectionReconciled
from celery_obs.areas.channels.reconciliation.state import Pending, PendingDay
from celery_obs.areas.channels.reconciliation.tasks import check_drift, check_drift_of
from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.state import keys
from celery_obs.testing import FakeClock
from tests.servers import RedisServer
from tests.shared_state import write_syncs
from tests.unit.telemetry.traces.builders import attributes_of, observer


pytestmark = pytest.mark.integration

DAY = 86400.0
NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC
TODAY = date(2027, 1, 15)


class Calendar:
    """
    Two sides that the test sets, or that fail.
    """

    def __init__(self) -> None:
        self.ours: Iterable[tuple[date, Any]] = []
        self.theirs: Iterable[tuple[date, Any]] | Exception = []
        self.asked: list[tuple[str, date, date]] = []

    def local(self, connection_id: str, start: date, end: date) -> Iterable[tuple[date, Any]]:
        self.asked.append((connection_id, start, end))
        return self.ours

    def remote(self, connection_id: str, start: date, end: date) -> Iterator[tuple[date, Any]]:
        if isinstance(self.theirs, Exception):
            raise self.theirs
        yield from self.theirs


class Accounts:
    """
    A table of connections that the test sets.
    """

    def __init__(self) -> None:
        self.listed: list[Any] = []

    def connections(self) -> Iterator[Any]:
        yield from self.listed


class World:
    """
    An engine on a real Redis, its clock, its sources, and what was heard.
    """

    def __init__(self, url: str, folder: Path, **settings: Any) -> None:
        self.clock = FakeClock(NOW)
        self.calendar = Calendar()
        self.accounts = Accounts()
        self.events: list[Any] = []
        self.failures: list[str] = []
        hub = Hub(on_error=lambda error, component: self.failures.append(f"{component}: {error}"))
        for event_type in (ConflictDetected, ConflictResolved, DoubleBookingDetected, ConnectionErrored, ConnectionReconciled):
            hub.subscribe(event_type, self.events.append)
        chosen = {"reconciliation_source": self.calendar, **settings}
        self.engine = engines.Engine(hub=hub, settings=Settings(metrics_dir=folder, redis_url=url, **chosen), clock=self.clock)
        assert self.engine.redis is not None
        self.redis: Redis = self.engine.redis
        self.facts = Facts(self.redis)
        self.sent: list[tuple[str, float]] = []

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def task(self, name: str = "task", task_id: str = "id-1") -> Any:
        """
        A task as Celery hands it to us, whose messages go to the test.
        """

        def apply_async(*, args: list[str], countdown: float, expires: float) -> None:
            self.sent.append((args[0], countdown))

        single = SimpleNamespace(apply_async=apply_async)
        app = SimpleNamespace(tasks={"channel_manager.check_drift_of": single})

        def retry(*, exc: Exception, countdown: float) -> Exception:
            return Again(countdown)

        return SimpleNamespace(name=name, app=app, request=SimpleNamespace(id=task_id, retries=0), retry=retry)


class Again(Exception):  # noqa: N818 -- Celery's own is called Retry.
    """
    The task asked to be tried again.
    """


@pytest.fixture
def make(redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """
    Makes worlds on an empty Redis; the last one is this process's.
    """
    made: list[World] = []
    with Redis.from_url(redis_server.url) as client:
        client.flushall()

    def make_it(**settings: Any) -> World:
        made.append(World(redis_server.url, tmp_path, **settings))
        engines.connect(lambda: made[-1].engine)
        return made[-1]

    yield make_it
    engines.disconnect()
    for each in made:
        each.redis.close()


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    """
    A world with default settings.
    """
    return make()


def days(*availabilities: Any, start: date = TODAY) -> list[tuple[date, Any]]:
    return [(start + timedelta(days=number), each) for number, each in enumerate(availabilities)]


# --- what application code says ---------------------------------------------------------------------------------------------------


def test_a_connection_is_registered_changed_and_forgotten(world: World) -> None:
    """
    The helpers write what the exporter reads.
    """
    celery_obs.register_connection("one", "airbnb", created_at=5.0)
    celery_obs.set_connection_status("one", "disconnected")

    assert Connection("one", "airbnb", "disconnected", 5.0) == world.facts.connection("one")

    celery_obs.forget_connection("one")

    assert {} == world.facts.connections()


@pytest.mark.parametrize("written", [datetime(2030, 12, 31, tzinfo=timezone.utc), "2030-12-31T00:00:00Z", 1_924_905_600_000], ids=repr)
def test_a_connection_may_say_since_when_as_its_table_has_it(make: Callable[..., World], written: Any) -> None:
    """
    Registered by hand or told by a source: a datetime of Django's is a number to those who read it.
    """
    source = SimpleNamespace(connections=lambda: [Connection("told", "airbnb", created_at=written, url_parameters={"shop": "acme"})])
    world = make(connection_source=source)

    celery_obs.register_connection("one", "airbnb", created_at=written)
    take_census(world.task())

    assert [1_924_905_600.0] * 2 == [each.created_at for each in world.facts.connections().values()]
    assert {"shop": "acme"} == world.facts.url_parameters("told")


@pytest.mark.parametrize("wrong", [{"created_at": datetime(2030, 12, 31)}, {"created_at": "soon"}, {"url_parameters": {"shop": 5}}])  # noqa: DTZ001 -- it is what is wrong.
def test_what_is_no_time_and_no_dict_is_refused_at_once(make: Callable[..., World], wrong: Any) -> None:
    """
    To the caller, and in a census with what was expected.
    """
    world = make(connection_source=SimpleNamespace(connections=lambda: [Connection("told", "airbnb", **wrong)]))

    with pytest.raises((TypeError, ValueError), match="Expected"):
        celery_obs.register_connection("one", "airbnb", **wrong)
    with pytest.raises(ConfigurationError, match="created_at that is a time"):
        take_census(world.task())


@pytest.mark.parametrize(("name", "status"), [("", "active"), ("\ud800", "active"), (5, "active"), ("one", "fine")])
def test_wrong_arguments_are_a_mistake_of_the_callers(world: World, name: Any, status: Any) -> None:
    """
    The error says what was expected.
    """
    with pytest.raises(ValueError, match="Expected"):
        celery_obs.register_connection(name, "airbnb", status=status)


def test_a_dead_redis_does_not_stop_the_caller(world: World, redis_server: RedisServer) -> None:
    """
    What could not be said is told to those who look after us, and the program goes on.
    """
    redis_server.stop()
    try:
        celery_obs.register_connection("one", "airbnb")
        celery_obs.requires_review("mismatch")
    finally:
        redis_server.start()

    assert ["sync.conflicts", "sync.connections"] == sorted(failure.partition(":")[0] for failure in world.failures)


def test_without_redis_nothing_is_shared_and_nothing_fails(make: Callable[..., World]) -> None:
    """
    The helpers are free to call.
    """
    engines.disconnect()

    celery_obs.register_connection("one", "airbnb")
    celery_obs.requires_review("mismatch")
    celery_obs.double_booking("airbnb")


def test_conflicts_are_events(world: World) -> None:
    """
    Found, resolved, sold twice.
    """
    celery_obs.conflict_detected("mismatch", "airbnb")
    celery_obs.conflict_resolved("mismatch", "local_wins")
    celery_obs.double_booking("airbnb")

    assert [
        ConflictDetected("mismatch", "airbnb"),
        ConflictResolved("mismatch", "local_wins"),
        DoubleBookingDetected("airbnb"),
    ] == world.events


def test_reviews_are_counted_and_never_below_zero(world: World) -> None:
    """
    A type at 0 is no longer there; what was not asked for cannot be settled.
    """
    celery_obs.requires_review("mismatch", 3)
    celery_obs.reviewed("mismatch")
    celery_obs.requires_review("double")
    celery_obs.reviewed("double", 5)
    celery_obs.reviewed("unheard of")

    assert {b"mismatch": b"2"} == world.redis.hgetall(keys.REVIEWS)


def test_reviews_of_types_without_end_share_one(world: World) -> None:
    """
    Invented types do not fill Redis, and what was put into the shared one can be taken out.
    """
    for number in range(210):
        celery_obs.requires_review(f"type {number}")

    assert (201, b"10") == (world.redis.hlen(keys.REVIEWS), world.redis.hget(keys.REVIEWS, "_other"))

    celery_obs.reviewed("type 209")

    assert b"9" == world.redis.hget(keys.REVIEWS, "_other")


def test_a_count_that_is_none_is_begun_anew(world: World) -> None:
    """
    What was written there by hand does not stop the counting.
    """
    world.redis.hset(keys.REVIEWS, "mismatch", "many")

    celery_obs.requires_review("mismatch")

    assert b"1" == world.redis.hget(keys.REVIEWS, "mismatch")


# --- one connection ---------------------------------------------------------------------------------------------------------------


def test_drift_is_kept_counted_and_pending(world: World) -> None:
    """
    A comparison leaves its facts, its events and a few days to look at; when the sides agree again, nothing is pending.
    """
    celery_obs.register_connection("one", "airbnb")
    world.calendar.ours, world.calendar.theirs = days(1, 2, 3), days(1, 5, 3, 4)

    found = celery_obs.reconcile("one")

    assert [("one", TODAY, TODAY + timedelta(days=365))] == world.calendar.asked
    assert (4, 2, {"availability_mismatch": 1, "missing_local": 1}) == (found.checked, found.drifted, found.conflicts)
    assert {"one": Drift(2, 4, NOW)} == world.facts.drifts()
    assert {"airbnb": NOW} == world.facts.snapshot().last_runs
    assert PendingDay("2027-01-16", "availability_mismatch", "2", "5") == Pending(world.redis).all()["one"].sample[0]
    assert ["ConflictDetected", "ConflictDetected", "ConnectionReconciled"] == world.names()
    assert ("airbnb", "one", 4, 2) == world.events[-1][:4]

    world.calendar.theirs = world.calendar.ours
    celery_obs.reconcile("one")

    assert ({"one": Drift(0, 3, NOW)}, {}) == (world.facts.drifts(), Pending(world.redis).all())


@pytest.mark.parametrize("problem", [ApiError("down"), [(TODAY, 1), (TODAY, 2)]])
def test_a_comparison_that_fails_leaves_what_was_known(world: World, problem: Any) -> None:
    """
    Half a comparison is no fact: only the failure is counted.
    """
    celery_obs.register_connection("one", "airbnb")
    world.facts.reconciled("one", "airbnb", Drift(7, 365, 5.0))
    world.calendar.ours, world.calendar.theirs = days(1, 2), problem

    with pytest.raises((ApiError, CalendarError)):
        celery_obs.reconcile("one")

    assert {"one": Drift(7, 365, 5.0)} == world.facts.drifts()
    assert [ConnectionErrored("airbnb", "one")] == world.events


def test_what_begins_ends_well_or_not(world: World) -> None:
    """
    A comparison is a span's beginning and its end.
    """
    celery_obs.register_connection("one", "airbnb")
    traces, memory = observer()
    for event_type, hear in traces.subscriptions():
        world.engine.hub.subscribe(event_type, hear)
    world.calendar.ours, world.calendar.theirs = days(1, 2, 3), days(1, 5, 3)

    celery_obs.reconcile("one")
    world.calendar.theirs = ApiError("down")
    with pytest.raises(ApiError):
        celery_obs.reconcile("one")

    well, ill = memory.spans()
    assert ("reconcile airbnb", 3, 1) == (
        well.name,
        attributes_of(well)["channel.days.checked"],
        attributes_of(well)["channel.days.drifted"],
    )
    assert "ApiError" == attributes_of(ill)["error.type"]


def test_an_unknown_connection_is_said_to_be_so(world: World) -> None:
    """
    The message about a mistyped id says what is expected.
    """
    with pytest.raises(UnknownConnectionError, match="no connection 'one'"):
        celery_obs.reconcile("one")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "reconciliation_source is not set"),
        ("no.such:PLACE", "cannot be imported"),
        ("tests.servers:NOTHING", "cannot be imported"),
        ("tests.servers:free_port", "leads to a function"),
        (f"{__name__}:Calendar", "leads to the class Calendar"),
    ],
)
def test_a_wrong_source_is_said_to_be_so(make: Callable[..., World], source: str | None, message: str) -> None:
    """
    The error names the setting, what it leads to and what is expected.
    """
    make(reconciliation_source=source)
    celery_obs.register_connection("one", "airbnb")

    with pytest.raises(ConfigurationError, match=message):
        celery_obs.reconcile("one")


# --- the tasks --------------------------------------------------------------------------------------------------------------------


def test_a_message_that_comes_twice_counts_once(world: World) -> None:
    """
    A worker that died between its work and its acknowledgement leaves a message that has nothing more to do.
    """
    celery_obs.register_connection("one", "airbnb")
    world.calendar.ours = days(1)

    first = check_drift_of(world.task(), "one")
    second = check_drift_of(world.task(), "one")

    assert {"connection_id": "one", "channel_type": "airbnb", "checked": 1, "drifted": 1} == first
    assert {"connection_id": "one", "skipped": "this message was done before"} == second
    assert ["ConflictDetected", "ConnectionReconciled"] == world.names()


def test_two_messages_do_not_check_one_connection_at_a_time(world: World) -> None:
    """
    While one message is at it another leaves it alone; the one whose worker died goes on, whichever has its lock.
    """
    celery_obs.register_connection("one", "airbnb")
    world.redis.set(keys.lock("drift:one"), "id-1 0")

    assert "another message is checking it" == check_drift_of(world.task(task_id="id-2"), "one")["skipped"]
    assert 0 == check_drift_of(world.task(task_id="id-1"), "one")["checked"]
    assert 0 == check_drift_of(world.task(task_id="id-2"), "one")["checked"]


def test_a_message_that_kills_its_workers_is_given_up(world: World) -> None:
    """
    What needs more memory than a worker has does not take down one worker after the other for ever.
    """
    celery_obs.register_connection("one", "airbnb")
    world.redis.set(keys.lock("drift:one"), "id-1 3")

    with pytest.raises(RuntimeError, match="crashed its worker 4 times; giving up until tomorrow"):
        check_drift_of(world.task(), "one")

    assert 0 == world.redis.exists(keys.lock("drift:one"))


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [(ApiError("down"), Again), (ApiError("wait", retry_after=7.0), Again), (ValidationError("no"), ValidationError)],
)
def test_what_may_pass_is_tried_again(world: World, problem: Exception, outcome: type[Exception]) -> None:
    """
    A channel that is away is asked later, when it says so; one that says no is not.
    """
    celery_obs.register_connection("one", "airbnb")
    world.calendar.theirs = problem

    with pytest.raises(outcome) as caught:
        check_drift_of(world.task(), "one")

    if outcome is Again and isinstance(problem, ApiError) and problem.retry_after:
        assert 7.0 <= caught.value.args[0] <= 10.5
    assert 0 == world.redis.exists(keys.lock("drift:one"))


def test_two_beats_send_one_check_each(world: World) -> None:
    """
    The second look of a period finds nothing to do; nor does one that came from a third beat with other marks.
    """
    world.facts.register(Connection(f"connection {number}", "airbnb") for number in range(20))

    first = check_drift(world.task(task_id="first"))
    second = check_drift(world.task(task_id="second"))
    world.redis.delete(keys.once("run", "task"))
    third = check_drift(world.task(task_id="third"))

    assert {"connections": 20, "due": 20, "sent": 20} == first
    assert ({"connections": 0, "due": 0, "sent": 0}, 0) == (second, third["sent"])
    assert 20 == len({name for name, _ in world.sent}) == len(world.sent)
    assert all(0 <= countdown < 900 for _, countdown in world.sent)
    assert len({countdown for _, countdown in world.sent}) > 15


def test_a_look_whose_worker_died_goes_on(world: World) -> None:
    """
    The message that comes back sends what is left, and nothing twice.
    """
    world.facts.register(Connection(f"connection {number}", "airbnb") for number in range(5))
    check_drift(world.task())
    world.facts.register([Connection("new", "airbnb")])

    again = check_drift(world.task())

    assert (1, "new") == (again["sent"], world.sent[-1][0])


def test_only_what_is_served_is_checked(world: World) -> None:
    """
    Connections that are paused, broken or gone are left alone, and so are those of a paused channel.
    """
    world.facts.register(
        [
            Connection("one", "airbnb"),
            Connection("two", "airbnb", "paused"),
            Connection("three", "airbnb", "error"),
            Connection("four", "airbnb", "disconnected"),
            Connection("five", "expedia"),
        ]
    )
    Pauses(world.redis).pause("expedia", actor="ada", reason="audit")

    check_drift(world.task())

    assert ["one"] == [name for name, _ in world.sent]


def test_a_broker_that_is_away_loses_no_check(world: World) -> None:
    """
    What could not be sent is sent at the next look.
    """
    world.facts.register([Connection("one", "airbnb")])
    task = world.task()

    def broken(**_: Any) -> None:
        raise ConnectionError

    task.app.tasks["channel_manager.check_drift_of"].apply_async = broken
    with pytest.raises(ConnectionError):
        check_drift(task)

    assert 1 == check_drift(world.task())["sent"]


# --- census and sweep -------------------------------------------------------------------------------------------------------------


def test_a_census_takes_down_what_the_source_tells(make: Callable[..., World]) -> None:
    """
    New connections are registered, old ones keep an error that the source does not know of, and their channels are known.
    """
    world = make(connection_source=(accounts := Accounts()))
    world.facts.register([Connection("one", "airbnb", "error")])
    accounts.listed = [Connection("one", "airbnb"), Connection("two", "expedia", "paused", 9.0)]

    found = take_census(world.task())

    assert {"connections": 2, "gone": 0, "forgotten": 0} == found
    assert {"one": Connection("one", "airbnb", "error"), "two": Connection("two", "expedia", "paused", 9.0)} == world.facts.connections()
    assert [b"airbnb", b"expedia"] == world.redis.zrange(keys.CHANNELS, 0, -1)


def test_who_is_gone_is_forgotten_after_a_while(make: Callable[..., World]) -> None:
    """
    A connection that the source no longer tells is kept for the grace period, and for another one when it was back in between.
    """
    world = make(connection_source=(accounts := Accounts()), connection_grace=3 * DAY)
    told = [Connection("one", "airbnb"), Connection("two", "airbnb")]

    def census(*names: str) -> dict[str, int]:
        accounts.listed = [each for each in told if each.connection_id in names]
        world.clock.advance(DAY)
        world.redis.delete(keys.once("run", "task"))
        return take_census(world.task())

    census("one", "two")
    world.redis.hset(keys.token("two"), "token", "secret")
    seen = [census(*names)["forgotten"] for names in (["one"], ["one"], ["one", "two"], ["one"], ["one"], ["one"], ["one"])]

    assert [0, 0, 0, 0, 0, 0, 1] == seen
    assert (["one"], 0, 0) == (list(world.facts.connections()), world.redis.exists(keys.token("two")), world.redis.hlen(keys.MISSING))


def test_a_source_that_tells_nothing_forgets_nobody(make: Callable[..., World]) -> None:
    """
    A source that lost its table costs no tokens, however long that lasts; it is said.
    """
    world = make(connection_source=Accounts(), connection_grace=1.0)
    world.facts.register([Connection("one", "airbnb")])

    for _ in range(3):
        world.clock.advance(DAY)
        world.redis.delete(keys.once("run", "task"))
        take_census(world.task())

    assert ["one"] == list(world.facts.connections())
    assert "returned no connections (1 known); none were deleted" in world.failures[0]


@pytest.mark.parametrize("told", ["one", None, ("", "airbnb"), ("one", 5), ("one", "airbnb", "fine"), ("\ud800", "airbnb")])
def test_a_source_that_tells_nonsense_is_said_to(make: Callable[..., World], told: Any) -> None:
    """
    The error shows what came, and what is expected.
    """
    world = make(connection_source=(accounts := Accounts()))
    accounts.listed = [Connection(*told) if isinstance(told, tuple) else told]

    with pytest.raises(ConfigurationError, match=r"connection_source gave .*Expected each to be a celery_obs.Connection"):
        take_census(world.task())


def test_a_census_without_a_source_keeps_the_channels_known(world: World) -> None:
    """
    Registered connections are all there are, and their channels do not grow old.
    """
    world.facts.register([Connection("one", "airbnb")])

    assert 1 == take_census(world.task())["connections"]
    assert [(b"airbnb", NOW)] == world.redis.zrange(keys.CHANNELS, 0, -1, withscores=True)


def test_a_sweep_removes_what_is_known_of_nobody(world: World) -> None:
    """
    Facts of connections that are not registered go after the grace period; their tokens, and all of the others', stay.
    """
    world.facts.register([Connection("one", "airbnb")])
    for name in ("one", "stranger"):
        write_syncs(world.redis, succeeded={name: 1.0})
        world.facts.token_stored(name, TokenExpiry(5.0, 1.0))
    world.redis.hset(keys.LAST_SYNCS, b"\xff\xfe", b"1")

    first = sweep_state(world.task())
    world.clock.advance(8 * DAY)
    world.redis.delete(keys.once("run", "task"))
    second = sweep_state(world.task())

    assert [(2, 0), (2, 2)] == [(found["unregistered"], found["forgotten"]) for found in (first, second)]
    assert [b"one"] == world.redis.hkeys(keys.LAST_SYNCS)
    assert {"one", "stranger"} == set(world.facts.token_expiries())
    assert 0 == world.redis.hlen(keys.MISSING)


def test_a_sweep_removes_channels_that_nobody_used_for_long(world: World) -> None:
    """
    With the channel goes what is known of its checks.
    """
    world.redis.zadd(keys.CHANNELS, {"old": NOW - 31 * DAY, "airbnb": NOW - DAY})
    world.redis.hset(keys.LAST_RUNS, mapping={"old": repr(NOW - 31 * DAY), "airbnb": repr(NOW), "garbage": "x"})

    assert 1 == sweep_state(world.task())["channels"]
    assert ([b"airbnb"], [b"airbnb"]) == (world.redis.zrange(keys.CHANNELS, 0, -1), world.redis.hkeys(keys.LAST_RUNS))


# --- where the connection is ------------------------------------------------------------------------------------------------------

NOON = NOW + 4 * 3600.0  # 2027-01-15 12:00 UTC: in Auckland the 16th has begun.


class Auckland(Calendar):
    """
    A source that tells where each connection is.
    """

    def __init__(self, zone: Any = "Pacific/Auckland") -> None:
        super().__init__()
        self.zone = zone

    def timezone(self, connection_id: str) -> Any:
        return self.zone


@pytest.mark.parametrize("how", ["source", "tzinfo", "setting"])
def test_the_window_begins_with_today_where_the_connection_is(make: Callable[..., World], how: str) -> None:
    """
    A channel in Auckland has yesterday no more, though in UTC it is today: nothing is missing there.
    """
    calendar = {"source": Auckland(), "tzinfo": Auckland(ZoneInfo("Pacific/Auckland")), "setting": Calendar()}[how]
    world = make(reconciliation_source=calendar, **({"reconciliation_timezone": "Pacific/Auckland"} if how == "setting" else {}))
    world.clock.now = NOON
    celery_obs.register_connection("one", "airbnb")
    calendar.ours, calendar.theirs = days(1, 2, 3), days(2, 3, start=TODAY + timedelta(days=1))

    found = celery_obs.reconcile("one")

    assert (2, 0, {}) == (found.checked, found.drifted, found.conflicts)
    assert TODAY + timedelta(days=1) == calendar.asked[0][1]


def test_a_time_zone_that_is_none_is_told_and_nothing_changes(make: Callable[..., World]) -> None:
    """
    The message names the method and what it gave.
    """
    make(reconciliation_source=Auckland("Pacific/Atlantis"))
    celery_obs.register_connection("one", "airbnb")

    with pytest.raises(ConfigurationError, match=r"timezone gave 'Pacific/Atlantis'\. Expected the name of a time zone"):
        celery_obs.reconcile("one")


def test_a_channel_that_could_tell_nothing_leaves_what_was_known(world: World) -> None:
    """
    It is no agreement, and no drift: the last check stands, and nothing is counted.
    """
    celery_obs.register_connection("one", "airbnb")
    world.calendar.ours, world.calendar.theirs = days(1, 2), days(1, 5)
    celery_obs.reconcile("one")
    world.events.clear()
    world.calendar.theirs = [Unknown(TODAY, date.max)]

    found = celery_obs.reconcile("one")

    assert (0, 0, 365) == (found.checked, found.drifted, found.unknown)
    assert [1] == [entry.days for entry in Pending(world.redis).all().values()]
    assert ({"one": Drift(1, 2, NOW)}, []) == (world.facts.drifts(), world.events)


def test_a_connection_that_is_forgotten_while_it_is_compared_leaves_nothing(world: World) -> None:
    """
    A customer who leaves in the middle does not come back as one that drifts.
    """
    celery_obs.register_connection("one", "airbnb")
    world.calendar.ours = days(1)

    def theirs() -> Iterator[tuple[date, Any]]:
        celery_obs.forget_connection("one")
        yield from days(2)

    world.calendar.theirs = theirs()

    assert 1 == celery_obs.reconcile("one").drifted
    assert ({}, {}, []) == (world.facts.drifts(), Pending(world.redis).all(), world.events)
