"""
API calls over requests: an adapter that sees every request of a session.

::

    session = requests.Session()
    session.mount("https://api.airbnb.example", RequestsAdapter("airbnb", connection_id="c-1"))
    with endpoint("/listings/{id}"):
        session.get("https://api.airbnb.example/listings/42")

A call ends with the headers of its answer.  What fails while the body is read is raised to whoever reads it, and not counted here.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .api_calls import api_call, named_endpoint


try:
    import requests
    import requests.adapters
except ImportError as exc:
    message = "Calling channels over requests needs the package requests, which is not installed. Install it with: pip install requests"
    raise ImportError(message) from exc


__all__ = ["RequestsAdapter"]


class RequestsAdapter(requests.adapters.HTTPAdapter):
    """
    An adapter that asks breaker and limiter before each request, and tells what it was answered.

    Args:
        channel: The channel that the session calls.

        connection_id: Whose account.

        options: What `requests.adapters.HTTPAdapter` takes.

    Since 0.1.
    """

    def __init__(self, channel: str, *, connection_id: str = "", **options: Any) -> None:
        self._channel = channel
        self._connection = connection_id
        super().__init__(**options)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """
        Send one request.

        Raises:
            CircuitOpenError, RateLimitError: when the channel is not to be called now.
        """
        template = named_endpoint() or urlsplit(request.url or "").path
        with api_call(self._channel, template, request.method or "", connection_id=self._connection) as call:
            response = super().send(request, *args, **options)
            call.response(response.status_code, headers=response.headers)
        return response
