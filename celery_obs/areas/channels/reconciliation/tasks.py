"""
The tasks around reconciliation: check one connection for drift, and see to it that each is checked once a day.
"""

from __future__ import annotations

import contextlib
import hashlib
import math

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.connections.state import Connection, Drift, Facts
from celery_obs.areas.channels.errors import ChannelError
from celery_obs.areas.channels.pauses.state import Pauses
from celery_obs.areas.task_spec import TaskSpec
from celery_obs.clock import between
from celery_obs.state import keys
from celery_obs.state.once import is_first

from . import api as reconciliation


__all__ = ["DAY", "PERIOD", "TASKS", "check_drift", "check_drift_of", "due", "moment"]


DAY: Final = 86400.0
PERIOD: Final = 900.0
"""
Seconds between two looks at who is due.
"""

_PATIENCE: Final = 6 * 3600.0
"""
Seconds after which a check that was sent and did not happen is sent again.
"""

_HASTE: Final = 4
"""
How many times faster than a day's pace those are caught up with who are late, or new.
"""

_LEAST: Final = 50
"""
Checks that one look may send, however few connections there are.
"""

_SPREAD: Final = 0.9
_BATCH: Final = 500

_TIME_LIMIT: Final = 600.0
_DEATHS: Final = 3
_RETRIES: Final = 3
_LONGEST_PAUSE: Final = 3600.0


# --- who is due -------------------------------------------------------------------------------------------------------------------


def moment(connection_id: str) -> int:
    """
    Return the second of the day at which a connection is checked: its own, and the same every day, so that not all come at once.
    """
    return int.from_bytes(hashlib.sha256(connection_id.encode("utf-8", "surrogatepass")).digest()[:8], "big") % int(DAY)


def _last_moment(connection_id: str, now: float) -> float:
    at = now - now % DAY + moment(connection_id)
    return at if at <= now else at - DAY


def due(connections: Iterable[str], checked: Mapping[str, Drift], *, now: float, period: float = PERIOD) -> list[str]:
    """
    Return the connections to check now, those first that were not checked for longest.

    A connection is due when it was not checked since its moment of the day.  No more are returned than a multiple of what a period's share of all is:
    ten thousand new ones, or those of a night without beat, are caught up with over hours.

    Args:
        connections: All that are served.

        checked: The last check of each.

        now: Seconds since the epoch.

        period: Seconds until the next look.
    """
    total, late = 0, []
    for connection_id in connections:
        total += 1
        last = checked.get(connection_id)
        at = last.at if last is not None and last.at <= now else 0.0  # A check in the future is a wrong clock's.
        if at < _last_moment(connection_id, now):
            late.append((at, moment(connection_id), connection_id))
    most = max(_LEAST, math.ceil(_HASTE * total * min(1.0, period / DAY)))
    return [connection_id for _, _, connection_id in sorted(late)[:most]]


def check_drift(task: Any, period: float = PERIOD) -> dict[str, int]:
    """
    Send a task for each connection whose daily check is due, spread over the period.

    Two beats send one task: who puts down a mark in Redis first sends it.

    Args:
        task: The Celery task.

        period: Seconds until the next look.

    Returns:
        How many connections there are, how many were due, and for how many a task was sent.

    Raises:
        ConfigurationError: if the setting ``reconciliation_source`` is not set, or names another thing.
    """
    engine = engines.current()
    reconciliation.source_of(engine)
    if engine.redis is None or not is_first(engine.redis, task, period):
        return {"connections": 0, "due": 0, "sent": 0}
    facts = Facts(engine.redis)
    served = _served(engine.redis, facts.connections().values())
    found = due(served, facts.drifts(), now=engine.clock(), period=period)
    single = task.app.tasks[f"{engine.settings.task_namespace}.check_drift_of"]
    sent = 0
    for connection_id in _marked(engine.redis, found):
        try:
            countdown = moment(connection_id) % (_SPREAD * period)
            single.apply_async(args=[connection_id], countdown=countdown, expires=_PATIENCE)
        except Exception:
            with contextlib.suppress(Exception):
                engine.redis.delete(_mark(connection_id))
            raise
        sent += 1
    return {"connections": len(served), "due": len(found), "sent": sent}


def _served(redis: Any, connections: Iterable[Connection]) -> list[str]:
    active = [connection for connection in connections if connection.status == "active"]
    paused = Pauses(redis).paused({connection.channel_type for connection in active})
    return [connection.connection_id for connection in active if connection.channel_type not in paused]


def _mark(connection_id: str) -> str:
    return keys.once("drift", connection_id)


def _marked(redis: Any, connection_ids: list[str]) -> Iterator[str]:
    """
    Go through those that no other process has sent a task for, and mark them as ours.
    """
    for first in range(0, len(connection_ids), _BATCH):
        batch = connection_ids[first : first + _BATCH]
        with redis.pipeline(transaction=False) as pipe:
            for connection_id in batch:
                pipe.set(_mark(connection_id), 1, nx=True, px=int(_PATIENCE * 1000))
            answers = pipe.execute()
        yield from (connection_id for connection_id, answer in zip(batch, answers, strict=True) if answer)


# --- one of them ------------------------------------------------------------------------------------------------------------------

_BEGIN: Final = """
local found = redis.call('GET', KEYS[1])
local deaths = 0
if found then
    local id, count = string.match(found, '^(.*) (%d+)$')
    if id ~= ARGV[1] then
        return -1
    end
    deaths = tonumber(count) + 1
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. deaths, 'PX', ARGV[2])
return deaths
"""
"""
Begins a check of a connection that no worker is checking; a message that comes back after its worker died goes on with what it had begun.
"""

_END: Final = """
local found = redis.call('GET', KEYS[1])
if found and string.match(found, '^(.*) %d+$') == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""


class _Check(NamedTuple):
    """
    One message's way through a check, remembered in Redis under its id.
    """

    redis: Any
    connection_id: str
    task_id: str

    @property
    def lock(self) -> str:
        return keys.lock(f"drift:{self.connection_id}")

    @property
    def counted_key(self) -> str:
        return keys.once("drift_told", self.task_id)

    def was_counted(self) -> bool:
        return bool(self.redis.exists(self.counted_key))

    def may_tell(self) -> bool:
        """
        Tell whether what was found is to be counted; once for each message.
        """
        return bool(self.redis.set(self.counted_key, 1, nx=True, px=int(DAY * 1000)))

    def begin(self) -> int:
        """
        Begin; return how often this message's workers died before, or -1 where another message is at it.
        """
        return int(self.redis.eval(_BEGIN, 1, self.lock, self.task_id, int((_TIME_LIMIT + 60.0) * 1000)))

    def end(self) -> None:
        """
        Let others begin.
        """
        with contextlib.suppress(Exception):  # The TTL does it, too.
            self.redis.eval(_END, 1, self.lock, self.task_id)


def check_drift_of(task: Any, connection_id: str) -> dict[str, Any]:
    """
    Check one connection; what may pass is tried again with a growing pause.

    Returns:
        ``{"connection_id", "channel_type", "checked", "drifted"}``, or why it was not checked: ``{"connection_id", "skipped"}``.

    Raises:
        UnknownConnectionError: if there is no such connection.

        RuntimeError: if workers died of it again and again.
    """
    from redis.exceptions import RedisError

    engine = engines.current()
    try:
        if engine.redis is None:
            return _summary(reconciliation.reconcile(connection_id))
        return _checked(_Check(engine.redis, connection_id, str(task.request.id)))
    except ChannelError as exc:
        if not exc.retryable:
            raise
        raise task.retry(exc=exc, countdown=_pause(task.request.retries, exc.retry_after)) from None
    except RedisError as exc:
        raise task.retry(exc=exc, countdown=_pause(task.request.retries, None)) from None


def _checked(check: _Check) -> dict[str, Any]:
    if check.was_counted():
        return {"connection_id": check.connection_id, "skipped": "this message was done before"}
    deaths = check.begin()
    if deaths < 0:
        return {"connection_id": check.connection_id, "skipped": "another message is checking it"}
    if deaths > _DEATHS:
        check.end()
        message = (
            f"The check of connection {check.connection_id[:200]!r} crashed its worker {deaths} times; giving up until tomorrow. "
            "See whether the reconciliation source streams its days, and how much memory a worker has."
        )
        raise RuntimeError(message)
    try:
        return _summary(reconciliation.reconcile(check.connection_id, may_tell=check.may_tell))
    finally:
        check.end()


def _summary(found: reconciliation.Reconciled) -> dict[str, Any]:
    return {
        "connection_id": found.connection_id,
        "channel_type": found.channel_type,
        "checked": found.checked,
        "drifted": found.drifted,
    }


def _pause(retries: int, retry_after: float | None) -> float:
    least = 30.0 * 4**retries if retry_after is None else retry_after
    return min(least, _LONGEST_PAUSE) * between(1.0, 1.5)


TASKS: Final = (
    TaskSpec(
        name="check_drift_of",
        run=check_drift_of,
        time_limit=_TIME_LIMIT,
        # Late and again: a worker that dies in the middle has said nothing, and the next one begins anew.
        options={"acks_late": True, "reject_on_worker_lost": True, "max_retries": _RETRIES},
    ),
    TaskSpec(
        name="check_drift",
        run=check_drift,
        time_limit=300.0,
        options={"acks_late": True, "reject_on_worker_lost": True},
        period=PERIOD,
        wants_period=True,
        is_wanted=lambda settings: settings.reconciliation_source is not None,
    ),
)
"""
See `celery_obs.runtime.builtin_tasks.specs`.
"""
