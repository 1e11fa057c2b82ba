"""
What apps declare: the names of their tasks, queues and schedule entries, which metrics keep apart whatever their number.

A name that is not declared here comes from a message, a variable or a mistake, and counts against ``label_limit``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celery_obs.areas.queues.metrics import shared_label


__all__ = ["Declarations"]


class Declarations:
    """
    Look names up in what *apps* declare.

    Args:
        apps: Celery apps; more may be added later.  One that is not finalized is not asked, and not finalized by being asked.

    Threads and forks: safe.
    """

    def __init__(self, apps: Iterable[Any]) -> None:
        self._apps = apps
        self._consumed: frozenset[str] = frozenset()
        self._queues: tuple[int, frozenset[str]] = (0, frozenset())

    def consume(self, names: Iterable[object]) -> None:
        """
        Take the queues that a worker consumes for declared.
        """
        self._consumed = frozenset(map(str, names))

    def include(self, label: str, value: str) -> bool:
        """
        Tell whether *value* is a task, a queue or an entry that an app declares, whichever of them *label* stands for.
        """
        if label == "task":
            return any(value in app.tasks for app in self._apps if app.finalized)
        if label == "queue":
            return value in self._consumed or value in self._declared_queues()
        if label == "entry":
            return any(value in (app.conf.beat_schedule or ()) for app in self._apps if app.finalized)
        return False

    def _declared_queues(self) -> frozenset[str]:
        ready = [app for app in self._apps if app.finalized]
        if self._queues[0] != len(ready):
            self._queues = (len(ready), frozenset(name for app in ready for name in _queues_of(app.conf)))
        return self._queues[1]


def _queues_of(conf: Any) -> Iterator[str]:
    """
    Go through the queues that a configuration names: its list of queues, its default, and the targets of its routes.

    Not through the app's own table of queues: Celery adds each name to it that a message was ever sent to.
    """
    yield str(conf.task_default_queue)
    for queue in conf.task_queues or ():
        yield _shown(queue)
    routes = conf.task_routes or ()
    for route in (routes,) if isinstance(routes, Mapping) else tuple(routes) if isinstance(routes, (list, tuple)) else ():
        for target in route.values() if isinstance(route, Mapping) else ():
            queue = target.get("queue") if isinstance(target, Mapping) else target
            if queue is not None:
                yield _shown(queue)


def _shown(queue: Any) -> str:
    """
    Return what a queue is called in metrics; what declares it may be its name alone.
    """
    name = getattr(queue, "name", None)
    return str(queue) if name is None else shared_label(queue) or str(name)
