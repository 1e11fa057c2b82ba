"""
Trying again: after how long, how often, and what for.
"""

from __future__ import annotations

from typing import Any

import pytest

from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.errors import AuthError, ChannelError, LimitReachedError, NetworkError, RateLimitError
from celery_obs.areas.channels.retries import PRESETS, RetrySchedule, retry_policy
from celery_obs.areas.channels.syncs.api import SyncResult
from celery_obs.areas.channels.syncs.events import SyncFinished
from celery_obs.areas.channels.syncs.sync_task import SyncTask
from celery_obs.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("critical", [2.0, 4.0, 8.0, 16.0, 32.0]), ("quick", [0.5, 0.75])],
)
def test_the_presets_are_those_of_the_contract(preset: str, expected: list[float]) -> None:
    """
    Without jitter the delays are the presets' own, fractions of a second included.
    """
    schedule = PRESETS[preset]._replace(jitter=False)

    assert expected == [schedule.delay(retries) for retries in range(schedule.max_retries or 0)]


@given(
    base=st.floats(0.001, 100),
    more=st.floats(0, 1000),
    factor=st.floats(1, 10),
    retries=st.integers(-1, 10_000),
    after=st.none() | st.floats(0, 86400),
)
def test_a_delay_stays_within_its_bounds(base: float, more: float, factor: float, retries: int, after: float | None) -> None:
    """
    Jitter takes away at most half, nothing exceeds the limit but what the channel asked for, and that an hour.
    """
    schedule = RetrySchedule(3, base, base + more, factor)

    delay = schedule.delay(retries, after=after)

    assert base / 2 <= delay <= max(base + more, min(after or 0.0, 3600.0))
    assert after is None or delay >= min(after, 3600.0) or delay == 3600.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "eager"},
        {"max_retries": -1},
        {"base_delay": 0},
        {"base_delay": 9, "max_delay": 1},
        {"backoff_factor": 0.5},
        {"max_delay": float("inf")},
        {"max_delay": float("nan")},
    ],
    ids=str,
)
def test_a_schedule_that_cannot_work_is_refused_where_it_is_written(wrong: dict[str, Any]) -> None:
    """
    A bad number is an error at import, with what was expected.
    """
    with pytest.raises(ValueError, match="Expected"):
        retry_policy(**wrong)


@pytest.fixture
def app() -> Celery:
    """
    An app that is not observed.
    """
    made = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.task_eager_propagates = False
    return made


class Attempts:
    """
    A function that raises *error*, and the countdowns that its task asked for.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.made = 0

    def __call__(self) -> None:
        self.made += 1
        raise self.error


def run(app: Celery, error: Exception, **options: Any) -> tuple[Attempts, list[float]]:
    """
    Run an eager sync task that raises *error* until it gives up; return its attempts and the delays that it asked for.
    """
    attempts = Attempts(error)
    delays: list[float] = []

    class Watched(SyncTask):
        abstract = True

        def signature_from_request(self, *args: Any, **options: Any) -> Any:
            delays.append(options["countdown"])
            return super().signature_from_request(*args, **options)

    def sync() -> None:
        attempts()

    app.task(name="proj.sync", shared=False, base=Watched, channel_type="airbnb", **options)(sync).apply()
    return attempts, delays


def test_a_sync_task_keeps_the_schedule(app: Celery) -> None:
    """
    Delays of fractions of a second, which Celery's own backoff does not know, are asked for as they are.
    """
    attempts, delays = run(app, NetworkError("no"), **retry_policy("quick", jitter=False))

    assert (3, [0.5, 0.75]) == (attempts.made, delays[:2])


def test_a_sync_task_waits_as_long_as_the_channel_asked(app: Celery) -> None:
    """
    ``Retry-After`` outweighs a shorter delay of ours.
    """
    _, delays = run(app, RateLimitError("no", retry_after=120.0), **retry_policy("quick", jitter=False))

    assert [120.0, 120.0] == delays[:2]


@pytest.mark.parametrize("error", [AuthError("no"), ValueError("a bug")])
def test_what_cannot_succeed_is_not_tried_again(app: Celery, error: Exception) -> None:
    """
    A refusal, and a bug, fail at once.
    """
    attempts, delays = run(app, error, **retry_policy("critical"))

    assert (1, []) == (attempts.made, delays)


def test_a_plain_task_takes_what_celery_knows(app: Celery) -> None:
    """
    The same arguments work without SyncTask: retryable errors are retried, as often as the preset says.
    """
    attempts = Attempts(NetworkError("no"))

    def plain() -> None:
        attempts()

    result = app.task(name="proj.plain", shared=False, **retry_policy("quick"))(plain).apply()

    assert (3, NetworkError) == (attempts.made, type(result.result))
    attempts.error = AuthError("no")
    app.tasks["proj.plain"].apply()
    assert 4 == attempts.made


def declare(app: Celery, function: Any, **options: Any) -> None:
    app.task(name="proj.wrong", shared=False, base=SyncTask, **options)(function)
    app.finalize()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither channel_type and channel_argument"),
        ({"channel_type": "airbnb", "channel_argument": "channel"}, "both channel_type and channel_argument"),
        ({"channel_argument": "unknown"}, "channel_argument='unknown'"),
        ({"channel_type": "airbnb", "connection_argument": "nothing"}, "Expected one of: channel, connection"),
    ],
    ids=["no channel", "two channels", "channel misspelt", "connection misspelt"],
)
def test_a_sync_task_that_cannot_work_is_refused_when_it_is_made(app: Celery, options: dict[str, str], message: str) -> None:
    """
    A misspelt argument does not wait for the first call.
    """

    def sync(channel: str, connection: str) -> None:
        pass

    with pytest.raises(ConfigurationError, match=message):
        declare(app, sync, **options)


async def _coroutine(channel: str) -> None: ...


async def _async_generator(channel: str) -> Any:
    yield channel


def _generator(channel: str) -> Any:
    yield channel


@pytest.mark.parametrize("function", [_coroutine, _async_generator, _generator])
def test_a_sync_task_that_nothing_would_run_is_refused_when_it_is_made(app: Celery, function: Any) -> None:
    """
    Celery calls a coroutine function and throws the coroutine away: it would succeed without doing anything.  The message says what to write.
    """
    with pytest.raises(ConfigurationError, match=r"Expected a plain function.*asyncio\.run"):
        declare(app, function, channel_type="airbnb")


def test_a_sync_task_that_returns_a_coroutine_fails(app: Celery, heard: list[Any]) -> None:
    """
    What cannot be seen when the task is made is seen when it returns; the run is a failure.
    """

    def sync(channel: str) -> Any:
        return _coroutine(channel)

    result = app.task(name="proj.later", shared=False, base=SyncTask, channel_argument="channel")(sync).apply(["airbnb"])

    assert isinstance(result.result, TypeError)
    assert "asyncio.run" in str(result.result)
    assert ["failure"] == [event.status for event in heard if isinstance(event, SyncFinished)]


@pytest.mark.parametrize("preset", [None, "critical", "quick"])
def test_no_maximum_of_retries_means_without_end(app: Celery, preset: Any) -> None:
    """
    As it does for Celery, and not as often as the preset says.
    """
    policy = retry_policy(preset, max_retries=None)

    assert (None, None) == (policy["max_retries"], policy["retry_schedule"].max_retries)
    assert 0 < policy["retry_schedule"].delay(10_000) <= 60

    attempts = Attempts(NetworkError("no"))

    def sync() -> None:
        if attempts.made < 12:
            attempts()

    made = app.task(name="proj.endless", shared=False, base=SyncTask, channel_type="airbnb", **policy)(sync)
    made.apply()
    assert 12 == attempts.made


def test_an_eager_task_is_not_held_back(app: Celery) -> None:
    """
    Who calls it with ``apply()`` gets the refusal, as it has no queue to come again from.
    """
    attempts = Attempts(LimitReachedError("no call left", channel="airbnb", retry_after=1.0))

    def sync() -> None:
        attempts()

    result = app.task(name="proj.eager", shared=False, base=SyncTask, channel_type="airbnb")(sync).apply()

    assert isinstance(result.result, LimitReachedError)
    assert 1 == attempts.made


def test_a_sync_task_called_directly_is_a_function(app: Celery, heard: list[Any]) -> None:
    """
    No run, no pause, and what it returned as it is.
    """

    def sync(channel: str) -> SyncResult:
        return SyncResult(updated=1)

    task = app.task(name="proj.direct", shared=False, base=SyncTask, channel_argument="channel")(sync)

    assert (SyncResult(updated=1), []) == (task("airbnb"), heard)


def test_a_sync_task_that_calls_itself_is_one_run(app: Celery, heard: list[Any]) -> None:
    """
    What a task calls directly is part of it, itself included.
    """

    def sync(channel: str, *, deeper: bool = True) -> SyncResult:
        return SyncResult(updated=task("airbnb", deeper=False).updated + 1) if deeper else SyncResult(updated=1)

    task = app.task(name="proj.deep", shared=False, base=SyncTask, channel_argument="channel")(sync)

    result = task.apply(["airbnb"]).result

    assert 2 == result["updated"]
    assert ["airbnb"] == [event.started.channel_type for event in heard if isinstance(event, SyncFinished)]


def test_errors_of_channels_are_what_a_plain_task_retries() -> None:
    """
    The keyword arguments name our tree and the standard library's, and not those that are final.
    """
    policy = retry_policy("critical")

    assert ChannelError in policy["autoretry_for"]
    assert AuthError in policy["dont_autoretry_for"]
    assert (5, 2, 60, True) == (policy["max_retries"], policy["retry_backoff"], policy["retry_backoff_max"], policy["retry_jitter"])
