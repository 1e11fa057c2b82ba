"""
What a worker's main process knows of itself: its pool, its messages, its children.
"""

from __future__ import annotations

import os

from collections.abc import Iterator
from typing import Any

from celery.worker import state

from celery_obs.areas.workers import metrics as workers
from celery_obs.clock import Clock, wall
from celery_obs.compat.billiard import processes_of
from celery_obs.compat.celery import scheduled_requests
from celery_obs.recorder.recorder import Recorder

from .processes import usage


__all__ = ["WorkerState", "attempts_at_once", "is_order", "pool_kind", "pool_pids"]


def pool_kind(worker: Any) -> str:
    """
    Return the kind of a worker's pool as one writes it after ``--pool``.
    """
    kind = str(worker.pool_cls.__module__).rpartition(".")[2]
    return {"thread": "threads"}.get(kind, kind)


def attempts_at_once(worker: Any) -> int:
    """
    Return how many attempts the main process itself may run at once: none with a pool of processes.
    """
    kind = pool_kind(worker)
    if kind == "prefork":
        return 0
    if kind == "solo":
        return 1
    return int(max(worker.concurrency or 1, worker.max_concurrency or 0, 2))


def pool_pids(worker: Any) -> frozenset[int] | None:
    """
    Return the processes of a worker's pool; None where it has none.
    """
    processes = processes_of(worker.pool)
    if pool_kind(worker) != "prefork" or processes is None:
        return None
    return frozenset(process.pid for process in processes if process.pid)


def is_order(code: object) -> bool:
    """
    Tell whether Celery's ``should_stop`` or ``should_terminate`` holds an order to end: an exit code, which may be 0, or a text.
    """
    return code is not None and code is not False


class WorkerState:
    """
    Look at a worker and record what is there.

    Args:
        worker: The worker.

        recorder: Where to record it.

        clock: Tells the time.
    """

    def __init__(self, worker: Any, recorder: Recorder, *, clock: Clock = wall) -> None:
        self._worker = worker
        self._recorder = recorder
        self._clock = clock
        self._cpu: dict[str, tuple[int, float]] = {}
        self._slots: frozenset[str] = frozenset()

    def describe(self, version: str) -> None:
        """
        Record what does not change.
        """
        self._recorder.set(workers.INFO, (self._name, version, pool_kind(self._worker)), 1.0, at=self._clock())
        self._recorder.declare([(workers.PROCESS_RESTARTS, (self._name, reason)) for reason in workers.RESTART_REASONS])

    @property
    def _name(self) -> str:
        return str(self._worker.hostname)

    def record(self) -> None:
        """
        Record what is there now.
        """
        now = self._clock()
        active, reserved = len(state.active_requests), len(state.reserved_requests)
        for metric, value in (
            (workers.HEARTBEAT, now),
            (workers.POOL_SIZE, self._pool_size()),
            (workers.POOL_BUSY, active),
            (workers.RESERVED, max(0, reserved - active)),
            (workers.SCHEDULED, scheduled_requests(self._worker)),
        ):
            self._recorder.set(metric, (self._name,), value, at=now)
        processes = dict(self._processes())
        self._follow(frozenset(processes))
        for slot, pid in processes.items():
            self._record_process(slot, pid, now)

    def _follow(self, slots: frozenset[str]) -> None:
        """
        Give the places of the pool that are taken now their series, and let the gauges of those that are not end.
        """
        if slots == self._slots:
            return
        self._recorder.declare(
            [(metric, (self._name, slot)) for slot in sorted(slots) for metric in (workers.RESIDENT_MEMORY, workers.CPU_SECONDS)]
        )
        self._recorder.clear(workers.RESIDENT_MEMORY, keep=slots, label=1)
        self._cpu = {slot: known for slot, known in self._cpu.items() if slot in slots}
        self._slots = slots

    def _record_process(self, slot: str, pid: int, now: float) -> None:
        used = usage(pid)
        if used is None:
            return
        self._recorder.set(workers.RESIDENT_MEMORY, (self._name, slot), used.resident_bytes, at=now)
        known_pid, known = self._cpu.get(slot, (pid, 0.0))
        spent = used.cpu_seconds - (known if known_pid == pid else 0.0)
        self._cpu[slot] = (pid, used.cpu_seconds)
        self._recorder.count(workers.CPU_SECONDS, (self._name, slot), max(0, round(spent / workers.CPU_SECONDS.resolution)))

    def _pool_size(self) -> int:
        try:
            return int(self._worker.pool.num_processes)
        except (AttributeError, NotImplementedError, TypeError):
            return int(self._worker.concurrency or 1)

    def _processes(self) -> Iterator[tuple[str, int]]:
        yield "main", os.getpid()
        for process in processes_of(self._worker.pool) or ():
            index, pid = getattr(process, "index", None), getattr(process, "pid", None)
            if index is not None and pid:
                yield str(index), pid
