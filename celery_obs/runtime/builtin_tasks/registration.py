"""
Our own tasks: from what each is, a value, to a task of the app.

A task is registered as ``<task_namespace>.<name>``.  A worker takes it under its bare name, too, but by then it is the full one: the message is
renamed where it arrives, so that logs, results and metrics know one name.  The bare name is not registered: a task of the user's that is called so, whenever
it is defined, is the one that runs.
"""

from __future__ import annotations

import contextlib
import functools

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from celery import Task, bootsteps

from celery_obs.areas.task_spec import TaskSpec
from celery_obs.compat.celery import registry_of
from celery_obs.runtime.builtin_tasks.specs import specs
from celery_obs.settings import Settings

from .entries import PERIODS
from .waiting import taken


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["AliasStep", "aliases", "connect", "disconnect", "full_name", "periodic", "register", "specs"]


_SOFTLY: Final = 0.9
"""
The soft time limit, as a part of the hard one: time enough to tidy up.
"""

_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({"ignore_result": True})


def register(app: Any, settings: Settings) -> None:
    """
    Make our tasks known to *app*; a task of that name which is there already stays what it is.

    Args:
        app: The `celery.Celery` app, finalised: else tasks of its own may be waiting to be made, and would find their names taken.

        settings: For the names.
    """
    for spec in specs():
        name = full_name(settings, spec.name)
        if name not in registry_of(app):
            app.task(_taking(spec, name) if spec.name in PERIODS else spec.run, **_options(spec, name))


def periodic(settings: Settings) -> frozenset[str]:
    """
    Return the full names of the tasks that beat publishes for us.
    """
    return frozenset(full_name(settings, name) for name in PERIODS)


def _taking(spec: TaskSpec, name: str) -> Callable[..., Any]:
    """
    Return a task's body that also says that its message waits no longer.  One that comes back when its worker dies (acks late) waits until it is done.
    """

    def take() -> None:
        with contextlib.suppress(Exception):  # Beat finds out by itself, later.
            taken(_redis(), name)

    @functools.wraps(spec.run)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not spec.options.get("acks_late"):
            take()
            return spec.run(*args, **kwargs)
        try:
            return spec.run(*args, **kwargs)
        finally:
            take()

    return run


def full_name(settings: Settings, name: str) -> str:
    """
    Return the name that a task of ours is registered with.
    """
    return f"{settings.task_namespace}.{name}"


def aliases(app: Any, settings: Settings) -> Mapping[str, str]:
    """
    Return the bare names that mean tasks of ours in *app*, each with the full name.
    """
    return {spec.name: full_name(settings, spec.name) for spec in specs() if spec.name not in registry_of(app)}


def _options(spec: TaskSpec, name: str) -> dict[str, Any]:
    # Not shared: tasks that are go into every app that this process ever makes.  No base class of the user's: it may want what we do not know of.
    made = {"name": name, "bind": True, "base": Task, "shared": False, "lazy": False}
    limits = {"time_limit": spec.time_limit, "soft_time_limit": spec.time_limit * _SOFTLY}
    return {**_OPTIONS, **limits, **spec.options, **made}


def _nothing(*_: Any) -> None:
    return None


_known: Callable[[Any], Mapping[str, str] | None] = _nothing
_redis: Callable[[], Redis | None] = _nothing


def connect(known: Callable[[Any], Mapping[str, str]], redis: Callable[[], Redis | None]) -> None:
    """
    Have *known* tell, from now on, the bare names that mean tasks of ours in an app, and *redis* where the marks of waiting messages are.
    """
    global _known, _redis
    _known, _redis = known, redis


def disconnect() -> None:
    """
    Know no bare names and no marks from now on.
    """
    global _known, _redis  # noqa: PLW0603 -- see connect.
    _known = _redis = _nothing


class AliasStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types.
    """
    The step of a worker's consumer that takes messages under bare names.
    """

    requires: Final = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """
        Begin to take them, each time the consumer has connected.
        """
        for bare, full in (_known(parent.app) or {}).items():
            if bare not in parent.app.tasks and full in parent.strategies:
                parent.strategies[bare] = _Renamed(parent.strategies, full)


class _Renamed:
    """
    What happens to a message that names a task of ours by its bare name.
    """

    def __init__(self, strategies: Mapping[str, Callable[..., Any]], full: str) -> None:
        self._strategies = strategies
        self._full = full

    def __call__(self, message: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Give the message its full name, and let it go on as such.
        """
        for written in (message.headers, body):  # Protocol 2 has the name there, protocol 1 here.
            if isinstance(written, dict) and "task" in written:
                written["task"] = self._full
        return self._strategies[self._full](message, body, *args, **kwargs)
