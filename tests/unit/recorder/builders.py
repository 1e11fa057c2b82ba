"""
Builders: recorders, meters and events with defaults, so that a test says only what it is about.
"""

from __future__ import annotations

from pathlib import Path

from celery_obs.areas.tasks.events import TaskFinished, TaskStarted
from celery_obs.areas.tasks.metrics import FINISHED, STARTED, STATES, TaskState
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.batches import count_tail
from celery_obs.recorder.format import Header
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.recorder.tally import Tally
from celery_obs.vocabulary.spec import Metric


__all__ = ["finished", "lane", "meter", "phase", "recorder", "started", "states"]


def recorder(
    folder: Path,
    *,
    number: int | None = 1,
    attempts: int = 1,
    node: str = "w@h",
    label_limit: int = 200,
    lane_limit: int = 1 << 18,
    attempt_bytes: int = 0,
) -> Recorder:
    """
    A recorder in a pool process of the worker *node*.
    """
    return Recorder(
        folder,
        identify=lambda: Identity(node=node, role="child", number=number, attempts=attempts),
        label_limit=label_limit,
        lane_limit=lane_limit,
        attempt_bytes=attempt_bytes,
    )


def meter(recorder: Recorder) -> AttemptMeter:
    """
    A meter that knows the task ``t`` on the queue ``q``.
    """
    made = AttemptMeter(recorder)
    recorder.open()
    made.prepare([("t", "q")])
    return made


def started(
    task: str = "t", queue: str = "q", *, task_id: str = "id-1", retries: int = 0, wait: float | None = 0.2, due_at: float | None = 99.0
) -> TaskStarted:
    """
    An attempt that begins at second 100.
    """
    return TaskStarted(task, queue, task_id, retries, 100.0, wait, False, due_at)


def finished(
    opened: TaskStarted,
    state: TaskState = "success",
    *,
    runtime: float = 0.5,
    latency: float | None = 1.5,
    exception: str = "",
    entry: str = "",
) -> TaskFinished:
    """
    The end of an attempt.
    """
    return TaskFinished(opened, state, runtime, latency, exception, False, entry)


def lane(recorder: Recorder, metric: Metric, *values: str) -> int:
    """
    Return what a counter holds in this process's slot, once all that is in its ring is counted.
    """
    assert recorder.node is not None
    assert recorder.slot is not None
    if recorder.ring is not None:
        count_tail(recorder.ring, recorder.slot, Tally(recorder.node.layout))
    place = recorder.node.layout.place(metric, values)
    return 0 if place is None else int(recorder.slot.words[recorder.slot.lanes_at + place])


def states(recorder: Recorder, task: str = "t", queue: str = "q") -> dict[str, int]:
    """
    Return how the attempts of a task ended, starts included.
    """
    found: dict[str, int] = {state: lane(recorder, FINISHED, task, queue, state) for state in STATES}
    found["started"] = lane(recorder, STARTED, task, queue)
    return {state: count for state, count in found.items() if count}


def phase(recorder: Recorder, number: int = 0) -> int:
    """
    Return the phase of a running record.
    """
    assert recorder.slot is not None
    return int(recorder.slot.words[Header.WORDS + 16 * number])
