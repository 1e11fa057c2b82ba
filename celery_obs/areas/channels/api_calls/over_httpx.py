"""
API calls over httpx: transports that see every request of a client.

::

    client = httpx.Client(transport=HttpxTransport("airbnb"))
    client.get("/listings/42", extensions={"celery_obs": {"endpoint": "/listings/{id}", "connection_id": "c-1", "wait": 5.0}})

A call ends with the headers of its answer.  What fails while the body is read is raised to the caller who reads it, and not counted here.
"""

from __future__ import annotations

import asyncio

from types import TracebackType

from celery_obs.exceptions import MissingExtraError

from .api import ApiCall, hooked


try:
    import anyio
    import anyio.to_thread
    import httpx
except ImportError as exc:
    feature = "Calling channels over httpx"
    raise MissingExtraError(feature, extra="oauth") from exc


__all__ = ["AsyncHttpxTransport", "HttpxTransport"]


def _call(channel: str, request: httpx.Request, connection_id: str, wait: float) -> ApiCall:
    extension = request.extensions.get("celery_obs")
    own = extension if isinstance(extension, dict) else None
    return hooked(channel, request.url.path, request.method, connection_id=connection_id, wait=wait, options=own)


class HttpxTransport(httpx.BaseTransport):
    """
    A transport that asks breaker and limiter before each request, and tells what it was answered.

    Args:
        channel: The channel that the client calls.

        wrapped: What sends; by default httpx's own transport.

        connection_id: Whose account, where a request's extensions do not say.

        wait: Seconds to wait for the limiter at most, where a request's extensions do not say; by default it says no at once.

    Since 0.1.
    """

    def __init__(self, channel: str, wrapped: httpx.BaseTransport | None = None, *, connection_id: str = "", wait: float = 0.0) -> None:
        self._channel = channel
        self._wrapped = wrapped if wrapped is not None else httpx.HTTPTransport()
        self._connection = connection_id
        self._wait = wait

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send one request.

        Raises:
            CircuitOpenError, RateLimitError: when the channel is not to be called now.
        """
        with _call(self._channel, request, self._connection, self._wait) as call:
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

    def __init__(
        self, channel: str, wrapped: httpx.AsyncBaseTransport | None = None, *, connection_id: str = "", wait: float = 0.0
    ) -> None:
        self._channel = channel
        self._wrapped = wrapped if wrapped is not None else httpx.AsyncHTTPTransport()
        self._connection = connection_id
        self._wait = wait

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send one request.

        Raises:
            CircuitOpenError, RateLimitError: when the channel is not to be called now.
        """
        call = _Threaded(_call(self._channel, request, self._connection, self._wait))
        response: httpx.Response | None = None
        try:
            async with call:
                response = await self._wrapped.handle_async_request(request)
                call.call.response(response.status_code, headers=response.headers)
        except BaseException:
            if response is not None:  # Cancelled after the answer came: it never reaches the caller, who could close it.
                with anyio.CancelScope(shield=True):
                    await response.aclose()
            raise
        return response

    async def aclose(self) -> None:
        """
        Close what is wrapped.
        """
        await self._wrapped.aclose()


class _Threaded:
    """
    A call in an event loop of any kind: asyncio's, where it is ``async with`` itself, or trio's.
    """

    def __init__(self, call: ApiCall) -> None:
        self.call = call
        self._is_asyncio = _runs_asyncio()

    async def __aenter__(self) -> None:
        if self._is_asyncio:
            await self.call.__aenter__()
        else:
            await anyio.to_thread.run_sync(self.call.__enter__)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._is_asyncio:
            await self.call.__aexit__(kind, error, trace)
            return
        with anyio.CancelScope(shield=True):  # A call that was cancelled has to give its permit back, too.
            await anyio.to_thread.run_sync(self.call.__exit__, kind, error, trace)


def _runs_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
