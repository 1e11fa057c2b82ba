"""
RedBeat's ``RedBeatScheduler``: entries are hashes in Redis, and a sorted set of their keys says when each is due.

Its ``schedule`` holds only what is due now and the one entry after that, so the sorted set is read instead: whole, in one round trip, every few seconds,
and of the hashes those whose place in it has changed, some hundred at a time.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from celery.schedules import maybe_schedule

from celery_obs.clock import Clock, wall
from celery_obs.runtime.hub import OnError
from celery_obs.state.scripts import text
from celery_obs.telemetry.redaction import reason

from .cached import timestamp


__all__ = ["Adapter", "waits_for"]


log = logging.getLogger("celery_obs")


_READ_EVERY: Final = 5.0
"""
Seconds between two looks at the sorted set.
"""

_FORGET_AFTER: Final = 50.0
"""
Seconds after which the hashes are read again: an entry may have been disabled, which changes nothing in the sorted set.
"""

_BATCH: Final = 500


def waits_for(scheduler: Any) -> str:
    """
    Return the name of the lock that *scheduler* waits for because another beat holds it; empty when it has it, or needs none.
    """
    key = getattr(scheduler, "lock_key", None)
    return f"the lock {key}, which another beat holds" if key and scheduler.lock is None else ""


class _Entry(NamedTuple):
    name: str
    is_enabled: bool
    due: float | None


class Adapter:
    """
    Ask a ``RedBeatScheduler``.

    Args:
        scheduler: The scheduler.

        on_error: Hears of what should not be; a Redis that is away is only logged.

        clock: Tells the time.

        monotonic: Tells how much time passed.
    """

    def __init__(self, scheduler: Any, *, on_error: OnError, clock: Clock = wall, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._scheduler = scheduler
        self._on_error = on_error
        self._clock = clock
        self._monotonic = monotonic
        self._scores: dict[str, float] = {}
        self._entries: dict[str, _Entry] = {}
        self._read_at: float | None = None
        self._forgot_at = monotonic()
        self._is_away = False

    def due(self, now: float, *, fired: Collection[str]) -> Mapping[str, float | None] | None:
        """
        Return every enabled entry, each with when it is due; None where Redis could never be asked.
        """
        passed = self._monotonic()
        if passed - self._forgot_at >= _FORGET_AFTER:
            self._scores.clear()
            self._forgot_at = passed
        try:
            if self._read_at is None or not self._scores or passed - self._read_at >= _READ_EVERY:
                self._read_at = passed
                self._read()
            elif fired:
                self._load([self._scheduler.Entry.generate_key(self._scheduler.app, name) for name in fired])
            self._is_away = False
        except Exception as exc:  # noqa: BLE001 -- what was known before is still told, and RedBeat asks the same Redis in a moment.
            if not self._is_away:
                log.warning("celery_obs: cannot read RedBeat's entries; the last known ones are shown. Reason: %s", reason(exc))
            self._is_away = True
            if not self._entries:
                return None
        return {entry.name: entry.due for entry in self._entries.values() if entry.is_enabled}

    def _redis(self) -> Any:
        from redbeat.schedulers import get_redis  # noqa: PLC0415 -- it is loaded, or there were no such scheduler.

        client = get_redis(self._scheduler.app)
        # Beat's own retries may last for ever; ours is the next look.
        return getattr(client, "wrapped_connection", client)

    def _read(self) -> None:
        scores = {
            text(key): score for key, score in self._redis().zrange(self._scheduler.app.redbeat_conf.schedule_key, 0, -1, withscores=True)
        }
        self._entries = {key: entry for key, entry in self._entries.items() if key in scores}
        self._load(key for key, score in scores.items() if self._scores.get(key) != score)
        self._scores = scores

    def _load(self, keys: Iterable[str]) -> None:
        for batch in _batches(keys):
            schedule_key = self._scheduler.app.redbeat_conf.schedule_key
            with self._redis().pipeline(transaction=False) as pipe:
                for key in batch:
                    pipe.hget(key, "definition")
                    pipe.hget(key, "meta")
                    pipe.zscore(schedule_key, key)
                answers = pipe.execute()
            for key, definition, meta, score in zip(batch, answers[::3], answers[1::3], answers[2::3], strict=True):
                if definition is None or score is None:  # Deleted just now.
                    self._entries.pop(key, None)
                    self._scores.pop(key, None)
                else:
                    self._entries[key] = self._decoded(key, definition, meta, score)
                    self._scores[key] = score

    def _decoded(self, key: str, definition: Any, meta: Any, score: float) -> _Entry:
        """
        Read an entry.  The score says when it is due, but that of one that is overdue says when it was last saved; its last run knows better.
        """
        kind = self._scheduler.Entry
        try:
            decoded = kind.decode_definition(definition)
            last_run_at = kind.decode_meta(meta).get("last_run_at")
            due: float | None = None if score < 0 else score
            if due is not None and last_run_at is not None:
                schedule = maybe_schedule(decoded["schedule"], app=self._scheduler.app)
                due = timestamp(self._clock(), schedule.remaining_estimate(last_run_at))
            return _Entry(str(decoded["name"]), bool(decoded.get("enabled", True)), due)
        except Exception as exc:  # noqa: BLE001 -- any client may write there, and an entry that RedBeat cannot read either hides no other.
            self._on_error(exc, component="beat.freshness")
            return _Entry(key, is_enabled=False, due=None)


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for key in keys:
        batch.append(key)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
