"""
Attempts that came to no end of their own: killed, or gone with their process.  The main process finds them and tells once of each.

Celery tells of some in its signals, late, twice or never, depending on version, acknowledgement mode and the way of dying.
So there are three sources: what Celery says; what it is told itself of the request, which it does not pass on where it puts the message back; and looking
which attempts belong to processes that are gone.  A mark on the request, which lives as long as Celery knows the attempt, keeps them from telling of the
same one.  Counting them is not done here: their slots do that.
"""

from __future__ import annotations

import functools
import weakref

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, Literal

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from billiard.pool import MaybeEncodingError
from celery.exceptions import Ignore, Reject, Retry
from celery.worker import state as worker_state

from celery_obs.areas.tasks.events import AttemptKillDecided, AttemptLost, AttemptNotBegun
from celery_obs.compat.billiard import error_of
from celery_obs.compat.celery import REQUEST_METHODS, is_taken_back

from .hub import Hub
from .state import is_order
from .translate import QueueNames, identity


__all__ = ["LostAttempts"]


_BEGUN: Final = (TimeLimitExceeded, Terminated, MaybeEncodingError, Reject, Ignore, Retry, MemoryError)
"""
What the pool, or Celery in its place, raises of an attempt that was begun, and that is told of elsewhere.
"""
_OVERHEARD: Final = "celery_obs_overheard"
_ORIGINAL: Final = "celery_obs_original"
_REPORTED: Final = "celery_obs_reported"
_GONE: Final = "celery_obs_gone"
_QUEUE: Final = "celery_obs_queue"


class LostAttempts:
    """
    Find them and tell the hub.

    Args:
        hub: Hears of each.

        queues: Knows the queue that a message came from.

    Threads: for the main process's event loop.  Forks: of no use in a child.
    """

    def __init__(self, hub: Hub, *, queues: QueueNames) -> None:
        self._hub = hub
        self._queues = queues
        self._requests: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    def watch(self, request: Any, *, queue: str) -> None:
        """
        Hear what the pool tells *request*, Celery's in the main process, and remember it for as long as Celery does.
        """
        kind = type(request)
        if kind.__dict__.get(_OVERHEARD) is not self:
            self._overhear(kind)
        if self._hub.wants(AttemptLost):
            request.__dict__[_QUEUE] = queue
            self._requests[identity(request.id)] = request

    def _overhear(self, kind: Any) -> None:
        """
        Have what the pool calls on requests of this class tell us, too.  Celery makes a class for each task of a worker.
        """
        setattr(kind, _OVERHEARD, self)
        hears: tuple[Callable[..., None], ...] = (self._failed, self._timed_out)
        for name, hear in zip(REQUEST_METHODS, hears, strict=True):
            method = getattr(kind, name)
            setattr(kind, name, self._overhearing(getattr(method, _ORIGINAL, method), hear))

    def _overhearing(self, original: Callable[..., Any], hear: Callable[..., None]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(request: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                hear(request, *args, **kwargs)
            except Exception as exc:  # noqa: BLE001 -- never fail the observed.
                self._hub.on_error(exc, component="worker.lost")
            return original(request, *args, **kwargs)

        setattr(call, _ORIGINAL, original)
        return call

    def _failed(self, request: Any, exc_info: Any, *_: object, return_ok: object = False, **__: object) -> None:
        error = error_of(exc_info)
        if isinstance(error, WorkerLostError):
            self._tell(request, "lost", "WorkerLostError", str(error))
        elif isinstance(error, SystemExit) and not is_taken_back(request):
            self._tell(request, "lost", "WorkerLostError", f"Its process exited ({error}).")
        elif not return_ok and isinstance(error, Exception) and not isinstance(error, _BEGUN):
            # What a task raises is returned.  What the pool itself raises came before: the message cannot be read, or is none that may be.
            self._hub.emit(AttemptNotBegun(request.name, self._queues.of(request.delivery_info), type(error).__name__))

    def _timed_out(self, request: Any, soft: object, timeout: object) -> None:
        # The names are billiard's, which passes them as keywords; pools of greenlets pass them by place.
        if soft:
            return
        # Celery says so, too, but not from a pool of greenlets before 5.7, and not where the result backend fails at that moment.
        self._hub.emit(AttemptKillDecided(identity(request.id), "timeout"))
        self._tell(request, "timeout", "TimeLimitExceeded", f"It ran for more than its hard time limit, {timeout} s.")

    def found(self, task_id: object, state: Literal["timeout", "terminated", "lost"], exception: str, message: str) -> None:
        """
        Tell of the attempt of *task_id*, unless that was done.
        """
        request = self._requests.get(identity(task_id))
        if request is not None:
            self._tell(request, state, exception, message)

    @staticmethod
    def is_reported(request: Any) -> bool:
        """
        Tell whether the end of Celery's *request* was told of.
        """
        return bool(request.__dict__.get(_REPORTED))

    def carrier_of(self, task_id: object) -> Mapping[str, Any] | None:
        """
        Return the headers of the attempt of *task_id*, as long as Celery knows it here; None in all other processes.
        """
        request = None if task_id is None else self._requests.get(identity(task_id))
        return None if request is None else request.request_dict

    def look(self, active: Iterable[Any], pids: Collection[int]) -> None:
        """
        Tell of the requests among *active* whose process is not among *pids*, at the second look that finds it gone.

        At the first one its result may still be on its way from a process that ended well.
        """
        if not self._hub.wants(AttemptLost):
            return
        for request in active:
            pid = getattr(request, "worker_pid", None)
            if pid is None or pid in pids:
                continue
            if request.__dict__.get(_GONE) == pid:
                self._tell(request, "lost", "WorkerLostError", f"Its process {pid} died.")
            request.__dict__[_GONE] = pid

    def _tell(self, request: Any, state: Literal["timeout", "terminated", "lost"], exception: str, message: str) -> None:
        if request.__dict__.get(_REPORTED):
            return
        if state == "lost" and is_order(worker_state.should_terminate):
            return  # A cold shutdown takes all attempts with it, by order.
        request.__dict__[_REPORTED] = True
        carrier = request.request_dict
        retries = carrier.get("retries")
        self._hub.emit(
            AttemptLost(
                request.name,
                request.__dict__.get(_QUEUE, ""),
                identity(request.id),
                retries if isinstance(retries, int) else 0,
                state,
                exception,
                message,
                request.time_start,
                carrier,
            )
        )
