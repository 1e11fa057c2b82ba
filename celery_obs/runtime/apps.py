"""
The apps that a process observes: held weakly, and only looked at.

An app reads its configuration, and makes what it sends messages with, when it first needs them; from then on it keeps what they said.  Asking for one of them
earlier would fix serializers, queues and routes before the program has set them.  So nothing of ours asks: it looks for what the app has made already, as
`celery_obs.compat.celery` does.
"""

from __future__ import annotations

import weakref

from collections.abc import Iterator
from typing import Any


__all__ = ["Apps", "change"]


class Apps:
    """
    The apps that were set up and are still there, in the order of their set-up.

    Threads: safe under the GIL.
    """

    def __init__(self) -> None:
        # Never changed in place: an app may go, and be forgotten, in the middle of a loop over it, even of one in C.
        self._known: tuple[weakref.ref[Any], ...] = ()

    def add(self, app: Any) -> bool:
        """
        Remember *app* for as long as the program does; tell whether it is new.
        """
        if app in self:
            return False
        self._known = (*self._known, weakref.ref(app, self._forget))
        return True

    def _forget(self, gone: weakref.ref[Any]) -> None:
        self._known = tuple(each for each in self._known if each is not gone)

    def __iter__(self) -> Iterator[Any]:
        for reference in self._known:
            app = reference()
            if app is not None:
                yield app

    def __contains__(self, app: object) -> bool:
        return any(known is app for known in self)

    def configured(self) -> Any | None:
        """
        Return the first app that has read its configuration; None where none has.
        """
        return next((app for app in self if app.configured), None)


def change(app: Any, key: str, value: Any) -> None:
    """
    Have *app*, which has read its configuration, find *value* under *key*, until it reads its configuration anew.

    What is assigned to ``app.conf`` stays there for good, and would hide what a later ``config_from_object`` says.  So it is put below that, as a default;
    only where the program assigned something itself, which hides defaults, it is put in the place of that.
    """
    app.conf.add_defaults({key: value})
    if app.conf[key] is not value:
        app.conf[key] = value
