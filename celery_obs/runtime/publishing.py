"""
Publishing: see each message through, so that what its publish began is ended however it goes.

Celery tells before a publish and after one that went well, and says nothing of one that failed; so the one method that sends every task message is wrapped,
once the app has made it.
"""

from __future__ import annotations

import inspect
import weakref

from typing import Any

from celery_obs.areas.tasks.events import PublishEnded
from celery_obs.compat.celery import SEND, amqp_of, send_of

from .apps import Apps
from .hub import Hub


__all__ = ["Publishing"]


class Publishing:
    """
    Follow what the apps of a process publish.

    Args:
        hub: Hears of the end of each publish.

        apps: The apps.

    Attributes:
        may_overlook: Whether to look again before the next message.

    Threads: safe under the GIL.
    """

    def __init__(self, hub: Hub, apps: Apps) -> None:
        self._hub = hub
        self._apps = apps
        self.may_overlook = True
        self._followed: set[int] = set()
        self._wrapped: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()

    def follows(self, headers: object) -> bool:
        """
        Tell whether the end of the publish of these *headers* will be told.
        """
        found = id(headers) in self._followed
        if not found and self._hub.wants(PublishEnded):
            self.may_overlook = True
        return found

    def look(self) -> None:
        """
        Follow what is published from now on by the apps that have made what they publish with.
        """
        self.may_overlook = False
        if self._hub.wants(PublishEnded):
            for amqp in map(amqp_of, self._apps):
                if amqp is not None and amqp not in self._wrapped and not _is_replaced(amqp):
                    self._wrap(amqp)

    def _wrap(self, amqp: Any) -> None:
        send = amqp.__dict__.get(SEND)

        def send_task_message(producer: Any, name: str, message: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal send
            if send is None:
                send = send_of(amqp)
            headers = message[0]
            self._followed.add(id(headers))
            try:
                result = send(producer, name, message, *args, **kwargs)
            except BaseException as exc:
                self._end(headers, exc)
                raise
            self._end(headers, None)
            return result

        send_task_message.__wrapped__ = send  # type: ignore[attr-defined]  # As functools.wraps has it.
        setattr(amqp, SEND, send_task_message)
        self._wrapped[amqp] = weakref.ref(send_task_message)

    def _end(self, headers: Any, error: BaseException | None) -> None:
        self._followed.discard(id(headers))
        self._hub.emit(PublishEnded(headers, error))

    def uninstall(self) -> None:
        """
        Leave the apps as they were.
        """
        for amqp, reference in tuple(self._wrapped.items()):
            ours = reference()
            if ours is None or amqp.__dict__.get(SEND) is not ours:
                continue  # Another library has put something around it, which it still needs.
            amqp.__dict__.pop(SEND)
            if ours.__wrapped__ is not None:
                setattr(amqp, SEND, ours.__wrapped__)
        self._wrapped.clear()
        self.may_overlook = True


def _is_replaced(amqp: Any) -> bool:
    """
    Tell whether a program has put something of its own in the method's place, as tests do with a mock, which they ask afterwards what it was called with.
    """
    own = amqp.__dict__.get(SEND)
    return own is not None and not inspect.isroutine(own)
