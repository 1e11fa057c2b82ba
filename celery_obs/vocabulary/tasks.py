"""
Tasks: what can happen to one, and what we count of it.

Events are named tuples: immutable like a frozen dataclass, and made in a fifth of the time, which the hot path needs.
An *attempt* is one execution of a task's body; a task that retries twice has three attempts.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from .spec import Metric


__all__ = [
    "ATTEMPTS",
    "CLOCK_SKEW",
    "FAILURES",
    "FINAL_STATES",
    "FINISHED",
    "HELD_BACK",
    "IN_PROGRESS",
    "LATENCY",
    "LONGEST_RUNNING",
    "MALFORMED",
    "PUBLISHED",
    "QUEUE_WAIT",
    "RECEIVED",
    "RETRIES",
    "RUNTIME",
    "STARTED",
    "STATES",
    "SUCCEEDED_ENTRY",
    "UNREGISTERED",
    "AttemptDoomed",
    "AttemptInterrupted",
    "AttemptLost",
    "AttemptNotBegun",
    "AttemptOpened",
    "AttemptRaised",
    "PublishEnded",
    "PublishStarted",
    "TaskDiscarded",
    "TaskFinished",
    "TaskPublished",
    "TaskReceived",
    "TaskRetried",
    "TaskStarted",
    "TaskState",
]


TaskState: TypeAlias = Literal["success", "failure", "retry", "ignored", "rejected", "revoked", "lost", "timeout", "terminated"]
"""
How an attempt, or a task that was never attempted, ended.

*lost*: its process died and nobody had asked for that.  *timeout*: killed by its hard time limit.  *terminated*: killed by ``revoke(terminate=True)``.
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
The task label of messages whose task this worker does not know: the name in such a message is anybody's text.
"""


class TaskPublished(NamedTuple):
    """
    The broker accepted a task message.
    """

    task: str
    queue: str


class PublishStarted(NamedTuple):
    """
    A task message is about to be published, in this thread.

    Attributes:
        task: Registered name of the task.

        queue: The queue that it is routed to.

        headers: The message's headers, which may still be added to.  Its identity is the key that `PublishEnded` repeats.

        message: Where the message says which task it is for: the same headers, or with protocol 1 the body.  Read only.

        is_followed: Whether a `PublishEnded` will follow, whatever happens; it does for the apps that `setup` was called with, and with traces.

        origin: The headers of the attempt that the message is sent for by a worker's main process, such as a lost one's errback; else None.
            Anybody's text.
    """

    task: str
    queue: str
    headers: MutableMapping[str, Any]
    message: Mapping[str, Any]
    is_followed: bool = False
    origin: Mapping[str, Any] | None = None


class PublishEnded(NamedTuple):
    """
    What `PublishStarted` began has ended, in the same thread, well or not.

    Attributes:
        headers: As there.

        error: What the broker's client raised; None where the broker took the message.
    """

    headers: Mapping[str, Any]
    error: BaseException | None


class TaskReceived(NamedTuple):
    """
    A worker's main process took a message from the broker, before any ETA.
    """

    task: str
    queue: str


class TaskStarted(NamedTuple):
    """
    An attempt begins, in the process, thread or greenlet that runs it.

    Attributes:
        task: Registered name of the task.

        queue: Name of the queue that it came from.

        task_id: Identifier for logs and traces.  Never a metric label: it is unbounded.

        retries: How many attempts were made before this one.

        started_at: Seconds since the epoch.

        wait: Seconds between being due (published, or its ETA) and now, at least 0; None without a usable stamp.

        clock_skewed: Whether the wait came out negative, so that two clocks disagree.

        due_at: When the first attempt was due, in seconds since the epoch; None without a usable stamp.
    """

    task: str
    queue: str
    task_id: str
    retries: int
    started_at: float
    wait: float | None
    clock_skewed: bool
    due_at: float | None


class TaskFinished(NamedTuple):
    """
    An attempt ended, and its process lives to tell.

    Attributes:
        started: The event that opened this attempt.

        state: The outcome.

        runtime: Seconds between prerun and postrun.

        latency: Seconds from being due first to this final outcome; None while the task may be tried again.

        exception: Class name of what was raised, for *failure* and *retry*; :data:`HELD_BACK` for a task that was put back; else empty.

        exhausted: Whether a failure is one because Celery refused another retry: the maximum that counted for it was reached.

        entry: Name of the beat schedule's entry that published the task; else empty.
    """

    started: TaskStarted
    state: TaskState
    runtime: float
    latency: float | None
    exception: str
    exhausted: bool
    entry: str


class AttemptInterrupted(NamedTuple):
    """
    An attempt was unwound by a BaseException: its process is about to die, or it was killed inside a process that lives on.
    """

    started: TaskStarted


class AttemptOpened(NamedTuple):
    """
    An attempt begins, told to those who need to know what its message says; emitted right after its `TaskStarted`.

    Attributes:
        started: The event that opened it.  The same object is in the event that ends it, so that its identity can be a key; ids of tasks cannot.

        carrier: The attributes of the attempt's request, among them the message's headers.  Anybody's text: see `celery_obs.vocabulary.headers`.
            Read only, and only while the attempt runs.
    """

    started: TaskStarted
    carrier: Mapping[str, Any]


class AttemptRaised(NamedTuple):
    """
    The body of an attempt raised: told before its `TaskFinished`, while the frames of the traceback still hold what was in them.

    Attributes:
        started: The event that opened the attempt.

        state: What that makes of the attempt.

        error: What was raised; for *retry*, what it retries for, which may be absent.

        expected: Whether the task says by ``throws`` that this may happen.
    """

    started: TaskStarted
    state: Literal["failure", "retry"]
    error: BaseException | None
    expected: bool


class AttemptLost(NamedTuple):
    """
    The worker's main process found that an attempt came to no end of its own.  Told once an attempt; not counted, for its slot counts it.

    Attributes:
        task, queue, task_id, retries: As in `TaskStarted`.

        state: *timeout*, *terminated* or *lost*.

        exception: Class name of what Celery makes of it: ``TimeLimitExceeded``, ``Terminated`` or ``WorkerLostError``.

        message: What is known of why, for people.

        started_at: Seconds since the epoch; None where that is not known.

        carrier: The headers of the attempt's message.  Anybody's text.
    """

    task: str
    queue: str
    task_id: str
    retries: int
    state: Literal["timeout", "terminated", "lost"]
    exception: str
    message: str
    started_at: float | None
    carrier: Mapping[str, Any]


class AttemptDoomed(NamedTuple):
    """
    The worker's main process has decided to kill an attempt, and says as what it is to be counted.
    """

    task_id: str
    state: Literal["timeout", "terminated"]


class TaskDiscarded(NamedTuple):
    """
    A task ended without an attempt: revoked, expired, malformed or unknown.
    """

    task: str
    queue: str
    state: Literal["revoked", "rejected"]


class AttemptNotBegun(NamedTuple):
    """
    An attempt failed in the pool before its task was called: its message could not be read there.
    """

    task: str
    queue: str
    exception: str


class TaskRetried(NamedTuple):
    """
    The worker's main process published another attempt for a task whose process was lost.
    """

    task: str
    queue: str
    exception: str


_RUNTIME_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)
_WAIT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0)
_LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0)

_TASK_QUEUE = ("task", "queue")

PUBLISHED = Metric(
    kind="counter",
    name="celery_task_published_total",
    help="Who sends work, and how much? Task messages that the broker accepted from this process.",
    labels=_TASK_QUEUE,
)
RECEIVED = Metric(
    kind="counter",
    name="celery_task_received_total",
    help="Does work arrive at the workers? Task messages taken from the broker, redeliveries included.",
    labels=_TASK_QUEUE,
)
STARTED = Metric(
    kind="counter",
    name="celery_task_started_total",
    help="Is anything being worked on? Attempts that began.",
    labels=_TASK_QUEUE,
)
FINISHED = Metric(
    kind="counter",
    name="celery_task_finished_total",
    help="How did it end? Attempts, and tasks that were never attempted, by outcome, each counted once.",
    labels=("task", "queue", "state"),
)
FAILURES = Metric(
    kind="counter",
    name="celery_task_failures_total",
    help="Why does it fail, and was that the last try? Attempts that ended as failure, timeout or lost, by exception class.",
    labels=("task", "queue", "exception", "exhausted"),
)
RETRIES = Metric(
    kind="counter",
    name="celery_task_retries_total",
    help="What makes it retry? Attempts that asked for another one, by exception class.",
    labels=("task", "queue", "reason"),
)
ATTEMPTS = Metric(
    kind="histogram",
    name="celery_task_attempts",
    help="How often do we try until it is settled? Attempts that a task needed until its final outcome.",
    labels=_TASK_QUEUE,
    buckets=(1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0),
)
RUNTIME = Metric(
    kind="histogram",
    name="celery_task_runtime_seconds",
    help="How long does an attempt take, the failed and killed ones too? Time between prerun and postrun.",
    labels=("task", "queue", "state"),
    buckets=_RUNTIME_BUCKETS,
    resolution=1e-9,
)
QUEUE_WAIT = Metric(
    kind="histogram",
    name="celery_task_queue_wait_seconds",
    help="How long does work lie around before it starts? Start less publish time, or less ETA where that is later.",
    labels=_TASK_QUEUE,
    buckets=_WAIT_BUCKETS,
    resolution=1e-6,
)
LATENCY = Metric(
    kind="histogram",
    name="celery_task_latency_seconds",
    help="How long until the work is really done? First due time to final outcome, retries included.",
    labels=_TASK_QUEUE,
    buckets=_LATENCY_BUCKETS,
    resolution=1e-6,
)
IN_PROGRESS = Metric(
    kind="gauge",
    name="celery_task_in_progress",
    help="What is being worked on right now? Attempts running in processes that are alive.",
    labels=("task",),
)
LONGEST_RUNNING = Metric(
    kind="gauge",
    name="celery_task_longest_running_seconds",
    help="What hangs, and since when? Age of the oldest running attempt, right even when its process does not answer.",
    labels=("task",),
)
CLOCK_SKEW = Metric(
    kind="counter",
    name="celery_task_clock_skew_total",
    help="Can I trust the waiting times? Attempts that started before they were published, so that two clocks disagree.",
    labels=("queue",),
)
SUCCEEDED_ENTRY = Metric(
    kind="gauge",
    name="celery_beat_entry_last_success_timestamp_seconds",
    help="When did this schedule entry last do its work? Time of the last success of a task that it published.",
    labels=("entry",),
    aggregate="mostrecent",
)
