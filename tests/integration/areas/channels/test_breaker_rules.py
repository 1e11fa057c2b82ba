"""
What opens a breaker besides failures in a row, what has a breaker, and what counts as the end of a call: on a real Redis.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from billiard.exceptions import SoftTimeLimitExceeded
from redis import Redis

from celery_obs.areas.channels.api_calls.api import api_call
from celery_obs.areas.channels.api_calls.events import ApiCallFinished
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.breakers.api import guard, guard_async, guarded, registry
from celery_obs.areas.channels.breakers.events import CircuitChanged
from celery_obs.areas.channels.breakers.state import Breakers
from celery_obs.areas.channels.errors import CircuitOpenError
from celery_obs.areas.channels.pauses import api as pauses
from celery_obs.state import keys
from tests.servers import RedisCluster, RedisServer, wait_until

from .conftest import Stage


pytestmark = pytest.mark.integration


@pytest.fixture
def channel(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """
    Make a process whose channel has a breaker as told.
    """
    with contextlib.ExitStack() as stack:
        yield lambda **breaker: stack.enter_context(Stage(redis_server.url, tmp_path, channels={"airbnb": {"circuit_breaker": breaker}}))


def state(name: str = "airbnb") -> str:
    return registry.get_breaker(name).state


def call(*, ok: bool, took: float = 0.0) -> None:
    circuit_breaker.record(circuit_breaker.allow("airbnb"), ok=ok, duration=took)


# --- rates ------------------------------------------------------------------------------------------------------------------------


def test_half_of_the_calls_failing_opens_it_though_never_two_in_a_row(channel: Callable[..., Stage]) -> None:
    """
    A rate over a window sees what failures in a row do not, from the least number of calls on.
    """
    channel(failure_threshold=3, failure_rate=0.5, minimum_calls=10)

    for number in range(9):
        call(ok=bool(number % 2))
    assert "closed" == state()
    call(ok=True)

    assert "open" == state()


def test_slow_calls_open_it_though_all_succeed(channel: Callable[..., Stage]) -> None:
    """
    A channel that answers too slowly is left alone, too.
    """
    channel(slow_rate=0.5, slow_after=2, minimum_calls=4)

    for took in (0.1, 2.0, 0.1):
        call(ok=True, took=took)
    assert "closed" == state()
    call(ok=True, took=3.0)

    assert "open" == state()


def test_a_guard_measures_how_long_its_block_took(channel: Callable[..., Stage]) -> None:
    """
    No caller has to tell the duration of a block.
    """
    channel(slow_rate=1.0, slow_after=0.02, minimum_calls=1)

    with guard("airbnb"):
        threading.Event().wait(0.03)

    assert "open" == state()


# --- half open --------------------------------------------------------------------------------------------------------------------


def test_several_probes_may_be_under_way_and_no_more(channel: Callable[..., Stage]) -> None:
    """
    As many as the setting says; the others are told to come again soon, and not when the probes would time out.
    """
    channel(failure_threshold=1, success_threshold=2, timeout=0.05, probe_timeout=60, probes=2)
    call(ok=False)
    first = probe()
    second = circuit_breaker.allow("airbnb")

    with pytest.raises(CircuitOpenError) as refused:
        circuit_breaker.allow("airbnb")
    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= 0.5
    circuit_breaker.record(second, ok=True)
    circuit_breaker.record(first, ok=True)

    assert "closed" == state()


def probe() -> circuit_breaker.Permit:
    found: list[circuit_breaker.Permit] = []

    def is_let_through() -> bool:
        with contextlib.suppress(CircuitOpenError):
            found.append(circuit_breaker.allow("airbnb"))
        return bool(found)

    wait_until(is_let_through, what="a probe")
    return found[0]


# --- scopes -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per", "sick", "well"),
    [
        ("endpoint", {"endpoint": "/prices/{id}"}, {"endpoint": "/bookings"}),
        ("connection", {"connection_id": "c-1"}, {"connection_id": "c-2"}),
    ],
)
def test_one_endpoint_or_connection_does_not_cut_off_the_others(
    channel: Callable[..., Stage], redis: Redis, per: str, sick: dict[str, str], well: dict[str, str]
) -> None:
    """
    Each has a breaker of its own; who looks at the channel sees the one that is open, and an operator closes all at once.
    """
    stage = channel(failure_threshold=2, timeout=300, per=per)
    for _ in range(2):
        circuit_breaker.record(circuit_breaker.allow("airbnb", **sick), ok=False)

    with pytest.raises(CircuitOpenError):
        circuit_breaker.allow("airbnb", **sick)
    circuit_breaker.record(circuit_breaker.allow("airbnb", **well), ok=True)

    assert "open" == state()
    assert "open" == Breakers(redis).states(["airbnb"])["airbnb"].state
    assert [CircuitChanged("airbnb", "closed", "open", None)] == stage.heard(CircuitChanged)
    registry.force_close("airbnb", actor="ada")
    assert "closed" == state()
    circuit_breaker.allow("airbnb", **sick)


def test_ids_in_a_path_do_not_make_a_breaker_each(channel: Callable[..., Stage]) -> None:
    """
    A path is made into its template first.
    """
    channel(failure_threshold=2, timeout=300, per="endpoint")

    for number in range(2):
        circuit_breaker.record(circuit_breaker.allow("airbnb", endpoint=f"/listings/{number}"), ok=False)

    with pytest.raises(CircuitOpenError):
        circuit_breaker.allow("airbnb", endpoint="/listings/7")


def test_an_operator_stops_a_channel_whose_endpoints_have_breakers(channel: Callable[..., Stage]) -> None:
    """
    A breaker that is opened by hand holds for all of them.
    """
    channel(per="endpoint")
    registry.force_open("airbnb", actor="ada")

    with pytest.raises(CircuitOpenError):
        circuit_breaker.allow("airbnb", endpoint="/bookings")


# --- the caller gives up ----------------------------------------------------------------------------------------------------------


async def _gives_up(seconds: float) -> None:
    async def ask() -> None:
        async with guard_async("airbnb"):
            await asyncio.sleep(60)

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(ask(), seconds)


@pytest.mark.parametrize(("patience", "expected"), [(0.05, "open"), ("off", "closed"), (30, "closed")])
def test_a_call_that_its_caller_gave_up_counts_where_it_lasted_long_enough(
    channel: Callable[..., Stage], patience: object, expected: str
) -> None:
    """
    ``wait_for`` cancels it, and the setting caller_timeout says from when on that is the channel's failure.
    """
    channel(failure_threshold=2, timeout=300, caller_timeout=patience)

    for _ in range(2):
        asyncio.run(_gives_up(0.1))

    assert expected == state()


def test_a_soft_time_limit_inside_a_call_is_a_time_out_of_the_channel(channel: Callable[..., Stage]) -> None:
    """
    Celery's own exception in an api_call opens the breaker, and is counted as a time-out.
    """
    stage = channel(failure_threshold=2, timeout=300, caller_timeout=0.01)
    finished: list[Any] = []
    stage.engine.hub.subscribe(ApiCallFinished, finished.append)

    for _ in range(2):
        with contextlib.suppress(SoftTimeLimitExceeded), api_call("airbnb", "/x", "GET"):
            threading.Event().wait(0.02)
            raise SoftTimeLimitExceeded

    assert "open" == state()
    assert ["timeout", "timeout"] == [each.error_type for each in finished]


def test_a_cancelled_question_gives_its_probe_back(channel: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who is cancelled while the breaker is asked does not keep the probe to itself for its whole time-out.
    """
    channel(failure_threshold=1, success_threshold=1, timeout=0.05, probe_timeout=60)
    call(ok=False)
    ask = circuit_breaker.allow
    asked, go_on = threading.Event(), threading.Event()

    def slowly(*args: Any, **kwargs: Any) -> Any:
        found = ask(*args, **kwargs)
        asked.set()
        go_on.wait(10)
        return found

    async def cancelled() -> None:
        threading.Event().wait(0.06)
        asking = asyncio.create_task(circuit_breaker.allow_async("airbnb"))
        await asyncio.to_thread(asked.wait, 10)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        go_on.set()

    monkeypatch.setattr(circuit_breaker, "allow", slowly)
    asyncio.run(cancelled())
    monkeypatch.undo()

    assert "half_open" == state()
    circuit_breaker.record(probe(), ok=True)
    assert "closed" == state()


# --- what is decorated ------------------------------------------------------------------------------------------------------------


class SickError(Exception):
    """
    What the channel's client raises.
    """


async def _coroutine() -> None:
    raise SickError


def _generator() -> Iterator[int]:
    yield 1
    raise SickError


async def _async_generator() -> AsyncIterator[int]:
    yield 1
    raise SickError


def _returns_a_coroutine() -> Any:
    return _coroutine()


def _returns_a_generator() -> Any:
    return _generator()


def _returns_a_future() -> Any:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.set_exception(SickError())
    return future


def _run(found: Any) -> None:
    async def awaited() -> None:
        await found

    async def walked() -> None:
        async for _ in found:
            pass

    if hasattr(found, "__anext__"):
        asyncio.run(walked())
    elif hasattr(found, "__await__"):
        asyncio.run(awaited())
    elif hasattr(found, "result"):
        found.result()
    else:
        list(found)


BODIES = [_coroutine, _generator, _async_generator, _returns_a_coroutine, _returns_a_generator, _returns_a_future]


@pytest.mark.parametrize("decorate", [guarded, guard, guard_async], ids=lambda each: each.__name__)
@pytest.mark.parametrize("body", BODIES, ids=lambda each: each.__name__)
def test_the_body_of_what_is_decorated_is_the_call(channel: Callable[..., Stage], decorate: Any, body: Any) -> None:
    """
    Calling a generator function, or one that returns an awaitable, is no success yet: what its body raises counts.
    """
    channel(failure_threshold=5, timeout=300)
    function = decorate("airbnb")(body)

    for _ in range(5):
        with pytest.raises(SickError):
            _run(function())

    assert "open" == state()
    with pytest.raises(CircuitOpenError):
        _run(function())


def test_what_is_sent_to_a_decorated_generator_reaches_it(channel: Callable[..., Stage]) -> None:
    """
    Of both kinds, with what is thrown in, and closing one says nothing about the channel.
    """
    channel(failure_threshold=1, timeout=300)
    got: list[Any] = []

    @guarded("airbnb")
    async def talk() -> Any:
        try:
            got.append((yield "first"))
            yield "second"
        except KeyError as error:
            got.append(error)
            yield "third"

    async def speak() -> list[Any]:
        there = talk()
        said = [await there.__anext__(), await there.asend("hello"), await there.athrow(KeyError("x"))]
        await there.aclose()
        return said

    assert ["first", "second", "third"] == asyncio.run(speak())
    assert "hello" == got[0]
    assert isinstance(got[1], KeyError)
    assert "closed" == state()


def test_what_may_be_awaited_or_entered_is_refused(channel: Callable[..., Stage]) -> None:
    """
    As aiohttp's ``session.get()`` returns it: it is unknown when such a call ends, and the message says what to write instead.
    """
    channel()

    class Both:
        def __await__(self) -> Any:
            yield

        async def __aenter__(self) -> None: ...

    with pytest.raises(TypeError, match="guard_async"):
        guarded("airbnb")(Both)()


# --- a node of a cluster is away --------------------------------------------------------------------------------------------------


def _channel_on(cluster: RedisCluster, node: RedisServer, *, other: bool) -> str:
    return next(
        name
        for name in map("channel{}".format, range(1000))
        if (cluster.node_of(keys.breaker(name)) is node) is not other and cluster.node_of(keys.paused(name)) is not node
    )


def test_a_dead_node_of_a_cluster_leaves_the_others_keys_guarded(tmp_path: Path) -> None:
    """
    Channels whose breaker lies on another node are refused as before, and only those of the dead node go through.
    """
    policy = {"circuit_breaker": {"failure_threshold": 1, "timeout": 300}}
    with RedisCluster() as cluster, Stage(cluster.url, tmp_path, channels={"*": policy}) as stage:
        dead = cluster.nodes[2]
        lost, kept = (_channel_on(cluster, dead, other=other) for other in (False, True))
        for name in (lost, kept):
            circuit_breaker.record(circuit_breaker.allow(name), ok=False)
        dead.kill()

        for _ in range(20):
            assert not circuit_breaker.allow(lost).generation
            with pytest.raises(CircuitOpenError):
                circuit_breaker.allow(kept)
            assert not pauses.is_paused(kept)

        assert {"circuit_breaker"} == {component for component, _ in stage.errors}
