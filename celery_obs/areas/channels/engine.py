"""
What every part of the sync engine needs: where to say what happens, the settings, and the way to Redis.

One a process.  Without `celery_obs.setup` there is a silent one: no observer hears, nothing is shared, and every call goes through.
"""

from __future__ import annotations

import threading

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from celery_obs.clock import Clock, wall
from celery_obs.runtime.hub import ErrorReporter, Hub
from celery_obs.settings import Settings
from celery_obs.state.connection import connect as connect_redis


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Engine", "connect", "current", "disconnect"]


T = TypeVar("T")


class Engine:
    """
    The sync engine of one process.

    Args:
        hub: Hears of everything.

        settings: As they were loaded.

        clock: Tells the time.

        redis: The shared state; by default where the settings say.

    Attributes:
        redis: The shared state; None where no Redis is configured, so that nothing is shared.

    Threads: safe.  Forks: safe, for the client connects anew in a child; no connection is made before the first command.
    """

    def __init__(self, *, hub: Hub, settings: Settings, clock: Clock = wall, redis: Redis | None = None) -> None:
        self.hub = hub
        self.settings = settings
        self.clock = clock
        self.redis = connect_redis(settings.redis) if redis is None and settings.redis else redis
        self._parts: dict[Callable[[Engine], Any], Any] = {}
        self._lock = threading.RLock()  # A part may be made of others.

    def part(self, make: Callable[[Engine], T]) -> T:
        """
        Return what *make* made of this engine when it was first asked: the registry of breakers, the limiter, and so on.
        """
        found = self._parts.get(make)
        if found is None:
            with self._lock:
                found = self._parts.get(make)
                if found is None:
                    found = self._parts[make] = make(self)
        return found

    def after_fork(self) -> None:
        """
        Become usable in a child, whatever other threads of the parent were doing.
        """
        self._lock = threading.RLock()  # A part may be made of others.
        for part in list(self._parts.values()):
            renew = getattr(part, "after_fork", None)
            if renew is not None:
                renew()

    def flush(self, *, within: float) -> None:
        """
        Have every part that keeps something back write it, because this process is about to end.

        Args:
            within: Seconds that each may wait for others.
        """
        for part in list(self._parts.values()):
            flush = getattr(part, "flush", None)
            if flush is not None:
                flush(within=within)


_SILENT: Final = Settings(metrics_dir=Path("/nonexistent"))

_provide: Callable[[], Engine | None] | None = None
_silent: Engine | None = None


def connect(provide: Callable[[], Engine | None]) -> None:
    """
    Have *provide* tell this process's engine from now on.
    """
    global _provide  # noqa: PLW0603 -- one engine a process, as one plugin a process.
    _provide = provide


def disconnect() -> None:
    """
    Be silent from now on.
    """
    global _provide  # noqa: PLW0603 -- see connect.
    _provide = None


def current() -> Engine:
    """
    Return this process's engine; a silent one without `celery_obs.setup`.  Never raises.
    """
    engine = _provide() if _provide is not None else None
    return engine if engine is not None else _nobody()


def _nobody() -> Engine:
    global _silent  # noqa: PLW0603 -- made once, when it is first needed.
    if _silent is None:
        _silent = Engine(hub=Hub(on_error=ErrorReporter()), settings=_SILENT)
    return _silent
