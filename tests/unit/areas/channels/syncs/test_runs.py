"""
Sync runs: what a block is worth.
"""

from __future__ import annotations

import enum
import threading

from typing import Any

import pytest

from celery.exceptions import Ignore, Reject, Retry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_obs.areas.channels.connections.events import ConnectionErrored
from celery_obs.areas.channels.syncs.api import Run, SyncResult, sync_run
from celery_obs.areas.channels.syncs.events import SyncFinished, SyncStarted
from celery_obs.areas.channels.syncs.metrics import STATUSES
from celery_obs.areas.sidecar.events import ObservationDropped


class Channel(enum.Enum):
    """
    A channel, as applications spell them.
    """

    AIRBNB = "airbnb"


def last(heard: list[Any]) -> SyncFinished:
    """
    Return the run that ended last.
    """
    found: SyncFinished = [event for event in heard if isinstance(event, SyncFinished)][-1]
    return found


def test_a_block_that_ends_is_a_success(heard: list[Any]) -> None:
    """
    A run is told when it begins and when it ends, with its records.
    """
    with sync_run("airbnb", "export", "inbound", connection_id="c-1") as run:
        run.created()
        run.updated(2)
        run.records(skipped=3)

    opened, done = heard
    assert SyncStarted("airbnb", "export", "inbound", "c-1", 1000.0) == opened
    assert opened is done.started
    assert ("success", 1, 2, 0, 3, "", "") == (done.status, *done[3:])
    assert 0.0 <= done.duration < 5.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no room"), ("failure", "ValueError", "no room")),
        (KeyboardInterrupt(), ("failure", "KeyboardInterrupt", "")),
        (Retry("later", exc=TimeoutError("slow")), ("retry", "TimeoutError", "slow")),
        (Retry(), ("retry", "", "")),
        (Ignore(), ("skipped", "", "")),
        (Reject("not mine", requeue=False), ("skipped", "SyncFailed", "not mine")),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "exc", "")) if isinstance(value, BaseException) else "",
)
def test_what_is_raised_tells_the_outcome(heard: list[Any], error: BaseException, expected: tuple[str, str, str]) -> None:
    """
    An exception is a failure; Celery's control flow is what it says; and the block's exception goes on as it is.
    """
    with pytest.raises(type(error)) as caught, sync_run("airbnb", "export"):
        raise error

    assert error is caught.value
    done = last(heard)
    assert expected == (done.status, done.error, done.error_message)


@pytest.mark.parametrize(
    ("tell", "expected"),
    [
        (lambda run: run.failed(2), ("partial", "", "")),
        (lambda run: run.partial(), ("partial", "", "")),
        (lambda run: run.skip("no listings"), ("skipped", "", "no listings")),
        (lambda run: run.fail(KeyError("gone")), ("failure", "KeyError", "'gone'")),
        (lambda run: run.fail("the channel said no"), ("failure", "SyncFailed", "the channel said no")),
        (lambda run: run.fail(), ("failure", "", "")),
    ],
    ids=["records failed", "partial", "skip", "fail with an error", "fail with a text", "fail"],
)
def test_a_block_may_know_better(heard: list[Any], tell: Any, expected: tuple[str, str, str]) -> None:
    """
    A run that raises nothing may still be partial, skipped or failed.
    """
    with sync_run("airbnb", "export") as run:
        tell(run)

    done = last(heard)
    assert expected == (done.status, done.error, done.error_message)


def test_an_exception_outweighs_what_the_block_told_before(heard: list[Any]) -> None:
    """
    A run that called itself skipped and raised afterwards has failed.
    """

    def sync() -> None:
        with sync_run("airbnb", "export") as run:
            run.skip()
            raise ValueError("after all")

    with pytest.raises(ValueError, match="after all"):
        sync()

    assert "failure" == last(heard).status


@pytest.mark.parametrize("count", [-1, 1.5, "3", None, 1 << 60, float("nan")])
def test_a_count_that_makes_no_sense_is_left_out_and_told(heard: list[Any], count: Any) -> None:
    """
    A bad number costs the number, not the run.
    """
    with sync_run("airbnb", "export") as run:
        run.updated(2)
        run.updated(count)

    assert 2 == last(heard).updated
    assert [ObservationDropped("bad_value")] == [event for event in heard if isinstance(event, ObservationDropped)]


class Unspeakable:
    """
    What cannot be made a text.
    """

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "label", "complaints"),
    [(Channel.AIRBNB, "airbnb", 0), (7, "7", 0), (None, "_unknown", 1), ("", "_unknown", 1), (Unspeakable(), "_unknown", 1)],
    ids=["enum", "number", "None", "empty", "unspeakable"],
)
def test_a_channel_that_is_no_text_is_made_one(heard: list[Any], value: Any, label: str, complaints: int) -> None:
    """
    Ids and enums become labels; nothing at all becomes a label that says so.
    """
    with sync_run(value, "export"):
        pass

    assert label == last(heard).started.channel_type
    assert complaints == sum(isinstance(event, ObservationDropped) for event in heard)


def test_runs_nest(heard: list[Any]) -> None:
    """
    A run inside a run is one of its own: its end is not the other's.
    """
    with sync_run("airbnb", "all") as outer:
        with sync_run("airbnb", "prices") as inner:
            inner.updated(1)
        outer.updated(2)

    assert [("prices", 1), ("all", 2)] == [(event.started.sync_type, event.updated) for event in heard if isinstance(event, SyncFinished)]


def test_a_failed_run_of_a_connection_is_an_error_of_the_connection(heard: list[Any]) -> None:
    """
    Only failures count; a run about no connection in particular is no connection's error.
    """
    for connection in ("c-1", ""):
        with sync_run("airbnb", "export", connection_id=connection) as run:
            run.fail("no")

    assert [ConnectionErrored("airbnb", "c-1")] == [event for event in heard if isinstance(event, ConnectionErrored)]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (SyncResult(created=1, failed=2), ("partial", 1, 0, 2, 0)),
        (SyncResult(updated=4, status="skipped"), ("skipped", 0, 4, 0, 0)),
        (SyncResult(status="splendid"), ("success", 0, 0, 0, 0)),  # type: ignore[arg-type]  # that is the point.
    ],
    ids=["counts", "status", "bad status"],
)
def test_a_result_tells_counts_and_outcome(heard: list[Any], result: SyncResult, expected: tuple[object, ...]) -> None:
    """
    What a task returned counts as if its run had been told; a status that is none is left out.
    """
    with sync_run("airbnb", "export") as run:
        run.take(result)

    done = last(heard)
    assert expected == (done.status, done.created, done.updated, done.failed, done.skipped)


def test_without_setup_a_run_is_a_block() -> None:
    """
    Library code may open runs in programs that never set us up.
    """
    with sync_run("airbnb", "export") as run:
        run.updated(1)

    assert isinstance(run, Run)


def test_each_thread_has_runs_of_its_own(heard: list[Any]) -> None:
    """
    Runs that overlap in time do not touch each other.
    """
    both = threading.Barrier(2, timeout=10)

    def sync(name: str, records: int) -> None:
        with sync_run("airbnb", name) as run:
            both.wait()
            run.updated(records)
            both.wait()

    threads = [threading.Thread(target=sync, args=each) for each in (("one", 1), ("two", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert {"one": 1, "two": 2} == {event.started.sync_type: event.updated for event in heard if isinstance(event, SyncFinished)}


@given(
    told=st.lists(st.tuples(st.sampled_from(["created", "updated", "failed", "skipped"]), st.integers(-5, 1 << 40))),
    ends=st.sampled_from([None, ValueError, Ignore, Retry]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_run_ends_once_with_the_sum_of_what_it_told(heard: list[Any], told: list[tuple[str, int]], ends: Any) -> None:
    """
    Whatever a block tells and however it ends, there is one end, with one of the five outcomes and the sums of the counts that make sense.
    """
    heard.clear()
    try:
        with sync_run("airbnb", "export") as run:
            for result, count in told:
                getattr(run, result)(count)
            if ends is not None:
                raise ends
    except (ValueError, Ignore, Retry):
        pass

    (done,) = [event for event in heard if isinstance(event, SyncFinished)]
    assert done.status in STATUSES
    for result in ("created", "updated", "failed", "skipped"):
        assert sum(count for kind, count in told if kind == result and count >= 0) == getattr(done, result)
