"""
django-celery-beat's ``DatabaseScheduler``: entries are rows.

It loads only rows that may be due soon (2.8 and later), and its ``schedule`` reads the database when it is looked at.
So what it has loaded is taken as it lies there, without looking, and the other rows are read once a minute, and whenever it has noticed a change itself.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from celery.utils.time import maybe_make_aware

from celery_obs.clock import Clock, wall
from celery_obs.compat.django_celery_beat import enabled_rows, loaded_entries
from celery_obs.runtime.hub import OnError
from celery_obs.telemetry.redaction import reason

from .cached import DueTimes, timestamp


__all__ = ["Adapter", "prepared"]


log = logging.getLogger("celery_obs")


_READ_EVERY: Final = 50.0
"""
Seconds between two looks at the rows that the scheduler has not loaded.
"""

_VERSION: Final = ("last_run_at", "start_time", "expires", "one_off")


def prepared(schedule: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any] | None:
    """
    Return *schedule* with those entries that are *ours* expiring in the database, too, whose column for it is called otherwise than Celery's option.
    """
    changed = {}
    for name in ours:
        entry = schedule.get(name)
        options = dict(entry.get("options") or {}) if isinstance(entry, dict) else {}
        expires = options.get("expires")
        if isinstance(expires, (int, float)) and "expire_seconds" not in options:
            changed[name] = {**schedule[name], "options": {**options, "expire_seconds": max(1, int(expires))}}
    return {**schedule, **changed} if changed else None


class Adapter:
    """
    Ask a ``DatabaseScheduler``.

    Args:
        scheduler: The scheduler.

        on_error: As for all adapters; nothing here needs it: a database that is away is only logged.

        clock: Tells the time.

        monotonic: Tells how much time passed.

    Threads: of use in beat's own, whose connection to the database it uses.
    """

    def __init__(
        self, scheduler: Any, *, on_error: OnError | None = None, clock: Clock = wall, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._monotonic = monotonic
        self._times = DueTimes(monotonic=monotonic)
        self._rows: dict[str, Any] = {}
        self._seen: Any = None
        self._read_at: float | None = None
        self._is_away = False

    def due(self, now: float, *, fired: Collection[str]) -> Mapping[str, float | None]:
        """
        Return every enabled entry, each with when it is due: never before its start, nor when it will be disabled instead.
        """
        loaded = loaded_entries(self._scheduler)
        # It makes a new table whenever it has noticed a change.
        if loaded is not self._seen or self._read_at is None or self._monotonic() - self._read_at >= _READ_EVERY:
            self._seen = loaded
            self._read(loaded)
        models = {**self._rows, **{name: entry.model for name, entry in loaded.items() if name in self._rows}}
        return self._times.of(self._entries(models), now=now)

    def _read(self, loaded: Mapping[str, Any]) -> None:
        self._read_at = self._monotonic()
        try:
            rows = list(enabled_rows(self._scheduler).select_related("interval", "crontab", "solar", "clocked"))
        except Exception as exc:  # noqa: BLE001 -- databases raise what they like; what was known before is still told.
            if not self._is_away:
                log.warning("celery_obs: cannot read django-celery-beat's entries; the last known ones are shown. Reason: %s", reason(exc))
            self._is_away = True
            self._rows = {**{name: entry.model for name, entry in loaded.items()}, **self._rows}
            return
        self._is_away = False
        self._rows = {row.name: row for row in rows}

    def _entries(self, models: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, ...], Callable[[], float | None]]]:
        for name, model in models.items():
            if not model.enabled or _is_over(model, self._clock()):
                continue
            version = (id(model), bool(model.total_run_count), *(getattr(model, field) for field in _VERSION))
            yield name, version, _Due(model, self._scheduler.app, self._clock)


def _is_over(model: Any, now: float) -> bool:
    """
    Tell whether the scheduler will disable an entry the next time it looks at it.
    """
    return bool(model.one_off and model.total_run_count) or (model.expires is not None and _seconds(model.expires) <= now)


def _seconds(moment: datetime) -> float:
    # The database scheduler takes a time without a zone for UTC.
    return float(maybe_make_aware(moment).timestamp())


class _Due:
    """
    When a row is due, as ``ModelEntry.is_due`` has it.
    """

    __slots__ = ("_app", "_clock", "_model")

    def __init__(self, model: Any, app: Any, clock: Clock) -> None:
        self._model = model
        self._app = app
        self._clock = clock

    def __call__(self) -> float | None:
        model, now = self._model, self._clock()
        schedule = model.schedule
        last_run_at = model.last_run_at
        if last_run_at is None and model.start_time is not None:
            due: float | None = _seconds(model.start_time)  # However long ago the row was made, it runs at its start.
        else:
            last = maybe_make_aware(last_run_at or model.date_changed or datetime.now(timezone.utc)).astimezone(self._app.timezone)
            zone = getattr(schedule, "tz", None)
            due = timestamp(now, schedule.remaining_estimate(last.astimezone(zone) if zone is not None else last))
        if due is None:
            return None
        if model.start_time is not None:
            due = max(due, _seconds(model.start_time))
        return None if model.expires is not None and due >= _seconds(model.expires) else due
