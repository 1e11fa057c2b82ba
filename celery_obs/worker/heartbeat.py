"""
The heartbeat file: one line for probes, its modification time the last beat.

``celery-obs probe`` reads it with the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading

from pathlib import Path


__all__ = ["Heartbeat", "Substitute"]


class Heartbeat:
    """
    A heartbeat file.

    Args:
        folder: The node's folder.

        role: ``worker`` or ``beat``.
    """

    def __init__(self, folder: Path, *, role: str) -> None:
        self._path = folder / "heartbeat"
        self._role = role

    def write(self, *, ready: bool) -> None:
        """
        Say who beats, and whether it is ready to work.

        Raises:
            OSError: if the file cannot be written.
        """
        fresh = self._path.with_name("heartbeat.new")
        fresh.write_text(json.dumps({"pid": os.getpid(), "role": self._role, "ready": ready}) + "\n")
        fresh.replace(self._path)

    def beat(self) -> None:
        """
        Beat once.

        Raises:
            OSError: if the file or its folder is gone.
        """
        os.utime(self._path)

    def remove(self) -> None:
        """
        Take the file away, at an orderly end.
        """
        with contextlib.suppress(OSError):
            self._path.unlink()

    def remove_if_dead(self) -> None:
        """
        Take the file away if the process that wrote it is gone.
        """
        try:
            os.kill(int(json.loads(self._path.read_text())["pid"]), 0)
        except ProcessLookupError:
            self.remove()
        except (OSError, ValueError, KeyError, TypeError):  # There is none, it is none, or its process is another user's.
            return


class Substitute:
    """
    Beats in the place of the event loop, which stands still for as long as Celery tries to connect to its broker.

    Without it every worker would look dead while the broker is away, and be restarted, which mends nothing.  Who hangs elsewhere is still found out.

    Args:
        heartbeat: The file.

        interval: Seconds between two beats.

    Threads: start and stop from one of them.
    Forks: a child has none.
    """

    def __init__(self, heartbeat: Heartbeat, *, interval: float) -> None:
        self._heartbeat = heartbeat
        self._interval = interval
        self._end: threading.Event | None = None

    def start(self) -> None:
        """
        Beat until `stop`; twice is once.

        Raises:
            RuntimeError: if the process can have no more threads.
        """
        if self._end is None:
            end = threading.Event()
            threading.Thread(target=self._run, args=(end,), name="celery_obs.heartbeat", daemon=True).start()
            self._end = end

    def stop(self) -> None:
        """
        Leave it to the event loop.
        """
        if self._end is not None:
            self._end.set()
            self._end = None

    def _run(self, end: threading.Event) -> None:
        while not end.wait(self._interval):
            with contextlib.suppress(OSError):  # The event loop's own beat finds it out, and says so.
                self._heartbeat.beat()
