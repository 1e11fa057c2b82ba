"""
Webhooks: what channels tell us of their own accord, counted and timed, checked for who sent it, and done once.

It works in any web framework, for it takes bytes and texts::

    with celery_obs.webhook("airbnb", "reservation_created") as hook:
        hook.verify(request.body, request.headers["X-Signature"], secret=SECRET)
        if not hook.once(event_id):
            return
        book(...)
"""

from __future__ import annotations

import asyncio
import time

from collections.abc import AsyncIterable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from celery_obs.exceptions import CeleryObsError
from celery_obs.state.deliveries import Deliveries
from celery_obs.vocabulary.webhooks import WebhookProcessed, WebhookReceived, WebhookStatus

from .engine import Engine, current
from .signatures import Algorithm, InvalidSignatureError, Secret, check_signature


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = [
    "BODY_LIMIT",
    "UNVERIFIED",
    "BodyTooLargeError",
    "EventBusyError",
    "Hook",
    "InvalidSignatureError",
    "webhook",
]


T = TypeVar("T")

BODY_LIMIT: Final = 1 << 20
"""
Bytes that a webhook may have unless you say otherwise.
"""

UNVERIFIED: Final = "unverified"
"""
The type of event under which webhooks are counted whose signature was wrong: what a stranger says is no label.
"""

_THREE_DAYS: Final = 3 * 24 * 3600.0
_COMPONENT: Final = "webhooks"


class BodyTooLargeError(CeleryObsError):
    """
    A webhook's body is longer than allowed, and was not read to its end.  Answer 413.
    """


class EventBusyError(CeleryObsError):
    """
    The same event is being worked on by somebody else, who may yet fail.  Answer 409 or 503, so that the channel sends it again.
    """


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """
        Return up to *size* bytes; none at the end.
        """


class _Claim(NamedTuple):
    """
    An event that is ours to work on.
    """

    token: str
    ttl: float


class Hook:
    """
    One webhook that came in; made by `webhook`, good for one ``with`` or ``async with``.

    Attributes:
        channel: The channel.

        event_type: What it is about.  May be set inside the block, up to `once`: many channels say it in the body.

        is_duplicate: Whether the last `once` found that its event was done before.

    Threads: for one at a time.
    """

    def __init__(self, channel: str, event_type: str = "unknown") -> None:
        self.channel = channel
        self.event_type = event_type
        self.is_duplicate = False
        self._engine: Engine = current()
        self._began = 0.0
        self._status: WebhookStatus = "success"
        self._error = ""
        self._is_received = False
        self._is_news: bool | None = None
        self._claims: dict[str, _Claim] = {}

    # -- what the block may ask ---------------------------------------------------------------------------------------

    def verify(
        self,
        body: bytes,
        signature: str | None,
        *,
        secret: Secret | Sequence[Secret],
        algorithm: Algorithm = "sha256",
        tolerance: float | None = None,
        timestamp: str | None = None,
    ) -> None:
        """
        Make sure that the channel sent *body*: its HMAC with *secret* is *signature*.

        Args:
            body: The bytes, as they came in.

            signature:
                What the channel's header says, in hexadecimal or base64, with or without ``sha256=`` before it; None where it is missing.

            secret: What both sides know; several while one is replaced by the next.

            algorithm: The hash.

            tolerance:
                Seconds that a webhook may be old.  With it a time has to be signed, too, as ``<time>.<body>``;
                it stands in *signature* as ``t=<time>,v1=<signature>``, or is given as *timestamp*.
                Without it, whoever has heard a webhook once can send it again: then `once` is what helps.

            timestamp: The time, where it has a header of its own.

        Raises:
            InvalidSignatureError: answer 401.  The webhook counts as ``invalid_signature`` also when you catch this inside the block.

            ConfigurationError: for an empty secret, an unknown algorithm, or a body that is no bytes.
        """
        several = [secret] if isinstance(secret, (str, bytes)) else list(secret)
        try:
            check_signature(
                body,
                signature,
                secrets=several,
                algorithm=algorithm,
                tolerance=tolerance,
                timestamp=timestamp,
                now=self._engine.clock(),
            )
        except InvalidSignatureError as error:
            self._status, self._error = "invalid_signature", type(error).__name__
            self.event_type = UNVERIFIED
            raise

    def once(self, event_id: str, *, ttl: float = _THREE_DAYS, hold: float = 60.0) -> bool:
        """
        Tell whether this event has to be worked on; False when that was done before, and then `is_duplicate` is true, too.

        The event is remembered when the block ends well, and not when it raises, so that what the channel sends again after a failure is new.
        A webhook with several events asks for each; when it fails, all of them are new again.
        Should this process die inside the block, the event is new again after *hold* seconds.
        Without Redis every event is new: rather twice than never; that is counted in ``celery_obs_internal_errors_total``.
        A Redis that hangs holds the webhook up for about a second.

        Args:
            event_id: The channel's name for the event, the same when it sends it again.  Without one (empty), every event is new.

            ttl: Seconds for which an event that was done is remembered: for as long as the channel sends again.

            hold: Seconds that the work may take.

        Raises:
            EventBusyError: while somebody else works on the same event.
        """
        self._receive()
        if not event_id or event_id in self._claims:
            self._is_news, self.is_duplicate = True, False
            return True
        verdict, token = self._with_redis(lambda known: known.claim(self._kind, event_id, hold=hold), otherwise=("new", ""))
        if verdict == "held":
            message = (
                f"The same event of {self.channel} is being worked on by another request, which may fail yet. "
                "Answer 409 or 503, so that the channel sends it again."
            )
            raise EventBusyError(message)
        self.is_duplicate = verdict == "done"
        # Of several events in one webhook, one that is new makes it no duplicate.
        self._is_news = bool(self._is_news) or not self.is_duplicate
        if token:
            self._claims[event_id] = _Claim(token, ttl)
        return not self.is_duplicate

    async def aonce(self, event_id: str, *, ttl: float = _THREE_DAYS, hold: float = 60.0) -> bool:
        """
        As `once`, without keeping the event loop waiting.
        """
        return await asyncio.to_thread(self.once, event_id, ttl=ttl, hold=hold)

    def read(self, stream: _Readable, *, limit: int = BODY_LIMIT) -> bytes:
        """
        Read a body, but not more than *limit* bytes of it: Flask's ``request.stream``, Django's ``request``, ``wsgi.input``.

        Raises:
            BodyTooLargeError: answer 413.
        """
        pieces: list[bytes] = []
        left = limit + 1
        while left > 0:
            piece = stream.read(min(left, 1 << 16))
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            left -= len(piece)
        raise self._too_large(limit)

    async def aread(self, stream: AsyncIterable[bytes], *, limit: int = BODY_LIMIT) -> bytes:
        """
        As `read`, from Starlette's and FastAPI's ``request.stream()``.

        Raises:
            BodyTooLargeError: answer 413.
        """
        pieces: list[bytes] = []
        left = limit
        async for piece in stream:
            left -= len(piece)
            if left < 0:
                raise self._too_large(limit)
            pieces.append(piece)
        return b"".join(pieces)

    def fail(self, error: str = "") -> None:
        """
        Let the webhook count as an error, and its event as not done, although the block ends well: where you answer 500 yourself.

        Args:
            error: What went wrong, as the name of a class; never the text of an exception.
        """
        self._status, self._error = "error", error

    # -- the block ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._judge(kind)
        if self._claims:
            self._settle()
        self._tell()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._judge(kind)
        try:
            if self._claims:
                await asyncio.to_thread(self._settle)
        finally:
            self._tell()

    def _judge(self, kind: type[BaseException] | None) -> None:
        if kind is not None:
            self._error = kind.__name__
            if issubclass(kind, EventBusyError):
                self._status = "duplicate"
            elif self._status != "invalid_signature":
                self._status = "error"
        elif self._is_news is False and self._status == "success":
            self._status = "duplicate"

    def _settle(self) -> None:
        done = self._status == "success"

        def settle(known: Deliveries) -> None:
            for event_id, claim in self._claims.items():
                if done:
                    known.finish(self._kind, event_id, ttl=claim.ttl)
                else:
                    known.release(self._kind, event_id, claim.token)

        self._with_redis(settle, otherwise=None)

    def _tell(self) -> None:
        self._receive()
        hub = self._engine.hub
        if hub.wants(WebhookProcessed):
            duration = time.perf_counter() - self._began
            hub.emit(WebhookProcessed(self.channel, self.event_type, self._status, duration, self._error))

    # -- helpers ------------------------------------------------------------------------------------------------------

    @property
    def _kind(self) -> str:
        return f"webhook.{self.channel}"

    def _too_large(self, limit: int) -> BodyTooLargeError:
        self.event_type = UNVERIFIED
        message = f"The webhook's body is longer than {limit} bytes, and was not read to its end. Answer 413, or raise the limit."
        return BodyTooLargeError(message)

    def _receive(self) -> None:
        # Not on the way in: before the signature was checked, nobody knows whether the type of event is one.
        if not self._is_received:
            self._is_received = True
            if self._engine.hub.wants(WebhookReceived):
                self._engine.hub.emit(WebhookReceived(self.channel, self.event_type))

    def _with_redis(self, ask: Callable[[Deliveries], T], *, otherwise: T) -> T:
        try:
            if self._engine.redis is None:
                message = "Webhooks are not remembered, because there is no Redis. Set redis_url, so that none is worked on twice."
                raise CeleryObsError(message)  # noqa: TRY301 -- counted and told as any other reason.
            return ask(Deliveries(self._engine.redis))
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with Redis, the webhook goes on.
            self._engine.hub.on_error(error, component=_COMPONENT)
            return otherwise


def webhook(channel: str, event_type: str = "unknown") -> Hook:
    """
    Count and time a webhook: ``with webhook("airbnb", "reservation_created") as hook:``, or ``async with``.

    It ends as ``success``; as ``duplicate`` after a `Hook.once` that said so; as ``invalid_signature`` after a `Hook.verify` that did;
    and as ``error`` when the block raises.  What is raised goes on to the caller.

    Args:
        channel: The channel.

        event_type: What it is about: one of a few words, never an id.  Set ``hook.event_type`` later where the body tells.

    Since 0.1.
    """
    return Hook(channel, event_type)
