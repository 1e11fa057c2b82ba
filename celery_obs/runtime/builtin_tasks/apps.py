"""
Our tasks in the apps of one process: registered, known under both names, and sent where they belong.
"""

from __future__ import annotations

import functools

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from celery_obs.settings import Settings

from . import registration as tasks


__all__ = ["OurTasks", "is_ours"]


class OurTasks:
    """
    Look after our tasks.

    Args:
        apps: The apps of this process.

        rename: Told of the bare names that mean tasks of ours, each with the full one, whenever these change.

        needs_tasks: Tells of an app and the settings whether there is something for our tasks to do; where there is nothing, they are not there.
    """

    def __init__(
        self, apps: Iterable[Any], *, rename: Callable[[Mapping[str, str]], object], needs_tasks: Callable[[Any, Settings], bool]
    ) -> None:
        self._apps = apps
        self._rename = rename
        self._needs_tasks = needs_tasks
        self._settings: Settings | None = None
        self._aliases: Mapping[str, str] = MappingProxyType({})

    def activate(self, settings: Settings) -> None:
        """
        Register our tasks, as *settings* have them, with all apps that have all of their own: what the user's modules define comes first.
        """
        self._settings = settings
        for app in self._apps:
            self.register(app)

    def register(self, app: Any) -> None:
        """
        Register our tasks with *app*, if it has all of its own and we are active.
        """
        if self._settings is None:
            return
        if app.finalized and self._needs_tasks(app, self._settings):
            tasks.register(app, self._settings)
        self._aliases = {bare: full for each in self._apps for bare, full in tasks.aliases(each, self._settings).items()}
        self._rename(self._aliases)

    def aliases(self, app: Any) -> Mapping[str, str]:
        """
        Return the bare names of our tasks that mean them in *app*.
        """
        return {} if self._settings is None else tasks.aliases(app, self._settings)

    def route(self, name: str, args: Any, kwargs: Any, options: Any, router: Any) -> Any:
        """
        Return where a message to one of our tasks goes: to their own queue, or to where *router*, the app's, sends its full name; else None.
        """
        if self._settings is None:
            return None
        full = self._aliases.get(name, name)
        if self._settings.task_queue and full in self._aliases.values():
            return {"queue": self._settings.task_queue}
        return None if full == name or router is None else router.lookup_route(full, args, kwargs, options)


def is_ours(name: str) -> bool:
    """
    Tell whether *name* may be one of our tasks, in whatever namespace: a quick look, made at every publish.
    """
    return name.rpartition(".")[2] in _names()


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(spec.name for spec in tasks.specs())
