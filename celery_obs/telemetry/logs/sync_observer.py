"""
The log observer of the areas: one line for what their events tell, under the names that people search for.

Written through the logger ``celery_obs.sync``, see `celery_obs.telemetry.logs.lines`.  What is written inside a run knows its channel and connection,
and so does the canonical line of the task around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from celery_obs.areas import left_out_if_broken, parts
from celery_obs.telemetry.redaction import Redactor

from .lines import SYNC, write


__all__ = ["LOGGER", "SyncLogObserver"]


LOGGER: Final = SYNC


class SyncLogObserver:
    """
    Write a line for each event of which an area says so.

    Args:
        redactor: Keeps secrets out of what a channel or a program says.

    Threads and forks: as the loggers.
    """

    def __init__(self, redactor: Redactor | None = None) -> None:
        self.redactor = redactor or Redactor()
        self._subscriptions: list[tuple[type, Callable[[Any], object]]] = []
        for area, part in parts("lines"):
            with left_out_if_broken(area, "lines"):
                self._subscriptions += part.Lines(self).subscriptions()

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that are worth a line, each with what writes it.
        """
        return self._subscriptions

    def write(self, level: int, name: str, **facts: Any) -> None:
        """
        Write a line.
        """
        write(SYNC, level, name, facts)
