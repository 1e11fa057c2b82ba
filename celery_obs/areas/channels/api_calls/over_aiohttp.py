"""
API calls over aiohttp: a middleware that sees every request of a session.

::

    async with aiohttp.ClientSession("https://api.airbnb.example", middlewares=(AiohttpMiddleware("airbnb", connection_id="c-1"),)) as session:
        with endpoint("/listings/{id}"):
            await session.get("/listings/42")

A call ends with the headers of its answer.  What fails while the body is read is raised to the caller, and not counted here.
"""

from __future__ import annotations

from .api import hooked


try:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
except ImportError as exc:
    message = (
        "Calling channels over aiohttp needs aiohttp 3.12 or newer, which is not installed. Install it with: pip install 'aiohttp>=3.12'"
    )
    raise ImportError(message) from exc


__all__ = ["AiohttpMiddleware"]


class AiohttpMiddleware:
    """
    A middleware that asks breaker and limiter before each request, each redirect included, and tells what it was answered.

    Redis is asked in a thread, so that the event loop goes on.

    Args:
        channel: The channel that the session calls.

        connection_id: The connection.

        wait: Seconds to wait for the rate limit at most; by default a throttled call is refused at once.

    Since 0.1.
    """

    def __init__(self, channel: str, *, connection_id: str = "", wait: float = 0.0) -> None:
        self._channel = channel
        self._connection = connection_id
        self._wait = wait

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """
        Send one request.

        Raises:
            CircuitOpenError, RateLimitError: when the channel is not to be called now.
        """
        call = hooked(self._channel, request.url.path, request.method, connection_id=self._connection, wait=self._wait)
        response: ClientResponse | None = None
        try:
            async with call:
                response = await handler(request)
                call.response(response.status, headers=response.headers)
        except BaseException:
            if response is not None:  # Cancelled after the answer came: it never reaches the caller, who could close it.
                response.close()
            raise
        return response
