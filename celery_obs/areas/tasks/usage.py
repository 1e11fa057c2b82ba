"""
Which task uses processors and memory: pool processes are looked at each second from outside, and what they used is shared among what they were at.

Processor time is shared out: a process that ran one attempt all the while used it for that one; of several attempts within a second each gets the share that
its runtime has.  What a process used while it was at nothing, and in its last second before it ended, belongs to no task.

Memory is not like that: a leak takes no time.  So what a run of each task adds to its process is estimated, by normalised least mean squares (B. Widrow and
M. E. Hoff, Adaptive Switching Circuits, 1960): what a second's runs were expected to add is held against what the process gained, and what is missing or too
much goes to their tasks in equal parts.  Tasks that often ran without a gain are told apart from the one that never did.
"""

from __future__ import annotations

import os

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from celery_obs.clock import Clock, wall
from celery_obs.recorder.attempt_log import AttemptLog, Spell


__all__ = ["Look", "Totals", "Usage", "look_at", "shares"]


_TICK: Final = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_NANO: Final = 1e-9
_OTHER: Final = "_other"
_MOST_TASKS: Final = 5000
_RATE: Final = 0.7  # How much of what is missing is believed at once: less learns slower, more follows noise.


class Look(NamedTuple):
    """
    What a process has used so far.

    Attributes:
        cpu: Seconds of processor time, of all its threads.

        delay: Seconds for which its main thread could have run, and did not.

        memory: Resident bytes, now.
    """

    cpu: float
    delay: float
    memory: int


def look_at(pid: int) -> Look | None:
    """
    Look at a process in /proc (proc(5)); None where it is gone, or there is no /proc.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    try:
        delay = int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) * _NANO
    except (OSError, ValueError, IndexError):  # A kernel without it.
        delay = 0.0
    return Look((int(stat[11]) + int(stat[12])) * _TICK, delay, pages * _PAGE)


def shares(spells: Iterable[Spell], begin: float, end: float) -> dict[str, float]:
    """
    Return which share of what a process used between *begin* and *end* belongs to which task: all of it, or nothing where it was at none.
    """
    overlaps: defaultdict[str, float] = defaultdict(float)
    for spell in spells:
        overlap = min(spell.ended_at, end) - max(spell.began_at, begin)
        if overlap > 0:
            overlaps[spell.task] += overlap
    whole = sum(overlaps.values())
    return {task: overlap / whole for task, overlap in overlaps.items()}


class Totals(NamedTuple):
    """
    What a task used since the sidecar started.

    Attributes:
        cpu: Seconds.

        delay: Seconds.

        runs: How many of its attempts were seen.

        gain: Bytes that a run adds to its process, as far as is known; negative where it gives back.
    """

    cpu: float = 0.0
    delay: float = 0.0
    runs: int = 0
    gain: float = 0.0

    @property
    def growth(self) -> float:
        """
        Bytes that its runs added to their processes.
        """
        return self.runs * self.gain


class Usage:
    """
    Add up what tasks use.

    Args:
        log: Knows what processes did.

        look: Looks at a process.

        clock: Tells the time.

    Attributes:
        totals: What each task used; 5,000 tasks at most, and ``_other`` for all else.

    Threads: `step` is called by one at a time; *totals* is replaced as a whole.
    """

    def __init__(self, log: AttemptLog, *, look: Callable[[int], Look | None] = look_at, clock: Clock = wall) -> None:
        self._log = log
        self._look = look
        self._clock = clock
        self._last: dict[tuple[str, int], tuple[int, float, Look]] = {}
        self._written: dict[tuple[str, int], int] = {}
        self.totals: Mapping[str, Totals] = {}

    def step(self) -> None:
        """
        Look at all processes once, and share out what each used since the last look.

        Raises:
            OSError: if the metrics directory cannot be read.
        """
        totals, last, written = dict(self.totals), {}, {}
        for work in self._log.work(self._written):
            key = (work.node, work.process)
            written[key] = work.written
            now, found = self._clock(), self._look(work.pid)
            if found is None:
                continue
            last[key] = (work.pid, now, found)
            pid, then, before = self._last.get(key, (0, now, found))
            if pid == work.pid:
                _add_time(totals, shares(work.spells, then, now), found.cpu - before.cpu, found.delay - before.delay)
                _learn_gains(totals, Counter(spell.task for spell in work.spells if spell.ended_at < now), found.memory - before.memory)
        self._last, self._written, self.totals = last, written, totals


def _name(totals: Mapping[str, Totals], task: str) -> str:
    return task if task in totals or len(totals) < _MOST_TASKS else _OTHER


def _add_time(totals: dict[str, Totals], parts: Mapping[str, float], cpu: float, delay: float) -> None:
    for task, part in parts.items():
        name = _name(totals, task)
        known = totals.get(name, Totals())
        totals[name] = known._replace(cpu=known.cpu + max(0.0, cpu) * part, delay=known.delay + max(0.0, delay) * part)


def _learn_gains(totals: dict[str, Totals], runs: Mapping[str, int], gained: int) -> None:
    """
    Take in that a process gained so many bytes in the time in which it ended these runs, of each task how many.
    """
    counts: Counter[str] = Counter()
    for task, number in runs.items():
        counts[_name(totals, task)] += number
    known = {name: totals.get(name, Totals()) for name in counts}
    missing = gained - sum(number * known[name].gain for name, number in counts.items())
    weight = sum(number * number for number in counts.values())
    for name, number in counts.items():
        gain = known[name].gain + _RATE * number * missing / weight
        totals[name] = known[name]._replace(runs=known[name].runs + number, gain=gain)
