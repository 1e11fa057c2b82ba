"""
A worker's main process: all that is laid out before its pool forks.
"""

from __future__ import annotations

import atexit
import os

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from celery_obs.areas.queues.metrics import shared_label
from celery_obs.areas.tasks.events import TaskDiscarded
from celery_obs.areas.tasks.metrics import CLOCK_SKEW
from celery_obs.recorder.recorder import Identity
from celery_obs.runtime.builtin_tasks.registration import periodic
from celery_obs.runtime.builtin_tasks.waiting import Discards
from celery_obs.runtime.main_process import MainProcess
from celery_obs.runtime.start_up import fatal
from celery_obs.runtime.state import attempts_at_once

from .child import NODE_VARIABLE, PoolChild
from .role import Role


if TYPE_CHECKING:
    from celery_obs.runtime.plugin import Plugin


__all__ = ["WorkerMain"]


_AUTOLOAD: Final = "celery_obs.autoload"


class WorkerMain(Role):
    """
    A worker's main process; of a pool that is no processes, the whole worker, and a beat inside it is a thread of it.

    Args:
        worker: Celery's; not kept, for one that is embedded in a program may end long before that.

    Attributes:
        main: What is done beside the worker's work; None until `create` has run.
    """

    is_celerys = True
    runs_tasks = True

    def __init__(self, worker: Any) -> None:
        self._node = str(worker.hostname)
        self._attempts_at_once = attempts_at_once(worker)
        self.main: MainProcess | None = None

    def identity(self) -> Identity:
        """
        Return the worker's node, and its first place.
        """
        return Identity(node=self._node, role="worker", number=0, attempts=self._attempts_at_once)

    def forked(self) -> Role:
        """
        Return what a child is, of the pool or not.
        """
        return PoolChild(self._node, is_forked=True)

    def create(self, worker: Any, plugin: Plugin) -> None:
        """
        Claim the worker's slot and lay out every series that is known, before the pool forks.

        Raises:
            SystemExit: with one paragraph, if a setting or the metrics directory cannot work.
        """
        app = worker.app
        _prepare_spawning(app)
        with fatal():
            active = plugin.activate(app)
            settings, numbers = active.settings, active.numbers
            plugin.declarations.consume(shared_label(queue) or name for name, queue in app.amqp.queues.consume_from.items())
            self._node = settings.node_name or self._node
            os.environ[NODE_VARIABLE] = self._node
            if numbers is not None:
                self.claim(numbers.recorder, settings.metrics_dir)
        plugin.telemetry.tell(runs_tasks=True)
        self.main = MainProcess(
            worker,
            settings=settings,
            recorder=plugin.recorder,
            attempts=numbers.attempts if numbers is not None else None,
            lost=plugin.receivers.lost,
            on_error=plugin.hub.on_error,
        )
        if active.redis is not None:
            plugin.hub.subscribe(TaskDiscarded, Discards(active.redis, periodic(settings)).discarded)
        atexit.register(self.main.leave)
        atexit.register(_flush, plugin, os.getpid())
        if numbers is not None:
            pairs = list(_known_pairs(app))
            numbers.attempts.prepare(pairs)
            numbers.recorder.declare([(CLOCK_SKEW, (queue,)) for queue in sorted({queue for _, queue in pairs})])
            numbers.recorder.declare(
                [series for known in plugin.areas.each(lambda part: list(part.series(app, settings))) for series in known]
            )
            numbers.attempts.sweep()


def _flush(plugin: Plugin, pid: int) -> None:
    """
    Write what is still to be written, at the end of a main process: a cold shutdown gives no other notice.
    """
    if pid == os.getpid():
        plugin.flush()


def _prepare_spawning(app: Any) -> None:
    """
    Have spawned pool processes load us: of the app's module they see its ``imports`` only, and of its configuration what was assigned.
    """
    imports = tuple(app.conf.imports or ())
    if _AUTOLOAD not in imports:
        app.conf.imports = (*imports, _AUTOLOAD)


def _known_pairs(app: Any) -> Iterator[tuple[str, str]]:
    """
    Go through the tasks that this worker may run, and the queue that each comes from.
    """
    consumed = app.amqp.queues.consume_from
    for name in sorted(app.tasks):
        if name.startswith("celery."):
            continue
        try:
            queue = app.amqp.router.route({}, name, (), {}).get("queue")
        except Exception:  # noqa: BLE001, S112 -- a user's router may need arguments; such a task gets its series when it first comes.
            continue
        queue_name = getattr(queue, "name", queue) or app.conf.task_default_queue
        if queue_name in consumed:
            yield name, shared_label(consumed[queue_name]) or str(queue_name)
