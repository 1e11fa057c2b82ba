"""
From what Celery hands to a signal to what happened: pure functions, the one place that knows Celery's irregular shapes.

What comes in a message may come from any client, so every value is checked; one that makes no sense is treated as absent and named in a `Complaint`.
"""

from __future__ import annotations

import math
import re

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple, cast

from celery.utils.time import maybe_iso8601

from celery_obs.areas.tasks.events import TaskFinished, TaskStarted
from celery_obs.areas.tasks.metrics import HELD_BACK, TaskState
from celery_obs.compat.celery import is_refused_retry
from celery_obs.vocabulary import headers


__all__ = [
    "BAD_HEADER",
    "GAVE_UP",
    "IMPLAUSIBLE_STAMP",
    "LONGEST_WAIT",
    "MOST_RETRIES",
    "Binding",
    "QueueNames",
    "due_time",
    "entry_of",
    "finished",
    "gave_up",
    "identity",
    "message_of",
    "seconds",
    "started",
]


BAD_HEADER: Final = "bad_header"
IMPLAUSIBLE_STAMP: Final = "implausible_stamp"

LONGEST_WAIT: Final = 90 * 86400.0
"""
Waits of more seconds than this say that a clock is wrong, not that a task waited: such a stamp is counted as dropped, not observed.
"""

_STATES: Final[Mapping[str, TaskState]] = {
    "SUCCESS": "success",
    "FAILURE": "failure",
    "RETRY": "retry",
    "IGNORED": "ignored",
    "REJECTED": "rejected",
}
_DELAYED: Final = re.compile(r"(?:[01]\.){28}")
MOST_RETRIES: Final = 1_000_000
_LONGEST_NAME: Final = 500
_MOST_ROUTES: Final = 2048
_LONGEST_CHAIN: Final = 20  # Errors behind an error that are looked at.

GAVE_UP: Final = "celery_obs_gave_up"
"""
What lies on a request whose attempt was refused another retry.
"""

Complain = Callable[[str], object]
"""
Hears why a value was treated as absent.
"""

_PUBLISHED, _DUE = headers.PUBLISHED, headers.DUE
_new = tuple.__new__  # Half the cost of a named tuple's own constructor, which is a Python function.


def identity(task_id: object) -> str:
    """
    Return a task's id as text: Celery takes a number or a UUID for one, too, and hands it on as it is.
    """
    return task_id if isinstance(task_id, str) else str(task_id)


def message_of(headers: Mapping[str, Any], body: object) -> Mapping[str, Any]:
    """
    Return the part of a message that says which task it is for and when: its headers, or with protocol 1 its body.
    """
    return body if "task" not in headers and isinstance(body, Mapping) else headers


def seconds(value: object, complain: Complain) -> float | None:
    """
    Read a time in seconds since the epoch out of a header.
    """
    if value is None:
        return None
    if isinstance(value, (float, int)) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e300 else math.inf  # noqa: PLR2004 -- what float() takes without an OverflowError.
    elif isinstance(value, str) and len(value) < 64:  # noqa: PLR2004 -- longer than any float.
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    else:
        number = math.nan
    if math.isfinite(number) and number > 0:
        return number
    complain(BAD_HEADER)
    return None


def due_time(eta: object, complain: Complain) -> float | None:
    """
    Read an ETA: an ISO 8601 text, or a datetime; without a zone it is UTC, as a worker takes it whatever ``enable_utc`` and ``timezone`` say.
    """
    if eta is None:
        return None
    try:
        moment = eta if isinstance(eta, datetime) else _moment(str(eta))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    except (ValueError, OverflowError, OSError):
        complain(BAD_HEADER)
        return None


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:  # Python 3.10 knows fewer spellings than Celery does.
        moment = maybe_iso8601(text)
        if moment is None:
            raise
        return cast("datetime", moment)


def started(facts: Mapping[str, Any], task: str, task_id: str, queue: str, now: float, complain: Complain) -> TaskStarted:
    """
    Say that an attempt starts.

    Args:
        facts: The request's attributes, as the message's headers and Celery set them.

        task: Registered name of the task.

        task_id: Its id.

        queue: The queue it came from.

        now: Seconds since the epoch.

        complain: Hears of values that make no sense.
    """
    try:  # First for the message that we stamped and that was not changed: one in a hundred is another.
        published, due, retries = facts[_PUBLISHED], facts[_DUE], facts["retries"]
        if (
            facts["eta"] is None
            and type(published) is type(due) is float
            and 0.0 <= now - published < LONGEST_WAIT
            and -LONGEST_WAIT < now - due < LONGEST_WAIT
            and type(retries) is int
            and 0 <= retries < MOST_RETRIES
        ):
            return _new(TaskStarted, (task, queue, task_id, retries, now, now - published, False, due))
    except KeyError:
        pass
    return _started_carefully(facts, task=task, task_id=task_id, queue=queue, now=now, complain=complain)


def _started_carefully(facts: Mapping[str, Any], *, task: str, task_id: str, queue: str, now: float, complain: Complain) -> TaskStarted:
    """
    Do the same for a message that may hold anything.
    """
    published = facts.get(headers.PUBLISHED)
    due = facts.get(headers.DUE)
    nested = facts.get("headers")
    if published is None and nested:  # Protocol 1, and messages that passed through sentry-sdk, nest custom headers.
        published, due = nested.get(headers.PUBLISHED), due or nested.get(headers.DUE)
    if type(published) is not float:
        published = seconds(published, complain)
    if type(due) is not float:
        due = seconds(due, complain)
    retries = facts.get("retries") or 0
    if type(retries) is not int or not 0 <= retries < MOST_RETRIES:
        complain(BAD_HEADER)
        retries = 0
    wait, skewed = (None, False) if published is None else _wait(published, facts.get("eta"), now, complain)
    if due is not None and not -LONGEST_WAIT < now - due < LONGEST_WAIT:
        due = None
    return TaskStarted(task, queue, task_id, retries, now, wait, skewed, due)


def _wait(published: float, eta: object, now: float, complain: Complain) -> tuple[float | None, bool]:
    """
    Return how long a task waited since it was due, and whether that came out negative.
    """
    wait = now - max(published, due_time(eta, complain) or 0.0)
    if not -LONGEST_WAIT < wait < LONGEST_WAIT:
        complain(IMPLAUSIBLE_STAMP)
        return None, wait < 0.0
    return max(0.0, wait), wait < 0.0


def finished(opened: TaskStarted, state: str, retval: object, runtime: float, facts: Mapping[str, Any], entry: str) -> TaskFinished:
    """
    Say how an attempt ended.

    Args:
        opened: The event that opened it.

        state: Celery's state.

        retval: What the task returned, or the exception that it raised.

        runtime: Seconds since the attempt began.

        facts: The request's attributes, on which `GAVE_UP` lies where Celery refused another retry.

        entry: The schedule entry that published it, or nothing.
    """
    if state == "SUCCESS":
        latency, due = None, opened[7]
        if due is not None:
            latency = opened[4] + runtime - due
            latency = max(latency, 0.0)
        return _new(TaskFinished, (opened, "success", runtime, latency, "", False, entry))
    ours: TaskState = _STATES.get(state, "failure")
    exception, exhausted = "", False
    if ours == "retry":
        exception = _name(getattr(retval, "exc", None) or retval)
    elif ours == "failure":
        exception = _name(retval)
        exhausted = GAVE_UP in facts or exception == "MaxRetriesExceededError"
    elif type(retval).__name__ == HELD_BACK:
        exception = HELD_BACK
    is_final = (ours == "failure" or (ours == "ignored" and not exception)) and opened.due_at is not None
    latency = max(0.0, opened.started_at + runtime - (opened.due_at or 0.0)) if is_final else None
    return TaskFinished(opened, ours, runtime, latency, exception, exhausted, entry)


def gave_up(error: BaseException | None, facts: Mapping[str, Any]) -> bool:
    """
    Tell whether *error* comes of Celery refusing another retry to the attempt whose request has the attributes *facts*.

    Which maximum counts is settled when the task asks: that of the task, of ``retry_kwargs``, of ``self.retry(max_retries=…)`` or of an earlier call of it.
    Celery does not pass on what it decided by, but it lies in the frame of ``Task.retry`` that raised, until Celery clears the frames after ``task_failure``.
    """
    for _ in range(_LONGEST_CHAIN):
        if error is None:
            return False
        if is_refused_retry(error.__traceback__, facts):
            return True
        error = error.__cause__ or error.__context__
    return False


def entry_of(facts: Mapping[str, Any]) -> str:
    """
    Return the schedule entry that a message names, or nothing.
    """
    entry = facts.get(headers.ENTRY)
    if entry is None and isinstance(nested := facts.get("headers"), Mapping):  # As `_started_carefully` finds stamps.
        entry = nested.get(headers.ENTRY)
    return entry if type(entry) is str and len(entry) <= _LONGEST_NAME else ""


def _name(raised: object) -> str:
    if isinstance(raised, str):  # Retry keeps the representation of what it could not pickle.
        return raised.partition("(")[0][:_LONGEST_NAME] or "Retry"
    return type(raised).__name__


class Binding(NamedTuple):
    """
    A queue that an exchange routes to.

    Attributes:
        label: What it is called in metrics, where that is not its name: see :func:`~celery_obs.areas.queues.metrics.shared_label`.
    """

    queue: str
    exchange: str
    exchange_type: str
    routing_key: str
    label: str = ""

    @property
    def shown(self) -> str:
        """
        Its label value.
        """
        return self.label or self.queue


class QueueNames:
    """
    Find the queue that a message came from or goes to, by its exchange and routing key.

    Args:
        bindings: Returns the queues that the app knows; asked when a route is new.

    Attributes:
        known: The routes found so far, by exchange and routing key, for who cannot afford to ask: read only.
    """

    def __init__(self, bindings: Callable[[], Iterable[Binding]]) -> None:
        self._bindings = bindings
        self.known: dict[tuple[str, str], str] = {}

    def of(self, delivery_info: object) -> str:
        """
        Return the queue that a message with this *delivery_info* came from.
        """
        if not isinstance(delivery_info, dict):
            return ""
        return self.find(delivery_info.get("exchange"), delivery_info.get("routing_key"))

    def find(self, exchange: object, routing_key: object) -> str:
        """
        Return the queue that *exchange* routes messages with *routing_key* to; where that cannot be told, the routing key.

        Native delayed delivery puts 28 binary digits before the key (Celery 5.5, quorum queues); they are taken off.
        """
        if type(exchange) is not str:
            exchange = str(getattr(exchange, "name", None) or "")
        if type(routing_key) is not str:
            routing_key = str(routing_key or "")
        route = (exchange, routing_key)
        name = self.known.get(route)
        if name is None:
            name = self._resolve(exchange, _DELAYED.sub("", routing_key, count=1) if len(routing_key) > 56 else routing_key)  # noqa: PLR2004 -- 28 digits, 28 dots.
            if len(self.known) < _MOST_ROUTES:
                self.known[route] = name
        return name

    def _resolve(self, exchange: str, routing_key: str) -> str:
        if not exchange:
            return next((known.shown for known in self._bindings() if known.queue == routing_key), routing_key)
        candidates = [known for known in self._bindings() if known.exchange == exchange]
        for known in candidates:
            if known.routing_key == routing_key:
                return known.shown
        for known in candidates:
            if known.exchange_type == "topic" and _topic_matches(known.routing_key, routing_key):
                return known.shown
        shown = {known.shown for known in candidates}
        if len(shown) == 1 and candidates[0].exchange_type in {"fanout", "headers"}:
            return candidates[0].shown
        return next((known.shown for known in self._bindings() if known.queue == routing_key), routing_key or exchange)


def _topic_matches(pattern: str, key: str) -> bool:
    """
    Match a routing key as AMQP 0-9-1 does: ``*`` is one word, ``#`` any number of words.
    """
    parts = [{"*": r"[^.]+", "#": r".*"}.get(word, re.escape(word)) for word in pattern.split(".")]
    return re.fullmatch(r"\.".join(parts).replace(r".*\.", r"(?:.*\.)?").replace(r"\..*", r"(?:\..*)?"), key) is not None
