"""
The hub: who wants to hear of what.  It knows no backend and no Celery.

An observer that raises is isolated from the others and from the observed program: its error is counted, logged at most once a minute
for each type of exception, and it is never detached.  In tests it raises (see `celery_obs.testing`).

Forks: a child inherits the observers.  Threads: emitting is safe from any thread; subscribe at start-up only.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

from celery_obs.telemetry.redaction import reason, without_secrets
from celery_obs.throttle import LogThrottle


__all__ = ["ErrorReporter", "EventListener", "Hub", "OnError", "guarded"]


EventListener: TypeAlias = Callable[[Any], object]
"""
Takes one event.  It is only ever called with events of the types that it subscribed to.
"""


class OnError(Protocol):
    """
    Hears of an error of ours that is kept from the observed program.
    """

    def __call__(self, error: Exception, *, component: str) -> None:
        """
        Take note of *error*, raised by *component*.
        """


@contextmanager
def guarded(on_error: OnError, component: str) -> Iterator[None]:
    """
    Keep what is raised inside from the observed program, and tell *on_error* of it.

    It costs a microsecond, so what is done for every task has an ``except`` of its own.
    """
    try:
        yield
    except Exception as exc:  # noqa: BLE001 -- never fail the observed.
        on_error(exc, component=component)


class ErrorReporter:
    """
    Log an error at most once a minute for each component and type of exception, with its traceback the first time, and tell *count* of every one.
    """

    def __init__(self, count: Callable[[str], None] | None = None, *, pause: float = 60.0) -> None:
        self.count = count
        self._throttle = LogThrottle(every=pause)

    def __call__(self, error: Exception, *, component: str) -> None:
        """
        Take note of *error*.
        """
        try:
            if self.count is not None:
                self.count(component)
            key = (component, type(error))
            is_known = self._throttle.knows(*key)
            if not self._throttle.allows(*key):
                return
            # A server that is away for an hour is one traceback, and a line a minute.
            trace = None if is_known else without_secrets(error)
            logging.getLogger("celery_obs").error(
                "celery_obs: %s failed. Your program is not affected. Logged at most once a minute. %s: %s",
                component,
                type(error).__name__,
                reason(error),
                exc_info=trace,
            )
        except Exception:  # noqa: BLE001, S110 -- the last line of defence: there is nowhere left to report it.
            pass


class Hub:
    """
    Pass each event on to the observers of its type, in the order in which they subscribed.

    Attributes:
        changed: Called when an observer came or went; None where that is of no interest.
    """

    def __init__(self, *, on_error: OnError) -> None:
        self.on_error = on_error
        self.changed: Callable[[], object] | None = None
        self._observers: dict[type, tuple[EventListener, ...]] = {}

    def subscribe(self, event_type: type, observer: EventListener) -> None:
        """
        Let *observer* hear every event of exactly *event_type*.
        """
        self._observers[event_type] = (*self._observers.get(event_type, ()), observer)
        if self.changed is not None:
            self.changed()

    def unsubscribe(self, event_type: type, observer: EventListener) -> None:
        """
        Let *observer* hear no more events of *event_type*.
        """
        left = tuple(other for other in self._observers.get(event_type, ()) if other != observer)
        if left:
            self._observers[event_type] = left
        else:
            self._observers.pop(event_type, None)
        if self.changed is not None:
            self.changed()

    def unsubscribe_all(self) -> None:
        """
        Forget all observers.
        """
        self._observers.clear()

    def wants(self, event_type: type) -> bool:
        """
        Tell whether an observer would hear an event of *event_type*, so that it need not be made otherwise.
        """
        return event_type in self._observers

    def emit(self, event: object) -> None:
        """
        Tell every observer of this event's type, one after the other.
        """
        for observer in self._observers.get(type(event), ()):
            try:
                observer(event)
            except Exception as exc:  # noqa: BLE001 -- never fail the observed.
                self.on_error(exc, component=_name(observer))


def _name(observer: EventListener) -> str:
    # A method of a built-in type, such as a list's append, has no module.
    return str(getattr(observer, "__module__", None) or "observer").removeprefix("celery_obs.")
