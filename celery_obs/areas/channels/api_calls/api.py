"""
API calls: a block of code that asks a channel something, and what it answered.

::

    with api_call("airbnb", "/listings/{id}/calendar", "GET", connection_id=account.id) as call:
        response = client.get(f"/listings/{listing}/calendar")
        call.response(response.status_code, headers=response.headers)
        call.raise_for_status()

Before the block the breaker and the limiter of the channel are asked, and may refuse: then `CircuitOpenError` or `RateLimitError` is raised,
and the channel is not called.  After it the breaker hears how it went.  What the block raises goes on as it is.

In a coroutine it is ``async with api_call(...)``: then breaker and limiter are asked in a thread, so that the event loop goes on.

For httpx, requests and aiohttp there are hooks that do this for every request of a client: `HttpxTransport`, `AsyncHttpxTransport`,
`RequestsAdapter` and `AiohttpMiddleware`.
"""

from __future__ import annotations

import asyncio
import contextlib

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from importlib import import_module
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.areas.channels import engine, errors
from celery_obs.areas.channels.breakers import api as circuit_breaker
from celery_obs.areas.channels.errors import CircuitOpenError
from celery_obs.areas.channels.rate_limits import api as rate_limiter
from celery_obs.areas.sidecar.events import ObservationDropped
from celery_obs.vocabulary.spec import OTHER

from .endpoints import Endpoints
from .events import ApiCallFinished, EndpointFolded
from .headers import RateLimitAnswer, about_limits, rate_limit_answer
from .metrics import NO_RESPONSE, ErrorType


if TYPE_CHECKING:
    from typing_extensions import Self

    from .over_aiohttp import AiohttpMiddleware
    from .over_httpx import AsyncHttpxTransport, HttpxTransport
    from .over_requests import RequestsAdapter


__all__ = ["AiohttpMiddleware", "ApiCall", "AsyncHttpxTransport", "HttpxTransport", "RequestsAdapter", "api_call", "endpoint", "hooked"]


_HOOKS: Final = {
    "AiohttpMiddleware": "over_aiohttp",
    "AsyncHttpxTransport": "over_httpx",
    "HttpxTransport": "over_httpx",
    "RequestsAdapter": "over_requests",
}
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WELL: Final = frozenset({"auth", "validation"})
_INCONCLUSIVE: Final = frozenset({"rate_limit", "circuit_breaker"})
_ASK_TO_WAIT: Final = frozenset({429, 503})
_RAISED: Final[dict[str, type[errors.ChannelError]]] = {
    "auth": errors.AuthError,
    "rate_limit": errors.RateLimitError,
    "timeout": errors.ApiTimeoutError,
    "validation": errors.ValidationError,
}


class _Named(NamedTuple):
    """
    What the block around a hooked client says of its requests; None for what it does not say.
    """

    template: str | None = None
    connection_id: str | None = None
    wait: float | None = None


_UNNAMED: Final = _Named()
_named: ContextVar[_Named] = ContextVar("celery_obs_endpoint", default=_UNNAMED)


def __getattr__(name: str) -> Any:
    """
    Load the hook of a client when it is asked for: none of the clients has to be installed.
    """
    if name in _HOOKS:
        return getattr(import_module(f"{__package__}.{_HOOKS[name]}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


@contextlib.contextmanager
def endpoint(template: str, *, connection_id: str | None = None, wait: float | None = None) -> Iterator[None]:
    """
    Name the route template of the requests that hooked clients make inside the block.

    Args:
        template: The route's template, see `api_call`.

        connection_id, wait: As of `api_call`, where they differ from what the hook was made with.

    Since 0.1.
    """
    token = _named.set(_Named(template, connection_id, wait))
    try:
        yield
    finally:
        _named.reset(token)


def hooked(channel: str, path: str, method: str, *, connection_id: str, wait: float, options: Mapping[str, Any] | None = None) -> ApiCall:
    """
    Make the call that a hook makes of one request.

    Args:
        channel, method: As of `api_call`.

        path: The request's path, where nothing names its template.

        connection_id, wait: What the hook was made with.

        options: What the request itself tells: *endpoint*, *connection_id* and *wait*.

    Since 0.1.
    """
    around, own = _named.get(), options or {}
    chosen = next((each for each in (own.get("wait"), around.wait) if each is not None), wait)
    return ApiCall(
        channel,
        own.get("endpoint") or around.template or path,
        method,
        own.get("connection_id") or around.connection_id or connection_id,
        chosen,
    )


class ApiCall:
    """
    One call; made by `api_call`, good for one ``with`` or ``async with``.

    Attributes:
        rate_limit: What the answer said about the channel's rate limit.

    Since 0.1.
    """

    def __init__(
        self, channel: str, endpoint: str, method: object, connection_id: str, wait: float, *, cost: int = 1, guarded_as: str = ""
    ) -> None:
        self._engine = engine.current()
        self._channel = str(channel)
        self._guarded_as = guarded_as or self._channel
        self._connection = str(connection_id)
        self._endpoint = str(endpoint)
        method = str(method).upper()
        self._method = method if method in _METHODS else OTHER
        self._wait = wait
        self._cost = cost
        self._permit: circuit_breaker.Permit = circuit_breaker.Permit(self._guarded_as)
        self._began = 0.0
        self._answered = 0.0
        self._status: int | None = None
        self._headers: Mapping[str, str] = {}
        self.rate_limit = RateLimitAnswer()

    @property
    def retry_after(self) -> float | None:
        """
        Seconds after which the channel said to ask again; None where it did not.
        """
        return self.rate_limit.retry_after

    def response(self, status_code: Any, headers: Any = None) -> None:
        """
        Say what the channel answered, as soon as the answer's headers are there.

        Args:
            status_code: A whole number, of the answer; of several, such as redirects, the last one counts.

            headers: As the client holds them; what they say about the channel's rate limit is read, see `rate_limit`.
        """
        self._answered = perf_counter()
        if isinstance(status_code, int) and 100 <= status_code < 1000:  # noqa: PLR2004 -- what HTTP calls a status code.
            self._status = int(status_code)
        else:
            self._engine.hub.emit(ObservationDropped("bad_value"))
        self._headers = about_limits(headers)
        self.rate_limit = rate_limit_answer(self._headers, clock=self._engine.clock)

    def raise_for_status(self) -> None:
        """
        Raise the error of our tree that the answer's status stands for; nothing below 400.

        Raises:
            ChannelError: one of its classes, with the status code and what the channel said about when to ask again.
        """
        kind = None if self._status is None else errors.classify_status(self._status, self._headers)
        if kind is not None:
            message = f"{self._channel} answered {self._method} {self._template()[0]} with {self._status}. Expected a status below 400."
            raise _RAISED.get(kind, errors.ApiError)(message, channel=self._channel, status_code=self._status, retry_after=self.retry_after)

    # -- the block ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """
        Ask the breaker and the limiter, and begin.

        Raises:
            CircuitOpenError, RateLimitError: when one of them says no.
        """
        try:
            self._permit = circuit_breaker.allow(self._guarded_as, endpoint=self._endpoint, connection_id=self._connection)
        except CircuitOpenError:
            self._tell(0.0, "circuit_breaker")
            raise
        try:
            rate_limiter.acquire(self._guarded_as, self._connection, wait=self._wait, cost=self._cost)
        except BaseException:  # Also a time limit of the caller's: a probe that is not made has to make room for the next.
            circuit_breaker.record(self._permit, ok=None)
            raise
        self._began = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """
        Say how it went; what the block raised goes on.
        """
        duration = (self._answered or perf_counter()) - self._began
        failure = self._failure(error)
        if self._status is None and circuit_breaker.gave_up_late(self._guarded_as, error, duration):
            failure = "timeout"
        self._tell(duration, failure)
        circuit_breaker.record(self._permit, ok=self._is_well(error, failure), duration=duration)
        self._teach(failure)

    async def __aenter__(self) -> Self:
        """
        As ``with``, without keeping the event loop waiting.

        Raises:
            CircuitOpenError, RateLimitError: when the breaker or the limiter says no.
        """
        try:
            self._permit = await circuit_breaker.allow_async(self._guarded_as, endpoint=self._endpoint, connection_id=self._connection)
        except CircuitOpenError:
            self._tell(0.0, "circuit_breaker")
            raise
        try:
            await rate_limiter.acquire_async(self._guarded_as, self._connection, wait=self._wait, cost=self._cost)
        except BaseException:  # As above; a cancellation for one.
            await circuit_breaker.record_async(self._permit, ok=None)
            raise
        self._began = perf_counter()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """
        Say how it went, also when the task around it is being cancelled; what the block raised goes on.
        """
        self._answered = self._answered or perf_counter()
        await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, trace))

    def _failure(self, error: BaseException | None) -> ErrorType | None:
        """
        Return why the call failed: by what was raised, where that is a channel's failure, else by the answer.
        """
        kind = None if error is None else errors.classify(error)
        if error is not None and kind is not None and self._status is None:
            self._status = errors.status_of(error)
            self.rate_limit = errors.rate_limit_of(error, clock=self._engine.clock)
        if kind is None and self._status is not None:
            kind = errors.classify_status(self._status, self._headers)
        return kind

    def _is_well(self, error: BaseException | None, failure: ErrorType | None) -> bool | None:
        """
        Tell whether the channel is well: it is when it answers, if only that it will not have us; None where this call does not tell.
        """
        if failure is None:
            return None if error is not None and self._status is None else True
        return None if failure in _INCONCLUSIVE else failure in _WELL

    def _teach(self, failure: ErrorType | None) -> None:
        """
        Have the cluster heed what the answer said of the channel's own limits.
        """
        _, remaining, reset_after, seconds = self.rate_limit
        if self._status is None:
            return  # No answer: what was raised may be a refusal of our own.
        if self._guarded_as != self._channel:
            return  # A token endpoint is paused, which operators see and can end.
        asked_to_wait = failure == "rate_limit" or self._status in _ASK_TO_WAIT
        if asked_to_wait and seconds is None and remaining is None:
            remaining = 0
        if asked_to_wait or (remaining is not None and reset_after is not None):
            rate_limiter.learn(
                self._channel,
                self._connection,
                remaining=remaining,
                reset_after=reset_after,
                retry_after=seconds if asked_to_wait else None,
            )

    def _template(self) -> tuple[str, bool]:
        return self._engine.part(_endpoints).label(self._channel, self._endpoint)

    def _tell(self, duration: float, failure: ErrorType | None) -> None:
        hub = self._engine.hub
        template, folded = self._template()
        if folded:
            hub.emit(EndpointFolded(self._channel))
        status = NO_RESPONSE if self._status is None else str(self._status)
        hub.emit(ApiCallFinished(self._channel, template, self._method, status, duration, failure or "", self._connection))


def api_call(
    channel: str, endpoint: str, method: str, *, connection_id: str = "", wait: float = 0.0, cost: int = 1, guarded_as: str = ""
) -> ApiCall:
    """
    Observe the block as one call to a channel.

    Args:
        channel: The channel.

        endpoint: The route's template, such as ``/listings/{id}/calendar``.  A path with ids in it is made into one, and that is told.

        method: GET, POST and so on.

        connection_id: The connection; limits may be per connection.

        wait: Seconds to wait for the rate limit at most; by default a throttled call is refused at once.

        cost: Calls that this one counts as, where the channel counts some for several.

        guarded_as: The name whose breaker and limit are asked, where a part of the channel has its own; by default *channel*.

    Since 0.1.
    """
    return ApiCall(channel, endpoint, method, connection_id, wait, cost=cost, guarded_as=guarded_as)


def _endpoints(_: engine.Engine) -> Endpoints:
    return Endpoints()
