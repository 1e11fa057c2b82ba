"""
Webhooks whose work is part of a transaction: what was rolled back is new when it comes again, what was committed is a duplicate.
"""

from __future__ import annotations

import asyncio
import threading

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.webhooks.api import EventBusyError, commits_of, webhook
from celery_obs.areas.channels.webhooks.events import WebhookProcessed
from celery_obs.areas.channels.webhooks.state import Deliveries
from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from tests.servers import RedisServer, wait_until


pytestmark = pytest.mark.integration


class Log:
    """
    What became of each webhook, and which of our errors were kept from it.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.statuses: list[str] = []
        self.errors: list[str] = []

    def __call__(self, error: Exception, *, component: str) -> None:
        """
        Take note of an error.
        """
        self.errors.append(f"{component}: {error}")

    def verdict(self, event_id: str = "evt-1") -> str:
        """
        Return what another request would be told of the event.
        """
        found = Deliveries(self.redis)
        verdict, token = found.claim("webhook.airbnb", event_id, hold=60)
        if token:
            found.release("webhook.airbnb", event_id, token)
        return verdict


@pytest.fixture
def log(redis_server: RedisServer) -> Iterator[Log]:
    """
    An engine on an empty Redis.
    """
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
        found = Log(client)
        hub = Hub(on_error=found)
        hub.subscribe(WebhookProcessed, lambda event: found.statuses.append(event.status))
        made = engine.Engine(hub=hub, settings=Settings(metrics_dir=Path("/nonexistent"), redis_url=redis_server.url))
        engine.connect(lambda: made)
        yield found
        engine.disconnect()
        assert made.redis is not None
        made.redis.close()


# --- by hand --------------------------------------------------------------------------------------------------------------------


def test_an_event_is_held_until_the_commit(log: Log) -> None:
    """
    Neither new nor done, and not counted: nothing is known of it yet.
    """
    kept: list[Callable[[], None]] = []
    with webhook("airbnb", on_commit=kept.append) as hook:
        assert hook.once("evt-1")

    assert ("held", []) == (log.verdict(), log.statuses)

    kept.pop()()

    assert ("done", ["success"]) == (log.verdict(), log.statuses)


def test_what_is_let_go_without_a_commit_is_new_at_once(log: Log) -> None:
    """
    A rollback counts as an error, and the channel's next attempt is worked on.
    """
    kept: list[Callable[[], None]] = []
    with webhook("airbnb", on_commit=kept.append) as hook:
        assert hook.once("evt-1")

    kept.clear()

    assert ("new", ["error"]) == (log.verdict(), log.statuses)


def test_a_block_that_raises_does_not_wait_for_a_transaction(log: Log) -> None:
    """
    Nor does one that found a duplicate, or that asked for nothing.
    """
    kept: list[Callable[[], None]] = []

    def fail() -> None:
        with webhook("airbnb", on_commit=kept.append) as hook:
            hook.once("evt-1")
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with webhook("airbnb", on_commit=kept.append):
        pass

    assert ([], "new", ["error", "success"]) == (kept, log.verdict(), log.statuses)


def test_a_function_that_fails_in_place_of_keeping_is_told_and_the_event_is_new(log: Log) -> None:
    """
    Rather twice than never.
    """

    def broken(_: Callable[[], None]) -> None:
        message = "no transaction here"
        raise RuntimeError(message)

    with webhook("airbnb", on_commit=broken) as hook:
        hook.once("evt-1")

    assert ("new", ["error"], ["webhooks: no transaction here"]) == (log.verdict(), log.statuses, log.errors)


def test_an_event_loop_is_not_kept_waiting_by_a_commit(log: Log) -> None:
    """
    What a commit calls inside an event loop is settled in a thread, and before the loop ends.
    """
    threads: list[str] = []
    engine.current().hub.subscribe(WebhookProcessed, lambda _: threads.append(threading.current_thread().name))

    async def work() -> None:
        kept: list[Callable[[], None]] = []
        async with webhook("airbnb", on_commit=kept.append) as hook:
            assert await hook.aonce("evt-1")
        kept.pop()()

    asyncio.run(work())

    assert ("done", ["success"]) == (log.verdict(), log.statuses)
    assert "MainThread" not in threads


# --- SQLAlchemy -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Any]:
    """
    Makes sessions on a database with one table of bookings.
    """
    import sqlalchemy as sa

    from sqlalchemy.orm import sessionmaker

    made = sa.create_engine(f"sqlite:///{tmp_path}/bookings.db")
    # The driver begins a transaction by itself, but for a savepoint; so the test begins it.
    sa.event.listen(made, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    sa.event.listen(made, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with made.begin() as connection:
        connection.execute(sa.text("CREATE TABLE bookings (id INTEGER PRIMARY KEY, event TEXT)"))
    yield sessionmaker(made)
    made.dispose()


def booked(sessions: Any) -> int:
    import sqlalchemy as sa

    with sessions() as session:
        return int(session.execute(sa.text("SELECT count(*) FROM bookings")).scalar())


def book(session: Any) -> None:
    import sqlalchemy as sa

    session.execute(sa.text("INSERT INTO bookings (event) VALUES ('evt-1')"))


def deliver(sessions: Any, end: Callable[[Any], None]) -> bool:
    """
    Take a webhook in; tell whether it was worked on.  How the transaction ends, after the block, is the test's.
    """
    with sessions() as session:
        with webhook("airbnb", on_commit=commits_of(session)) as hook:
            is_new = hook.once("evt-1")
            if is_new:
                book(session)
        end(session)
        return is_new


@pytest.mark.parametrize(
    "end", [lambda session: session.rollback(), lambda session: session.close(), lambda session: None], ids=["rollback", "close", "nothing"]
)
def test_a_session_that_is_not_committed_makes_the_redelivery_new(log: Log, sessions: Any, end: Callable[[Any], None]) -> None:
    """
    One booking in the end, which the ledger of the database has.
    """
    assert deliver(sessions, end)
    assert 0 == booked(sessions)

    assert [True, False] == [deliver(sessions, lambda session: session.commit()) for _ in range(2)]

    assert (1, ["error", "success", "duplicate"]) == (booked(sessions), log.statuses)


def test_a_session_that_is_committed_inside_the_block_is_settled_at_its_end(log: Log, sessions: Any) -> None:
    """
    Also when it reads something afterwards, in a transaction that is never committed.
    """
    with sessions() as session, webhook("airbnb", on_commit=commits_of(session)) as hook:
        hook.once("evt-1")
        book(session)
        session.commit()
        assert 1 == booked(sessions)
        session.connection()

    assert ("done", ["success"]) == (log.verdict(), log.statuses)


def test_a_savepoint_is_no_commit(log: Log, sessions: Any) -> None:
    """
    What is around it may yet be rolled back.
    """
    with sessions() as session:
        with webhook("airbnb", on_commit=commits_of(session)) as hook:
            hook.once("evt-1")
            with session.begin_nested():
                book(session)
        with session.begin_nested():
            book(session)
        assert "held" == log.verdict()
        session.rollback()

    assert ("new", ["error"], 0) == (log.verdict(), log.statuses, booked(sessions))


def test_one_session_for_many_webhooks_keeps_listening_once(log: Log, sessions: Any) -> None:
    """
    A long-lived session gathers no listeners.
    """
    with sessions() as session:
        for number in range(20):
            with webhook("airbnb", on_commit=commits_of(session)) as hook:
                hook.once(f"evt-{number}")
                book(session)
            session.commit()
        assert 1 == len(list(session.dispatch.after_commit))

    assert (["success"] * 20, 20) == (log.statuses, booked(sessions))


def test_what_is_no_session_is_refused() -> None:
    """
    The message says what to pass.
    """
    with pytest.raises(ConfigurationError, match=r"was given a object\. Expected a Session"):
        commits_of(object())


# --- the order of events ----------------------------------------------------------------------------------------------------------


def tell(event_id: str, at: Any, *, object_id: str = "booking-7", fails: bool = False) -> bool:
    """
    Take in an event about a booking; tell whether it was worked on.
    """
    with webhook("airbnb") as hook:
        if not (hook.once(event_id) and hook.newest(object_id, at=at)):
            return False
        if fails:
            raise LookupError
        return True


def test_an_event_that_was_overtaken_is_stale(log: Log) -> None:
    """
    It is told as such, it is done, and another object has a time of its own.
    """
    assert tell("evt-2", "2027-01-15T08:00:30Z")
    assert not tell("evt-1", 1_800_000_000)
    assert not tell("evt-1", 1_800_000_000)
    assert tell("evt-3", 1_800_000_030_000)
    assert tell("evt-4", datetime(2027, 1, 15, 8, 1, tzinfo=timezone.utc))
    assert tell("evt-5", 1_700_000_000, object_id="booking-8")

    assert ["success", "stale", "duplicate", "success", "success", "success"] == log.statuses


def test_an_event_that_failed_overtakes_nothing(log: Log) -> None:
    """
    The older one is worked on, and then the newer one when it comes again.
    """
    with pytest.raises(LookupError):
        tell("evt-2", 1_800_000_030, fails=True)

    assert [True, True] == [tell("evt-1", 1_800_000_000), tell("evt-2", 1_800_000_030)]
    assert ["error", "success", "success"] == log.statuses


def test_two_events_about_one_object_are_not_worked_on_at_once(log: Log) -> None:
    """
    The older cannot end last: the other is asked to come again, and is new then.
    """
    with webhook("airbnb") as hook:
        assert hook.once("evt-1")
        assert hook.newest("booking-7", at=1_800_000_000)
        with pytest.raises(EventBusyError, match="about the same object"):
            tell("evt-2", 1_800_000_030)
        assert hook.newest("booking-7", at=1_800_000_000)

    assert tell("evt-2", 1_800_000_030)
    assert ["duplicate", "success", "success"] == log.statuses


def test_what_a_dead_process_held_is_free_again_after_a_while(log: Log) -> None:
    """
    A SIGKILL in the middle of the work stops no object for good.
    """
    known = Deliveries(log.redis)
    assert "newest" == known.claim_object("webhook.airbnb", "booking-7", at=1.0, token="dead", hold=0.2)
    assert "held" == known.claim_object("webhook.airbnb", "booking-7", at=2.0, token="other", hold=0.2)

    wait_until(
        lambda: known.claim_object("webhook.airbnb", "booking-7", at=2.0, token="other", hold=60) == "newest", what="the hold to end"
    )


def test_a_time_that_is_none_is_a_mistake_of_the_program(log: Log) -> None:
    """
    The message says what to pass.
    """
    with pytest.raises(ValueError, match=r"'yesterday'\. Expected a datetime"):
        tell("evt-1", "yesterday")


@settings(max_examples=30, deadline=None)
@given(times=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_what_was_worked_on_never_goes_back_in_time(redis_server: RedisServer, times: list[int]) -> None:
    """
    In whatever order events come: those that are worked on are the ones that nothing newer preceded.
    """
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
        known = Deliveries(client)
        done = []
        for number, at in enumerate(times):
            if known.claim_object("webhook.airbnb", "x", at=float(at), token=str(number), hold=60) == "newest":
                known.finish_object("webhook.airbnb", "x", at=float(at), token=str(number), ttl=60)
                done.append(at)

    assert [at for place, at in enumerate(times) if at >= max(times[: place + 1])] == done
