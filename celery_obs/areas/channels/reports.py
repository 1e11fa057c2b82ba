"""
Answers to what people ask about the cluster, as plain data: the exporter's API gives them as JSON, and the commands print them.

Their shapes are a contract: scripts read them with jq.
"""

from __future__ import annotations

import functools
import math

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from celery_obs.areas import optional
from celery_obs.clock import Clock, wall

from .breakers.state import Breakers
from .connections.state import Facts
from .pauses.state import PauseInfo, Pauses
from .state import Channels


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["DAY", "SOON", "Reports", "reports_of"]


DAY: Final = 86400.0
SOON: Final = 7 * DAY
"""
Seconds before its end from which on a token expires soon.
"""

_RECONCILIATION: Final = optional("reconciliation", "state")

Json = dict[str, Any]


class Reports:
    """
    Ask Redis.

    Args:
        redis: A client; every method raises what it raises.

        clock: Tells the time.

    Threads: safe, as the client is.
    """

    def __init__(self, redis: Redis, *, clock: Clock = wall) -> None:
        self._redis = redis
        self._clock = clock
        self._facts = Facts(redis)

    def channels(self) -> tuple[str, ...]:
        """
        Return all channels that were used, or have a connection, in order of their names.
        """
        return tuple(sorted({*Channels(self._redis).known(), *(each.channel_type for each in self._facts.connections().values())}))

    def status(self, *, limit: int, offset: int = 0) -> Json:
        """
        Tell how the connections are, and which channels are paused: ``connections`` with a ``status`` each, sorted by id.
        """
        snapshot = self._facts.snapshot()
        known = snapshot.connections
        channels = sorted({*Channels(self._redis).known(), *(each.channel_type for each in known.values())})
        pauses = Pauses(self._redis).paused(channels)
        shown = [
            {
                "connection_id": name,
                "channel_type": known[name].channel_type,
                "status": known[name].status,
                "created_at": _time(known[name].created_at),
                "last_sync_at": _time(snapshot.last_syncs.get(name)),
                "error_count": snapshot.errors.get(name, 0),
            }
            for name in sorted(known)[offset : offset + limit]
        ]
        return {
            "count": len(known),
            "connections": shown,
            "channels": [{"channel_type": name, "paused": name in pauses, **_pause(pauses.get(name))} for name in channels],
        }

    def breakers(self) -> list[Json]:
        """
        Tell the state of each channel's breaker.
        """
        views = Breakers(self._redis).states(self.channels())
        return [
            {
                "channel_type": channel,
                "state": view.state,
                "failure_count": view.failure_count,
                "opened_at": _time(view.opened_at),
                "probe_at": _time(view.probe_at),
                "forced": view.forced,
                "changed_by": view.changed_by,
            }
            for channel, view in sorted(views.items())
        ]

    def pending(self, *, limit: int, offset: int = 0) -> Json:
        """
        Tell what reconciliation left to be settled: ``count`` connections, those with the most days first.
        """
        found = {} if _RECONCILIATION is None else _RECONCILIATION.Pending(self._redis).all()
        entries = sorted(found.values(), key=lambda entry: (-entry.days, entry.connection_id))
        return {
            "count": len(entries),
            "days": sum(entry.days for entry in entries),
            "connections": [
                {
                    "connection_id": entry.connection_id,
                    "channel_type": entry.channel_type,
                    "days": entry.days,
                    "conflicts": dict(entry.conflicts),
                    "sample": [day._asdict() for day in entry.sample],
                    "found_at": _time(entry.at),
                }
                for entry in entries[offset : offset + limit]
            ],
        }

    def expiring(self, *, within: float = SOON, limit: int, offset: int = 0) -> list[Json]:
        """
        Tell whose tokens end within so many seconds or have ended, the first to end first.
        """
        now = self._clock()
        known = self._facts.connections()
        ends = sorted(
            (expiry.expires_at, name)
            for name, expiry in self._facts.token_expiries().items()
            if name in known and expiry.expires_at is not None and expiry.expires_at - now <= within
        )
        return [
            {
                "connection_id": name,
                "channel_type": known[name].channel_type,
                "expires_at": _time(at),
                # Towards the past: what ends in an hour does so in 0.0 days, not in 0.1.
                "expires_in_days": math.floor((at - now) / DAY * 10) / 10,
                "expired": at <= now,
            }
            for at, name in ends[offset : offset + limit]
        ]


@functools.lru_cache(maxsize=1)
def reports_of(redis: Redis) -> Reports:
    """
    Return what answers of a client, the same one again for the same: what did not change since the last time costs less.
    """
    return Reports(redis)


def _pause(info: PauseInfo | None) -> Mapping[str, object]:
    if info is None:
        return {}
    return {"paused_by": info.actor, "reason": info.reason, "paused_at": _time(info.since), "paused_until": _time(info.until)}


def _time(at: float | None) -> str | None:
    """
    Write a moment as people and programs read it; None where there is none, or it is none of the calendar's.
    """
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
