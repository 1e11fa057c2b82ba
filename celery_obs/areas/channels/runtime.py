"""
Channels in a process that is watched: its sync engine, and whether an app has channels at all.
"""

from __future__ import annotations

import logging

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from celery_obs.areas import left_out_if_broken, parts
from celery_obs.areas.area_runtime import AreaRuntime, WatchedProcess
from celery_obs.compat.celery import registry_of
from celery_obs.runtime.builtin_tasks.registration import full_name, specs
from celery_obs.settings import Settings
from celery_obs.vocabulary.spec import Metric

from . import engine, presence
from .engine import Engine
from .policies import ANY_CHANNEL
from .syncs.recording import sync_series
from .syncs.sync_task import SyncTask


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Runtime", "channel_series"]


class Runtime(AreaRuntime):
    """
    The channels of one process.

    Args:
        process: The process.
    """

    def __init__(self, process: WatchedProcess) -> None:
        super().__init__(process)
        self._engine: Engine | None = None
        self._are_known = False
        self._is_unannounced = True

    def connect(self) -> None:
        """
        Provide the engine, and hear of sync tasks.
        """
        engine.connect(self.engine)
        presence.connect(self.process.bring_tasks)

    def disconnect(self) -> None:
        """
        Provide it no more.
        """
        engine.disconnect()
        presence.disconnect()

    def activated(self, settings: Settings, redis: Redis | None) -> None:
        """
        Make the engine.
        """
        self._engine = Engine(hub=self.process.hub, settings=settings, redis=redis)

    def deactivated(self) -> None:
        """
        Let go of the engine.
        """
        self._engine = None

    def after_fork(self) -> None:
        """
        Make the engine a child's own.
        """
        if self._engine is not None:
            self._engine.after_fork()

    def flush(self, within: float) -> None:
        """
        Have the engine write what it keeps back.
        """
        if self._engine is not None:
            self._engine.flush(within=within)

    def engine(self) -> Engine | None:
        """
        Return this process's engine; a process that uses it is active from then on.  None where the settings are wrong.
        """
        if self._engine is None:
            self.process.observe()
        if self._is_unannounced:
            self._is_unannounced = False
            self._announce()
        return self._engine

    def _announce(self) -> None:
        """
        Say, at the first use of a channel in a process, what that means where nothing said before that there are channels.
        """
        settings = self.process.settings
        if settings is None or settings.redis is None or settings.sync_engine is not None:
            return
        if not any(self.needs_tasks(app, settings) for app in self.process.apps):
            logging.getLogger("celery_obs").info(
                "celery_obs: a channel is used here for the first time. Restart worker and beat to have the tasks that look after channels; "
                "with sync_engine = True they are there from the first start on."
            )

    def program_started(self, app: Any, settings: Settings) -> None:
        """
        Ask Redis whether channels were used, in a worker or beat that would not know otherwise.
        """
        if settings.sync_engine is None and not self.needs_tasks(app, settings):
            self._are_known = presence.are_known(settings)

    def needs_tasks(self, app: Any, settings: Settings) -> bool:
        """
        Tell whether *app* has channels.
        """
        return presence.is_on(settings, used=self._are_known or _uses_channels(app, settings))

    def tags_of(self, task: str) -> Mapping[str, str]:
        """
        Return the channel that a task is about by its class.
        """
        for app in self.process.apps:
            found = registry_of(app).get(task)
            if isinstance(found, SyncTask):
                return {"channel": found.channel_type or ""}
        return {}

    def series(self, app: Any, settings: Settings) -> Iterator[tuple[Metric, tuple[str, ...]]]:
        """
        Go through the series of the channels that are configured, and of the sync tasks.
        """
        channels = dict.fromkeys(name for name in settings.channels if name != ANY_CHANNEL)
        for task in list(app.tasks.values()):
            if isinstance(task, SyncTask) and task.channel_type:
                channels[task.channel_type] = None
                yield from sync_series(task.channel_type, task.sync_name, task.direction)
        for channel in channels:
            yield from channel_series(channel)


def channel_series(channel: str) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Return the series that exist from the start for a channel that is configured.
    """
    for area, part in parts("recording"):
        if hasattr(part, "channel_series"):
            with left_out_if_broken(area, "recording"):
                yield from list(part.channel_series(channel))


def _uses_channels(app: Any, settings: Settings) -> bool:
    """
    Tell whether *app* has a sync task, or schedules a task of ours itself.
    """
    if any(isinstance(task, SyncTask) for task in list(registry_of(app).values())):
        return True
    if not app.configured:
        return False
    ours = {full_name(settings, spec.name) for spec in specs()}
    scheduled = (app.conf.beat_schedule or {}).values()
    return any(isinstance(entry, Mapping) and entry.get("task") in ours for entry in scheduled)
