"""
The heartbeat file: one line for probes, its modification time the last beat.

``celery-obs probe`` reads it with the standard library alone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import threading

from collections.abc import Iterator
from pathlib import Path

from celery_obs.hub import Hub
from celery_obs.metrics.recorder import Recorder
from celery_obs.vocabulary.beat import BeatTicked


__all__ = ["BeatHeart", "Heartbeat", "Substitute"]


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
    Beats in the place of the worker's event loop, or of beat, which stand still for as long as Celery tries to connect to its broker.

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
        Leave it to those whose place it took.
        """
        if self._end is not None:
            self._end.set()
            self._end = None

    def _run(self, end: threading.Event) -> None:
        while not end.wait(self._interval):
            with contextlib.suppress(OSError):  # Their own beat finds it out, and says so.
                self._heartbeat.beat()


class BeatHeart:
    """
    Beats for beat, where that has a process of its own, each time it has gone through its schedule.

    Args:
        recorder: Beat's.

        folder: Its node's.

        interval: Seconds between two beats while beat itself stands still.
    """

    def __init__(self, recorder: Recorder, folder: Path, *, interval: float) -> None:
        self._recorder = recorder
        self._heartbeat = Heartbeat(folder, role="beat")
        self._substitute = Substitute(self._heartbeat, interval=interval)

    def start(self, hub: Hub) -> None:
        """
        Begin, ready; an orderly end of the process takes the file away.

        Raises:
            OSError: if the file cannot be written.
        """
        self._heartbeat.write(ready=True)
        hub.subscribe(BeatTicked, self._beat)
        atexit.register(self._heartbeat.remove)

    def _beat(self, _: BeatTicked) -> None:
        if self._recorder.is_off:
            return
        try:
            self._heartbeat.beat()
        except OSError as exc:
            self._recorder.switch_off(exc)

    @contextlib.contextmanager
    def connecting(self) -> Iterator[None]:
        """
        Beat on, not ready, while beat tries to connect to its broker.
        """
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError is for no more threads.
            self._heartbeat.write(ready=False)
            self._substitute.start()
        try:
            yield
        finally:
            self._substitute.stop()
            with contextlib.suppress(OSError):
                self._heartbeat.write(ready=True)
