"""
The observer of errors: what of an attempt goes to Sentry, with what is known of it.

What sentry-sdk's own integration sees, it reports itself, and we only say which task it was; what it does not see (the light mode, results that cannot
be stored, attempts that came to no end) we report, once each.
"""

from __future__ import annotations

import logging
import sys

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from typing import Any, Final

from celery_obs.areas import parts
from celery_obs.areas.schedules.events import EntryFiring, EntryMisfired
from celery_obs.areas.tasks.events import (
    AttemptInterrupted,
    AttemptLost,
    AttemptOpened,
    AttemptRaised,
    PublishStarted,
    TaskFinished,
    TaskStarted,
)
from celery_obs.areas.tasks.metrics import HELD_BACK
from celery_obs.vocabulary import headers

from .crons import monitor_of, slug_of
from .sentry import Report, Sentry, current_trace


__all__ = ["ErrorObserver"]


_LAST_WORDS: Final = 0.04
"""
Seconds that a pool process has before it is killed, after it was asked to go.
"""

_TRACEPARENT: Final = 4  # Parts of it: version, trace, span, flags.


class _Attempt:
    """
    What we know of a running attempt.

    Attributes:
        reported: What of its errors was reported last.

        unhandled: Whether that was one that the task did not handle.

        goes_on: Whether it published its task anew.
    """

    # Defaults of the class: what is not set when an attempt begins costs nothing.
    channel: str = ""
    reported: BaseException | None = None
    unhandled: bool = False
    goes_on: bool = False
    scope: AbstractContextManager[Any] | None = None
    token: Token[_Attempt | None] | None = None

    def __init__(self, started: TaskStarted, carrier: Mapping[str, Any]) -> None:
        self.started = started
        self.carrier = carrier


_current: ContextVar[_Attempt | None] = ContextVar("celery_obs_errors_attempt", default=None)


class ErrorObserver:
    """
    Report errors.

    Args:
        sentry: The client.

        crons: Whether Sentry watches beat's schedule.

        channel_of: Returns the channel that a task is about by its name alone, or nothing.

    Threads: safe.  Forks: call `after_fork` in the child.
    """

    def __init__(self, sentry: Sentry, *, crons: bool = False, channel_of: Callable[[str], str] = lambda _: "") -> None:
        self._sentry = sentry
        self._crons = crons
        self._channel_of = channel_of
        self._running: dict[int, _Attempt] = {}
        self._unwatched: set[str] = set()
        self._is_child = False
        self._has_begun = False
        sentry.describe = self.describe

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that tell of errors, or of where one may come from.
        """
        named: list[type] = [event for _, part in parts("events") for event in getattr(part, "NAMES_CHANNEL", ())]
        always: tuple[tuple[type, Callable[[Any], object]], ...] = (
            (AttemptOpened, self.opened),
            (AttemptRaised, self.raised),
            (AttemptLost, self.lost),
            (AttemptInterrupted, self.interrupted),
            (TaskFinished, self.finished),
            *((event, self.channel_named) for event in named),
        )
        if not self._crons:
            return always
        return (*always, (EntryFiring, self.entry_firing), (EntryMisfired, self.entry_misfired), (PublishStarted, self.publishing))

    def after_fork(self) -> None:
        """
        Become a child's own.
        """
        self._is_child = True
        self._has_begun = False
        self._running.clear()
        self._sentry.after_fork()

    def flush(self, within: float) -> None:
        """
        Send what is still to be sent.
        """
        self._sentry.flush(within)

    # -- an attempt -------------------------------------------------------------------------------------------------

    def opened(self, event: AttemptOpened) -> None:
        """
        Know whose errors come from this thread from now on.
        """
        started, carrier = event
        attempt = _Attempt(started, carrier)
        sentry = self._sentry
        sentry.client()
        if not self._has_begun:
            self._has_begun = True
            sentry.look_again()
        if not sentry.is_full:
            attempt.scope = sentry.own_scope(started[2])
        attempt.token = _current.set(attempt)
        self._running[id(started)] = attempt

    def channel_named(self, event: Any) -> None:
        """
        Know which channel the attempt is about.
        """
        attempt = _current.get()
        if attempt is not None:
            attempt.channel = event.channel_type

    def raised(self, event: AttemptRaised) -> None:
        """
        Report what made an attempt fail, unless it was reported as it was raised.
        """
        if event.state != "failure" or event.expected:
            return
        # The one that is being handled is what the body raised; the event's may be what Celery made of it so that it can be pickled.
        error = sys.exc_info()[1] or event.error
        attempt = self._running.get(id(event.started))
        if error is None or (attempt is not None and (attempt.unhandled or attempt.reported is error)):
            return
        self._sentry.raised(error)

    def finished(self, event: TaskFinished) -> None:
        """
        Forget the attempt.
        """
        attempt = self._close(event.started)
        if attempt is None or not self._crons or attempt.goes_on:
            return
        if event.state == "failure":
            self._check_in(attempt.carrier, well=False)
        elif event.state == "success" or (event.state == "ignored" and event.exception != HELD_BACK):
            self._check_in(attempt.carrier, well=True)

    def interrupted(self, event: AttemptInterrupted) -> None:
        """
        Forget the attempt; its process may be killed in a moment.
        """
        self._close(event.started)
        if self._is_child:
            self._sentry.hurry(_LAST_WORDS)

    def _close(self, started: TaskStarted) -> _Attempt | None:
        attempt = self._running.pop(id(started), None)
        if attempt is None:
            return None
        if attempt.token is not None:
            try:
                _current.reset(attempt.token)
            except ValueError:  # A greenlet that was killed is unwound in another context.
                _current.set(None)
        if attempt.scope is not None:
            attempt.scope.__exit__(None, None, None)
        return attempt

    def lost(self, event: AttemptLost) -> None:
        """
        Report an attempt that its process did not live to tell of.  What was revoked was meant to be killed.
        """
        self._check_in(event.carrier, well=False)
        if event.state == "terminated":
            return
        tags = {
            "task": event.task,
            "queue": event.queue,
            "task_id": event.task_id,
            "channel": self._channel_of(event.task),
            "correlation_id": headers.correlation_of(event.carrier),
        }
        report: Report = {
            "level": "error",
            "transaction": event.task,
            "fingerprint": ["celery", event.exception, event.task],
            "exception": {
                "values": [
                    {
                        "type": event.exception,
                        "value": event.message,
                        "module": "billiard.exceptions",
                        "mechanism": {"type": "celery", "handled": False},
                    }
                ]
            },
            "tags": {name: value for name, value in tags.items() if value},
            "contexts": {"celery": {"state": event.state, "retries": event.retries, "started_at": event.started_at}},
        }
        trace = _trace_in(event.carrier)
        if trace is not None:
            report["contexts"]["trace"] = {"trace_id": trace[0], "span_id": trace[1]}
        self._sentry.report(report)

    # -- a report ---------------------------------------------------------------------------------------------------

    def describe(self, event: Report, hint: Mapping[str, Any]) -> None:
        """
        Add to *event*, which is about to be sent from this thread, what is known of the attempt that it comes from.
        """
        trace = current_trace()
        if trace is not None:
            event.setdefault("contexts", {})["trace"] = {"trace_id": trace[0], "span_id": trace[1]}
        tags = event.get("tags")
        tags = dict(tags) if tags else {}
        attempt = _current.get() or self._started_as(tags.get("celery_task_id") or tags.get("task_id"))
        if attempt is None:
            return
        self._remember(attempt, event, hint)
        started = attempt.started
        known = {
            "task": started.task,
            "queue": started.queue,
            "task_id": started.task_id,
            "channel": attempt.channel or self._channel_of(started.task),
            "correlation_id": headers.correlation_of(attempt.carrier),
        }
        event["tags"] = {**{name: value for name, value in known.items() if value}, **tags}
        if not event.get("transaction"):
            event["transaction"] = started.task
        if not event.get("fingerprint") and hint.get("exc_info") and hint["exc_info"][0].__name__ == "SoftTimeLimitExceeded":
            event["fingerprint"] = ["celery", "SoftTimeLimitExceeded", started.task]

    def _started_as(self, task_id: object) -> _Attempt | None:
        """
        Find the attempt by what a report knows of it in threads that a task started.
        """
        if task_id is None:
            return None
        return next((attempt for attempt in reversed(list(self._running.values())) if attempt.started.task_id == str(task_id)), None)

    def _remember(self, attempt: _Attempt, event: Report, hint: Mapping[str, Any]) -> None:
        info = hint.get("exc_info")
        if info is None:
            return
        attempt.reported = info[1]
        values = (event.get("exception") or {}).get("values") or ()
        mechanisms = [value.get("mechanism") or {} for value in values]
        if any(mechanism.get("type") == "celery" and mechanism.get("handled") is False for mechanism in mechanisms):
            attempt.unhandled = True

    # -- crons ------------------------------------------------------------------------------------------------------

    def entry_firing(self, event: EntryFiring) -> None:
        """
        Tell Sentry that an entry is due, and its message how that goes on.
        """
        self._sentry.client()
        if self._sentry.has_crons:
            return
        monitor = monitor_of(event.schedule)
        if monitor is not None:
            event.headers[headers.CHECK_IN] = self._sentry.check_in(slug_of(event.entry), "in_progress", monitor=monitor)
        elif event.entry not in self._unwatched:
            self._unwatched.add(event.entry)
            logging.getLogger("celery_obs").info(
                "Sentry cannot watch the schedule entry %s: it counts in whole minutes, and knows intervals and crontabs.", event.entry
            )

    def entry_misfired(self, event: EntryMisfired) -> None:
        """
        Tell Sentry that an entry came to nothing.
        """
        self._check_in(event.headers, well=False)

    def publishing(self, event: PublishStarted) -> None:
        """
        Let another attempt, or what a task replaces itself by, go on with what its entry began: with sentry-sdk a retry loses its headers.
        """
        attempt = _current.get()
        if attempt is None or str(event.message.get("id")) != attempt.started.task_id:
            return
        attempt.goes_on = True
        for name in (headers.CHECK_IN, headers.ENTRY):
            known = headers.text(attempt.carrier, name)
            if known:
                event.headers[name] = known

    def _check_in(self, carrier: Mapping[str, Any], *, well: bool) -> None:
        if not self._crons:
            return
        known_as, entry = headers.text(carrier, headers.CHECK_IN), headers.text(carrier, headers.ENTRY)
        if known_as and entry:
            self._sentry.check_in(slug_of(entry), "ok" if well else "error", known_as=known_as)


def _trace_in(carrier: Mapping[str, Any]) -> tuple[str, str] | None:
    """
    Return the ids of trace and span that a message came with.
    """
    parts = headers.text(carrier, "traceparent").split("-")
    if len(parts) != _TRACEPARENT or (len(parts[1]), len(parts[2])) != (32, 16) or not all(part.isalnum() for part in parts):
        return None
    return parts[1], parts[2]
