"""
billiard: the pool of processes behind Celery's ``prefork``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final


__all__ = ["EXIT_RECYCLED", "EXIT_TERMINATED", "error_of", "has_processes", "leaving_by_order", "processes_of"]


EXIT_RECYCLED: Final = 155
"""
The code with which a process leaves that has run enough tasks, or uses too much memory.

Assumes: ``billiard.pool.EX_RECYCLE``, and that it is what the shutdown signal passes.
Seen on: billiard 4.2 to 4.3.
Lost: ``celery_worker_process_restarts_total`` says *lost* where it should say *recycled* or *memory*.
"""

EXIT_TERMINATED: Final = -241
"""
The code with which a process leaves after SIGTERM.

Assumes: ``billiard.common`` exits with ``-(256 - SIGTERM)``.
Seen on: billiard 4.2 to 4.3.
Lost: ``celery_worker_process_restarts_total`` says *lost* where it should say *killed*.
"""


def processes_of(pool: Any) -> list[Any] | None:
    """
    Return the processes of a worker's *pool*, Celery's; None for a pool that has none.

    Assumes: Celery's pool has billiard's as ``_pool``, which has its processes as ``_pool``, a list of objects with ``pid`` and ``index``.
    Seen on: billiard 4.2 to 4.3, Celery 5.4 to 5.7.
    Lost: memory and CPU time of pool processes, attempts that are lost with a process whose end Celery does not tell, and why processes were replaced.
    """
    processes = getattr(getattr(pool, "_pool", None), "_pool", None)
    return None if processes is None else list(processes)


def has_processes(pool: Any) -> bool:
    """
    Tell whether a worker's *pool* is one of processes that can be made smaller.

    Assumes: as `processes_of`, and ``shrink`` of Celery's pool.
    Seen on: billiard 4.2 to 4.3, Celery 5.4 to 5.7.
    Lost: as for `leaving_by_order`.
    """
    return hasattr(getattr(pool, "_pool", None), "_pool") and hasattr(pool, "shrink")


def leaving_by_order(pool: Any) -> Iterator[Any]:
    """
    Go through the processes of a worker's *pool* that were told to leave because it shrinks, and not because a task in them is terminated.

    Assumes: billiard marks the former with ``_controlled_termination``, and the latter with ``_job_terminated``.
    Seen on: billiard 4.2 to 4.3.
    Lost: processes that ``--autoscale`` takes away count as restarts.
    """
    for process in processes_of(pool) or ():
        if getattr(process, "_controlled_termination", False) and not getattr(process, "_job_terminated", False):
            yield process


def error_of(exc_info: Any) -> Any:
    """
    Return the exception in what the pool passes to a request's ``on_failure``.

    Assumes: it has ``exception``, and an exception that crossed processes is wrapped in one that has it as ``exc``.
    Seen on: billiard 4.2 to 4.3, Celery 5.4 to 5.7.
    Lost: attempts that end with their process are told late, after two looks at the pool.
    """
    error = getattr(exc_info, "exception", None)
    return getattr(error, "exc", error)
