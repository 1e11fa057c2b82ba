"""
The heartbeat file: one line for probes, its modification time the last beat.

``celery-obs probe`` reads it with the standard library alone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import threading
import time

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from celery_obs.recorder.opening import read_file, replace_file
from celery_obs.recorder.recorder import Recorder


__all__ = ["BeatHeart", "Heartbeat", "Substitute"]


_STARTING: Final = "starting"
_FIRST: Final = "first"
_PASSING: Final = ""
_CONNECTING: Final = "connecting"
_STANDBY: Final = "standby"
"""
What beat does.  The file says it as ``state``, but for a first pass, which is starting, and for beat's usual work, which needs no word.
"""


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

    def write(self, *, ready: bool, **facts: str) -> None:
        """
        Say who beats, whether it is ready to work, and what else there is to say; what is empty is left out.

        Raises:
            OSError: if the file cannot be written.
        """
        more = {name: fact for name, fact in facts.items() if fact}
        line = json.dumps({"pid": os.getpid(), "role": self._role, "ready": ready, **more}) + "\n"
        replace_file(self._path, [line.encode()])

    def beat(self) -> None:
        """
        Beat once.

        Raises:
            OSError: if the file or its folder is gone.
        """
        os.utime(self._path, follow_symlinks=False)

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
            os.kill(int(json.loads(read_file(self._path))["pid"]), 0)
        except ProcessLookupError:
            self.remove()
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            OverflowError,
        ):  # There is none, it is none, or its process is another user's.
            return


class Substitute:
    """
    Beats in the place of the worker's event loop, which stands still for as long as Celery tries to connect to its broker.

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
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """
        Beat until `stop`; twice is once.

        Raises:
            RuntimeError: if the process can have no more threads.
        """
        if self._end is None:
            end = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(end,), name="celery_obs.heartbeat", daemon=True)
            self._thread.start()
            self._end = end

    def stop(self) -> None:
        """
        Leave it to those whose place it took.
        """
        if self._end is not None:
            self._end.set()
            self._end = None

    def join(self, *, within: float) -> None:
        """
        Give the thread up to *within* seconds to end.
        """
        if self._thread is not None:
            self._thread.join(within)

    def _run(self, end: threading.Event) -> None:
        while not end.wait(self._interval):
            with contextlib.suppress(OSError):  # Their own beat finds it out, and says so.
                self._heartbeat.beat()


class BeatHeart:
    """
    Beats for beat, where that has a process of its own.

    A thread beats, for as long as beat either goes on or waits where waiting is its work: it starts, connects to its broker, or stands by because
    another beat holds the lock of the schedule.  Those may last for ever.  Anything else has to come to an end: when a pass through the schedule takes
    longer than *hung_after* (a slow query of a database scheduler does not), beat hangs, and the heart is silent until it goes on.

    Args:
        recorder: Beat's.

        folder: Its node's.

        interval: Seconds between two beats.

        hung_after: Seconds without progress after which beat hangs.

        waits_for: Returns what beat waits for before it goes through its schedule, such as another beat's lock; empty when it does not.

        monotonic: Tells how much time passed.

    Threads: its own, and beat's.
    Forks: a child has none.
    """

    def __init__(
        self,
        recorder: Recorder,
        folder: Path,
        *,
        interval: float,
        hung_after: float,
        waits_for: Callable[[], str] = str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = recorder
        self._heartbeat = Heartbeat(folder, role="beat")
        self._interval = interval
        self._hung_after = hung_after
        self._waits_for = waits_for
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._doing = _STARTING
        self._shown = ""
        self._progress_at = monotonic()
        self._is_hung = False

    def start(self) -> None:
        """
        Begin; an orderly end of the process takes the file away.  Where the file cannot be written, metrics are off.
        """
        try:
            self._write(_STARTING)
        except OSError as exc:
            self._recorder.switch_off(exc)
            return
        atexit.register(self._stop)
        try:
            threading.Thread(target=self._run, name="celery_obs.heartbeat", daemon=True).start()
        except RuntimeError:  # The process can have no more threads, which is no reason to keep beat from its work.
            logging.getLogger("celery_obs").exception(
                "celery_obs: beat's heartbeat is not updated, because its thread could not be started."
            )

    def _stop(self) -> None:
        self._end.set()
        with self._lock:
            self._heartbeat.remove()

    def passing(self) -> None:
        """
        Beat goes on.
        """
        self._progress_at = self._monotonic()
        if self._doing == _STARTING:
            self._doing = _FIRST  # It is ready once it has gone through its schedule.
        elif self._doing == _FIRST:
            self._enter(_PASSING)

    @contextlib.contextmanager
    def connecting(self) -> Iterator[None]:
        """
        Beat tries to connect to its broker; it is not ready meanwhile.
        """
        before = self._doing
        self._enter(_CONNECTING)
        try:
            yield
        finally:
            self._progress_at = self._monotonic()
            self._enter(before)

    def _enter(self, doing: str) -> None:
        self._doing = doing
        self.beat()

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            self.beat()

    def beat(self) -> None:
        """
        Beat once, unless beat hangs.  Never raises.
        """
        self._recorder.mend()
        doing = self._doing
        if doing in {_FIRST, _PASSING} and self._monotonic() - self._progress_at > self._hung_after:
            self._say_hung()
            return
        self._is_hung = False
        if doing == _FIRST:
            doing = _STARTING
        elif doing == _STARTING and self._waits_for():
            doing = _STANDBY
        try:
            if doing != self._shown:
                self._write(doing)
            else:
                with self._lock:
                    if not self._end.is_set():
                        self._heartbeat.beat()
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._recorder.switch_off(exc)
            self._end.set()

    def _write(self, doing: str) -> None:
        with self._lock:
            if not self._end.is_set():
                # One that stands by is all that it should be: a rollout that waits for it is not to wait for ever.
                self._heartbeat.write(
                    ready=doing in {_PASSING, _STANDBY}, state=doing, waits_for=self._waits_for() if doing == _STANDBY else ""
                )
                self._shown = doing

    def _say_hung(self) -> None:
        if not self._is_hung:
            self._is_hung = True
            logging.getLogger("celery_obs").error(
                "celery_obs: beat has been stuck in one pass through its schedule for %.0f s. Its heartbeat stops, so that liveness probes fail. "
                "If a pass may take longer, raise the setting beat_hung_after.",
                self._hung_after,
            )
