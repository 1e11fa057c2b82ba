"""
The history: what the sidecar's looks at its own page cost, beside a scrape.
"""

from __future__ import annotations

import contextlib
import time

from pathlib import Path
from typing import Final

from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.exporter.history.file import moment
from celery_obs.exporter.history.of_areas import declared
from celery_obs.exporter.history.sampler import History, Reading
from celery_obs.exporter.options import HISTORY_BYTES
from celery_obs.exporter.scrape import InternalErrors

from .content import Fleet
from .harness import Limit, Report, Samples, fast_folder, in_turns


MILLI: Final = 1e3
_LOOKS: Final = 5


def measure(*, quick: bool) -> Report:
    """
    Measure the processor time of a scrape, and of what a look adds to it.
    """
    slots, lines = (8, 200) if quick else (64, 2000)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(fast_folder())
        fleet = Fleet(folder, slots=slots, lines=lines)
        stack.callback(fleet.close)
        taken = _measure(fleet, folder, rounds=2 if quick else 20)
    look = taken.median("look")
    limits = [] if quick else [Limit(what="a look each second, of a processor", measured=look / 10, bound=1.0, unit="%")]
    return Report(
        name="history",
        title=f"processor time of a look at {slots} x {lines}, all changed, ms",
        columns=("what", "median", "least"),
        rows=[(name, taken.median(name), taken.least(name)) for name in ("scrape", "look")],
        limits=limits,
        notes=["scrape: metric files to finished text.  look: the same, and what is remembered of it found and written into the file."],
        samples={name: list(values) for name, values in taken.taken.items()},
    )


def _measure(fleet: Fleet, folder: Path, *, rounds: int) -> Samples:
    errors, remembered = InternalErrors(), tuple(declared())
    collector, reading = WorkersCollector(folder, errors=errors), Reading(remembered)
    history = History(folder / "history", HISTORY_BYTES, remembered, errors=errors)
    assert history.claim()

    def scrape() -> float:
        took = []
        for _ in range(_LOOKS):
            fleet.change()
            begin = time.process_time()
            collector.collect()
            took.append((time.process_time() - begin) * MILLI)
        return sorted(took)[_LOOKS // 2]

    def look() -> float:
        took = []
        for _ in range(_LOOKS):
            fleet.change()
            begin = time.process_time()
            history.append(moment(), reading.values([collector.collect().text]), period=1.0, zero_before=())
            took.append((time.process_time() - begin) * MILLI)
        return sorted(took)[_LOOKS // 2]

    taken = in_turns({"scrape": scrape, "look": look}, rounds=rounds)
    history.close()
    return taken
