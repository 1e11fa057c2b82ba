"""
A worker's main process, beside its work: it beats, looks around, settles what dead pool processes left, and announces its queues.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref

from typing import Any, Final

import celery

from celery.worker import state

from celery_obs.clock import wall
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.format import folder_name
from celery_obs.recorder.recorder import Recorder
from celery_obs.runtime.hub import guarded
from celery_obs.settings import Settings

from .announce import Announcer, announcements
from .heartbeat import Heartbeat, Substitute
from .hub import OnError
from .lost import LostAttempts
from .processes import note_removals
from .retire import RetiringThread, retiring_thread
from .state import WorkerState, is_order, pool_pids


__all__ = ["MainProcess"]


_VERDICT_PATIENCE: Final = 30.0
_FAREWELL: Final = 1.0
"""
Seconds that a worker which ends waits for the beat inside it, and for each of our threads.
"""


class MainProcess:
    """
    What we do there.

    Args:
        worker: Celery's; held weakly, for one that is embedded in a program may end long before that.

        settings: For intervals and Redis.

        recorder, attempts: Where numbers go; None where metrics are off.

        lost: Is told which processes there are.

        on_error: Hears of what is kept from the worker.

    Forks: of no use in a child.
    """

    def __init__(
        self,
        worker: Any,
        *,
        settings: Settings,
        recorder: Recorder | None,
        attempts: AttemptMeter | None,
        lost: LostAttempts,
        on_error: OnError,
    ) -> None:
        self._worker = weakref.proxy(worker)
        self._beat: Any = None
        self._settings = settings
        self._recorder = recorder
        self._attempts = attempts
        self._lost = lost
        self._on_error = on_error
        self._pid = os.getpid()
        self._state: WorkerState | None = None
        self._heartbeat: Heartbeat | None = None
        self._substitute: Substitute | None = None
        self._announcer: Announcer | None = None
        self._retiring: RetiringThread | None = None
        self._has_failed = False

    def start(self) -> None:
        """
        Begin to beat, look around and announce.
        """
        if self._recorder is not None and self._recorder.node is not None:
            self._beat = getattr(self._worker, "beat", None)
            self._state = WorkerState(self._worker, self._recorder)
            self._heartbeat = Heartbeat(self._recorder.node.folder, role="worker")
            self._substitute = Substitute(self._heartbeat, interval=self._settings.heartbeat_interval)
            self._show(ready=False)
            self._state.describe(celery.__version__)
            note_removals(self._worker.pool, self._recorder.expect_end, on_error=self._on_error)
            self._retiring = retiring_thread(self._recorder, self._attempts, self._settings, self._on_error)
            self._retiring.start()
        self.tick()
        self._worker.timer.call_repeatedly(self._settings.heartbeat_interval, self.tick)
        if self._settings.redis and self._settings.announce_queues:
            self._announcer = Announcer(self._settings.redis, say=lambda: announcements(self._worker, now=wall()), on_error=self._on_error)
            with guarded(self._on_error, "worker.announce"):
                self._announcer.start()

    def tick(self) -> None:
        """
        Beat once: record the worker's state and settle what dead children left.  Runs in the worker's event loop, so it guards itself.
        """
        with guarded(self._on_error, "worker.tick"):
            if self._recorder is not None:
                self._recorder.mend()
            pids = pool_pids(self._worker)
            if pids is not None:
                self._lost.look(state.active_requests, pids)
            self._record()

    def _record(self) -> None:
        recorder = self._recorder
        if recorder is None or self._state is None or self._heartbeat is None or self._attempts is None:
            return
        try:
            self._heartbeat.beat()
        except OSError as exc:
            recorder.switch_off(exc)
        if recorder.is_off:  # It beats on, for a worker without metrics is no dead one.
            return
        self._state.record()
        self._attempts.sweep()
        self._attempts.settle_interrupted(older_than=_VERDICT_PATIENCE)

    def broker_found(self) -> None:
        """
        Say that the worker is ready; from here on the event loop beats.
        """
        self._show(ready=True)

    def broker_lost(self) -> None:
        """
        Say that the worker is not ready, and beat on until it is.
        """
        self._show(ready=False)

    def _show(self, *, ready: bool) -> None:
        if self._heartbeat is None or self._substitute is None or self._recorder is None:
            return
        try:
            if ready:
                self._substitute.stop()
            else:
                self._substitute.start()
            self._heartbeat.write(ready=ready)
        except OSError as exc:
            self._recorder.switch_off(exc)
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._on_error(exc, component="worker.heartbeat")

    def stop(self) -> None:
        """
        Say that no new work is taken.  A warm shutdown may last for as long as a task, so the heart beats on until the process ends.
        """
        self._has_failed = self._failed()
        self.silence()
        if self._substitute is not None:
            self._substitute.stop()
            self._substitute.join(within=_FAREWELL)
        if self._retiring is not None:  # A worker inside a program is to leave no thread there.
            self._retiring.join(within=_FAREWELL)
        if self._heartbeat is not None:
            with contextlib.suppress(OSError):
                self._heartbeat.write(ready=False)

    def silence(self) -> None:
        """
        Announce no more.
        """
        if self._announcer is not None:
            self._announcer.stop()
        if self._retiring is not None:
            self._retiring.stop()

    def _failed(self) -> bool:
        """
        Tell whether the worker ends by an error of its own, and not because it was told to stop.

        Celery has a text as the exit code where the order came by remote control.
        """
        is_ordered = is_order(state.should_stop) or is_order(state.should_terminate)
        code = getattr(self._worker, "exitcode", None)
        return not is_ordered and isinstance(code, int) and code != 0

    def leave(self) -> None:
        """
        Settle what is left, at the end of the process; does nothing in a child that inherited this.
        """
        if self._pid != os.getpid():
            return
        if self._announcer is not None:
            self._announcer.stop()
            self._announcer.join(within=_FAREWELL)
        if self._attempts is None:
            return
        with guarded(self._on_error, "worker.leave"):
            self._attempts.sweep()
            if self._heartbeat is not None and not self._has_failed:
                self._heartbeat.remove()  # So that it leaves the page at once: nothing of it is missing.
            if self._beat is not None and self._recorder is not None:
                # Beat inside a worker is ended by a signal, so that it cannot take leave itself; joined, it is no zombie.
                self._beat.join(_FAREWELL)
                Heartbeat(self._recorder.metrics_dir / folder_name(f"beat@{socket.gethostname()}"), role="beat").remove_if_dead()
