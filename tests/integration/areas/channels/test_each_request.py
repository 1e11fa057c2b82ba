"""
Each request that leaves is one call, whichever client sends it, and however often it tries again by itself: the channel's ledger is the judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import time

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import httpx
import pytest
import requests

from redis import Redis
from urllib3.util.retry import Retry

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.api_calls.api import (
    AiohttpMiddleware,
    AsyncHttpxTransport,
    HttpxTransport,
    RequestsAdapter,
    api_call,
    endpoint,
)
from celery_obs.areas.channels.api_calls.events import ApiCallFinished
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.errors import CircuitOpenError, RateLimitError
from celery_obs.areas.channels.policies import policies
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.runtime.hub import Hub
from celery_obs.settings import Settings
from celery_obs.testing import RaisingErrors
from tests.channel_server import Answer, ChannelServer
from tests.servers import RedisServer


pytestmark = pytest.mark.integration


class Calls:
    """
    What was told of the calls.
    """

    def __init__(self) -> None:
        self.events: list[ApiCallFinished] = []

    def statuses(self) -> list[str]:
        return [event.status_code for event in self.events]

    def errors(self) -> list[str]:
        return [event.error_type for event in self.events]


@pytest.fixture(scope="module")
def channel() -> Iterator[ChannelServer]:
    """
    The channel.
    """
    with ChannelServer.running() as made:
        yield made


@pytest.fixture
def connect(redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Calls]]:
    """
    Makes an engine on an empty Redis, with a policy for the channel.
    """
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    made: list[engine.Engine] = []

    def make(**policy: Any) -> Calls:
        told = Calls()
        hub = Hub(on_error=RaisingErrors())
        hub.subscribe(ApiCallFinished, told.events.append)
        settings = Settings(metrics_dir=tmp_path, redis_url=redis_server.url, channels=policies({"airbnb": policy}))
        made.append(engine.Engine(hub=hub, settings=settings))
        engine.connect(lambda: made[-1])
        return told

    yield make
    engine.disconnect()
    for each in made:
        assert each.redis is not None
        each.redis.close()


# --- the clients, each with its hook ------------------------------------------------------------------------------------------


def get_with_httpx(url: str, *, times: int, wait: float = 0.0) -> None:
    with httpx.Client(transport=HttpxTransport("airbnb", connection_id="c-1", wait=wait), base_url=url, follow_redirects=True) as client:
        for _ in range(times):
            client.get("/listings")


def get_with_async_httpx(url: str, *, times: int, wait: float = 0.0) -> None:
    async def work() -> None:
        transport = AsyncHttpxTransport("airbnb", connection_id="c-1", wait=wait)
        async with httpx.AsyncClient(transport=transport, base_url=url, follow_redirects=True) as client:
            for _ in range(times):
                await client.get("/listings")

    asyncio.run(work())


def get_with_requests(url: str, *, times: int, wait: float = 0.0, retries: Any = 0) -> None:
    with requests.Session() as session:
        session.mount(url, RequestsAdapter("airbnb", connection_id="c-1", wait=wait, max_retries=retries))
        for _ in range(times):
            session.get(f"{url}/listings", timeout=5)


def get_with_aiohttp(url: str, *, times: int, wait: float = 0.0) -> None:
    async def work() -> None:
        async with aiohttp.ClientSession(url, middlewares=(AiohttpMiddleware("airbnb", connection_id="c-1", wait=wait),)) as session:
            for _ in range(times):
                async with session.get("/listings") as response:
                    await response.read()

    asyncio.run(work())


def get_in_a_block(url: str, *, times: int, wait: float = 0.0) -> None:
    async def work() -> None:
        async with httpx.AsyncClient(base_url=url) as client:
            for _ in range(times):
                async with api_call("airbnb", "/listings", "GET", connection_id="c-1", wait=wait) as call:
                    response = await client.get("/listings")
                    call.response(response.status_code, headers=response.headers)

    asyncio.run(work())


HOOKS = [get_with_httpx, get_with_async_httpx, get_with_requests, get_with_aiohttp]


# --- counted once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raises", [True, False])
def test_every_request_that_urllib3_sends_by_itself_is_a_call(
    channel: ChannelServer, connect: Callable[..., Calls], *, raises: bool
) -> None:
    """
    Three requests of the program's that are throttled twice each are nine that left, and nine that are told.
    """
    told = connect(circuit_breaker="off")
    channel.answer(always=Answer(429))
    retry = Retry(total=2, status_forcelist=[429], backoff_factor=0.0, raise_on_status=raises)

    for _ in range(3):
        try:
            get_with_requests(channel.url, times=1, retries=retry)
        except requests.exceptions.RetryError:
            assert raises

    assert 9 == len(channel.ledger)
    assert (["429"] * 9, ["rate_limit"] * 9) == (told.statuses(), told.errors())


def test_a_request_that_succeeds_at_the_third_attempt_is_three_calls(channel: ChannelServer, connect: Callable[..., Calls]) -> None:
    """
    Each with its own status, or without one where the channel hung up; the first that comes back well is what the program gets.
    """
    told = connect()
    channel.answer(Answer(503), Answer(0), Answer(200))

    get_with_requests(channel.url, times=1, retries=Retry(total=5, status_forcelist=[503], backoff_factor=0.0))

    assert (["503", "none", "200"], 3) == (told.statuses(), len(channel.ledger))
    assert ["server_error", "network", ""] == told.errors()


def test_attempts_of_urllib3_end_when_the_breaker_opens(channel: ChannelServer, connect: Callable[..., Calls]) -> None:
    """
    The breaker is asked before each of them: after three failures the channel is left alone, whatever ``Retry`` would still do.
    """
    told = connect(circuit_breaker={"failure_threshold": 3, "timeout": 60})
    channel.answer(always=Answer(503))

    with pytest.raises(CircuitOpenError):
        get_with_requests(channel.url, times=1, retries=Retry(total=10, status_forcelist=[503], backoff_factor=0.0))

    assert 3 == len(channel.ledger)
    assert ["503", "503", "503", "none"] == told.statuses()


@pytest.mark.parametrize("get", HOOKS, ids=lambda get: get.__name__)
def test_redirects_and_hang_ups_are_calls_as_the_ledger_has_them(
    channel: ChannelServer, connect: Callable[..., Calls], get: Callable[..., None]
) -> None:
    """
    Also where a client asks again on a fresh connection after an old one was closed.
    """
    told = connect(circuit_breaker="off")
    channel.answer(Answer(302, {"Location": "/rooms"}), Answer(200), Answer(404), Answer(0), always=Answer(200))

    with contextlib.suppress(httpx.TransportError, requests.ConnectionError, aiohttp.ClientError):
        get(channel.url, times=4)

    answered = [status for status in told.statuses() if status != "none"]
    assert ["302", "200", "404"] == answered[:3]
    assert len(channel.ledger) == len(told.events)


def test_a_retry_of_a_class_of_ones_own_keeps_its_ways(channel: ChannelServer, connect: Callable[..., Calls]) -> None:
    """
    Also after the adapter was copied by pickle, as sessions are that go to another process.
    """
    told = connect(circuit_breaker="off")
    adapter = pickle.loads(pickle.dumps(RequestsAdapter("airbnb", connection_id="c-1", max_retries=Stubborn(1))))  # noqa: S301 -- our own.
    channel.answer(Answer(418), Answer(200))

    with requests.Session() as session:
        session.mount(channel.url, adapter)
        assert 200 == session.get(f"{channel.url}/listings", timeout=5).status_code

    assert isinstance(adapter.max_retries, Stubborn)
    assert (["418", "200"], ["c-1", "c-1"]) == (told.statuses(), [event.connection_id for event in told.events])


class Stubborn(Retry):
    """
    Asks a teapot twice.
    """

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:  # noqa: FBT002 -- urllib3's.
        return status_code == 418 and bool(self.total)


# --- waiting ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("get", [*HOOKS, get_in_a_block], ids=lambda get: get.__name__)
def test_a_hook_waits_for_the_limiter_as_long_as_it_is_told(
    channel: ChannelServer, connect: Callable[..., Calls], get: Callable[..., None]
) -> None:
    """
    By default it says no at once; with ``wait`` all requests leave, and never faster than the limit.
    """
    connect(rate_limits="1/60s", circuit_breaker="off")
    channel.answer()
    with pytest.raises(RateLimitError):
        get(channel.url, times=2)
    assert 1 == len(channel.ledger)

    connect(rate_limits="1/0.2s", circuit_breaker="off")
    began = time.monotonic()
    get(channel.url, times=3, wait=5.0)

    assert 4 == len(channel.ledger)
    assert time.monotonic() - began >= 0.4


def test_a_block_around_a_client_says_how_long_to_wait_and_whose_account_it_is(
    channel: ChannelServer, connect: Callable[..., Calls]
) -> None:
    """
    For clients whose requests carry nothing of ours.
    """
    told = connect(rate_limits="1/0.2s", circuit_breaker="off")
    channel.answer()

    with requests.Session() as session, endpoint("/listings/{id}", connection_id="c-2", wait=5.0):
        session.mount(channel.url, RequestsAdapter("airbnb", connection_id="c-1"))
        for number in range(2):
            session.get(f"{channel.url}/listings/{number}", timeout=5)

    assert [("/listings/{id}", "c-2")] * 2 == [(event.endpoint, event.connection_id) for event in told.events]


# --- in an event loop ---------------------------------------------------------------------------------------------------------


def test_a_call_in_a_coroutine_keeps_the_event_loop_going(connect: Callable[..., Calls]) -> None:
    """
    While a call stands in line for the limiter, others run.
    """
    connect(rate_limits="1/0.2s")
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def work() -> None:
        ticking = asyncio.create_task(tick())
        for _ in range(2):
            async with api_call("airbnb", "/x", "GET", wait=5.0) as call:
                call.response(200)
        ticking.cancel()

    asyncio.run(work())

    assert len(ticks) >= 10


@pytest.mark.parametrize("run", [asyncio.run, lambda made: anyio.run(lambda: made, backend="asyncio")], ids=["asyncio", "anyio"])
def test_a_probe_that_is_cancelled_in_line_makes_room_for_the_next(
    connect: Callable[..., Calls], run: Callable[[Awaitable[None]], None]
) -> None:
    """
    The breaker is half open, its one probe waits for the limiter, and its task is cancelled: the next probe is let through at once.
    """
    connect(circuit_breaker={"failure_threshold": 1, "success_threshold": 1, "timeout": 0.05, "probe_timeout": 60}, rate_limits="1/1h")

    async def work() -> None:
        with pytest.raises(ConnectionError):
            async with api_call("airbnb", "/x", "GET"):
                raise ConnectionError
        await asyncio.sleep(0.1)
        probe = asyncio.create_task(stand_in_line())
        await asyncio.sleep(0.1)
        probe.cancel()
        with pytest.raises((asyncio.CancelledError, RateLimitError)):
            await probe

    async def stand_in_line() -> None:
        async with api_call("airbnb", "/x", "GET", wait=3600.0):
            pytest.fail("There was no call left.")

    run(work())

    permit = circuit_breaker.allow("airbnb")
    assert permit.probe


# --- what the channel says of its limit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("get", [*HOOKS, get_in_a_block], ids=lambda get: get.__name__)
def test_the_limiter_hears_what_the_channel_says_of_its_own_limit(
    channel: ChannelServer, connect: Callable[..., Calls], get: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What is left and until when from every answer that says both; when to ask again from those that refuse.
    """
    connect(circuit_breaker="off")
    heard: list[tuple[Any, ...]] = []

    def learn(channel: str, connection_id: str, **told: Any) -> None:
        heard.append((channel, connection_id, *told.items()))

    monkeypatch.setattr(rate_limiter, "learn", learn, raising=False)
    channel.answer(
        Answer(200, {"X-RateLimit-Remaining": "12", "X-RateLimit-Reset": "30"}),
        Answer(429, {"Retry-After": "7"}),
        Answer(503, {"Retry-After": "9"}),
        Answer(403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"}),
        Answer(200, {"X-RateLimit-Remaining": "12"}),
    )

    get(channel.url, times=5)

    assert [
        ("airbnb", "c-1", ("remaining", 12), ("reset_after", 30.0), ("retry_after", None)),
        ("airbnb", "c-1", ("remaining", None), ("reset_after", None), ("retry_after", 7.0)),
        ("airbnb", "c-1", ("remaining", None), ("reset_after", None), ("retry_after", 9.0)),
        ("airbnb", "c-1", ("remaining", 0), ("reset_after", 60.0), ("retry_after", None)),
    ] == heard
