"""
What the operating system knows of the pool's processes, and why one was replaced.
"""

from __future__ import annotations

import os
import resource
import sys

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from celery_obs.areas.workers.metrics import RestartReason
from celery_obs.compat.billiard import EXIT_RECYCLED, EXIT_TERMINATED, has_processes, leaving_by_order
from celery_obs.recorder.format import Exit
from celery_obs.runtime.hub import guarded

from .hub import OnError


__all__ = ["Usage", "exit_word", "note_removals", "restart_reason", "usage"]


_REASONS: Final[dict[int, RestartReason]] = {Exit.RECYCLED: "recycled", Exit.MEMORY: "memory", Exit.LEFT: "lost", Exit.TIMEOUT: "timeout"}


class Usage(NamedTuple):
    """
    What a process uses.
    """

    resident_bytes: int
    cpu_seconds: float


def usage(pid: int) -> Usage | None:
    """
    Read what process *pid* uses from /proc; None where it is gone or the system has no /proc.
    """
    folder = Path("/proc") / str(pid)
    try:
        times = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        pages = (folder / "statm").read_bytes().split()[1]
    except (OSError, IndexError):
        return None
    # proc(5): utime and stime are fields 14 and 15, 11 and 12 behind the name in brackets.
    return Usage(int(pages) * os.sysconf("SC_PAGE_SIZE"), (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"))


def exit_word(exitcode: int, *, memory_limit: int | None) -> int:
    """
    Return what a leaving pool process writes into its slot, so that its successor knows why it went.

    Args:
        exitcode: What billiard passes to the shutdown signal.

        memory_limit: ``max_memory_per_child`` in KiB, if there is one.
    """
    if exitcode == EXIT_RECYCLED:
        return Exit.MEMORY if memory_limit and _peak_memory() > memory_limit else Exit.RECYCLED
    return Exit.SIGNAL if exitcode == EXIT_TERMINATED else Exit.LEFT


def restart_reason(word: int) -> RestartReason | None:
    """
    Tell from the word that a process left behind why it was replaced; None if it was not, but taken away before the pool grew again.
    """
    return None if word == Exit.REMOVED else _REASONS.get(word, "killed")


def note_removals(pool: Any, tell: Callable[[frozenset[int]], object], *, on_error: OnError) -> None:
    """
    Have *tell* hear of the processes that a worker's *pool* takes away to be smaller, which ``--autoscale`` and ``control.pool_shrink`` do.

    Args:
        pool: Celery's; one whose tasks are no processes is left alone.

        tell: Is given the ids of the processes that are on their way out by order, each maybe more than once.

        on_error: Hears of what it raises.
    """
    if not has_processes(pool):
        return
    shrink = pool.shrink

    def shrink_and_tell(*args: Any, **kwargs: Any) -> Any:
        try:
            return shrink(*args, **kwargs)
        finally:
            with guarded(on_error, "worker.pool"):
                tell(frozenset(process.pid for process in leaving_by_order(pool)))

    pool.shrink = shrink_and_tell


def _peak_memory() -> int:
    """
    Return this process's peak resident set in KiB, which is what billiard compares with the limit.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
