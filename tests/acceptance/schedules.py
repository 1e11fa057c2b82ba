"""
A stage for beats with any scheduler: the app ``scheduled``, its database, and its ledgers.
"""

from __future__ import annotations

import sqlite3
import sys
import time

from pathlib import Path

from celery_obs.cli.probe import heartbeats, verdict
from tests.workers import Process

from .conftest import OUR_APPS, Stage


__all__ = ["Schedules", "says"]


class Schedules(Stage):
    """
    A stage with schedulers on it, and no sidecar: what it would show is read from the files.
    """

    def beat_of(self, scheduler: str, *, name: str = "", metrics_dir: Path | None = None, **environ: str) -> Process:
        """
        Start a beat with *scheduler*.
        """
        more = {"CELERY_OBS_METRICS_DIR": str(metrics_dir)} if metrics_dir else {}
        return self.process(
            *(sys.executable, "-m", "celery", "-A", "scheduled", "beat", "-l", "INFO", "--pidfile=", f"--schedule={self.folder}/schedule"),
            name=name or f"beat-{scheduler}",
            **{"SCHEDULER": scheduler, "DATABASE": str(self.database), **more, **environ},
        )

    @property
    def database(self) -> Path:
        return self.folder / "schedule.sqlite3"

    def change(self, code: str) -> None:
        """
        Change the schedule in the database by *code*, or ``migrate`` it.
        """
        program = str(OUR_APPS / "scheduled.py")
        result, said = self.run(sys.executable, program, code, name="change", SCHEDULER="django", DATABASE=str(self.database))
        assert 0 == result, said

    def rows(self, question: str) -> list[tuple[str, str | int | None]]:
        """
        Ask the database.
        """
        with sqlite3.connect(self.database) as database:
            return database.execute(question).fetchall()

    def times(self, ledger: str, entry: str) -> list[float]:
        """
        Return what a ledger has of an entry.
        """
        return [float(at) for at in self.client.backend.client.lrange(f"{ledger}:{entry}", 0, -1)]


def says(question: str, folder: Path, *, max_age: float = 2.5) -> tuple[bool, str]:
    """
    Ask what a probe asks, with little patience.
    """
    return verdict(question, heartbeats(str(folder)), now=time.time(), max_age=max_age)
