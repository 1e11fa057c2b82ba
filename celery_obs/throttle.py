"""
What keeps the log short: a thing that goes wrong all the time is a line a minute.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Callable

from celery_obs.clock import Clock


__all__ = ["LogThrottle", "ThrottleFilter"]


class LogThrottle:
    """
    Allow each thing to be logged once in a while.

    What is logged may come from a broken file or from anyone's request, so the number of keys that are remembered is bounded.

    Forks: without a lock, so that none is held for ever in a child.  Threads: any may ask; two that ask at the very same moment may both be allowed.

    Args:
        every: Seconds until the same key is allowed again; infinite for once only.

        most: How many keys are remembered; the oldest are forgotten first.

        clock: Seconds that only grow.
    """

    def __init__(self, *, every: float = 60.0, most: int = 1000, clock: Clock = time.monotonic) -> None:
        self._every = every
        self._most = most
        self._clock = clock
        self._last: dict[tuple[object, ...], float] = {}  # The oldest first.

    def allows(self, *key: object) -> bool:
        """
        Tell whether *key* was not allowed lately, and take it for logged now.
        """
        now = self._clock()
        last = self._last.get(key)
        if last is not None and now - last < self._every:
            return False
        self._last.pop(key, None)  # To stand at the end.
        self._last[key] = now
        # A copy, made at once: another thread may add to it meanwhile.
        for oldest in list(self._last)[: -self._most] if len(self._last) > self._most else ():
            self._last.pop(oldest, None)
        return True

    def knows(self, *key: object) -> bool:
        """
        Tell whether *key* was allowed before.
        """
        return key in self._last


class ThrottleFilter(logging.Filter):
    """
    Let a logger of another library write what a throttle allows.

    Args:
        key: What two records have in common that are the same to people.

        throttle: Once a minute for each key, if nothing else is said.
    """

    def __init__(self, key: Callable[[logging.LogRecord], object], throttle: LogThrottle | None = None) -> None:
        super().__init__()
        self._key = key
        self._throttle = throttle or LogThrottle()

    def filter(self, record: logging.LogRecord) -> bool:
        """
        Tell whether *record* is to be written.
        """
        return self._throttle.allows(self._key(record))
