"""
Due times that were worked out once, and are worked out again only when they may be others.

A schedule of a thousand crontabs takes a tenth of a second to work out, and beat goes through it at each firing.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from celery_obs.telemetry.redaction import reason


__all__ = ["DueTimes", "timestamp"]


log = logging.getLogger("celery_obs")


_REFRESH: Final = 55.0
"""
Seconds after which all is worked out again: a schedule may have been changed in place, and clocks be put back for the winter.
"""


class _Known(NamedTuple):
    version: tuple[Any, ...]
    due: float | None


class DueTimes:
    """
    Remember when each entry is due.

    Args:
        monotonic: Tells how much time passed.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: dict[str, _Known] = {}
        self._failed: set[str] = set()
        self._refreshed_at = monotonic()

    def of(self, entries: Iterable[tuple[str, tuple[Any, ...], Callable[[], float | None]]], *, now: float) -> dict[str, float | None]:
        """
        Return when each entry is due; None for one whose schedule cannot tell.

        Args:
            entries: Each with its name, what its due time depends on, and how to work it out.

            now: Seconds since the epoch.  What is overdue is worked out each time.
        """
        passed = self._monotonic()
        if passed - self._refreshed_at > _REFRESH:
            self._known.clear()
            self._refreshed_at = passed
        fresh: dict[str, _Known] = {}
        for name, version, work_out in entries:
            known = self._known.get(name)
            if known is None or known.version != version or (known.due is not None and known.due < now):
                known = _Known(version, self._worked_out(name, work_out))
            fresh[name] = known
        self._known = fresh
        self._failed &= fresh.keys()
        return {name: known.due for name, known in fresh.items()}

    def _worked_out(self, name: str, work_out: Callable[[], float | None]) -> float | None:
        try:
            return work_out()
        except Exception as exc:  # noqa: BLE001 -- a user's own kind of schedule may not be able to tell.
            if name not in self._failed:
                self._failed.add(name)
                why = f"{type(exc).__name__}: {reason(exc)}"
                log.warning(
                    "celery_obs: no due time is shown for the schedule entry %r, because its schedule cannot compute one. Reason: %s",
                    name,
                    why,
                )
            return None


def timestamp(now: float, remaining: Any) -> float | None:
    """
    Return when something is due that a schedule says to be *remaining* away: a timedelta, or None for never.
    """
    return None if remaining is None else now + float(remaining.total_seconds())
