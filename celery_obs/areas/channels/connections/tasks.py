"""
The tasks around connections: a census of those that the application has, and a sweep of what is known of those that are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.state import Channels
from celery_obs.areas.task_spec import TaskSpec
from celery_obs.state import keys
from celery_obs.state.once import is_first

from . import api as connections
from .state import OWNED_BY_CONNECTION, Connection, Facts


__all__ = ["CENSUS_PERIOD", "SWEEP_PERIOD", "TASKS", "sweep_state", "take_census"]


CENSUS_PERIOD: Final = 300.0
SWEEP_PERIOD: Final = 3600.0

_BATCH: Final = 500

_CHANNEL_GRACE: Final = 30 * 86400.0
"""
Seconds after which a channel that no process used is no longer known.
"""

_OF_TOKENS: Final = frozenset({keys.CONNECTIONS, keys.TOKEN_EXPIRIES})
"""
What a sweep leaves alone: a token without a registered connection may be the only one that its customer has.
"""


def take_census(task: Any, period: float = CENSUS_PERIOD) -> dict[str, int]:
    """
    Take down all connections that the setting ``connection_source`` tells; those that it tells no longer are forgotten after a grace period.

    Returns:
        How many connections there are, how many are gone, and how many were forgotten.

    Raises:
        ConfigurationError: if the source is none, or gives what are no connections.

        Exception: whatever the source raises; no connection is deleted then.
    """
    engine = engines.current()
    if engine.redis is None or not is_first(engine.redis, task, period):
        return {"connections": 0, "gone": 0, "forgotten": 0}
    facts, channels, now = Facts(engine.redis), Channels(engine.redis, clock=engine.clock), engine.clock()
    known = facts.connections()
    if engine.settings.connection_source is None:
        channels.touch({each.channel_type for each in known.values()})
        return {"connections": len(known), "gone": 0, "forgotten": 0}
    source = connections.source_of(engine)
    present, used = _take_down(facts, source.connections() if source is not None else (), known)
    channels.touch(used)
    if not present and known:
        # More likely a source that is broken than a business that lost all customers; and what would be forgotten is dear.
        message = f"The setting connection_source returned no connections ({len(known)} known); none were deleted."
        engine.hub.on_error(RuntimeError(message), component="beat.connections")
        return {"connections": 0, "gone": 0, "forgotten": 0}
    gone = {name.encode() for name in known.keys() - present}
    due = _due(engine.redis, gone, back={name.encode() for name in present}, now=now, grace=engine.settings.connection_grace)
    for batch in _batches(due):
        facts.forget(name.decode() for name in batch)
    _unmark(engine.redis, due)
    return {"connections": len(present), "gone": len(gone), "forgotten": len(due)}


def _take_down(facts: Facts, listed: Iterable[Any], known: Mapping[str, Connection]) -> tuple[set[str], set[str]]:
    """
    Register what a source tells, some at a time; return the ids and the channels.
    """
    present: set[str] = set()
    channels: set[str] = set()
    remaining = (connections.checked(each) for each in listed)
    while batch := list(islice(remaining, _BATCH)):
        facts.register(_kept(each, known.get(each.connection_id)) for each in batch)
        present.update(each.connection_id for each in batch)
        channels.update(each.channel_type for each in batch)
    return present, channels


def _kept(listed: Connection, known: Connection | None) -> Connection:
    """
    Keep the error of a connection whose token was refused: its source need not know of that.
    """
    return listed._replace(status="error") if listed.status == "active" and known is not None and known.status == "error" else listed


def sweep_state(task: Any, period: float = SWEEP_PERIOD) -> dict[str, int]:
    """
    Remove what is known of connections that are not registered, after a grace period, and channels that were not used for a month.

    Returns:
        How many connections without registration are known of, how many were forgotten, and how many channels were.
    """
    engine = engines.current()
    if engine.redis is None or not is_first(engine.redis, task, period):
        return {"unregistered": 0, "forgotten": 0, "channels": 0}
    redis, now = engine.redis, engine.clock()
    hashes = [key for key in OWNED_BY_CONNECTION if key not in _OF_TOKENS]
    with redis.pipeline(transaction=False) as pipe:
        for key in (keys.CONNECTIONS, *hashes):
            pipe.hkeys(key)
        registered, *fields = pipe.execute()
    strangers: set[bytes] = set().union(*fields) - set(registered)
    due = _due(redis, strangers, back=set(registered), now=now, grace=engine.settings.connection_grace)
    for batch in _batches(due):
        with redis.pipeline(transaction=False) as pipe:
            for key in hashes:
                pipe.hdel(key, *batch)
            pipe.execute()
    _unmark(redis, due)
    return {"unregistered": len(strangers), "forgotten": len(due), "channels": _sweep_channels(engine, redis)}


def _sweep_channels(engine: engines.Engine, redis: Any) -> int:
    since = engine.clock() - _CHANNEL_GRACE
    old = [channel for channel, at in redis.hgetall(keys.LAST_RUNS).items() if not _is_after(at, since)]
    if old:
        redis.hdel(keys.LAST_RUNS, *old)
    return Channels(redis, clock=engine.clock).forget_unused(since)


# --- marks: since when a connection is gone -------------------------------------------------------------------------------------------


def _due(redis: Any, gone: set[bytes], *, back: set[bytes], now: float, grace: float) -> list[bytes]:
    """
    Return those of *gone* that have been gone for longer than *grace*; the others are marked, and the marks of those in *back* removed.

    Names are bytes, as they lie in Redis: they may be no text.
    """
    marks = redis.hgetall(keys.MISSING)
    _unmark(redis, [name for name in marks if name in back])
    fresh = {name: repr(now) for name in gone if not _is_after(marks.get(name), 0.0)}
    for batch in _batches(fresh):
        redis.hset(keys.MISSING, mapping={name: fresh[name] for name in batch})
    return [name for name in gone if name not in fresh and not _is_after(marks[name], now - grace)]


def _unmark(redis: Any, names: Iterable[bytes]) -> None:
    for batch in _batches(names):
        redis.hdel(keys.MISSING, *batch)


def _is_after(written: Any, moment: float) -> bool:
    try:
        return float(written) > moment
    except (TypeError, ValueError):
        return False


def _batches(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(names)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


TASKS: Final = (
    TaskSpec(name="take_census", run=take_census, time_limit=270.0, options={}, period=CENSUS_PERIOD, wants_period=True),
    TaskSpec(name="sweep_state", run=sweep_state, time_limit=600.0, options={}, period=SWEEP_PERIOD, wants_period=True),
)
"""
See `celery_obs.runtime.builtin_tasks.specs`.
"""
