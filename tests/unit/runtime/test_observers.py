"""
The observers of a process: who hears first, who last, and what happens at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery_obs.areas.tasks.events import AttemptInterrupted, TaskStarted
from celery_obs.runtime.hub import Hub
from celery_obs.runtime.observers import Observers
from celery_obs.testing import RaisingErrors


STARTED = TaskStarted("t", "q", "id", 0, 1_800_000_000.0, None, clock_skewed=False, due_at=None)


class Scribe:
    """
    Writes down what it hears and when it is flushed.
    """

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def subscriptions(self) -> Iterable[tuple[type, Callable[[Any], object]]]:
        return ((TaskStarted, self._hear("begins")), (AttemptInterrupted, self._hear("ends")))

    def _hear(self, what: str) -> Callable[[Any], object]:
        return lambda _: self.notes.append(f"{self.name} {what}")

    def flush(self, within: float) -> None:
        assert 0 <= within <= 1
        self.notes.append(f"{self.name} flushed")


class Clumsy(Scribe):
    """
    Fails when it is flushed.
    """

    def flush(self, within: float) -> None:
        message = "oops"
        raise RuntimeError(message)


def test_who_hears_of_a_beginning_last_hears_of_the_end_first() -> None:
    """
    Metrics come first in both; the others are nested like the contexts that they hold.
    """
    notes: list[str] = []
    hub = Hub(on_error=RaisingErrors())
    Observers(hub).connect([Scribe("metrics", notes)], [Scribe("traces", notes), Scribe("logs", notes)])

    hub.emit(STARTED)
    hub.emit(AttemptInterrupted(STARTED))

    assert [
        "metrics begins",
        "traces begins",
        "logs begins",
        "metrics ends",
        "logs ends",
        "traces ends",
    ] == notes


def test_one_that_fails_at_the_end_keeps_no_other_from_its_own() -> None:
    """
    All are flushed, and the error is told.
    """
    notes: list[str] = []
    told: list[str] = []
    observers = Observers(Hub(on_error=lambda error, *, component: told.append(str(error))))
    observers.connect([], [Clumsy("traces", notes), Scribe("logs", notes)])

    observers.flush(within=1.0)
    observers.after_fork()

    assert (["oops"], ["logs flushed"]) == (told, notes)
