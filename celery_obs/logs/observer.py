"""
The log observer of tasks: the context of each attempt, and one line when it has ended.
"""

from __future__ import annotations

import logging
import traceback
import zlib

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from celery_obs.redaction import Redactor
from celery_obs.vocabulary.headers import correlation_of, text
from celery_obs.vocabulary.tasks import (
    HELD_BACK,
    AttemptInterrupted,
    AttemptLost,
    AttemptOpened,
    AttemptRaised,
    TaskFinished,
    TaskStarted,
)

from . import celery_records
from .context import Attempt
from .lines import TASK, write
from .trace_ids import trace_ids


__all__ = ["FINISHED", "TaskLogObserver", "traceback_of"]


FINISHED: Final = "task_finished"
"""
The event of the canonical line: one for each attempt, whatever became of it.
"""

_LEVELS: Final[Mapping[str, int]] = {
    "success": logging.INFO,
    "failure": logging.ERROR,
    "retry": logging.WARNING,
    "ignored": logging.INFO,
    "rejected": logging.WARNING,
    "lost": logging.ERROR,
    "timeout": logging.ERROR,
    "terminated": logging.WARNING,
}
_LONGEST_TRACE: Final = 16_000
_LONGEST_MESSAGE: Final = 2_000
_OF_CRC: Final = 2.0**32


class TaskLogObserver:
    """
    Bind the context of attempts, and write their canonical lines.

    Args:
        redactor: Keeps secrets out of what a task says.

        sampling: Which part of the lines of success is written, by patterns of task names; the first that matches counts.

    Threads: safe.  Forks: of use in a child as it is.
    """

    def __init__(self, redactor: Redactor, sampling: Mapping[str, float]) -> None:
        self._redactor = redactor
        self._sampling = sampling
        self._rates: dict[str, float] = {}
        self._open: dict[int, Attempt] = {}
        self._log = logging.getLogger(TASK)
        celery_records.leave_out_what_we_write()

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return what happens to an attempt, each with what hears it.
        """
        return (
            (AttemptOpened, self.opened),
            (AttemptRaised, self.raised),
            (TaskFinished, self.finished),
            (AttemptInterrupted, self.interrupted),
            (AttemptLost, self.lost),
        )

    def opened(self, event: AttemptOpened) -> None:
        """
        Bind what is known of the attempt.
        """
        started, carrier = event
        self._open[id(started)] = Attempt(started, correlation=correlation_of(carrier), worker=text(carrier, "hostname"))

    def raised(self, event: AttemptRaised) -> None:
        """
        Take down what was raised, while its traceback still has its frames (Celery clears them, since 5.6).
        """
        attempt = self._open.get(id(event.started))
        if attempt is None or event.error is None:
            return
        attempt.facts["error_message"] = self._redactor.text(_said(event.error))[:_LONGEST_MESSAGE]
        if event.state == "failure" and event.expected:
            attempt.facts["expected"] = True
        elif event.state == "failure":
            attempt.facts["exception"] = self._redactor.text(traceback_of(event.error))

    def finished(self, event: TaskFinished) -> None:
        """
        Write the canonical line, and leave the context.
        """
        attempt = self._open.pop(id(event.started), None)
        if attempt is None:
            return
        try:
            state = event.state
            level = logging.INFO if "expected" in attempt.facts else _LEVELS.get(state, logging.INFO)
            rate = self._rate(event.started) if state == "success" and self._sampling else 1.0
            if rate and self._log.isEnabledFor(level):
                self._write(attempt, event, level, rate)
        finally:
            attempt.restore()

    def _write(self, attempt: Attempt, event: TaskFinished, level: int, rate: float) -> None:
        started, state, runtime, latency, exception, exhausted, entry = event
        task, queue, task_id, retries, _, wait, _, _ = started
        facts: dict[str, Any] = {
            "task": task,
            "task_id": task_id if len(task_id) <= _LONGEST_MESSAGE else task_id[:_LONGEST_MESSAGE],
            "queue": queue,
            "state": state,
            "retries": retries,
            "correlation_id": attempt.correlation,
            "worker": attempt.worker,
            "duration_ms": round(runtime * 1000.0, 3),
        }
        if wait is not None:
            facts["queue_wait_ms"] = round(wait * 1000.0, 3)
        if latency is not None:
            facts["latency_ms"] = round(latency * 1000.0, 3)
        facts.update(trace_ids())
        if rate < 1.0:
            facts["sample_rate"] = rate
        if entry:
            facts["beat_entry"] = entry
        if exception:
            facts.update(_reason(exception, exhausted=exhausted))
        if attempt.facts:
            facts.update(attempt.facts)
        for name, value in attempt.bound().items():
            if name not in facts:
                facts[name] = self._redactor.under(name, value)
        write(TASK, level, FINISHED, facts)

    def _rate(self, started: TaskStarted) -> float:
        """
        Return the rate of this task's lines; 0 where this one is left out.

        All attempts of a task, and its lines wherever they are written, are in or out together.
        """
        rate = self._rates.get(started.task)
        if rate is None:
            rate = next((rate for pattern, rate in self._sampling.items() if fnmatchcase(started.task, pattern)), 1.0)
            self._rates[started.task] = rate
        return rate if rate >= 1.0 or zlib.crc32(started.task_id.encode("utf-8", "replace")) < rate * _OF_CRC else 0.0

    def interrupted(self, event: AttemptInterrupted) -> None:
        """
        Leave the context; what became of the attempt, the main process tells.
        """
        attempt = self._open.pop(id(event.started), None)
        if attempt is not None:
            attempt.restore()

    def lost(self, event: AttemptLost) -> None:
        """
        Write the canonical line of an attempt whose process did not live to do it.
        """
        facts: dict[str, Any] = {
            "task": event.task,
            "task_id": event.task_id[:_LONGEST_MESSAGE],
            "queue": event.queue,
            "state": event.state,
            "retries": event.retries,
            "correlation_id": correlation_of(event.carrier),
            "worker": text(event.carrier, "hostname"),
            "error": event.exception,
            "error_message": self._redactor.text(event.message)[:_LONGEST_MESSAGE],
        }
        write(TASK, _LEVELS[event.state], FINISHED, {name: value for name, value in facts.items() if value != ""})


def _reason(exception: str, *, exhausted: bool) -> dict[str, Any]:
    if exception == HELD_BACK:
        return {"reason": "channel_paused"}
    return {"error": exception, "exhausted": True} if exhausted else {"error": exception}


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 -- an error that cannot even say what it is.
        return f"<{type(error).__name__}>"


def traceback_of(error: BaseException) -> str:
    """
    Return the traceback of *error*; of a long one the beginning and the end, where the reason stands.
    """
    try:
        told = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    except Exception:  # noqa: BLE001 -- as above: its words are made by code of others.
        return f"<{type(error).__name__}>"
    if len(told) > _LONGEST_TRACE:
        return f"{told[: _LONGEST_TRACE // 4]}\n…\n{told[-_LONGEST_TRACE * 3 // 4 :]}"
    return told
