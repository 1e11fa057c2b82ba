"""
What a worker did, counted twice: by a receiver of Celery's own events beside it, and by us.
"""

from __future__ import annotations

import contextlib
import threading

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Celery

from celery_obs.testing import counters
from celery_obs.vocabulary.tasks import FINISHED, RECEIVED


__all__ = ["Counts", "listening"]


class Counts:
    """
    The two counts, by what happened.

    Args:
        metrics_dir: Where our metric files are.
    """

    def __init__(self, metrics_dir: Path) -> None:
        self._metrics_dir = metrics_dir
        self.heard: Counter[str] = Counter()

    def hear(self, event: dict[str, Any]) -> None:
        """
        Count an event of Celery's.
        """
        self.heard[event["type"]] += 1

    def ours(self) -> Counter[str]:
        """
        Return what we counted, under the names of Celery's events.
        """
        found: Counter[str] = Counter()
        words = {
            "success": "task-succeeded",
            "failure": "task-failed",
            "retry": "task-retried",
            "rejected": "task-rejected",
            "revoked": "task-revoked",
        }
        for (name, labels), count in counters(self._metrics_dir).items():
            if name == RECEIVED.name:
                found["task-received"] += count
            elif name == FINISHED.name:
                found[words.get(labels[-1], labels[-1])] += count
        return found

    def __str__(self) -> str:
        """
        Lay the two beside each other.
        """
        ours = self.ours()
        names = sorted(name for name in self.heard.keys() | ours.keys() if not name.startswith("worker-"))
        return "\n".join(["event               receiver      ours", *(f"{name:18} {self.heard[name]:9} {ours[name]:9}" for name in names)])


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
