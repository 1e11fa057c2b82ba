"""
API calls over httpx: transports that see every request of a client.

::

    client = httpx.Client(transport=HttpxTransport("airbnb"))
    client.get("/listings/42", extensions={"celery_obs": {"endpoint": "/listings/{id}", "connection_id": "c-1"}})

A call ends with the headers of its answer.  What fails while the body is read is raised to whoever reads it, and not counted here.
"""

from __future__ import annotations

from types import TracebackType

from celery_obs.exceptions import MissingExtraError

from .api_calls import ApiCall, api_call, named_endpoint


try:
    import anyio
    import anyio.to_thread
    import httpx
except ImportError as exc:
    feature = "Calling channels over httpx"
    raise MissingExtraError(feature, extra="oauth") from exc


__all__ = ["AsyncHttpxTransport", "HttpxTransport"]


def _call(channel: str, request: httpx.Request, connection_id: str) -> ApiCall:
    told = request.extensions.get("celery_obs")
    named = told if isinstance(told, dict) else {}
    template = named.get("endpoint") or named_endpoint() or request.url.path
    return api_call(channel, template, request.method, connection_id=named.get("connection_id") or connection_id)


class HttpxTransport(httpx.BaseTransport):
    """
    A transport that asks breaker and limiter before each request, and tells what it was answered.

    Args:
        channel: The channel that the client calls.

        wrapped: What sends; by default httpx's own transport.

        connection_id: Whose account, where a request's extensions do not say.

    Since 0.1.
    """

    def __init__(self, channel: str, wrapped: httpx.BaseTransport | None = None, *, connection_id: str = "") -> None:
        self._channel = channel
        self._wrapped = wrapped if wrapped is not None else httpx.HTTPTransport()
        self._connection = connection_id

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send one request.

        Raises:
            CircuitOpenError, RateLimitError: when the channel is not to be called now.
        """
        with _call(self._channel, request, self._connection) as call:
            response = self._wrapped.handle_request(request)
            call.response(response.status_code, headers=response.headers)
        return response

    def close(self) -> None:
        """
        Close what is wrapped.
        """
        self._wrapped.close()


class AsyncHttpxTransport(httpx.AsyncBaseTransport):
    """
    The same for `httpx.AsyncClient`.  Breaker and limiter are asked in a thread, so that the event loop never waits for Redis.

    Since 0.1.
    """

    def __init__(self, channel: str, wrapped: httpx.AsyncBaseTransport | None = None, *, connection_id: str = "") -> None:
        self._channel = channel
        self._wrapped = wrapped if wrapped is not None else httpx.AsyncHTTPTransport()
        self._connection = connection_id

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send one request.

        Raises:
            CircuitOpenError, RateLimitError: when the channel is not to be called now.
        """
        call = _call(self._channel, request, self._connection)
        await anyio.to_thread.run_sync(call.__enter__)
        try:
            response = await self._wrapped.handle_async_request(request)
            call.response(response.status_code, headers=response.headers)
        except BaseException as exc:
            await _leave(call, type(exc), exc, exc.__traceback__)
            raise
        await _leave(call, None, None, None)
        return response

    async def aclose(self) -> None:
        """
        Close what is wrapped.
        """
        await self._wrapped.aclose()


async def _leave(call: ApiCall, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
    with anyio.CancelScope(shield=True):  # A call that was cancelled has to give its permit back, too.
        await anyio.to_thread.run_sync(call.__exit__, kind, error, trace)
