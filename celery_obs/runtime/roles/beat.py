"""
Beat: a process of its own, started alone or by a worker (``worker -B``), or a thread of a worker whose pool has no processes.
"""

from __future__ import annotations

import socket

from typing import TYPE_CHECKING, Any

from celery_obs.areas.schedules import firing
from celery_obs.areas.schedules.start import scheduler_class_of
from celery_obs.recorder.recorder import Identity
from celery_obs.runtime.apps import change
from celery_obs.runtime.builtin_tasks.entries import entries
from celery_obs.runtime.builtin_tasks.registration import periodic
from celery_obs.runtime.builtin_tasks.waiting import Waiting, waiting_in
from celery_obs.runtime.heartbeat import BeatHeart
from celery_obs.runtime.retire import retiring_thread
from celery_obs.runtime.start_up import fatal

from .role import Role


if TYPE_CHECKING:
    from celery_obs.runtime.plugin import Active, Plugin


__all__ = ["Beat", "BeatService"]


class Beat(Role):
    """
    A process that is beat.

    Args:
        before: What it was before that turned out; what it forks is that again.
    """

    is_celerys = True

    def __init__(self, before: Role) -> None:
        self._before = before

    @property
    def announces(self) -> bool:
        return self._before.announces

    def identity(self) -> Identity:
        """
        Return the one beat of a host.
        """
        return Identity(node=f"beat@{socket.gethostname()}", role="beat")

    def forked(self) -> Role:
        """
        Return what a child is.
        """
        return self._before.forked()


class BeatService:
    """
    What is done for one beat, whatever its process is.

    Args:
        service: Celery's.

        plugin: All else that we have in the process.

    Forks: of no use in a child.
    """

    def __init__(self, service: Any, plugin: Plugin) -> None:
        self.service = service
        self._plugin = plugin
        self._active: Active | None = None
        self._heart: BeatHeart | None = None

    def starting(self) -> None:
        """
        Let the heart of beat begin to beat, before its scheduler is made.

        Raises:
            SystemExit: with one paragraph, if a setting or the metrics directory cannot work.
        """
        from celery_obs.areas.schedules import schedulers  # noqa: PLC0415 -- only beat needs it.

        app, role = self.service.app, self._plugin.role
        with fatal():
            self._active = active = self._plugin.activate(app)
            settings, recorder = active.settings, self._plugin.recorder
            if recorder is not None and recorder.slot is None:
                role.claim(recorder, settings.metrics_dir)
        self._plugin.telemetry.tell(runs_tasks=False)
        ours = entries(settings).keys()
        schedule = schedulers.prepared(scheduler_class_of(self.service), app.conf.beat_schedule or {}, ours)
        if schedule is not None:
            change(app, "beat_schedule", schedule)
        if isinstance(role, Beat) and recorder is not None and recorder.node is not None:  # As a thread, it shares its worker's heartbeat.
            self._heart = BeatHeart(
                recorder,
                recorder.node.folder,
                interval=settings.heartbeat_interval,
                hung_after=settings.beat_hung_after,
                waits_for=lambda: schedulers.waits_for(vars(self.service).get("scheduler")),  # It is made when it is first asked for.
            )
            self._heart.start()

    def started(self) -> None:
        """
        Watch the scheduler.
        """
        from celery_obs.areas.schedules.freshness import ScheduleWatch  # noqa: PLC0415 -- only beat needs it.

        active, plugin = self._active, self._plugin
        if active is None:
            return
        plugin.receivers.firing = firing.stamp
        waiting = None
        if active.redis is not None:
            waiting = Waiting(
                active.redis,
                ours=periodic(active.settings),
                depth=lambda entry: waiting_in(self.service.scheduler, entry),
                on_error=plugin.hub.on_error,
            )
        pulse = active.settings.heartbeat_interval
        ScheduleWatch(self.service.scheduler, plugin.hub, pulse=pulse, pace=self._heart, waiting=waiting).install()
        if self._heart is not None and active.numbers is not None:
            retiring_thread(*active.numbers, active.settings, plugin.hub.on_error).start()
