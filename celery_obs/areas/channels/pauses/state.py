"""
Pauses: channels that an operator stopped.  The existence of a key pauses a channel, so that people can do it by hand, whatever they write there.
"""

from __future__ import annotations

import json

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_obs.clock import Clock, wall
from celery_obs.state import keys


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["PauseInfo", "Pauses"]


_LONGEST = 500


class PauseInfo(NamedTuple):
    """
    Who stopped a channel, and why.

    Attributes:
        actor, reason: As given; empty where the key was set by hand.

        since: Seconds since the epoch; None where unknown.

        until: When it ends by itself; None where it does not.
    """

    actor: str = ""
    reason: str = ""
    since: float | None = None
    until: float | None = None


class Pauses:
    """
    Stop channels and let them go on.

    Args:
        redis: A client; every method raises what it raises.

        clock: Tells the time.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis, *, clock: Clock = wall) -> None:
        self._redis = redis
        self._clock = clock

    def pause(self, channel: str, *, actor: str, reason: str, seconds: float | None = None) -> None:
        """
        Stop *channel*; a pause that is on already is replaced.

        Args:
            channel: The channel.

            actor: Who does it.

            reason: Why; shortened to 500 characters, as the actor is.

            seconds: How long, more than 0; for ever by default.

        Raises:
            ValueError: if *seconds* is not more than 0.
        """
        if seconds is not None and not 0 < seconds < float("inf"):
            message = f"A pause of {seconds!r} seconds was requested for {channel!r}. Expected more than 0, or None for a pause that is ended by hand."
            raise ValueError(message)
        written = json.dumps({"actor": actor[:_LONGEST], "reason": reason[:_LONGEST], "since": self._clock()})
        self._redis.set(keys.paused(channel), written, px=None if seconds is None else max(1, round(seconds * 1000)))

    def resume(self, channel: str) -> bool:
        """
        Let *channel* go on; tell whether it was paused.
        """
        return bool(self._redis.delete(keys.paused(channel)))

    def is_paused(self, channel: str) -> bool:
        """
        Tell whether *channel* is paused.
        """
        return bool(self._redis.exists(keys.paused(channel)))

    def paused(self, channels: Iterable[str]) -> Mapping[str, PauseInfo]:
        """
        Return those of *channels* that are paused, each with what is known of its pause, in one round trip.
        """
        asked = list(dict.fromkeys(channels))
        if not asked:
            return {}
        with self._redis.pipeline(transaction=False) as pipe:
            for channel in asked:
                pipe.exists(keys.paused(channel))
                pipe.get(keys.paused(channel))
                pipe.pttl(keys.paused(channel))
            # By hand it may be no text: then GET alone fails, and the channel is paused all the same.
            answers = pipe.execute(raise_on_error=False)
        found: dict[str, PauseInfo] = {}
        for number, channel in enumerate(asked):
            exists, written, left = answers[3 * number : 3 * number + 3]
            for answer in (exists, left):
                if isinstance(answer, Exception):
                    raise answer
            if exists:
                found[channel] = _info(written, until=self._clock() + left / 1000 if left > 0 else None)
        return found


def _info(written: Any, *, until: float | None) -> PauseInfo:
    """
    Read what lies in a pause's key, which any client may have written.
    """
    try:
        data = json.loads(written)
        actor, reason, since = data.get("actor"), data.get("reason"), data.get("since")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return PauseInfo(until=until)
    return PauseInfo(
        actor=actor[:_LONGEST] if isinstance(actor, str) else "",
        reason=reason[:_LONGEST] if isinstance(reason, str) else "",
        since=float(since) if isinstance(since, (int, float)) and not isinstance(since, bool) and abs(since) < 1e300 else None,  # noqa: PLR2004 -- what float() takes.
        until=until,
    )
