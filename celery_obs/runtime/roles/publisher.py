"""
A program that publishes tasks, or may: what every process is until it turns out to be another.
"""

from __future__ import annotations

import atexit
import os
import socket

from typing import Final

from celery_obs.recorder.recorder import Identity
from celery_obs.runtime.announce import Announcer, publishers_announcer
from celery_obs.runtime.apps import Apps
from celery_obs.runtime.hub import OnError
from celery_obs.settings import Settings

from .child import pool_index
from .role import Role


__all__ = ["PublishedQueues", "Publisher"]


_LAST_WORD: Final = 0.3
"""
Seconds that a publisher which ends gives to saying which queues it knows; a Redis that answers needs a hundredth of that.
"""


class Publisher(Role):
    """
    A web server, a script, or a spawned pool process that Celery has not called one yet.  What it forks is one as well.
    """

    @property
    def announces(self) -> bool:
        return pool_index() is None

    def identity(self) -> Identity:
        """
        Return the one publisher of a host.
        """
        return Identity(node=f"publisher@{socket.gethostname()}", role="publisher")

    def forked(self) -> Role:
        """
        Return what a child is.
        """
        return self


class PublishedQueues:
    """
    Tell sidecars which queues a process publishes to, and how its broker stores them.

    Args:
        apps: The apps that publish.

        on_error: Hears of failures.

    Forks: make another in the child.
    """

    def __init__(self, apps: Apps, on_error: OnError) -> None:
        self._apps = apps
        self._on_error = on_error
        self._announcer: Announcer | None = None

    def announce(self, settings: Settings) -> None:
        """
        Begin, if the settings want it.  Never raises.
        """
        if self._announcer is not None or not settings.redis or not settings.announce_queues:
            return
        try:
            self._announcer = publishers_announcer(settings.redis, self._apps, on_error=self._on_error)
            self._announcer.start()
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self._on_error(exc, component="plugin.announce")
            return
        atexit.register(self._end, os.getpid())

    def _end(self, pid: int) -> None:
        if pid == os.getpid() and self._announcer is not None:
            self._announcer.stop()
            self._announcer.join(within=_LAST_WORD)

    def stop(self) -> None:
        """
        Announce no more, until asked again.
        """
        if self._announcer is not None:
            self._announcer.stop()
            self._announcer = None
