"""
The start of beat, before its scheduler is made: Celery's signal comes after that, and making one may take a database a minute.
"""

from __future__ import annotations

import functools
import sys

from collections.abc import Callable
from typing import Any

from celery.utils.imports import load_extension_class_names, symbol_by_name

from celery_obs.compat.celery import START


__all__ = ["StartHook", "scheduler_class_of"]


class StartHook:
    """
    Hear of every beat that starts in this process.

    Args:
        starting: Called with the `celery.beat.Service`, before it makes its scheduler.
    """

    def __init__(self, starting: Callable[[Any], object]) -> None:
        self._starting = starting
        self._hooked: tuple[type, Any] | None = None

    def install(self) -> None:
        """
        Begin to listen, in a process that has loaded Celery's beat; there is no beat in any other.
        """
        service = getattr(sys.modules.get("celery.beat"), "Service", None)
        if service is None or self._hooked is not None:
            return
        start = getattr(service, START)

        @functools.wraps(start)
        def hooked(this: Any, *args: Any, **kwargs: Any) -> Any:
            self._starting(this)
            return start(this, *args, **kwargs)

        setattr(service, START, hooked)
        self._hooked = (service, start)

    def uninstall(self) -> None:
        """
        Listen no more.
        """
        if self._hooked is not None:
            service, start = self._hooked
            setattr(service, START, start)
            self._hooked = None


def scheduler_class_of(service: Any) -> Any:
    """
    Return the class of the scheduler that a beat is about to make, found as it will find it itself; None if it will not.
    """
    try:
        return symbol_by_name(service.scheduler_cls, aliases=dict(load_extension_class_names("celery.beat_schedulers")))
    except Exception:  # noqa: BLE001 -- it will say so itself in a moment.
        return None
