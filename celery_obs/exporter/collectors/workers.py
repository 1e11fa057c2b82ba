"""
The workers' metrics, from their slot files.  A placeholder: the reader of slot files takes its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from celery_obs.clock import Clock, wall
from celery_obs.exporter.exposition import EMPTY, Page
from celery_obs.exporter.scrape import InternalErrors


__all__ = ["WorkersCollector"]


class WorkersCollector:
    """
    Shows nothing yet.
    """

    name: Final = "workers"
    inline: Final = True

    def __init__(self, metrics_dir: Path, *, errors: InternalErrors, clock: Clock = wall) -> None:
        self._metrics_dir = metrics_dir

    def collect(self) -> Page:
        return EMPTY
