"""
A scrape: from metric files to finished text, beside prometheus_client's own collector on files with the same numbers.
"""

from __future__ import annotations

import contextlib
import gc
import math
import resource
import time

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.exporter.scrape import InternalErrors

from .content import Fleet, write_stock
from .harness import Limit, Report, Samples, fast_folder, in_turns


SIZES: Final = ((8, 200), (8, 2000), (64, 200), (64, 2000), (512, 200), (512, 2000))
MILLI: Final = 1e3


def measure(*, quick: bool) -> Report:
    """
    Measure each size; the one that we promised something about gets the most rounds.
    """
    _allow_files()
    rows: list[tuple[str | float, ...]] = []
    samples: dict[str, list[float]] = {}
    promised: Samples | None = None
    for slots, lines in SIZES[:1] if quick else SIZES:
        rounds = 2 if quick else 12 if (slots, lines) == (64, 2000) else 4
        taken, same = _measure_size(slots, lines, rounds)
        samples |= {f"{slots} x {lines} {name}": list(values) for name, values in taken.taken.items()}
        if (slots, lines) == (64, 2000):
            promised = taken
        rows.append(
            (
                f"{slots} x {lines}",
                taken.median("cold"),
                taken.median("unchanged"),
                taken.least("changed"),
                taken.median("changed"),
                taken.median("stock"),
                taken.times("stock", "changed"),
                same,
            )
        )
    limits = []
    if promised is not None:
        limits = [
            Limit(what="64 x 2,000, all changed, best", measured=promised.least("changed"), bound=3.0, unit="ms"),
            Limit(what="64 x 2,000, all changed, median", measured=promised.median("changed"), bound=3.0, unit="ms"),
            Limit(
                what="against MultiProcessCollector", measured=promised.times("stock", "changed"), bound=100.0, unit="times", at_least=True
            ),
        ]
    return Report(
        name="scrape",
        title="files to finished text, ms",
        columns=(
            "slots x lines",
            "cold",
            "nothing changed",
            "all changed, best",
            "all changed, median",
            "prometheus_client",
            "times faster",
            "equal",
        ),
        rows=rows,
        limits=limits,
        notes=[
            "Each slot is held by a living process; our text is written in both formats, theirs in one.",
            "prometheus_client: MultiProcessCollector and generate_latest on files with the same numbers, in the same rounds.",
            "equal: samples of theirs that are in our text with the same value, checked before measuring.",
        ],
        samples=samples,
    )


def _measure_size(slots: int, lines: int, rounds: int) -> tuple[Samples, str]:
    with contextlib.ExitStack() as stack:
        ours, theirs = stack.enter_context(fast_folder()), stack.enter_context(fast_folder())
        fleet = Fleet(ours, slots=slots, lines=lines)
        stack.callback(fleet.close)
        write_stock(fleet, theirs)
        collector = WorkersCollector(ours, errors=InternalErrors())
        same = _compare(collector, theirs)
        variants: Mapping[str, Callable[[], float]] = {
            "cold": partial(_cold, ours),
            "unchanged": partial(_best, collector, lambda: None),
            "changed": partial(_best, collector, fleet.change),
            "stock": partial(_stock, theirs),
        }
        return in_turns(variants, rounds=rounds), same


def _best(collector: WorkersCollector, change: Callable[[], None]) -> float:
    """
    Return the median of five scrapes, in milliseconds: one alone after a benchmark of another kind would find cold caches.
    """
    taken = []
    for _ in range(5):
        change()
        began = time.perf_counter()
        collector.collect()
        taken.append((time.perf_counter() - began) * MILLI)
    return sorted(taken)[2]


def _cold(folder: Path) -> float:
    began = time.perf_counter()
    WorkersCollector(folder, errors=InternalErrors()).collect()
    return (time.perf_counter() - began) * MILLI


def _stock(folder: Path) -> float:
    gc.collect()
    began = time.perf_counter()
    _stock_text(folder)
    return (time.perf_counter() - began) * MILLI


def _stock_text(folder: Path) -> str:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return generate_latest(registry).decode()


def _compare(collector: WorkersCollector, stock: Path) -> str:
    """
    Say how many of the official samples ours has, too; stop if one differs, for then there is nothing to compare.
    """
    ours, theirs = _samples(collector.collect().text), _samples(_stock_text(stock))
    wrong = [key for key, value in theirs.items() if not math.isclose(ours.get(key, math.nan), value, rel_tol=1e-12)]  # Theirs add floats.
    if wrong:
        message = (
            f"{len(wrong)} of {len(theirs)} samples differ, the first is {wrong[0]}: expected {theirs[wrong[0]]}, got {ours.get(wrong[0])}."
        )
        raise SystemExit(message)
    return str(len(theirs))


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _allow_files() -> None:
    """
    Open as many files as one may, as the sidecar does.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
