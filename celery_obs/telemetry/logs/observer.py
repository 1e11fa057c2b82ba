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

from celery_obs.areas.tasks.events import AttemptInterrupted, AttemptLost, AttemptOpened, AttemptRaised, TaskFinished, TaskStarted
from celery_obs.areas.tasks.metrics import HELD_BACK
from celery_obs.telemetry.redaction import Redactor
from celery_obs.vocabulary.headers import correlation_of, text

from . import celery_records
from .context import AttemptContext
from .lines import TASK, encode, write, write_text
from .trace_ids import trace_ids


__all__ = ["FIELDS", "FINISHED", "TaskLogObserver", "traceback_of"]


FINISHED: Final = "task_finished"
"""
The event of the canonical line: one for each attempt, whatever became of it.
"""

FIELDS: Final = frozenset(
    {
        *(
            "timestamp",
            "level",
            "logger",
            "event",
            "task",
            "queue",
            "worker",
            "state",
            "task_id",
            "retries",
            "correlation_id",
            "duration_ms",
        ),
        *(
            "queue_wait_ms",
            "latency_ms",
            "trace_id",
            "span_id",
            "sample_rate",
            "beat_entry",
            "error",
            "exhausted",
            "error_message",
            "expected",
        ),
        *("exception", "reason", "redelivered"),
    }
)
"""
The names of what a canonical line says; a task cannot bind another meaning to one of them.
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
_LONGEST_ID: Final = 256
_LONGEST_MESSAGE: Final = 2_000
_MOST_HEADS: Final = 4_096
_OF_CRC: Final = 2.0**32


class TaskLogObserver:
    """
    Bind the context of attempts, and write their canonical lines.

    Args:
        redactor: Keeps secrets out of what a task says.

        sampling: Sampling rate (0 to 1) for success log lines, by patterns of task names; the first that matches counts.

    Threads: safe.  Forks: of use in a child as it is.
    """

    def __init__(self, redactor: Redactor, sampling: Mapping[str, float]) -> None:
        self._redactor = redactor
        self._sampling = sampling
        self._rates: dict[str, float] = {}
        self._heads: dict[tuple[str, str, str, str], str] = {}
        self._open: dict[int, AttemptContext] = {}
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
        attempt = self._open[id(started)] = AttemptContext(
            started, correlation=correlation_of(carrier), worker=str(carrier.get("hostname") or "")
        )
        delivery = carrier.get("delivery_info")
        if delivery and delivery.get("redelivered"):  # Its wait counts from the first publish.
            attempt.facts["redelivered"] = True

    def raised(self, event: AttemptRaised) -> None:
        """
        Take down what was raised, while its traceback still has its frames (Celery clears them, since 5.6).
        """
        attempt = self._open.get(id(event.started))
        if attempt is None or event.error is None:
            return
        attempt.facts["error_message"] = self._redactor.text(_text_of(event.error))[:_LONGEST_MESSAGE]
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
        bound = attempt.leave()
        state = event.state
        level = logging.INFO if "expected" in attempt.facts else _LEVELS.get(state, logging.INFO)
        rate = self._rate(event.started) if self._sampling and state == "success" else 1.0
        if rate and self._log.isEnabledFor(level):
            self._write(attempt, event, level, rate, bound)

    def _write(self, attempt: AttemptContext, event: TaskFinished, level: int, rate: float, bound: Mapping[str, Any]) -> None:
        started, state, runtime, latency, exception, exhausted, entry = event
        task, queue, task_id, retries, started_at, wait, _, _ = started
        # JSON by hand: what has to be quoted is quoted, and what comes again and again is kept.
        head = self._heads.get((task, queue, attempt.worker, state))
        if head is None:
            head = self._head(task, queue, attempt.worker, state)
        line = (
            f'{head}"task_id": {encode(task_id[:_LONGEST_ID])}, "retries": {retries}, "correlation_id": {encode(attempt.correlation)}, '
            f'"duration_ms": {round(runtime * 1000.0, 3)}'
        )
        if wait is not None:
            line = f'{line}, "queue_wait_ms": {round(wait * 1000.0, 3)}'
        if latency is not None:
            line = f'{line}, "latency_ms": {round(latency * 1000.0, 3)}'
        more = {**trace_ids(), **attempt.facts}
        if rate < 1.0:
            more["sample_rate"] = rate
        if entry:
            more["beat_entry"] = entry
        if exception:
            more.update(_reason(exception, exhausted=exhausted))
        for name, value in bound.items():
            if name not in FIELDS:
                more[name] = self._redactor.under(name, value)
        if more:
            line = f"{line}, {encode(more)[1:-1]}"
        write_text(self._log, level, FINISHED, started_at + runtime, line)

    def _head(self, task: str, queue: str, worker: str, state: str) -> str:
        if len(self._heads) > _MOST_HEADS:
            self._heads.clear()
        head = encode({"task": task, "queue": queue, "worker": worker, "state": state})[1:-1] + ", "
        self._heads[task, queue, worker, state] = head
        return head

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
            attempt.leave()

    def lost(self, event: AttemptLost) -> None:
        """
        Write the canonical line of an attempt whose process did not live to do it.
        """
        facts: dict[str, Any] = {
            "task": event.task,
            "task_id": event.task_id[:_LONGEST_ID],
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


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 -- an error that cannot even say what it is.
        return f"<{type(error).__name__}>"


def traceback_of(error: BaseException) -> str:
    """
    Return the traceback of *error*; of a long one the beginning and the end, where the reason stands.
    """
    try:
        lines = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    except Exception:  # noqa: BLE001 -- as above: its words are made by code of others.
        return f"<{type(error).__name__}>"
    if len(lines) > _LONGEST_TRACE:
        return f"{lines[: _LONGEST_TRACE // 4]}\n…\n{lines[-_LONGEST_TRACE * 3 // 4 :]}"
    return lines
