"""
What operators did, and who, and why: one line in the log for each, and an entry of a stream in Redis that all exporters share.
"""

from __future__ import annotations

import getpass
import json
import logging
import socket

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from celery_obs.clock import Clock, wall

from . import keys


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Audit", "current_user"]


LONGEST: Final = 500
"""
Characters of anything that is written down; what people type has no end.
"""

KEPT: Final = 1000
KEPT_FOR: Final = 90 * 24 * 3600

log = logging.getLogger("celery_obs.audit")


class Audit:
    """
    Writes down what was done.

    Args:
        redis: Where the stream is; None for the log alone.

        clock: Tells the time.
    """

    def __init__(self, redis: Redis | None, *, clock: Clock = wall) -> None:
        self._redis: Any = redis
        self._clock = clock

    def write(self, action: str, *, actor: str, reason: str, channel: str = "", outcome: str = "done", **facts: object) -> None:
        """
        Write down that *actor* did *action*, or was refused; never raises.

        The line in the log comes first and always.  A stream that cannot be written is told in the log.

        Args:
            facts: What else there is to know.  Never a secret.
        """
        entry = {
            "at": datetime.fromtimestamp(self._clock(), timezone.utc).isoformat(timespec="milliseconds"),
            "action": action,
            "actor": actor,
            "reason": reason,
            "channel": channel,
            "outcome": outcome,
            **facts,
        }
        shown = {name: _short(value) for name, value in entry.items()}
        log.info("%s", json.dumps(shown))
        if self._redis is None:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.xadd(
                    keys.AUDIT, {name: str(value).encode(errors="replace") for name, value in shown.items()}, maxlen=KEPT, approximate=True
                )
                pipe.expire(keys.AUDIT, KEPT_FOR)
                pipe.execute()
        except Exception as error:  # noqa: BLE001 -- a network client raises what it likes; the line is in the log.
            log.warning("The audit entry above is in this log only; the stream in Redis cannot be written: %s", type(error).__name__)


def current_user() -> str:
    """
    Name the user who runs this process, as ``user@host``.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user without a name.
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _short(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
    return value if value is None or isinstance(value, (bool, int, float)) else _short(str(value))
