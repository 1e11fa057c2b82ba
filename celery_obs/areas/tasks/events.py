"""
Tasks: what can happen to a task, and what is counted.

Events are named tuples: immutable like a frozen dataclass, and made in a fifth of the time, which the hot path needs.
An *attempt* is one execution of a task's body; a task that retries twice has three attempts.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, NamedTuple

from .metrics import TaskState


__all__ = [
    "ENDINGS",
    "AttemptInterrupted",
    "AttemptKillDecided",
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
]


class TaskPublished(NamedTuple):
    """
    The broker accepted a task message.

    Attributes:
        task: Registered name of the task.

        queue: The queue that it was routed to.
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
            Unchecked text.
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

    Attributes:
        task: Registered name of the task.

        queue: Name of the queue that it came from.
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

    Attributes:
        started: The event that opened the attempt.
    """

    started: TaskStarted


class AttemptOpened(NamedTuple):
    """
    An attempt begins, told to those who need to know what its message says; emitted right after its `TaskStarted`.

    Attributes:
        started: The event that opened it.  The same object is in the event that ends it, so that its identity can be a key; ids of tasks cannot.

        carrier: The attributes of the attempt's request, among them the message's headers.  Unchecked text: see `celery_obs.vocabulary.headers`.
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

        carrier: The headers of the attempt's message.  Unchecked text.
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


class AttemptKillDecided(NamedTuple):
    """
    The worker's main process has decided to kill an attempt, and says as what it is to be counted.

    Attributes:
        task_id: Identifier of the task.

        state: *timeout* for a hard time limit, *terminated* for a revoked task.
    """

    task_id: str
    state: Literal["timeout", "terminated"]


class TaskDiscarded(NamedTuple):
    """
    A task ended without an attempt: revoked, expired, malformed or unknown.

    Attributes:
        task: Registered name of the task; a fixed word for a message that names none, or one that is not registered.

        queue: Name of the queue that it came from.

        state: *revoked*, which includes expired, or *rejected*.
    """

    task: str
    queue: str
    state: Literal["revoked", "rejected"]


class AttemptNotBegun(NamedTuple):
    """
    An attempt failed in the pool before its task was called: its message could not be read there.

    Attributes:
        task, queue: As in `TaskStarted`.

        exception: Class name of what was raised.
    """

    task: str
    queue: str
    exception: str


class TaskRetried(NamedTuple):
    """
    The worker's main process published another attempt for a task whose process was lost.

    Attributes:
        task, queue: As in `TaskStarted`.

        exception: Class name of what ended the attempt before it.
    """

    task: str
    queue: str
    exception: str


ENDINGS: Final = (TaskFinished, AttemptInterrupted, PublishEnded)
"""
Those that end what another one began, in the same thread.
"""
