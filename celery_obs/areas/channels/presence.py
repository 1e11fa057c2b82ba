"""
Whether an app has channels: the one place that decides whether our own tasks and schedule entries are there.

An app without channels sees nothing of them.  One that has some says so by a setting, by a sync task, or by what it left in Redis when it used a channel.
Numbers need no decision: a series of a channel exists from its first event on, or from the start where a setting or a sync task names the channel.
"""

from __future__ import annotations

import contextlib

from collections.abc import Callable
from typing import Any

from celery_obs.settings import SETTINGS, Settings
from celery_obs.state.connection import connect as connect_redis

from .state import Channels


__all__ = ["are_known", "connect", "disconnect", "is_on", "sync_task_made"]


_on_sync_task: Callable[[Any], object] | None = None


def connect(on_sync_task: Callable[[Any], object]) -> None:
    """
    Have *on_sync_task* told of each app that gets a sync task from now on.
    """
    global _on_sync_task  # noqa: PLW0603 -- one plugin a process.
    _on_sync_task = on_sync_task


def disconnect() -> None:
    """
    Tell nothing from now on.
    """
    global _on_sync_task  # noqa: PLW0603 -- see connect.
    _on_sync_task = None


def sync_task_made(app: Any) -> None:
    """
    Say that *app* has a sync task.
    """
    if _on_sync_task is not None:
        _on_sync_task(app)


def is_on(settings: Settings, *, used: bool) -> bool:
    """
    Tell whether there are channels: as the setting ``sync_engine`` says, else where they are *used* or configured.

    Args:
        settings: As they were loaded.

        used: Whether something of the app uses channels, or did.
    """
    if settings.sync_engine is not None:
        return settings.sync_engine
    return used or any(getattr(settings, each.name) != each.default for each in SETTINGS if each.channels)


def are_known(settings: Settings) -> bool:
    """
    Tell whether Redis knows channels: some process of the app used one before.

    Blocks for as long as Redis takes, a second at most; no Redis, and one that does not answer, know none.
    """
    if settings.redis is None:
        return False
    with contextlib.suppress(Exception):  # Inferred, so it stops no process: what is wrong with Redis is told where Redis is needed.
        client = connect_redis(settings.redis)
        with contextlib.closing(client):
            return Channels(client).has_any()
    return False
