"""
What an area does in a process that is watched, beside its numbers: the base of each ``runtime.Runtime``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from celery_obs.settings import Settings
from celery_obs.vocabulary.spec import Metric


if TYPE_CHECKING:
    from redis import Redis

    from celery_obs.runtime.apps import Apps
    from celery_obs.runtime.hub import Hub


__all__ = ["AreaRuntime", "WatchedProcess"]


class WatchedProcess(Protocol):
    """
    What an area may know of the process, and ask of it.
    """

    @property
    def hub(self) -> Hub:
        """
        Where events go.
        """

    @property
    def apps(self) -> Apps:
        """
        The apps that were set up.
        """

    @property
    def settings(self) -> Settings | None:
        """
        The settings in force; None until the process is active.
        """

    def observe(self) -> None:
        """
        Become active, because there is something to tell.  Never raises.
        """

    def bring_tasks(self, app: Any) -> None:
        """
        Have our own tasks in *app*, which was final before there was work for them.
        """


class AreaRuntime:
    """
    One area in one process; each method is called when the process comes so far, and does nothing here.

    What a method raises is kept from the program, counted and told in the log.

    Args:
        process: The process.

    Forks: a child inherits it.
    """

    def __init__(self, process: WatchedProcess) -> None:
        self.process = process

    def connect(self) -> None:
        """
        `celery_obs.setup` was called; nothing is configured yet.
        """

    def disconnect(self) -> None:
        """
        `celery_obs.teardown` was called.
        """

    def program_started(self, app: Any, settings: Settings) -> None:
        """
        A worker or beat has the configuration of *app*, and its pool is not forked yet.
        """

    def activated(self, settings: Settings, redis: Redis | None) -> None:
        """
        The process is active: the *settings* count from now on, and *redis* has the cluster's state, where there is one.
        """

    def deactivated(self) -> None:
        """
        The process is as before it was active; it may become so again, with other settings.
        """

    def after_fork(self) -> None:
        """
        This is a child that was just forked.
        """

    def flush(self, within: float) -> None:
        """
        Write what is kept back within so many seconds, because the process ends or its settings do.
        """

    def needs_tasks(self, app: Any, settings: Settings) -> bool:
        """
        Tell whether there is something in *app* for our own tasks to do.
        """
        return False

    def tags_of(self, task: str) -> Mapping[str, str]:
        """
        Return what can be said of a task by its name alone, such as its channel.
        """
        return {}

    def series(self, app: Any, settings: Settings) -> Iterator[tuple[Metric, tuple[str, ...]]]:
        """
        Go through the series of a worker of *app* that are known at its start, so that they exist at 0.
        """
        return iter(())
