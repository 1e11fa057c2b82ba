"""
What if there were more pool processes: recorded arrivals and runtimes, played again through a queue with another number of servers.

The model is one line, first come first served, before a pool of equal processes (G/G/c in Kendall's notation): an attempt begins when it has arrived, all that
arrived before it have begun, and a process is free.  Its runtime stays what it was, plus the pause that a busy process was seen to make between two attempts.
What the model leaves out: prefetching, priorities, and that tasks may slow each other down.  So it is held against what was measured first.
"""

from __future__ import annotations

import heapq

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple


__all__ = ["Answer", "Job", "Outcome", "Run", "outcome", "pause_between", "play", "simulate"]


class Run(NamedTuple):
    """
    An attempt as it was recorded.

    Attributes:
        process: What ran it.

        started_at: Seconds since the epoch.

        runtime: Seconds.

        wait: Seconds from publish (or ETA) to start; None where not known, which is taken for none.

        is_asked_about: Whether its wait is part of the answer: others only keep processes busy.
    """

    process: tuple[str, int]
    started_at: float
    runtime: float
    wait: float | None
    is_asked_about: bool

    @property
    def arrived_at(self) -> float:
        """
        When it could have begun.
        """
        return self.started_at - (self.wait or 0.0)


class Job(NamedTuple):
    """
    An attempt in the simulation: when it arrives, and for how long it keeps a process busy, in seconds.
    """

    arrived_at: float
    busy: float


class Outcome(NamedTuple):
    """
    How long attempts waited, in seconds, and which share of their time the processes were busy.
    """

    processes: int
    median: float
    p95: float
    longest: float
    busy: float


class Answer(NamedTuple):
    """
    What was, what the model makes of what was, and what it makes of another number of processes.

    Attributes:
        measured: How it was.

        simulated: The same number of processes in the model: as far as it is from *measured*, so far may *changed* be from what will be.

        changed: Another number of processes in the model.

        since: When the period began, in seconds since the epoch.

        until: When it ended.

        attempts: How many attempts the answer is about.
    """

    measured: Outcome
    simulated: Outcome
    changed: Outcome
    since: float
    until: float
    attempts: int


def simulate(runs: Sequence[Run], *, more: int) -> Answer:
    """
    Tell how long attempts would have waited with another number of processes.

    Args:
        runs: All attempts of the processes in a period, one of them at least asked about.

        more: Processes more, or fewer where negative.

    Raises:
        ValueError: if no process would be left.
    """
    processes = len({run.process for run in runs})
    if processes + more < 1:
        message = f"{processes} processes ran it, so that {more:+} leaves none. Expected {1 - processes:+} or more."
        raise ValueError(message)
    ordered = sorted(runs, key=lambda run: run.arrived_at)
    since, until = min(run.started_at for run in runs), max(run.started_at + run.runtime for run in runs)
    pause = pause_between(runs)
    jobs = [Job(run.arrived_at, run.runtime + pause) for run in ordered]
    busy = sum(run.runtime for run in runs)

    def summed(waits: Sequence[float], processes: int) -> Outcome:
        asked = [wait for run, wait in zip(ordered, waits, strict=True) if run.is_asked_about]
        begun = [run.arrived_at + wait for run, wait in zip(ordered, waits, strict=True)]
        took = max(at + run.runtime for run, at in zip(ordered, begun, strict=True)) - min(begun)  # A backlog is worked off sooner by more.
        return outcome(asked, processes=processes, busy=busy, seconds=took)

    return Answer(
        measured=summed([run.wait or 0.0 for run in ordered], processes),
        simulated=summed(play(jobs, processes), processes),
        changed=summed(play(jobs, processes + more), processes + more),
        since=since,
        until=until,
        attempts=sum(1 for run in runs if run.is_asked_about),
    )


def play(jobs: Sequence[Job], processes: int) -> list[float]:
    """
    Return how long each job waits before a pool of so many processes.

    Args:
        jobs: In the order of their arrival.

        processes: At least one.

    With more processes no job waits longer (each begins when the earliest process is free, and none is free later).
    """
    free = [float("-inf")] * processes
    waits = []
    for job in jobs:
        begins = max(job.arrived_at, free[0])
        heapq.heapreplace(free, begins + job.busy)
        waits.append(begins - job.arrived_at)
    return waits


def pause_between(runs: Iterable[Run]) -> float:
    """
    Return the seconds between two attempts of a process that had the next one waiting: the median of those seen, 0 where none was.
    """
    by_process: defaultdict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        by_process[run.process].append(run)
    pauses = []
    for own in by_process.values():
        own.sort(key=lambda run: run.started_at)
        for before, after in pairwise(own):
            ended_at = before.started_at + before.runtime
            if after.arrived_at <= ended_at <= after.started_at:
                pauses.append(after.started_at - ended_at)
    return median(pauses) if pauses else 0.0


def outcome(waits: Iterable[float], *, processes: int, busy: float, seconds: float) -> Outcome:
    """
    Sum up how long attempts waited.

    Args:
        waits: Seconds; at least one.

        processes: How many there were.

        busy: Seconds for which they ran attempts, all together.

        seconds: How long it all took.
    """
    ordered = sorted(waits)
    share = busy / (processes * seconds) if seconds > 0 else 0.0
    return Outcome(processes, _quantile(ordered, 0.5), _quantile(ordered, 0.95), ordered[-1], min(1.0, share))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """
    Return the value that so many are at or below: the nearest rank.
    """
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
