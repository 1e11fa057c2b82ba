"""
Hooks: programs hear events, and tell their own, in production as in tests.

::

    def page_someone(event: TaskFinished) -> None:
        ...

    celery_obs.subscribe(TaskFinished, page_someone)

A hook runs where the event happens, in the task's own time: be quick.  What it raises is kept from the task, counted in
``celery_obs_internal_errors_total`` and told in the log.  Subscribe where the app is made: pool processes inherit it by fork, and spawned ones import the
same module.  docs/how-to/hear-events.md has all of that.
"""

from __future__ import annotations

import inspect

from collections.abc import Callable
from typing import Any, Final, TypeVar

from .hub import Hub


__all__ = ["connect", "disconnect", "emit", "subscribe", "unsubscribe"]


_Event = TypeVar("_Event")
_hooks: Final[list[tuple[type, Callable[[Any], object]]]] = []
_hub: Hub | None = None
_activate: Callable[[], object] = bool


def subscribe(event_type: type[_Event], hook: Callable[[_Event], object]) -> None:
    """
    Call *hook* with every event of exactly *event_type* that happens in this process, and in those that it forks, from now on or from `setup` on.

    A hook that is subscribed to the same type again is still called once.

    Raises:
        TypeError: if *event_type* is no class, or *hook* cannot be called, or only from an event loop.

    Forks: a child inherits what was subscribed before it was forked.

    Threads: subscribe while the program starts; a hook is called in whichever thread the event happens.

    Since 0.1.
    """
    if not isinstance(event_type, type) or not callable(hook):  # type: ignore[redundant-expr]  # Callers have no types.
        message = (
            f"Expected an event's class and a function, got {event_type!r} and {hook!r}. The events are listed in docs/reference/events.md."
        )
        raise TypeError(message)
    if inspect.iscoroutinefunction(hook):
        message = f"Expected a plain function, got the coroutine function {hook!r}: there is no event loop to run it. Let a function hand the event over."
        raise TypeError(message)
    if (event_type, hook) in _hooks:
        return
    _hooks.append((event_type, hook))
    if _hub is not None:
        _hub.subscribe(event_type, hook)


def unsubscribe(event_type: type[_Event], hook: Callable[[_Event], object]) -> None:
    """
    Call *hook* no more for *event_type*, in this process.  What was not subscribed is passed over.

    Threads: unsubscribe at any time; an event that is being told may still arrive.

    Since 0.1.
    """
    if (event_type, hook) in _hooks:
        _hooks.remove((event_type, hook))
    if _hub is not None:
        _hub.unsubscribe(event_type, hook)


def emit(event: object) -> None:
    """
    Tell an event of your own to all that subscribed to its type; see docs/how-to/add-an-area.md.  Does nothing before `setup`, and never raises.

    Since 0.1.
    """
    if _hub is not None:
        _activate()
        _hub.emit(event)


def connect(hub: Hub, *, activate: Callable[[], object]) -> None:
    """
    Let what was subscribed so far hear *hub*.

    Args:
        hub: Where events go.

        activate: Called before each event of a program's own: a process that has one is to be observed from then on.  Never raises.
    """
    global _hub, _activate
    _hub, _activate = hub, activate
    for event_type, hook in _hooks:
        hub.subscribe(event_type, hook)


def disconnect() -> None:
    """
    Hear nothing any more, until the next `connect`.
    """
    global _hub  # noqa: PLW0603 -- see connect.
    _hub = None
