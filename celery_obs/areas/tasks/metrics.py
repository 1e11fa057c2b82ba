"""
Tasks: what can happen to a task, and what is counted.

Events are named tuples: immutable like a frozen dataclass, and made in a fifth of the time, which the hot path needs.
An *attempt* is one execution of a task's body; a task that retries twice has three attempts.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from celery_obs.vocabulary.spec import Metric


__all__ = [
    "ATTEMPTS",
    "CLOCK_SKEW",
    "CPU",
    "CPU_DELAY",
    "FAILURES",
    "FINAL_STATES",
    "FINISHED",
    "HELD_BACK",
    "IN_PROGRESS",
    "LATENCY",
    "LONGEST_RUNNING",
    "MALFORMED",
    "MEMORY_GROWTH",
    "PUBLISHED",
    "QUEUE_WAIT",
    "RECEIVED",
    "RETRIES",
    "RUNTIME",
    "STARTED",
    "STATES",
    "SUCCEEDED_ENTRY",
    "UNREGISTERED",
    "TaskState",
]


TaskState: TypeAlias = Literal["success", "failure", "retry", "ignored", "rejected", "revoked", "lost", "timeout", "terminated"]
"""
How an attempt, or a task that was never attempted, ended.

*lost*: its process died unexpectedly.  *timeout*: killed by its hard time limit.  *terminated*: killed by ``revoke(terminate=True)``.
A soft time limit is an exception inside the task like any other: *failure*, or what the task makes of it.
"""

STATES: Final[tuple[TaskState, ...]] = (
    "success",
    "failure",
    "retry",
    "ignored",
    "rejected",
    "revoked",
    "lost",
    "timeout",
    "terminated",
)

FINAL_STATES: Final[frozenset[TaskState]] = frozenset({"success", "failure", "ignored", "timeout", "terminated"})
"""
The states of an attempt after which the task is not tried again by itself: its latency and its number of attempts are known.

A rejected or lost attempt may come back by redelivery, so it is not among them.
"""

HELD_BACK: Final = "HeldBack"
"""
What a `TaskFinished` names as its exception when the attempt was put back into its queue because its channel is paused: *ignored*, and not final.
"""

MALFORMED: Final = "_malformed"
"""
The task label of messages that are no task messages.
"""

UNREGISTERED: Final = "_unregistered"
"""
The task label of messages whose task this worker does not know: the name in such a message is unchecked text.
"""


_RUNTIME_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)
_WAIT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0)
_LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0)

_TASK_QUEUE = ("task", "queue")

PUBLISHED = Metric(
    kind="counter",
    name="celery_task_published_total",
    help="How many tasks are published? Task messages that the broker accepted from this process.",
    labels=_TASK_QUEUE,
)
RECEIVED = Metric(
    kind="counter",
    name="celery_task_received_total",
    help="Do tasks reach the workers? Task messages received from the broker, redeliveries included.",
    labels=_TASK_QUEUE,
)
STARTED = Metric(
    kind="counter",
    name="celery_task_started_total",
    help="Do workers start tasks? Attempts started.",
    labels=_TASK_QUEUE,
)
FINISHED = Metric(
    kind="counter",
    name="celery_task_finished_total",
    help="How do tasks end? Attempts, and tasks that were never attempted, by outcome, each counted once.",
    labels=("task", "queue", "state"),
)
FAILURES = Metric(
    kind="counter",
    name="celery_task_failures_total",
    help="Why do tasks fail, and were their retries exhausted? Attempts that ended as failure, timeout or lost, by exception class.",
    labels=("task", "queue", "exception", "exhausted"),
)
RETRIES = Metric(
    kind="counter",
    name="celery_task_retries_total",
    help="Why do tasks retry? Attempts that asked for a retry, by exception class.",
    labels=("task", "queue", "reason"),
)
ATTEMPTS = Metric(
    kind="histogram",
    name="celery_task_attempts",
    help="How many attempts does a task need? Attempts until its final outcome.",
    labels=_TASK_QUEUE,
    buckets=(1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0),
)
RUNTIME = Metric(
    kind="histogram",
    name="celery_task_runtime_seconds",
    help="How long does an attempt take, failed and killed ones included? Time between prerun and postrun.",
    labels=("task", "queue", "state"),
    buckets=_RUNTIME_BUCKETS,
    resolution=1e-9,
)
QUEUE_WAIT = Metric(
    kind="histogram",
    name="celery_task_queue_wait_seconds",
    help="How long do tasks wait before they start? Seconds from publish (or ETA) to start.",
    labels=_TASK_QUEUE,
    buckets=_WAIT_BUCKETS,
    resolution=1e-6,
)
LATENCY = Metric(
    kind="histogram",
    name="celery_task_latency_seconds",
    help="How long until a task is done? Seconds from its first due time to its final outcome, retries included.",
    labels=_TASK_QUEUE,
    buckets=_LATENCY_BUCKETS,
    resolution=1e-6,
)
IN_PROGRESS = Metric(
    kind="gauge",
    name="celery_task_in_progress",
    help="What is running now? Attempts in processes that are alive.",
    labels=("task",),
)
LONGEST_RUNNING = Metric(
    kind="gauge",
    name="celery_task_longest_running_seconds",
    help="Is a task hung? Age of the oldest running attempt, right even if its process does not respond.",
    labels=("task",),
)
CPU = Metric(
    kind="counter",
    name="celery_task_cpu_seconds_total",
    help="Which task uses the processors? Processor time of pool processes while they ran it, sampled by the sidecar each second.",
    labels=("task",),
)
CPU_DELAY = Metric(
    kind="counter",
    name="celery_task_cpu_delay_seconds_total",
    help="Do tasks wait for a processor? Time for which pool processes could have run it, and others ran; sampled by the sidecar each second.",
    labels=("task",),
)
MEMORY_GROWTH = Metric(
    kind="gauge",
    name="celery_task_memory_growth_bytes",
    help="Which task leaks? Estimate of the resident memory that its runs added to pool processes, less what they gave back, since the sidecar started.",
    labels=("task",),
)
CLOCK_SKEW = Metric(
    kind="counter",
    name="celery_task_clock_skew_total",
    help="Are the waiting times right? Attempts that started before they were published, because clocks disagree.",
    labels=("queue",),
)
SUCCEEDED_ENTRY = Metric(
    kind="gauge",
    name="celery_beat_entry_last_success_timestamp_seconds",
    help="When did this schedule entry last succeed? Time of the last success of a task that it published.",
    labels=("entry",),
    aggregate="mostrecent",
)
