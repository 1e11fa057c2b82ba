"""
What an exporter logs, once a minute: a collector that is away for a night is not a line for each batch.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Callable


__all__ = ["Seldom"]


class Seldom(logging.Filter):
    """
    Let one record a minute through, of each level.

    What is held back is in ``celery_obs_dropped_total`` all the same.
    """

    def __init__(self, *, pause: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._pause = pause
        self._clock = clock
        self._quiet_until: dict[int, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """
        Tell whether *record* is to be written.
        """
        now = self._clock()
        if now < self._quiet_until.get(record.levelno, now):
            return False
        self._quiet_until[record.levelno] = now + self._pause
        return True

    def install(self, logger: str) -> None:
        """
        Hold back what *logger* says, unless that is done.
        """
        found = logging.getLogger(logger)
        if not any(isinstance(each, Seldom) for each in found.filters):
            found.addFilter(self)
