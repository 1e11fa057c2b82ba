"""
Queues on Redis, as kombu's Redis transport lays them out.

A queue is one list for each priority step, and the member of a binding set; it has no list while it is empty.
What was delivered and not acknowledged lies in one hash for all queues, as JSON ``[message, exchange, routing key]``.
Messages may be large, so that scripts send us no more than their ends, where kombu writes the headers.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import re
import time

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeGuard

from celery_obs.areas.queues.announcements import DEFAULT_PRIORITY_STEPS, DEFAULT_SEPARATOR, DEFAULT_UNACKED_KEY, QueueAnnouncement
from celery_obs.clock import Clock, wall
from celery_obs.state.connection import connect

from . import Announced, QueueReading


if TYPE_CHECKING:
    from redis import Redis

    Client: TypeAlias = Redis


__all__ = ["RedisProbe", "connect", "due_at", "oldest_of"]


TAIL: Final = 32 * 1024
"""
Bytes of a message that we look at, from its end and from its beginning.
"""

CLOSELY: Final = 64
"""
Messages of a list that are looked at one after the other, while those before have an ETA or no stamp; behind them, ever fewer are.
"""

MOST_BYTES: Final = 256 * 1024
"""
Bytes of messages after which no other one is looked at.
"""

MOST_UNACKED: Final = 20_000
"""
Unacknowledged messages up to which we count them by queue; a scan of more would keep Redis from its work.
"""

_PRIORITIES: Final = range(10)
_UNACKED_TAIL = 1024
_UNACKED_PAGE = 500
_UNACKED_BYTES = 16 * 1024 * 1024
_UNACKED_ROUNDS = 60
_END_OF_TIME = 1e12
_LOOK_WIDER_EVERY = 60.0
_LOOK_WIDER_PAGES = 50

log = logging.getLogger("celery_obs.exporter")

# From the end that is taken from.  The first message without an ETA waits longest of its kind, for those behind it came later; those before it may have
# an ETA that is far away, so that one has to look past them: at each of the first, then in strides, and at no more than so many bytes.
#
# Both ends of each: the JSON of kombu puts body, content-encoding, content-type, headers, properties in this order, but no format promises it.
_OLDEST = """
local found, bytes, place = {}, 0, 1
local size, closely, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local length = redis.call('LLEN', KEYS[1])
while place <= length and bytes <= most do
  local message = redis.call('LINDEX', KEYS[1], -place)
  if not message then
    break
  end
  bytes = bytes + #message
  if #message > 2 * size then
    message = string.sub(message, 1, size) .. '\\0' .. string.sub(message, -size)
  end
  found[#found + 1] = message
  if string.find(message, '"celery_obs_published":', 1, true) and string.find(message, '"eta":%s*null') then
    break
  end
  place = place < closely and place + 1 or place * 2
end
return found
"""

# Redis cannot cut a piece out of a hash's value, so that each is copied whole: one after the other, and only so many bytes at a time.
_UNACKED = """
local tails, bytes = {}, 0
for place = 3, #ARGV do
  bytes = bytes + redis.call('HSTRLEN', KEYS[1], ARGV[place])
  if place > 3 and bytes > tonumber(ARGV[2]) then
    break
  end
  local entry = redis.call('HGET', KEYS[1], ARGV[place])
  tails[#tails + 1] = entry and string.sub(entry, -tonumber(ARGV[1])) or ''
end
return tails
"""


class _Layout(NamedTuple):
    """
    How the keys of a queue are spelled.

    Attributes:
        steps: The priority steps that are shown though nothing waits there.

        announced: Whether a worker consumes it, so that it exists though it may be empty.
    """

    steps: tuple[int, ...]
    sep: str
    prefix: str
    unacked_key: str
    exchange: str
    announced: bool

    @property
    def asked(self) -> list[int]:
        """
        The steps that are looked at.

        A message's priority is 0 to 9 with kombu, so that no step of another publisher, or of a default that nothing announced, is missed.
        """
        return sorted({*self.steps, *_PRIORITIES})

    def keys(self, queue: str) -> dict[int, str]:
        """
        Return the list of each priority step.
        """
        return {step: f"{self.prefix}{queue}{self.sep}{step}" if step else f"{self.prefix}{queue}" for step in self.asked}

    def bindings(self, exchange: str) -> str:
        return f"{self.prefix}_kombu.binding.{exchange}"


_DEFAULT: Final = _Layout(
    steps=DEFAULT_PRIORITY_STEPS, sep=DEFAULT_SEPARATOR, prefix="", unacked_key=DEFAULT_UNACKED_KEY, exchange="", announced=False
)
_SPELLED: Final[Mapping[str, str]] = {
    "priority_steps": "steps",
    "sep": "sep",
    "global_keyprefix": "prefix",
    "unacked_key": "unacked_key",
}
"""
The transport options that decide how keys are spelled.
"""


class RedisProbe:
    """
    Asks a Redis broker; one round trip for the depths, one for the ages, one for each page of unacknowledged messages.

    Args:
        client: Connected when it is first used.

        announced: What workers told of their queues.

        transport_options: The broker's transport options, where they are known: they win over what was announced.
    """

    def __init__(
        self, client: Client, *, announced: Announced, transport_options: Mapping[str, Any] | None = None, clock: Clock = wall
    ) -> None:
        self._client = client
        self._announced = announced
        self._clock = clock
        options = transport_options or {}
        self._given = {spelled: options[name] for name, spelled in _SPELLED.items() if name in options}
        if "steps" in self._given:
            self._given["steps"] = tuple(self._given["steps"])
        self._may_eval = True
        self._too_many_logged = False
        self._looked_wider_at = -math.inf
        self._exchanges: dict[str, set[str]] = {}

    def probe(self, queues: Collection[str]) -> Mapping[str, QueueReading]:
        """
        Read *queues*; see :class:`~celery_obs.exporter.probes.QueueProbe`.
        """
        announced = self._announced()
        layouts = {queue: self._layout(announced.get(queue)) for queue in queues}
        if not layouts:
            return {}
        depths, bindings = self._depths(layouts)
        known = {
            queue
            for queue, layout in layouts.items()
            if layout.announced or any(depths[queue].values()) or _is_bound(queue, bindings[queue], layout.sep)
        }
        known |= self._bound_elsewhere({queue: layout for queue, layout in layouts.items() if queue not in known})
        existing = {queue: layouts[queue] for queue in queues if queue in known}
        oldest = self._oldest(existing, depths)
        unacked = self._unacked(existing, bindings)
        return {
            queue: QueueReading(
                depth=sum(depths[queue].values()),
                by_priority={step: depth for step, depth in depths[queue].items() if depth or step in existing[queue].steps},
                unacked=None if unacked is None else unacked.get(queue, 0),
                oldest_due_at=oldest.get(queue),
            )
            for queue in existing
        }

    def close(self) -> None:
        self._client.close()

    def _layout(self, announcement: QueueAnnouncement | None) -> _Layout:
        """
        Say how a queue's keys are spelled: as the options have it, else as was announced, else as is kombu's default.
        """
        if announcement is None:
            return _DEFAULT._replace(**self._given)
        layout = _Layout(
            steps=announcement.priority_steps,
            sep=announcement.sep,
            prefix=announcement.global_keyprefix,
            unacked_key=announcement.unacked_key,
            exchange=announcement.exchange,
            announced=announcement.consumed,
        )
        return layout._replace(**self._given)

    def _depths(self, layouts: Mapping[str, _Layout]) -> tuple[dict[str, dict[int, int]], dict[str, list[bytes]]]:
        """
        Ask for the lengths of all lists, and for the bindings of the exchange that is called as the queue is, in one round trip.
        """
        with self._client.pipeline(transaction=False) as pipe:
            for queue, layout in layouts.items():
                for key in layout.keys(queue).values():
                    pipe.llen(key)
                pipe.smembers(layout.bindings(layout.exchange or queue))
            answers = iter(pipe.execute(raise_on_error=False))
        depths: dict[str, dict[int, int]] = {}
        bindings: dict[str, list[bytes]] = {}
        for queue, layout in layouts.items():
            depths[queue] = {step: _length(next(answers)) for step in layout.asked}
            members = next(answers)
            bindings[queue] = [] if isinstance(members, Exception) else list(members)
        return depths, bindings

    def _bound_elsewhere(self, layouts: Mapping[str, _Layout]) -> set[str]:
        """
        Find empty queues that are bound to an exchange of another name, by looking through the key names, now and then, up to a limit.
        """
        if not layouts:
            return set()
        now = self._clock()
        if abs(now - self._looked_wider_at) >= _LOOK_WIDER_EVERY:
            self._looked_wider_at = now
            self._exchanges = self._bound_by_prefix({(layout.prefix, layout.sep) for layout in layouts.values()})
        return {queue for queue, layout in layouts.items() if queue in self._exchanges.get(layout.prefix, ())}

    def _bound_by_prefix(self, spellings: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for prefix, sep in spellings:
            pattern = _glob_escaped(f"{prefix}_kombu.binding.") + "*"
            cursor, keys = 0, []
            for _ in range(_LOOK_WIDER_PAGES):
                cursor, page = self._client.scan(cursor, match=pattern, count=1000)
                keys += page
                if not cursor:
                    break
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.smembers(key)
                answers = pipe.execute(raise_on_error=False) if keys else []
            found[prefix] = {_queue_of(member, sep) for members in answers if not isinstance(members, Exception) for member in members}
        return found

    def _oldest(self, layouts: Mapping[str, _Layout], depths: Mapping[str, Mapping[int, int]]) -> dict[str, float]:
        """
        Find when the message that waits longest was due, by queue.  A queue whose first messages tell nothing of that is left out.
        """
        places = [
            (queue, step, key) for queue, layout in layouts.items() for step, key in layout.keys(queue).items() if depths[queue][step]
        ]
        if not places or not self._may_eval:
            return {}
        with self._client.pipeline(transaction=False) as pipe:
            # One key to a script, so that Redis Cluster could do it, too.
            for _, _, key in places:
                pipe.eval(_OLDEST, 1, key, TAIL, CLOSELY, MOST_BYTES)
            answers = pipe.execute(raise_on_error=False)
        oldest: dict[str, float] = {}
        now = self._clock()
        for (queue, step, _), answer in zip(places, answers, strict=True):
            if isinstance(answer, Exception):
                self._without_scripts(answer)
                continue
            due = oldest_of(answer, of=depths[queue][step], now=now)
            if due is not None:
                oldest[queue] = min(due, oldest.get(queue, due))
        return oldest

    def _unacked(self, layouts: Mapping[str, _Layout], bindings: Mapping[str, list[bytes]]) -> Counter[str] | None:
        """
        Count unacknowledged messages by queue; None where that is not possible.
        """
        if not self._may_eval:
            return None
        routes = {
            (layout.prefix, layout.exchange or queue, routing_key): queue
            for queue, layout in layouts.items()
            for routing_key in _routing_keys(queue, bindings[queue], layout.sep)
        }
        counted: Counter[str] = Counter()
        for prefix, key in {(layout.prefix, layout.unacked_key) for layout in layouts.values()}:
            tails = self._tails(prefix + key)
            if tails is None:
                return None
            for tail in tails:
                exchange, routing_key = _route(tail)
                if routing_key is None:
                    continue
                counted[routes.get((prefix, exchange, routing_key), routing_key) if exchange else routing_key] += 1
        return counted

    def _tails(self, key: str) -> list[bytes] | None:
        """
        Return the ends of all unacknowledged messages, fetched page by page.
        """
        if int(self._client.hlen(key)) > MOST_UNACKED:
            self._say_too_many()
            return None
        tags = list(self._client.hkeys(key))
        tails: list[bytes] = []
        for _ in range(_UNACKED_ROUNDS):
            if len(tails) >= len(tags):
                self._too_many_logged = False
                return tails
            page = tags[len(tails) : len(tails) + _UNACKED_PAGE]
            try:
                tails += self._client.eval(_UNACKED, 1, key, _UNACKED_TAIL, _UNACKED_BYTES, *page)
            except _response_error() as error:
                self._without_scripts(error)
                return None
        self._say_too_many()
        return None

    def _say_too_many(self) -> None:
        if not self._too_many_logged:
            self._too_many_logged = True
            log.warning(
                "Too many unacknowledged messages to read at each scrape: more than %d messages or %d MiB. They are not counted by queue until they are fewer.",
                MOST_UNACKED,
                _UNACKED_ROUNDS * _UNACKED_BYTES >> 20,
            )

    def _without_scripts(self, error: Exception) -> None:
        """
        Go on without scripts when Redis refuses them to us; raise what is another matter.
        """
        words = str(error).lower()
        if not isinstance(error, _response_error()) or not ("permission" in words or "unknown command" in words):
            raise error
        if self._may_eval:
            self._may_eval = False
            log.warning(
                "Redis does not allow EVAL, so the age of messages and the number of unacknowledged ones are unknown. Allow it with: ACL SETUSER <user> +eval."
            )


def _response_error() -> type[Exception]:
    from redis.exceptions import ResponseError

    return ResponseError


def _length(answer: object) -> int:
    if isinstance(answer, Exception):
        if "WRONGTYPE" in str(answer):  # A foreign key with a queue's name: no queue of kombu's.
            return 0
        raise answer
    return answer if isinstance(answer, int) else 0


def _glob_escaped(text: str) -> str:
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)


def _queue_of(member: bytes, sep: str) -> str:
    """
    Read the queue off a member of a binding set: routing key, pattern, queue.
    """
    return member.decode(errors="replace").rsplit(sep, 1)[-1]


def _is_bound(queue: str, members: Iterable[bytes], sep: str) -> bool:
    return any(_queue_of(member, sep) == queue for member in members)


def _routing_keys(queue: str, members: Iterable[bytes], sep: str) -> list[str]:
    return [member.decode(errors="replace").split(sep, 1)[0] for member in members if _queue_of(member, sep) == queue]


_ROUTE = re.compile(rb',\s*("(?:[^"\\]|\\.)*"|null),\s*("(?:[^"\\]|\\.)*"|null)\]\s*$')


def _route(tail: bytes) -> tuple[str, str | None]:
    """
    Read exchange and routing key off the end of an entry ``[message, exchange, routing key]``.
    """
    match = _ROUTE.search(tail)
    if match is None:
        return "", None
    with suppress(ValueError):
        exchange, routing_key = json.loads(match.group(1)), json.loads(match.group(2))
        return exchange or "", routing_key or ""
    return "", None


def oldest_of(messages: Sequence[bytes], *, of: int, now: float) -> float | None:
    """
    Return when the first of *messages* was due; None where that says nothing of a list of so many.

    What is not due yet waits for nothing; it says that the list is young only where it is all that there is.
    """
    known = [due for due in map(due_at, messages) if due is not None]
    earliest = min(known, default=None)
    return None if earliest is not None and earliest > now and len(known) < of else earliest


_HEADERS = re.compile(r'(?<!\\)"headers":\s*(?=\{)')
_STAMP = re.compile(r'(?<!\\)"celery_obs_published":\s*(-?[0-9.eE+-]+)\s*[,}]')
_DUE = re.compile(r'(?<!\\)"celery_obs_due":\s*(-?[0-9.eE+-]+)\s*[,}]')
_ETA = re.compile(r'(?<!\\)"eta":\s*"([^"\\]{8,40})"')


def due_at(message: bytes) -> float | None:
    """
    Read off a message when it was published or due, whichever is later.

    *message* may have lost its middle.  Where its headers are whole, they are parsed; else their keys are looked for where they stand as
    keys: inside of a string, their quotes would be escaped.

    Returns:
        Seconds since the epoch, or None without a stamp of ours that can be true.
    """
    text = message.decode(errors="replace")
    headers = _headers(text)
    if headers is not None:
        published, later, eta = headers.get("celery_obs_published"), headers.get("celery_obs_due"), headers.get("eta")
        if "task" not in headers:
            eta = _eta_in_body(text)
    else:
        published, later = (_number(found.group(1)) if (found := pattern.search(text)) else None for pattern in (_STAMP, _DUE))
        eta = found.group(1) if (found := _ETA.search(text)) else None
    if not _is_time(published) or not _is_plausible(published):
        return None
    # When the first attempt was due says more than the publish where an ETA is out of sight; of a retry it says less.
    known = [published, *([later] if _is_time(later) and 0 < later < _END_OF_TIME else [])]
    due = _seconds(eta) if isinstance(eta, str) else None
    return float(max([*known, due] if due is not None else known))


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _eta_in_body(text: str) -> object:
    """
    Return the ETA in the body of a whole message by protocol 1, which is JSON in base 64; None where it is something else.
    """
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        return json.loads(base64.b64decode(json.loads(text)["body"], validate=True)).get("eta")
    return None


def _headers(text: str) -> dict[str, Any] | None:
    """
    Find the headers of a message in its text; None where they are cut.
    """
    for match in _HEADERS.finditer(text):
        with suppress(ValueError, RecursionError):
            found, _ = json.JSONDecoder().raw_decode(text, match.end())
            if isinstance(found, dict) and ("task" in found or "celery_obs_published" in found):
                return found
    return None


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text)
    return None


def _is_plausible(moment: float) -> bool:
    """
    Tell whether *moment* lies between 2001 and a day from now: what is outside was made by a broken clock or for fun.
    """
    return 1e9 <= moment <= time.time() + 86_400  # noqa: PLR2004 -- 2001.


def _seconds(iso: str) -> float | None:
    # Python 3.10 does not know the Z.
    text = iso[:-1] + "+00:00" if iso.endswith(("Z", "z")) else iso
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    return None
