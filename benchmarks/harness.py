"""
What all benchmarks share: taking turns, summing up, saying on which machine, printing and writing the result.

Machines are shared and clocks of cores change, so no number stands alone: variants run in turns, in both orders, many short times,
and what counts is the median of the differences and ratios within a round.  The minimum says what it costs undisturbed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final


__all__ = ["Limit", "Report", "Samples", "disk_folder", "fast_folder", "in_turns", "machine", "save", "show", "unchanged"]


RESULTS: Final = Path(__file__).parent / "results"
_PACKAGES: Final = ("celery", "kombu", "billiard", "redis", "prometheus-client", "celery-control")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """
    What we promised, and what it is.

    Attributes:
        what: What is limited, in words.

        measured: What came out.

        bound: The limit.

        unit: Of both.

        at_least: Whether the bound is a lower one.
    """

    what: str
    measured: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """
        Tell whether the promise is kept.
        """
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    One benchmark's result: a table, the limits, and what one has to know to read them.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | float]]
    limits: Sequence[Limit] = ()
    notes: Sequence[str] = ()
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Samples:
    """
    What the variants took, round by round.
    """

    def __init__(self, taken: Mapping[str, Sequence[float]]) -> None:
        self.taken = taken

    def median(self, name: str) -> float:
        """
        Return the median of *name*.
        """
        return statistics.median(self.taken[name])

    def least(self, name: str) -> float:
        """
        Return the smallest of *name*.
        """
        return min(self.taken[name])

    def costs(self, name: str, *, base: str, unit: float) -> tuple[str, float, float, float, float, float]:
        """
        Return a row of a table of costs: median and least, what that is above *base*, and as a multiple of *unit*.
        """
        added = self.above(name, base)
        return name, self.median(name), self.least(name), added, self.least(name) - self.least(base), added / unit

    def above(self, name: str, base: str) -> float:
        """
        Return by how much *name* is above *base*: the median of the differences within a round.
        """
        return statistics.median(mine - other for mine, other in zip(self.taken[name], self.taken[base], strict=True))

    def times(self, name: str, base: str) -> float:
        """
        Return how many times *base* one *name* is: the median of the ratios within a round.
        """
        return statistics.median(mine / other for mine, other in zip(self.taken[name], self.taken[base], strict=True))


def in_turns(variants: Mapping[str, Callable[[], float]], *, rounds: int) -> Samples:
    """
    Measure every variant once a round; each round starts with the next variant, and every other round goes backwards.

    Args:
        variants: What returns one measurement each.

        rounds: How often.
    """
    taken: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(rounds):
        first = number % len(names)
        order = names[first:] + names[:first]
        for name in order[:: -1 if number % 2 else 1]:
            taken[name].append(variants[name]())
    return Samples(taken)


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """
    Measure what is there without us: the variant that connects nothing.
    """
    yield


@contextlib.contextmanager
def fast_folder() -> Iterator[Path]:
    """
    Lend a folder in memory, where the system has such a place.
    """
    memory = Path("/dev/shm")  # noqa: S108 -- made with mkdtemp, so it is this user's alone.
    with _folder(memory if os.access(memory, os.W_OK) else None) as folder:
        yield folder


@contextlib.contextmanager
def disk_folder() -> Iterator[Path]:
    """
    Lend a folder on the disk that this file is on.
    """
    RESULTS.mkdir(exist_ok=True)
    with _folder(RESULTS) as folder:
        yield folder


@contextlib.contextmanager
def _folder(parent: Path | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="celery-obs-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def machine() -> dict[str, Any]:
    """
    Say what it ran on, without names and paths.
    """
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def show(report: Report) -> None:
    """
    Print a report as Markdown.
    """
    facts = machine()
    versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    print(f"\n## {report.name}: {report.title}\n")
    print(f"{facts['cpu']}, {facts['cores']} cores, {facts['kernel']}, {facts['python']}, {versions}\n")
    cells = [report.columns, *[tuple(map(_cell, row)) for row in report.rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(report.columns))]
    for number, row in enumerate(cells):
        print(
            "| "
            + " | ".join(
                cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            + " |"
        )
        if number == 0:
            print("|" + "|".join("-" * (width + 2) if at == 0 else "-" * (width + 1) + ":" for at, width in enumerate(widths)) + "|")
    print()
    for limit in report.limits:
        word = "at least" if limit.at_least else "at most"
        verdict = "met" if limit.is_met else "NOT MET"
        print(f"- {limit.what}: {_cell(limit.measured)} {limit.unit}, {word} {_cell(limit.bound)}: {verdict}")
    for note in report.notes:
        print(f"- {note}")
    sys.stdout.flush()


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:  # noqa: PLR2004 -- no decimals needed beyond.
        return f"{value:.0f}"
    return f"{value:.2f}"


def save(report: Report, folder: Path) -> Path:
    """
    Write a report as JSON, with the machine and every sample.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.name}.json"
    limits = [
        {
            "what": limit.what,
            "measured": limit.measured,
            "bound": limit.bound,
            "unit": limit.unit,
            "at_least": limit.at_least,
            "met": limit.is_met,
        }
        for limit in report.limits
    ]
    path.write_text(
        json.dumps(
            {
                "name": report.name,
                "title": report.title,
                "machine": machine(),
                "columns": report.columns,
                "rows": report.rows,
                "limits": limits,
                "notes": report.notes,
                "samples": report.samples,
            },
            indent=1,
        )
        + "\n"
    )
    return path
