"""
The observers of a process: made of the settings, connected in order, flushed when it ends.

What begins is told in the order metrics, correlation, traces, errors, logs; so a log line of the beginning knows its trace.
What ends is told to metrics first, and then in the opposite order, so that who came last leaves first and the canonical line is written
while the span is still the current one.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from celery_obs.areas import parts

from .hub import Hub


__all__ = ["Observer", "Observers"]


ENDINGS: Final = frozenset(event for _, part in parts("events") for event in getattr(part, "ENDINGS", ()))
"""
The events that end what another one began, in the same thread.
"""


class Observer(Protocol):
    """
    Hears events.  It may also have ``flush(within: float)``, which writes what is still to be written within so many seconds,
    and ``after_fork()``, which makes it a child's own; and ``exemplar()``, which returns the id of the trace that this thread's attempt belongs to,
    if that is recorded, else 0.
    """

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        """
        Return the events that it wants to hear of, each with what hears it.
        """


class Observers:
    """
    All observers of a process.

    Args:
        hub: Where they are connected.

    Forks: call `after_fork` in the child.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._all: list[Observer] = []
        self._subscribed: list[tuple[type, Callable[[Any], object]]] = []

    def connect(self, metrics: Sequence[Observer], others: Sequence[Observer]) -> None:
        """
        Connect *metrics*, and *others*, which are in the order in which they hear of beginnings.
        """
        self._all = [*metrics, *others]
        for observer in self._all:
            self._subscribe(observer, to_endings=False)
        for observer in (*metrics, *reversed(others)):
            self._subscribe(observer, to_endings=True)

    def _subscribe(self, observer: Observer, *, to_endings: bool) -> None:
        for event_type, hear in observer.subscriptions():
            if (event_type in ENDINGS) is to_endings:
                self._hub.subscribe(event_type, hear)
                self._subscribed.append((event_type, hear))

    def disconnect(self) -> None:
        """
        Let none of them hear any more; they can still be flushed.
        """
        for event_type, hear in self._subscribed:
            self._hub.unsubscribe(event_type, hear)
        self._subscribed.clear()

    @property
    def exemplar(self) -> Callable[[], int] | None:
        """
        What tells the trace that a thread is in; None where nothing traces.
        """
        found: list[Callable[[], int]] = [each.exemplar for each in self._all if hasattr(each, "exemplar")]
        return found[0] if found else None

    def flush(self, within: float) -> None:
        """
        Have all of them write what is still to be written, together within so many seconds.
        """
        until = time.monotonic() + within
        for observer in self._all:
            self._call(observer, "flush", max(0.0, until - time.monotonic()))

    def after_fork(self) -> None:
        """
        Become a child's own.
        """
        for observer in self._all:
            self._call(observer, "after_fork")

    def _call(self, observer: Observer, name: str, *arguments: float) -> None:
        method = getattr(observer, name, None)
        if method is not None:
            try:
                method(*arguments)
            except Exception as exc:  # noqa: BLE001 -- never fail the observed.
                self._hub.on_error(exc, component=type(observer).__module__.removeprefix("celery_obs."))
