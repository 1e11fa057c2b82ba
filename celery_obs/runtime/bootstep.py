"""
The worker's own state: a bootstep in the main process that beats, looks around and sweeps, and one that hears when the broker is there.

Its ``create`` runs before the pool forks, so the layout is there for every child; its ``start`` runs after the pool is up and before messages are consumed.
Everything periodic hangs on the worker's timer: it runs in the event loop, and stops when that hangs, which is what a heartbeat is for.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from celery import bootsteps


__all__ = ["BrokerStep", "ObservabilityStep", "WorkerLife", "connect", "disconnect"]


class WorkerLife(Protocol):
    """
    What has to be done while a worker's main process lives.
    """

    def worker_created(self, worker: Any) -> None:
        """
        The worker is built and its pool not yet started.
        """

    def worker_started(self, worker: Any) -> None:
        """
        The pool is up.
        """

    def broker_found(self) -> None:
        """
        The worker is connected to its broker, for the first time or again.
        """

    def broker_lost(self) -> None:
        """
        The worker is connected no more, because the broker went or because the worker does.
        """

    def worker_stopped(self, worker: Any) -> None:
        """
        The worker comes down by order, and takes no more work.
        """


_life: WorkerLife | None = None


def connect(life: WorkerLife) -> None:
    """
    Have *life* hear of the workers that are made from now on.
    """
    global _life  # noqa: PLW0603 -- one plugin a process.
    _life = life


def disconnect() -> None:
    """
    Tell nothing of workers that are made from now on.
    """
    global _life  # noqa: PLW0603 -- see connect.
    _life = None


class ObservabilityStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types.
    """
    The step of a worker.
    """

    requires: Final = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._life = _life

    def create(self, parent: Any) -> None:
        """
        Get ready before the pool forks.
        """
        if self._life is not None:
            self._life.worker_created(parent)

    def start(self, parent: Any) -> None:
        """
        Begin to look around.
        """
        if self._life is not None:
            self._life.worker_started(parent)

    def stop(self, parent: Any) -> None:
        """
        Take leave.
        """
        if self._life is not None:
            self._life.worker_stopped(parent)

    def terminate(self, parent: Any) -> None:
        """
        Take leave in a cold shutdown, as in the end of a worker that runs inside a program.
        """
        self.stop(parent)


class BrokerStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types.
    """
    The step of a worker's consumer that hears of the connection.

    Celery starts and stops a consumer's steps anew with every connection.
    """

    requires: Final = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._life = _life

    def start(self, parent: Any) -> None:
        """
        Tell that the broker is there.
        """
        if self._life is not None:
            self._life.broker_found()

    def stop(self, parent: Any) -> None:
        """
        Tell that it is not.
        """
        if self._life is not None:
            self._life.broker_lost()
