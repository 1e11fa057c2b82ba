"""
Workers: their pools, pool processes and resources.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from celery_obs.vocabulary.spec import Metric


__all__ = [
    "CPU_SECONDS",
    "HEARTBEAT",
    "INFO",
    "POOL_BUSY",
    "POOL_SIZE",
    "PROCESS_RESTARTS",
    "RESERVED",
    "RESIDENT_MEMORY",
    "RESTART_REASONS",
    "SCHEDULED",
    "UP",
    "RestartReason",
]


RestartReason: TypeAlias = Literal["recycled", "killed", "lost", "timeout", "memory"]
"""
Why a pool process was replaced.

*recycled*: it had done ``max_tasks_per_child`` tasks.  *memory*: it was above ``max_memory_per_child``.  *timeout*: its task was over the hard limit.
*lost*: it left by itself in the middle of a task.  *killed*: a signal ended it, the kernel's OOM killer or ``revoke(terminate=True)`` included.
"""

RESTART_REASONS: Final[tuple[RestartReason, ...]] = ("recycled", "killed", "lost", "timeout", "memory")

UP = Metric(
    kind="gauge",
    name="celery_worker_up",
    help="Is the worker up? 1 while its main process holds its slot, 0 after that.",
    labels=("worker",),
)
HEARTBEAT = Metric(
    kind="gauge",
    name="celery_worker_heartbeat_timestamp_seconds",
    help="Does the worker respond? Time of its main process's last heartbeat.",
    labels=("worker",),
    aggregate="mostrecent",
)
POOL_SIZE = Metric(
    kind="gauge",
    name="celery_worker_pool_size",
    help="How large is the worker's pool? Its processes, threads or greenlets.",
    labels=("worker",),
)
POOL_BUSY = Metric(
    kind="gauge",
    name="celery_worker_pool_busy",
    help="How much of the pool is in use? Attempts that it is running.",
    labels=("worker",),
)
RESERVED = Metric(
    kind="gauge",
    name="celery_worker_reserved",
    help="How many messages are prefetched? Received and not yet started, those that wait for their ETA included.",
    labels=("worker",),
)
SCHEDULED = Metric(
    kind="gauge",
    name="celery_worker_scheduled",
    help="How many tasks wait for their ETA? Tasks with an ETA or a countdown in the worker's memory.",
    labels=("worker",),
)
INFO = Metric(
    kind="gauge",
    name="celery_worker_info",
    help="Which Celery runs there? Its version and kind of pool, always 1.",
    labels=("worker", "version", "pool"),
    aggregate="max",
)
PROCESS_RESTARTS = Metric(
    kind="counter",
    name="celery_worker_process_restarts_total",
    help="Why are pool processes replaced? Pool processes that were followed by a new one, by reason.",
    labels=("worker", "reason"),
)
RESIDENT_MEMORY = Metric(
    kind="gauge",
    name="celery_worker_process_resident_memory_bytes",
    help="Which pool process uses the memory? Resident set of the process in a pool slot.",
    labels=("worker", "slot"),
)
CPU_SECONDS = Metric(
    kind="counter",
    name="celery_worker_process_cpu_seconds_total",
    help="Which pool process uses the CPU? User and system time of the processes in a pool slot, one after the other.",
    labels=("worker", "slot"),
    resolution=1e-3,
)
