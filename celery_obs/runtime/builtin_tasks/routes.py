"""
Where messages to our own tasks go: a route that Celery asks at each publish.

It lies in Celery's configuration as the text :data:`ROUTE`, because spawned pool processes get the configuration pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias


__all__ = ["ROUTE", "connect", "disconnect", "route"]


ROUTE: Final = "celery_obs.runtime.builtin_tasks.routes.route"

Find: TypeAlias = Callable[[str, Any, Any, Any, Any], Any]
"""
Tells the route of a name, the arguments, the options and the task, which is None where the app that sends does not know it.
"""

_find: Find | None = None


def connect(find: Find) -> None:
    """
    Have *find* tell routes from now on.
    """
    global _find  # noqa: PLW0603 -- one plugin a process.
    _find = find


def disconnect() -> None:
    """
    Tell no routes from now on.
    """
    global _find  # noqa: PLW0603 -- see connect.
    _find = None


def route(name: str, args: Any = (), kwargs: Any = None, options: Any = None, task: Any = None, **_: Any) -> Any:
    """
    Return where a message goes, or None where that is not ours to say.
    """
    return None if _find is None else _find(name, args, kwargs, options, task)
