"""
Publishing: see each message through, so that what its publish began is ended however it goes.

Celery tells before a publish and after one that went well, and says nothing of one that failed; so the one method that sends every task message is wrapped,
once the app has made it.
"""

from __future__ import annotations

import inspect
import weakref

from typing import Any, Final

from celery_obs.areas.tasks.events import PublishEnded

from .apps import Apps, amqp_of
from .hub import Hub


__all__ = ["Publishing"]


_METHOD: Final = "send_task_message"


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
        send = amqp.__dict__.get(_METHOD)

        def send_task_message(producer: Any, name: str, message: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal send
            if send is None:
                send = _original(amqp)
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
        setattr(amqp, _METHOD, send_task_message)
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
            if ours is None or amqp.__dict__.get(_METHOD) is not ours:
                continue  # Another library has put something around it, which it still needs.
            amqp.__dict__.pop(_METHOD)
            if ours.__wrapped__ is not None:
                setattr(amqp, _METHOD, ours.__wrapped__)
        self._wrapped.clear()
        self.may_overlook = True


def _is_replaced(amqp: Any) -> bool:
    """
    Tell whether a program has put something of its own in the method's place, as tests do with a mock, which they ask afterwards what it was called with.
    """
    own = amqp.__dict__.get(_METHOD)
    return own is not None and not inspect.isroutine(own)


def _original(amqp: Any) -> Any:
    """
    Have *amqp* make its own method, which keeps serializer, compression and queues from then on: so not before the first message.
    """
    ours = amqp.__dict__.pop(_METHOD)
    try:
        return getattr(amqp, _METHOD)
    finally:
        amqp.__dict__[_METHOD] = ours
