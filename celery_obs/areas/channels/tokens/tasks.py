"""
The tasks around tokens: refresh one, and find those that are about to expire.
"""

from __future__ import annotations

import contextlib

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.connections.state import Connection, Facts, TokenExpiry
from celery_obs.areas.channels.errors import ChannelError
from celery_obs.areas.task_spec import TaskSpec
from celery_obs.clock import between
from celery_obs.exceptions import CeleryObsError
from celery_obs.state import keys

from . import api as tokens


__all__ = ["PERIOD", "TASKS", "is_due", "marked", "refresh_expiring_tokens", "refresh_single_token"]


PERIOD: Final = 300.0
"""
Seconds between two scans.
"""

_INTERRUPTED_AFTER: Final = 60.0
"""
Seconds after which a refresh that has not ended has died.
"""

_SPREAD: Final = 0.4
"""
The part of the period over which many refreshes are spread out.
"""

_PER_SECOND: Final = 5.0
_RETRIES: Final = 6
_LONGEST_PAUSE: Final = 600.0
_LONGEST_ADVICE: Final = 3600.0
_BATCH: Final = 500


def refresh_single_token(task: Any, connection_id: str) -> dict[str, Any]:
    """
    Refresh one connection's token; what may pass is tried again with a growing pause.

    Returns:
        What may be shown: ``{"connection_id", "channel_type", "status", "expires_at", "lifetime"}``.
    """
    from redis.exceptions import RedisError

    from celery_obs.state.locks import FlightTimeoutError

    try:
        return tokens.refresh(connection_id)._asdict()
    except ChannelError as exc:
        if not exc.retryable:
            raise
        raise task.retry(exc=exc, countdown=_pause(task.request.retries, exc.retry_after)) from None
    except (FlightTimeoutError, RedisError) as exc:
        raise task.retry(exc=exc, countdown=_pause(task.request.retries, None)) from None


def _pause(retries: int, retry_after: float | None) -> float:
    """
    Return how long to wait before the next attempt: what the channel wants, or twice as long each time; never all at once.
    """
    least = min(2.0 * 2**retries, _LONGEST_PAUSE) if retry_after is None else min(retry_after, _LONGEST_ADVICE)
    return least * between(1.0, 1.5)


def refresh_expiring_tokens(task: Any, period: float = PERIOD) -> dict[str, int]:
    """
    Send a task for each token that expires before the next scan but one, and for each refresh that has died in the middle.

    Two scans in one period, by two beats, send one task: the first to put down a mark in Redis sends it.

    Args:
        task: The Celery task.

        period: Seconds until the next scan.

    Returns:
        How many tokens there are, how many were due, and for how many a task was sent.
    """
    engine = engines.current()
    if engine.redis is None:
        return {"tokens": 0, "due": 0, "sent": 0}
    facts, now = Facts(engine.redis), engine.clock()
    expiries = facts.token_expiries()
    due = _due(facts, expiries, now=now, ahead=engine.settings.token_refresh_ahead, period=period)
    single = task.app.tasks[f"{engine.settings.task_namespace}.refresh_single_token"]
    ours = list(marked(engine.redis, due, period))
    spread = min(_SPREAD * period, len(ours) / _PER_SECOND)
    for connection_id in ours:
        try:
            # It comes before the next scan, or not at all: that one sends another.
            countdown = between(0.0, spread) if len(ours) > 1 else None
            single.apply_async(args=[connection_id], countdown=countdown, expires=period)
        except Exception:
            with contextlib.suppress(Exception):
                engine.redis.delete(_mark(connection_id))
            raise
    return {"tokens": len(expiries), "due": len(due), "sent": len(ours)}


def _due(facts: Facts, expiries: Mapping[str, TokenExpiry], *, now: float, ahead: float, period: float) -> list[str]:
    connections = facts.connections()
    interrupted = {name for name, began in facts.refreshes().items() if now - began > _INTERRUPTED_AFTER}
    expiring = {name for name, expiry in expiries.items() if is_due(expiry, now=now, ahead=ahead, period=period)}
    return sorted(name for name in interrupted | expiring if _is_served(connections.get(name)))


def _is_served(connection: Connection | None) -> bool:
    # A paused connection keeps its token, or it could not go on; one in error waits for a person.
    return connection is not None and connection.status in {"active", "paused"}


def is_due(expiry: TokenExpiry, *, now: float, ahead: float, period: float) -> bool:
    """
    Tell whether a token is to be refreshed now: *ahead* seconds before its expiry, or a third of its life if that is less,
    but in any case when it would not live until the scan after the next one has done its work.
    """
    if expiry.expires_at is None:
        return False
    if expiry.lifetime is not None:
        ahead = min(ahead, expiry.lifetime / 3)
    return expiry.expires_at - now <= max(ahead, (1 + _SPREAD) * period)


def _mark(connection_id: str) -> str:
    return keys.once("token_refresh", connection_id)


def marked(redis: Any, connection_ids: Iterable[str], period: float) -> Iterator[str]:
    """
    Go through those that no other process has sent a task for in this period, and mark them as ours.
    """
    remaining = iter(connection_ids)
    while batch := list(islice(remaining, _BATCH)):
        with redis.pipeline(transaction=False) as pipe:
            for connection_id in batch:
                pipe.set(_mark(connection_id), 1, nx=True, px=max(1, int(0.8 * period * 1000)))
            answers = pipe.execute()
        yield from (connection_id for connection_id, answer in zip(batch, answers, strict=True) if answer)


_EXPECTED: Final = {"throws": (CeleryObsError,)}
"""
Our errors are sentences for the person who reads the log, who needs no traceback.
"""

TASKS: Final = (
    TaskSpec(
        name="refresh_single_token",
        run=refresh_single_token,
        # It may wait for another one, then for the channel, and then for the store to come back.
        time_limit=150.0,
        # Late and again: a worker that dies in the middle leaves it to the next one, who can do no harm.
        options={"acks_late": True, "reject_on_worker_lost": True, "max_retries": _RETRIES, "ignore_result": False, **_EXPECTED},
    ),
    TaskSpec(
        name="refresh_expiring_tokens",
        run=refresh_expiring_tokens,
        time_limit=120.0,
        options={"ignore_result": False, **_EXPECTED},
        period=PERIOD,
        wants_period=True,
    ),
)
"""
See `celery_obs.runtime.builtin_tasks.specs`.
"""
