"""
A thread of a worker's main process, or of beat, that merges nodes which are gone into the remainder of the metrics directory.
"""

from __future__ import annotations

import threading

from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.retiring import Retiring
from celery_obs.runtime.hub import guarded
from celery_obs.settings import Settings

from .hub import OnError


__all__ = ["RetiringThread", "retiring_thread"]


def retiring_thread(recorder: Recorder, attempts: AttemptMeter | None, settings: Settings, on_error: OnError) -> RetiringThread:
    """
    Return the thread of a process that has claimed its slot.
    """
    own = recorder.node.name if recorder.node is not None else None
    settle = (attempts or AttemptMeter(recorder)).settle
    return RetiringThread(Retiring(recorder.metrics_dir, own=own, settle=settle), after=settings.forget_after, on_error=on_error)


class RetiringThread:
    """
    Look around now and every quarter of the time after which a node is forgotten, until told to stop.

    Args:
        retiring: What does it.

        after: Seconds without a sign of life after which a node is merged.

        on_error: Hears of failures.

    Forks: a child has none.
    """

    def __init__(self, retiring: Retiring, *, after: float, on_error: OnError) -> None:
        self._retiring = retiring
        self._after = after
        self._on_error = on_error
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """
        Begin.
        """
        self._thread = threading.Thread(target=self._run, name="celery_obs.retire", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """
        Stop soon; what is under way is not waited for, and may be cut off anywhere.
        """
        self._stopped.set()

    def join(self, *, within: float) -> None:
        """
        Give the thread up to *within* seconds to end.
        """
        if self._thread is not None:
            self._thread.join(within)

    def _run(self) -> None:
        while True:
            with guarded(self._on_error, "worker.retire"):
                self._retiring.run(after=self._after)
            if self._stopped.wait(min(600.0, max(1.0, self._after / 4))):
                return
