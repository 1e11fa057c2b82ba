"""
Webhooks: what channels tell us of their own accord, counted and timed, checked for who sent it, and done once.

It works in any web framework, for it takes bytes and texts::

    with celery_obs.webhook("airbnb", "reservation_created") as hook:
        hook.verify(request.body, request.headers["X-Signature"], secret=SECRET)
        if not hook.once(event_id):
            return
        book(...)

Where the work is part of a transaction that ends after the block, ``webhook(..., on_commit=transaction.on_commit)`` settles the event with it.
"""

from __future__ import annotations

import asyncio
import secrets
import time

from collections.abc import AsyncIterable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from celery_obs.areas.channels.api_calls.headers import moment_of
from celery_obs.areas.channels.engine import Engine, current
from celery_obs.exceptions import CeleryObsError

from .commits import OnCommit, commits_of
from .events import WebhookProcessed, WebhookReceived
from .metrics import WebhookStatus
from .schemes import SCHEMES, SignatureScheme, scheme_of
from .signatures import Algorithm, InvalidSignatureError, Secret, Signed, check_scheme, check_signature
from .state import Deliveries


if TYPE_CHECKING:
    from typing_extensions import Self


__all__ = [
    "BODY_LIMIT",
    "SCHEMES",
    "UNVERIFIED",
    "BodyTooLargeError",
    "EventBusyError",
    "Hook",
    "InvalidSignatureError",
    "OnCommit",
    "SignatureScheme",
    "Signed",
    "commits_of",
    "webhook",
]


T = TypeVar("T")

BODY_LIMIT: Final = 1 << 20
"""
Bytes that a webhook may have unless you say otherwise.

Since 0.1.
"""

UNVERIFIED: Final = "unverified"
"""
The type of event under which webhooks are counted whose signature was wrong: what a stranger says is no label.

Since 0.1.
"""

_THREE_DAYS: Final = 3 * 24 * 3600.0
_COMPONENT: Final = "webhooks"
_DONE: Final = frozenset({"success", "stale"})
_ROLLED_BACK: Final = "TransactionRolledBack"


class BodyTooLargeError(CeleryObsError):
    """
    A webhook's body is longer than allowed, and was not read to its end.  Answer 413.

    Since 0.1.
    """


class EventBusyError(CeleryObsError):
    """
    The same event, or another one about the same object, is being worked on by another request, which may yet fail.
    Answer 409 or 503, so that the channel sends it again.

    Since 0.1.
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
    at: float = 0.0


class Hook:
    """
    One webhook that came in; made by `webhook`, good for one ``with`` or ``async with``.

    Attributes:
        channel: The channel.

        event_type: What it is about.  May be set inside the block, up to `once`: many channels say it in the body.

        is_duplicate: Whether the last `once` found that its event was done before.

        is_stale: Whether the last `newest` found that something newer was done before.

    Threads: for one at a time.

    Since 0.1.
    """

    def __init__(self, channel: str, event_type: str = "unknown", *, on_commit: OnCommit | None = None) -> None:
        self.channel = channel
        self.event_type = event_type
        self.is_duplicate = False
        self.is_stale = False
        self._on_commit = on_commit
        self._engine: Engine = current()
        self._began = 0.0
        self._status: WebhookStatus = "success"
        self._error = ""
        self._is_received = False
        self._is_new: bool | None = None
        self._is_newest: bool | None = None
        self._claims: dict[str, _Claim] = {}
        self._objects: dict[str, _Claim] = {}

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
                Without it, an attacker who has seen a webhook once can send it again: then `once` is what helps.

            timestamp: The time, where it has a header of its own.

        Raises:
            InvalidSignatureError: answer 401.  The webhook counts as ``invalid_signature`` also when you catch this inside the block.

            ConfigurationError: for an empty secret, an unknown algorithm, or a body that is no bytes.
        """
        now = self._engine.clock()
        self._checked(
            lambda: check_signature(
                body, signature, secrets=_several(secret), algorithm=algorithm, tolerance=tolerance, timestamp=timestamp, now=now
            )
        )

    def verify_as(
        self,
        scheme: str | SignatureScheme,
        body: bytes,
        headers: Any,
        *,
        secret: Secret | Sequence[Secret],
        tolerance: float | None = None,
    ) -> Signed:
        """
        Make sure that the channel sent *body*, which signs as its provider documents.

        Args:
            scheme: standard-webhooks, svix, stripe, shopify, github, slack, zendesk, paddle, typeform, or a `SignatureScheme` of your own.

            body: The bytes, as they came in.

            headers: The request's headers, as the framework holds them.

            secret: What both sides know, as the provider shows it; all that are active, while one is replaced by the next.

            tolerance: Seconds that a webhook may be old, where the scheme signs a time; by default the scheme's own, which is five minutes.

        Returns:
            What is signed besides the body: the event's id, which is good for `once`, and the time.

        Raises:
            InvalidSignatureError: answer 401; see `verify`.

            ConfigurationError: for an unknown scheme, an invalid secret, or a body that is not bytes.

        Since 0.1.
        """
        chosen, now = scheme_of(scheme), self._engine.clock()
        return self._checked(lambda: check_scheme(chosen, body, headers, secrets=_several(secret), tolerance=tolerance, now=now))

    def _checked(self, check: Callable[[], T]) -> T:
        try:
            return check()
        except InvalidSignatureError as error:
            self._status, self._error = "invalid_signature", type(error).__name__
            self.event_type = UNVERIFIED
            raise

    def once(self, event_id: str, *, ttl: float = _THREE_DAYS, hold: float = 60.0) -> bool:
        """
        Tell whether this event has to be worked on; False when that was done before, and then `is_duplicate` is true, too.

        The event is remembered when the block ends well, and not when it raises, so that what the channel sends again after a failure is new.
        With *on_commit* (see `webhook`) it is remembered when the transaction was committed, and new again when it was rolled back.
        A webhook with several events asks for each; when it fails, all of them are new again.
        Should this process die inside the block, the event is new again after *hold* seconds.
        Without Redis every event is new: rather twice than never; that is counted in ``celery_obs_internal_errors_total``.
        A Redis that hangs holds the webhook up for about a second.

        Args:
            event_id: The channel's name for the event, the same when it sends it again.  Without one (empty), every event is new.

            ttl: Seconds for which an event that was done is remembered: for as long as the channel sends again.

            hold: Seconds that the work may take.

        Raises:
            EventBusyError: while another worker processes the same event.
        """
        self._receive()
        if not event_id or event_id in self._claims:
            self._is_new, self.is_duplicate = True, False
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
        self._is_new = bool(self._is_new) or not self.is_duplicate
        if token:
            self._claims[event_id] = _Claim(token, ttl)
        return not self.is_duplicate

    async def aonce(self, event_id: str, *, ttl: float = _THREE_DAYS, hold: float = 60.0) -> bool:
        """
        As `once`, without keeping the event loop waiting.
        """
        return await asyncio.to_thread(self.once, event_id, ttl=ttl, hold=hold)

    def newest(self, object_id: str, *, at: datetime | float | str, ttl: float = _THREE_DAYS, hold: float = 60.0) -> bool:
        """
        Tell whether nothing newer of an object was done before; False for an event that was overtaken, and then `is_stale` is true, too.

        Ask it after `once`.  An event that is overtaken counts as ``stale``, and is done: the channel need not send it again.
        Two events about one object are not worked on at the same time, so that the older one cannot end last.
        What fails is forgotten, and without Redis every event is the newest, as with `once`.

        Args:
            object_id: What the event is about, such as a booking.

            at: When it happened there: the channel's time, as a datetime, in seconds or milliseconds since the epoch, or in ISO 8601.
                Of two events of the same moment none is stale.

            ttl: Seconds for which the moment is remembered.

            hold: Seconds that the work may take.

        Raises:
            EventBusyError: while another event about the same object is being worked on.

            ValueError: if *at* is not a time.

        Since 0.1.
        """
        self._receive()
        moment = moment_of(at)
        if moment is None:
            message = f"The time of the event is {at!r:.100}. Expected a datetime, seconds or milliseconds since the epoch, or ISO 8601."
            raise ValueError(message)
        held = self._objects.get(object_id)
        token = secrets.token_hex(16) if held is None else held.token
        verdict = self._with_redis(
            lambda known: known.claim_object(self._kind, object_id, at=moment, token=token, hold=hold), otherwise="newest"
        )
        if verdict == "held":
            message = f"Another event of {self.channel} about the same object is being worked on. Answer 409 or 503, so that the channel sends it again."
            raise EventBusyError(message)
        self.is_stale = verdict == "stale"
        # As with several events: one that is the newest of its object makes the webhook none that was overtaken.
        self._is_newest = bool(self._is_newest) or not self.is_stale
        if not self.is_stale:
            self._objects[object_id] = _Claim(token, ttl, moment if held is None else max(moment, held.at))
        return not self.is_stale

    async def anewest(self, object_id: str, *, at: datetime | float | str, ttl: float = _THREE_DAYS, hold: float = 60.0) -> bool:
        """
        As `newest`, without keeping the event loop waiting.
        """
        return await asyncio.to_thread(self.newest, object_id, at=at, ttl=ttl, hold=hold)

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
        if not self._waits_for_the_commit():
            self._finish()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._judge(kind)
        if self._waits_for_the_commit():
            return
        try:
            if self._claims or self._objects:
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
        elif self._status == "success":
            if self._is_new is False:
                self._status = "duplicate"
            elif self._is_newest is False:
                self._status = "stale"

    def _waits_for_the_commit(self) -> bool:
        """
        Leave it to the transaction what becomes of the events, where there is one.
        """
        if self._on_commit is None or self._status not in _DONE or not (self._claims or self._objects):
            return False
        settlement = _Settlement(self)
        try:
            self._on_commit(settlement)
        except Exception as error:  # noqa: BLE001 -- whatever a program passed; rather twice than never.
            if settlement.withdraw():
                self._status, self._error = "error", type(error).__name__
                self._engine.hub.on_error(error, component=_COMPONENT)
                return False
        return True

    def _over(self, *, committed: bool) -> None:
        """
        The transaction is over.
        """
        if not committed:
            self._status, self._error = "error", _ROLLED_BACK
        try:
            asyncio.get_running_loop().run_in_executor(None, self._finish)  # An event loop does not wait for Redis.
        except RuntimeError:  # There is none, or it is about to end.
            self._finish()

    def _finish(self) -> None:
        try:
            if self._claims or self._objects:
                self._settle()
        finally:
            self._tell()

    def _settle(self) -> None:
        done = self._status in _DONE

        def settle(known: Deliveries) -> None:
            for object_id, claim in self._objects.items():
                if done:
                    known.finish_object(self._kind, object_id, at=claim.at, token=claim.token, ttl=claim.ttl)
                else:
                    known.release_object(self._kind, object_id, token=claim.token)
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
        # Not on the way in: before the signature was checked, it is unknown whether the type of event is one.
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


class _Settlement:
    """
    What a transaction calls after its commit; when it lets go of it without a call, it was rolled back.
    """

    def __init__(self, hook: Hook) -> None:
        self._hook: Hook | None = hook

    def withdraw(self) -> bool:
        """
        Settle nothing any more; tell whether nothing was settled yet.
        """
        hook, self._hook = self._hook, None
        return hook is not None

    def __call__(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            hook._over(committed=True)  # noqa: SLF001 -- a part of it.

    def __del__(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            hook._over(committed=False)  # noqa: SLF001 -- a part of it.


def _several(secret: Secret | Sequence[Secret]) -> list[Secret]:
    return [secret] if isinstance(secret, (str, bytes)) else list(secret)


def webhook(channel: str, event_type: str = "unknown", *, on_commit: OnCommit | None = None) -> Hook:
    """
    Count and time a webhook: ``with webhook("airbnb", "reservation_created") as hook:``, or ``async with``.

    It ends as ``success``; as ``duplicate`` after a `Hook.once` that said so; as ``stale`` after a `Hook.newest` that did;
    as ``invalid_signature`` after a `Hook.verify` that did; and as ``error`` when the block raises.  What is raised goes on to the caller.

    Args:
        channel: The channel.

        event_type: What it is about: one of a few words, never an id.  Set ``hook.event_type`` later where the body tells.

        on_commit:
            Where the work is part of a transaction that ends after the block: Django's ``transaction.on_commit``, `commits_of` a session of
            SQLAlchemy, or a function of your own that keeps what it is given, calls it after the commit, and drops it after a rollback.
            The event is done, and counted, when the transaction was committed; after a rollback it counts as ``error``, and is new again.

    Since 0.1.
    """
    return Hook(channel, event_type, on_commit=on_commit)
