"""
What tasks use of processors and memory, on the sidecar's page.
"""

from __future__ import annotations

import threading
import time

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from celery_obs.exporter.exposition import Page, family, render
from celery_obs.exporter.options import Sidecar
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.attempt_log import AttemptLog

from .metrics import CPU, CPU_DELAY, MEMORY_GROWTH
from .usage import Usage


__all__ = ["UsageCollector", "collectors"]


PERIOD: Final = 1.0
"""
Seconds between two looks at the processes.
"""

_UNASKED: Final = 600.0  # Seconds without a scrape after which nothing is looked at until the next one.


def collectors(sidecar: Sidecar) -> Iterator[UsageCollector]:
    """
    Make the collector, where the workers' processes can be seen.
    """
    if sidecar.options.serves_workers and Path("/proc/self/stat").exists():
        yield UsageCollector(Usage(AttemptLog(sidecar.options.directory)), errors=sidecar.errors)


class UsageCollector:
    """
    Look at the pool processes each second, from the first scrape on, and show what came together.

    Args:
        usage: Adds it up.

        errors: Counts looks that failed.

        period: Seconds between two looks.

    Threads: `collect` is called by one at a time; a daemon thread looks.
    """

    name: Final = "usage"
    inline: Final = True

    def __init__(self, usage: Usage, *, errors: InternalErrors, period: float = PERIOD) -> None:
        self._usage = usage
        self._errors = errors
        self._period = period
        self._asked_at = 0.0
        self._thread: threading.Thread | None = None

    def collect(self) -> Page:
        """
        Show what was seen so far.
        """
        self._asked_at = time.monotonic()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look_on, name="celery-obs-usage", daemon=True)
            self._thread.start()
        totals = sorted(self._usage.totals.items())
        return render(
            [
                family(CPU, [((task,), used.cpu) for task, used in totals]),
                family(CPU_DELAY, [((task,), used.delay) for task, used in totals]),
                family(MEMORY_GROWTH, [((task,), used.growth) for task, used in totals]),
            ]
        )

    def _look_on(self) -> None:
        while time.monotonic() - self._asked_at < _UNASKED:
            try:
                self._usage.step()
            except OSError:
                pass  # The directory cannot be read: the workers' collector says so.
            except Exception:  # noqa: BLE001 -- counted; the next look may work.
                self._errors.count("usage")
            time.sleep(self._period)
