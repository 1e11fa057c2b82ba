"""
The API over HTTP: questions for everybody who may read the page, deeds for those who know the token.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from celery_obs.exporter.sharing import BusyError, SharedWork
from celery_obs.state.audit import Audit
from celery_obs.telemetry.redaction import without_secrets
from celery_obs.throttle import LogThrottle

from .answers import Refusal, answer, refuse
from .model import BODY, PARAMETERS, PREFIX, Deed, Order, Question
from .openapi import document
from .stacks import STACKS, StacksApi
from .table import DEEDS, QUESTIONS, known_channels


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Api", "shows_token"]


T = TypeVar("T")

LONGEST_BODY: Final = 16 * 1024
PATIENCE: Final = 10.0
"""
Seconds in which a body has to have come.
"""

MOST_WAITING: Final = 32
RETRY_AFTER: Final = 5
"""
So many requests may wait for Redis; more are refused, and asked to come again after so many seconds.
"""

_SHOWN: Final = 20
_STRANGERS: Final = frozenset({401, 403})

log = logging.getLogger("celery_obs.exporter")


class Api:
    """
    Answers, and does.

    Args:
        redis: The cluster's state; None where there is none, and every answer says so.

        token: What callers of deeds have to know; empty where deeds are off.

        metrics_dir: The folder of the nodes beside this exporter; None where it serves none.
    """

    def __init__(self, redis: Redis | None, *, token: str = "", metrics_dir: Path | None = None) -> None:
        self._redis = redis
        self._stacks = StacksApi(metrics_dir, order_of=self._stack_order)
        self._token = _digest(token.encode()) if token else b""
        self._questions = SharedWork("celery-obs-api", threads=4, most=MOST_WAITING)
        # Whatever strangers ask, who knows the token can act.
        self._deeds = SharedWork("celery-obs-deed", threads=2, most=MOST_WAITING)
        self._document = document()
        self._throttle = LogThrottle()

    def routes(self) -> list[Route]:
        """
        Make the routes, all that are in the table.
        """
        register_url_convertor("channel", _ChannelName())
        routes = [Route("/openapi.json", self._describe, methods=["GET"])]
        routes += [Route(f"{PREFIX}{each.path}", partial(self._ask, each), methods=["GET"]) for each in QUESTIONS]
        routes += [Route(f"{PREFIX}/{{channel:channel}}{each.path}", partial(self._do, each), methods=["POST"]) for each in DEEDS]
        return routes + self._stacks.routes()

    # -- questions ----------------------------------------------------------------------------------------------------

    async def _describe(self, request: Request) -> Response:
        return answer(self._document)

    async def _ask(self, question: Question, request: Request) -> Response:
        try:
            given = {name: _number(name, request.query_params.get(name)) for name in question.parameters}
            same = (question.path, *sorted(given.items()))
            return answer(await self._in_thread(self._questions, same, lambda: question.ask(self._need(self._redis), given)))
        except Refusal as refusal:
            return refuse(refusal)

    # -- deeds --------------------------------------------------------------------------------------------------------

    async def _do(self, deed: Deed, request: Request) -> Response:
        channel = request.path_params["channel"]
        order = Order(request.headers.get("x-actor", ""), "")
        try:
            self._let_in(request)
            order = _order(await _body(request), order.actor, takes_seconds=deed.takes_seconds)
            result = await self._in_thread(self._deeds, object(), partial(self._perform, deed, channel, order))
        except Refusal as refusal:
            if not isinstance(refusal, _Done) and self._is_worth_a_line(deed, refusal):
                # To the log alone: a stranger who asks a thousand times must not push what was done out of the stream.
                actor = order.actor or _address(request)
                Audit(None).write(deed.action, actor=actor, reason=order.reason, channel=channel, outcome=f"refused: {refusal.error}")
            return refuse(refusal)
        return answer({"channel_type": channel, "action": deed.action, **result})

    async def _stack_order(self, request: Request) -> Order:
        """
        Return who asks for a stack, and why; refuse who may not, which is worth a line in the log as it is with deeds.
        """
        try:
            self._let_in(request)
            return _order(await _body(request), request.headers.get("x-actor", ""), takes_seconds=False)
        except Refusal as refusal:
            if refusal.status not in _STRANGERS or self._throttle.allows("stack.show", refusal.error):
                actor = request.headers.get("x-actor", "") or _address(request)
                Audit(None).write("stack.show", actor=actor, reason="", outcome=f"refused: {refusal.error}")
            raise

    def _is_worth_a_line(self, deed: Deed, refusal: Refusal) -> bool:
        """
        Tell whether a refusal is to be logged: always for who knows the token, once a minute for all others together, who may ask without end.
        """
        return refusal.status not in _STRANGERS or self._throttle.allows(deed.action, refusal.error)

    def _let_in(self, request: Request) -> None:
        if not self._token:
            message = "Operations are off. Start the exporter with --enable-operations and --operations-token-file to have them."
            raise Refusal(403, "operations_off", message)
        given = _bearer(request.headers.get("authorization", ""))
        if given is None or not hmac.compare_digest(_digest(given), self._token):
            message = "Expected the header 'Authorization: Bearer …' with the operations token of this exporter."
            raise Refusal(401, "unauthorized", message, WWW_Authenticate='Bearer realm="celery_obs operations"')

    def _perform(self, deed: Deed, channel: str, order: Order) -> Mapping[str, object]:
        redis = self._need(self._redis)
        known = known_channels(redis)
        if channel not in known:
            some = ", ".join(name[:50] for name in known[:_SHOWN]) or "none so far"
            message = f"There is no channel {channel[:100]!r}. Known are: {some}{', …' if len(known) > _SHOWN else ''}."
            raise Refusal(404, "unknown_channel", message)
        order = order._replace(actor=order.actor or "unknown")
        try:
            return deed.do(redis, channel, order)
        except Exception as error:
            raise _Done from error

    # -- both ---------------------------------------------------------------------------------------------------------

    def _need(self, part: T | None) -> T:
        if part is None:
            message = "This exporter has no Redis. Start it with --redis-url to have the cluster's state."
            raise Refusal(503, "no_redis", message)
        return part

    async def _in_thread(self, threads: SharedWork, key: Hashable, work: Callable[[], T]) -> T:
        try:
            return await threads.run(key, work)
        except BusyError:
            message = f"Too many requests wait for Redis. Try again in {RETRY_AFTER} s, and see /health."
            raise Refusal(503, "busy", message, Retry_After=str(RETRY_AFTER)) from None
        except _Done as done:
            raise _refusal_for(done.__cause__, kind=_Done) from done.__cause__
        except Refusal:
            raise
        except Exception as error:
            raise _refusal_for(error, kind=Refusal) from error


class _ChannelName(Convertor[str]):
    """
    Takes any name of a channel out of a path, which the server has decoded: it may hold slashes and line breaks.
    """

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Done(Refusal):
    """
    It was tried, failed, and is in the audit already.
    """

    def __init__(self, status: int = 500, error: str = "", message: str = "", **headers: str) -> None:
        super().__init__(status, error, message, **headers)


def _refusal_for(error: BaseException | None, *, kind: type[Refusal]) -> Refusal:
    from redis.exceptions import RedisError

    if isinstance(error, (RedisError, OSError)):
        message = f"Redis does not answer, or failed ({type(error).__name__}). Try again, and see /health."
        return kind(503, "redis_unavailable", message)
    log.error("The API failed with an unexpected error.", exc_info=without_secrets(error) if error is not None else None)
    return kind(500, "internal", f"This is a bug in celery_obs ({type(error).__name__}); the exporter's log has more.")


def shows_token(method: str, path: str, authorization: str) -> bool:
    """
    Tell whether a request is one for a deed that brings a token: then the deed asks for the token, and no middleware for a password.
    """
    return method == "POST" and path.startswith((f"{PREFIX}/", STACKS)) and _bearer(authorization) is not None


def _bearer(authorization: str) -> bytes | None:
    scheme, _, token = authorization.partition(" ")
    return token.strip().encode("utf-8", "surrogatepass") if scheme.lower() == "bearer" and token.strip() else None


def _digest(token: bytes) -> bytes:
    """
    Make tokens of one length, so that comparing them takes one time.
    """
    return hashlib.sha256(token).digest()


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"


def _number(name: str, given: str | None) -> float:
    wanted = PARAMETERS[name]
    if given is None:
        return wanted.default
    try:
        number = int(given) if wanted.whole else float(given)
    except ValueError:
        number = float("nan")
    if wanted.least <= number <= wanted.most:
        return number
    kind = "a whole number" if wanted.whole else "a number"
    message = f"{name} is {given[:50]!r}. Expected {kind} from {wanted.least:g} to {wanted.most:g}."
    raise Refusal(400, "bad_parameter", message)


async def _body(request: Request) -> bytes:
    try:
        return await asyncio.wait_for(_read(request), PATIENCE)
    except asyncio.TimeoutError:
        message = f"The body did not come within {PATIENCE:g} s."
        raise Refusal(408, "too_slow", message, Connection="close") from None
    except ClientDisconnect:
        message = "The caller left before its body was here."
        raise Refusal(400, "disconnected", message) from None


async def _read(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            message = f"The body is longer than {LONGEST_BODY} bytes. Expected a small JSON object."
            raise Refusal(413, "too_long", message, Connection="close")
    return body


def _order(body: bytes, actor: str, *, takes_seconds: bool) -> Order:
    """
    Read what the caller says of who, why and how long.
    """
    try:
        given: Any = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        given = None
    names = [name for name in BODY if name != "seconds" or takes_seconds]
    expected = f"Expected a JSON object with nothing but {', '.join(names)}, or no body."
    if not isinstance(given, dict):
        message = f"The body is not a JSON object. {expected}"
        raise Refusal(400, "bad_body", message)
    for name, value in given.items():
        if name not in names:
            message = f"The body has {name[:50]!r}. {expected}"
            raise Refusal(400, "bad_body", message)
        problem = _problem(BODY[name], value)
        if problem:
            message = f"{name} is not {problem}."
            raise Refusal(400, "bad_body", message)
    return Order(actor or given.get("actor", ""), given.get("reason", ""), given.get("seconds"))


def _problem(schema: Mapping[str, Any], value: object) -> str:
    """
    Say what *value* should be; empty where it is.
    """
    if schema["type"] == "string":
        return "" if isinstance(value, str) and len(value) <= schema["maxLength"] else f"a text of at most {schema['maxLength']} characters"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and schema["exclusiveMinimum"] < value <= schema["maximum"]
    return "" if is_number else f"a number of seconds above 0, and at most {schema['maximum']:.0f}"
