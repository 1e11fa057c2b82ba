"""
What a worker did, counted twice: by a receiver of Celery's own events beside it, and by us.
"""

from __future__ import annotations

import contextlib
import threading
import time

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Celery

from celery_obs.areas.tasks.metrics import FINISHED, RECEIVED, STARTED
from celery_obs.testing import counters


__all__ = ["NAMELESS", "WORDS", "Counts", "listening"]


_SILENCE = 2.0

WORDS = {
    "success": "task-succeeded",
    "failure": "task-failed",
    "timeout": "task-failed",
    "lost": "task-failed",
    "retry": "task-retried",
    "rejected": "task-rejected",
    "revoked": "task-revoked",
    "terminated": "task-revoked",
}
"""
Under which event of Celery's an outcome of ours is told.  Celery has none for what a task ignored.
"""

NAMELESS = "task-revoked"
"""
What Celery tells of a task whose name it has not told before.
"""


class Counts:
    """
    The two counts, by what happened.

    Args:
        metrics_dir: Where our metric files are.
    """

    def __init__(self, metrics_dir: Path) -> None:
        self._metrics_dir = metrics_dir
        self._names: dict[str, str] = {}
        self.heard: Counter[tuple[str, str]] = Counter()

    def hear(self, event: dict[str, Any]) -> None:
        """
        Count an event of Celery's.
        """
        kind = event["type"]
        if kind.startswith("task-") and kind != "task-sent":
            if "name" in event:  # A task that replaces another has its id.
                self._names[event["uuid"]] = event["name"]
            self.heard[kind, self._names.get(event["uuid"], "") if kind != NAMELESS else ""] += 1

    def settle(self) -> None:
        """
        Wait until no more events come.
        """
        last = -1
        while last != (last := self.heard.total()):
            time.sleep(_SILENCE)

    def ours(self) -> Counter[tuple[str, str]]:
        """
        Return what we counted, under the names of Celery's events, by task.
        """
        found: Counter[tuple[str, str]] = Counter()
        for (name, labels), count in counters(self._metrics_dir).items():
            if name == RECEIVED.name:
                found["task-received", labels[0]] += count
            elif name == STARTED.name:
                found["task-started", labels[0]] += count
            elif name == FINISHED.name and labels[-1] in WORDS:
                word = WORDS[labels[-1]]
                found[word, labels[0] if word != NAMELESS else ""] += count
        return found

    def differences(self) -> dict[str, tuple[int, int]]:
        """
        Return what the receiver heard and what we counted, of each event of each task where the two are not the same.
        """
        ours = self.ours()
        return {
            " ".join(filter(None, key)): (self.heard[key], ours[key])
            for key in sorted(self.heard.keys() | ours.keys())
            if self.heard[key] != ours[key]
        }

    def __str__(self) -> str:
        """
        Lay the two beside each other, added up over all tasks.
        """
        heard, ours = _by_event(self.heard), _by_event(self.ours())
        rows = (f"{event:18} {heard[event]:9} {ours[event]:9}" for event in sorted(heard.keys() | ours.keys()))
        return "\n".join(["event               receiver      ours", *rows])


def _by_event(counts: Counter[tuple[str, str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (event, _), count in counts.items():
        found[event] += count
    return found


@contextlib.contextmanager
def listening(url: str, metrics_dir: Path) -> Iterator[Counts]:
    """
    Count the events on the broker at *url* for a while.
    """
    app = Celery("listener", broker=url, set_as_current=False)
    counts = Counts(metrics_dir)
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": counts.hear})
        thread = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False), daemon=True)
        thread.start()
        yield counts
        receiver.should_stop = True
        thread.join(timeout=5)
