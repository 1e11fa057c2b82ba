"""
API calls over requests: an adapter that sees every request of a session.

::

    session = requests.Session()
    session.mount("https://api.airbnb.example", RequestsAdapter("airbnb", connection_id="c-1", wait=5.0))
    with endpoint("/listings/{id}"):
        session.get("https://api.airbnb.example/listings/42")

Every request that leaves is a call of its own, also those that urllib3's ``Retry`` makes by itself: before each the breaker and the limiter are asked.
A call ends with the headers of its answer.  What fails while the body is read is raised to the caller, and not counted here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from .api import ApiCall, hooked


try:
    import requests
    import requests.adapters

    from urllib3.util.retry import Retry
except ImportError as exc:
    message = "Calling channels over requests needs the package requests, which is not installed. Install it with: pip install requests"
    raise ImportError(message) from exc


__all__ = ["RequestsAdapter"]


class RequestsAdapter(requests.adapters.HTTPAdapter):
    """
    An adapter that asks breaker and limiter before each request, and tells what it was answered.

    Args:
        channel: The channel that the session calls.

        connection_id: The connection.

        wait: Seconds to wait for the rate limit at most; by default a throttled call is refused at once.

        options: What `requests.adapters.HTTPAdapter` takes.

    Since 0.1.
    """

    __attrs__ = [*requests.adapters.HTTPAdapter.__attrs__, "_channel", "_connection", "_wait"]  # noqa: RUF012 -- as the class above has it.

    def __init__(self, channel: str, *, connection_id: str = "", wait: float = 0.0, **options: Any) -> None:
        self._channel = channel
        self._connection = connection_id
        self._wait = wait
        super().__init__(**options)

    @property
    def max_retries(self) -> Retry:
        """
        When urllib3 tries again by itself.
        """
        return self._retries

    @max_retries.setter
    def max_retries(self, retries: Retry) -> None:
        self._retries = _reporting(retries)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """
        Send one request.

        Raises:
            CircuitOpenError, RateLimitError: when the channel is not to be called now.
        """

        def make() -> ApiCall:
            path = urlsplit(request.url or "").path
            return hooked(self._channel, path, request.method or "", connection_id=self._connection, wait=self._wait)

        calls = _Calls(make)
        calls.begin()
        token = _calls.set(calls)
        try:
            response = super().send(request, *args, **options)
        except BaseException as error:
            calls.end(error=error)
            raise
        else:
            calls.end(response.status_code, response.headers)
            return response
        finally:
            _calls.reset(token)


class _Calls:
    """
    The calls of one request of the program's, one after the other; more than one where urllib3 tries again.
    """

    def __init__(self, make: Callable[[], ApiCall]) -> None:
        self._make = make
        self._call: ApiCall | None = None

    def begin(self) -> None:
        call = self._make()
        call.__enter__()
        self._call = call

    def end(self, status: int | None = None, headers: Any = None, *, error: BaseException | None = None) -> None:
        """
        End the call that is under way, if one is.
        """
        call, self._call = self._call, None
        if call is None:
            return
        if status is not None:
            call.response(status, headers=headers)
        call.__exit__(None if error is None else type(error), error, None)


_calls: ContextVar[_Calls | None] = ContextVar("celery_obs_attempts", default=None)


class _ReportingRetry(Retry):
    """
    Tells when urllib3 has an answer or an error that it goes on from, and when it is about to ask again.
    """

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        *rest: Any,
        **options: Any,
    ) -> Any:
        calls = _calls.get()
        if calls is not None:
            calls.end(None if response is None else response.status, None if response is None else response.headers, error=error)
        return super().increment(method, url, response, error, *rest, **options)

    def sleep(self, response: Any = None) -> None:
        super().sleep(response)
        calls = _calls.get()
        if calls is not None:
            calls.begin()

    def __reduce__(self) -> tuple[Any, ...]:
        # The class below has no name that pickle could find.
        return _reporting, (_copied(self, type(self).__mro__[2]),)


_CLASSES: dict[type[Retry], type[Retry]] = {}


def _reporting_class(kind: type[Retry]) -> type[Retry]:
    found = _CLASSES.get(kind)
    if found is None:
        found = _CLASSES[kind] = type(kind.__name__, (_ReportingRetry, kind), {})
    return found


def _reporting(retries: Retry) -> Retry:
    """
    Make a copy of *retries* that tells, of whatever class it is.
    """
    if isinstance(retries, _ReportingRetry):
        return retries
    return _copied(retries, _reporting_class(type(retries)))


def _copied(retries: Retry, kind: type[Retry]) -> Retry:
    made = kind.__new__(kind)
    vars(made).update(vars(retries))
    return made
