"""
API calls: a block of code that asks a channel something, and what it answered.

::

    with api_call("airbnb", "/listings/{id}/calendar", "GET", connection_id=account.id) as call:
        response = client.get(f"/listings/{listing}/calendar")
        call.response(response.status_code, headers=response.headers)
        call.raise_for_status()

Before the block the breaker and the limiter of the channel are asked, and may refuse: then `CircuitOpenError` or `RateLimitError` is raised,
and the channel is not called.  After it the breaker hears how it went.  What the block raises goes on as it is.

For httpx and requests there are hooks that do this for every request of a client: `HttpxTransport`, `AsyncHttpxTransport` and `RequestsAdapter`.
"""

from __future__ import annotations

import contextlib

from collections.abc import Iterator
from contextvars import ContextVar
from importlib import import_module
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from celery_obs.vocabulary.api_calls import NO_RESPONSE, ApiCallFinished, EndpointFolded, ErrorType
from celery_obs.vocabulary.ourselves import ObservationDropped
from celery_obs.vocabulary.spec import OTHER

from . import circuit_breaker, engine, errors, rate_limiter
from .endpoints import Endpoints
from .errors import CircuitOpenError, RateLimitError


if TYPE_CHECKING:
    from typing_extensions import Self

    from .over_httpx import AsyncHttpxTransport, HttpxTransport
    from .over_requests import RequestsAdapter


__all__ = ["ApiCall", "AsyncHttpxTransport", "HttpxTransport", "RequestsAdapter", "api_call", "endpoint"]


_HOOKS: Final = {"AsyncHttpxTransport": "over_httpx", "HttpxTransport": "over_httpx", "RequestsAdapter": "over_requests"}
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WELL: Final = frozenset({"auth", "validation"})
_UNTOLD: Final = frozenset({"rate_limit", "circuit_breaker"})
_RAISED: Final[dict[str, type[errors.ChannelError]]] = {
    "auth": errors.AuthError,
    "rate_limit": errors.RateLimitError,
    "timeout": errors.ApiTimeoutError,
    "validation": errors.ValidationError,
}

_endpoint: ContextVar[str | None] = ContextVar("celery_obs_endpoint", default=None)


def __getattr__(name: str) -> Any:
    """
    Load the hook of a client when it is asked for: none of the clients has to be installed.
    """
    if name in _HOOKS:
        return getattr(import_module(f"celery_obs.sync.{_HOOKS[name]}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


@contextlib.contextmanager
def endpoint(template: str) -> Iterator[None]:
    """
    Name the route template of the requests that hooked clients make inside the block.
    """
    token = _endpoint.set(template)
    try:
        yield
    finally:
        _endpoint.reset(token)


def named_endpoint() -> str | None:
    """
    Return the route template that the block around us names.
    """
    return _endpoint.get()


class ApiCall:
    """
    One call; made by `api_call`, good for one ``with``.

    Attributes:
        retry_after: Seconds after which the channel said to ask again; None where it did not.
    """

    def __init__(self, channel: str, endpoint: str, method: object, connection_id: str, wait: float) -> None:
        self._engine = engine.current()
        self._channel = str(channel)
        self._connection = str(connection_id)
        self._endpoint = str(endpoint)
        method = str(method).upper()
        self._method = method if method in _METHODS else OTHER
        self._wait = wait
        self._permit: circuit_breaker.Permit = circuit_breaker.Permit(self._channel)
        self._began = 0.0
        self._answered = 0.0
        self._status: int | None = None
        self.retry_after: float | None = None

    def response(self, status_code: Any, headers: Any = None) -> None:
        """
        Say what the channel answered, as soon as the answer's headers are there.

        Args:
            status_code: A whole number, of the answer; of several, such as redirects, the last one counts.

            headers: Anything that has a ``get``; *Retry-After* is read there.
        """
        self._answered = perf_counter()
        if isinstance(status_code, int) and 100 <= status_code < 1000:  # noqa: PLR2004 -- what HTTP calls a status code.
            self._status = int(status_code)
        else:
            self._engine.hub.emit(ObservationDropped("bad_value"))
        self.retry_after = errors.seconds_of(errors.header(headers, "Retry-After"), clock=self._engine.clock)

    def raise_for_status(self) -> None:
        """
        Raise the error of our tree that the answer's status stands for; nothing below 400.

        Raises:
            ChannelError: one of its classes, with the status code and what the channel said about when to ask again.
        """
        kind = None if self._status is None else errors.classify_status(self._status)
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
            self._permit = circuit_breaker.allow(self._channel)
        except CircuitOpenError:
            self._tell(0.0, "circuit_breaker")
            raise
        try:
            rate_limiter.acquire(self._channel, self._connection, wait=self._wait)
        except RateLimitError:
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
        self._tell(duration, failure)
        circuit_breaker.record(self._permit, ok=self._is_well(error, failure))

    def _failure(self, error: BaseException | None) -> ErrorType | None:
        """
        Return why the call failed: by what was raised, where that is a channel's failure, else by the answer.
        """
        kind = None if error is None else errors.classify(error)
        if kind is not None and self._status is None:
            self._status = errors.status_of(error)
        if kind is None and self._status is not None:
            kind = errors.classify_status(self._status)
        return kind

    def _is_well(self, error: BaseException | None, failure: ErrorType | None) -> bool | None:
        """
        Tell whether the channel is well: it is when it answers, if only that it will not have us; None where this call does not tell.
        """
        if failure is None:
            return None if error is not None and self._status is None else True
        return None if failure in _UNTOLD else failure in _WELL

    def _template(self) -> tuple[str, bool]:
        return self._engine.part(_endpoints).label(self._channel, self._endpoint)

    def _tell(self, duration: float, failure: ErrorType | None) -> None:
        hub = self._engine.hub
        template, folded = self._template()
        if folded:
            hub.emit(EndpointFolded(self._channel))
        status = NO_RESPONSE if self._status is None else str(self._status)
        hub.emit(ApiCallFinished(self._channel, template, self._method, status, duration, failure or "", self._connection))


def api_call(channel: str, endpoint: str, method: str, *, connection_id: str = "", wait: float = 0.0) -> ApiCall:
    """
    Make the block that follows a call.

    Args:
        channel: The channel.

        endpoint: The route's template, such as ``/listings/{id}/calendar``.  A path with ids in it is made into one, and that is told.

        method: GET, POST and so on.

        connection_id: Whose account; limits may be each connection's own.

        wait: Seconds to wait for the limiter at most; by default it says no at once.

    Since 0.1.
    """
    return ApiCall(channel, endpoint, method, connection_id, wait)


def _endpoints(_: engine.Engine) -> Endpoints:
    return Endpoints()
