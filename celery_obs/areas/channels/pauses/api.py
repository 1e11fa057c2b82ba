"""
Is a channel paused?  Asked before every sync task, so the answer is kept for a second, and no task waits for a Redis that is away.
"""

from __future__ import annotations

import threading
import time

from typing import Final

from celery_obs.areas.channels import engine
from celery_obs.areas.channels.engine import Engine
from celery_obs.areas.channels.outage import Outage
from celery_obs.state import keys

from .state import Pauses


__all__ = ["PauseCheck", "is_paused"]


COMPONENT: Final = "pauses"
_GOOD_FOR: Final = 1.0
_MOST: Final = 10_000


def is_paused(channel: str) -> bool:
    """
    Tell whether *channel* is paused, as it was at most a second ago.

    Without a Redis, and while it does not answer, nothing is paused.
    """
    return engine.current().part(PauseCheck).is_paused(channel)


class PauseCheck:
    """
    Ask Redis, and remember what it said.

    Args:
        made_for: The engine whose Redis is asked; its timeout is the longest wait here, once in a while.

    Threads: safe; while one asks, the others take the answer before.  Forks: see `after_fork`.
    """

    def __init__(self, made_for: Engine) -> None:
        self._pauses = Pauses(made_for.redis) if made_for.redis is not None else None
        self._outage = made_for.part(Outage)
        self._known: dict[str, tuple[float, bool]] = {}
        self._asking = threading.Lock()

    def after_fork(self) -> None:
        """
        Become usable in a child, whatever other threads of the parent were doing.
        """
        self._asking = threading.Lock()

    def is_paused(self, channel: str) -> bool:
        """
        Tell whether *channel* is paused.
        """
        if self._pauses is None:
            return False
        asked, answer = self._known.get(channel, (-_GOOD_FOR, False))
        if time.monotonic() - asked < _GOOD_FOR:
            return answer
        asking = self._asking
        if not asking.acquire(blocking=False):
            return answer
        try:
            return self._ask(self._pauses, channel)
        finally:
            asking.release()

    def _ask(self, pauses: Pauses, channel: str) -> bool:
        answer = self._outage.ask(COMPONENT, keys.paused(channel), lambda: pauses.is_paused(channel))
        if answer is None:
            return False
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[channel] = (time.monotonic(), answer)
        return answer
