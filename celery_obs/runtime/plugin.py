"""
The composition root of the worker side: what `setup` puts together in a process, and what `teardown` takes apart.

Setting up connects receivers and leaves hooks; it opens no file, starts no thread and reads no setting.
A process *activates* when it turns out what it is: a worker when its bootstep is created (before the pool forks), a pool child when it starts,
beat when it starts, any other process at its first publish.  Settings are read then, because Celery reads its configuration late, too.

An app is never made to read its configuration, or to keep anything of it, before it does so itself (`celery_obs.runtime.apps`), and is held weakly.
The one exception is a program that uses the sync engine and no app: its settings are to be found somewhere.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import socket
import sys
import threading
import weakref

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from celery.local import Proxy

from celery_obs.areas.channels import engine as sync_engine
from celery_obs.areas.channels import presence
from celery_obs.areas.channels.policies import ANY_CHANNEL
from celery_obs.areas.channels.syncs.recording import sync_series
from celery_obs.areas.channels.syncs.sync_task import SyncTask
from celery_obs.areas.queues.metrics import shared_label
from celery_obs.areas.schedules import firing
from celery_obs.areas.schedules.start import StartHook, scheduler_class_of
from celery_obs.areas.tasks.events import TaskDiscarded
from celery_obs.areas.tasks.metrics import CLOCK_SKEW, LATENCY, QUEUE_WAIT, RUNTIME
from celery_obs.areas.workers.metrics import PROCESS_RESTARTS
from celery_obs.compat.celery import amqp_of, object_of, queues_of, registry_of
from celery_obs.exceptions import CeleryObsError, ConfigurationError
from celery_obs.recorder import declared
from celery_obs.recorder.about import write_about
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.format import Exit, Header
from celery_obs.recorder.metrics_dir import default_metrics_dir, prepare_metrics_dir
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.recorder.slots import Node, Slot
from celery_obs.settings import Settings, environment, hidden, load
from celery_obs.state.connection import shared_by
from celery_obs.telemetry.process import Telemetry
from celery_obs.telemetry.redaction import reason
from celery_obs.vocabulary.spec import Metric

from . import bootstep, hooks, signals
from .announce import Announcer, publishers_announcer
from .apps import Apps, change
from .bootstep import BrokerStep, ObservabilityStep
from .builtin_tasks import entries, routes
from .builtin_tasks import registration as tasks
from .builtin_tasks.apps import OurTasks, is_ours
from .builtin_tasks.waiting import Discards, Waiting, waiting_in
from .declarations import Declarations
from .heartbeat import BeatHeart
from .hub import ErrorReporter, Hub
from .main_process import MainProcess
from .observers import Observer, Observers
from .processes import exit_word, restart_reason
from .publishing import Publishing
from .recording import MetricsObserver, channel_series
from .retire import retiring_thread
from .state import attempts_at_once
from .translate import Binding, QueueNames


__all__ = ["Plugin", "join", "plugin", "setup", "teardown"]


_AUTOLOAD: Final = "celery_obs.autoload"
_NODE_VARIABLE: Final = "_CELERY_OBS_NODE"  # Not a setting, so not under their prefix.
_FAREWELL: Final = 1.0
"""
Seconds that a process which ends gives to what is still to be written.
"""

log = logging.getLogger("celery_obs")

_LAST_WORD: Final = 0.3
"""
Seconds that a publisher which ends gives to saying which queues it knows; a Redis that answers needs a hundredth of that.
"""

_plugin: Plugin | None = None
_hears_of_forks = False


def setup(app: Any, **overrides: Any) -> None:
    """
    Observe *app*: its workers, beat and publishers, in this process and those that it forks.

    Call it once where the app is made.  A second call changes nothing; a second app joins the first.

    Args:
        app: The `celery.Celery` app.

        overrides: Settings that win over the app's configuration and the environment.

    Raises:
        ConfigurationError: if *overrides* hold an unknown setting or a wrong value, or differ from those of an earlier call.

    Forks: children inherit it.  Spawned pool processes get it through ``imports``, to which `celery_obs.autoload` is added.

    Since 0.1.
    """
    global _plugin, _hears_of_forks  # noqa: PLW0603 -- one plugin a process, as Celery's signals are one a process.
    if overrides:
        load({}, {}, overrides)
    if _plugin is None:
        _plugin = Plugin(overrides)
        hooks.connect(_plugin.hub, activate=_plugin.observe)
        signals.connect(_plugin.receivers)
        sync_engine.connect(_plugin.engine)
        routes.connect(_plugin.route)
        presence.connect(_plugin.sync_task_made)
        bootstep.connect(_plugin)
        tasks.connect(_plugin.aliases)
        if not _hears_of_forks:  # That cannot be taken back.
            _hears_of_forks = True
            os.register_at_fork(after_in_child=_after_fork)
    elif overrides and overrides != _plugin.overrides:
        message = (
            f"celery_obs.setup() was called before in this process with {_plugin.overrides or 'no arguments'}, and now with {overrides}. "
            "One process has one set of settings: pass the same arguments, or put them into the app's configuration."
        )
        raise ConfigurationError(message)
    _plugin.add(object_of(app) if isinstance(app, Proxy) else app)


def join(app: Any) -> None:
    """
    Observe *app* from code that runs while a program loads its modules.

    A worker, beat or a spawned pool process then said already that it does, when there was nothing of ours yet to hear it.
    In a spawned one, marked by Celery's variable, the app that is current may be another than the one that has a loader at work.
    """
    setup(app)
    if _plugin is not None and (app.loader.worker_initialized or "FORKED_BY_MULTIPROCESSING" in os.environ):
        _plugin.program_started(app)


def teardown() -> None:
    """
    Take our receivers off Celery's signals and give this process's slot back.

    For tests and for programs that embed a worker: apps keep their bootstep, which does nothing until the next `setup`.

    Since 0.1.
    """
    global _plugin  # noqa: PLW0603 -- see setup.
    if _plugin is not None:
        hooks.disconnect()
        signals.disconnect()
        sync_engine.disconnect()
        routes.disconnect()
        presence.disconnect()
        bootstep.disconnect()
        tasks.disconnect()
        _plugin.close()
        _plugin = None


def plugin() -> Plugin | None:
    """
    Return this process's plugin, if there is one.
    """
    return _plugin


def _after_fork() -> None:
    if _plugin is not None:
        _plugin.after_fork()


def _configured(sender: Any, **_: object) -> None:
    if _plugin is not None:
        _plugin.app_configured(sender)


def _finalized(sender: Any, **_: object) -> None:
    if _plugin is not None:
        _plugin.app_finalized(sender)


class Plugin:
    """
    All that we have in one process.

    Attributes:
        overrides: The arguments of `setup`.

        apps: The apps that were set up.

        hub: Where events go.

        recorder: Where numbers go; None until the process activates, and when metrics are off.
    """

    def __init__(self, overrides: Mapping[str, Any]) -> None:
        self.overrides = dict(overrides)
        self.errors = ErrorReporter()
        self.hub = Hub(on_error=self.errors)
        self._observers = Observers(self.hub)
        self._telemetry = Telemetry(self.hub, channel_of=self._channel_of)
        self.apps = Apps()
        self.settings: Settings | None = None
        self.recorder: Recorder | None = None
        self.attempts: AttemptMeter | None = None
        self._publishing = Publishing(self.hub, self.apps)
        self.receivers = signals.Receivers(self.hub, queues=QueueNames(self._bindings), lifecycle=self, publishing=self._publishing)
        self._engine: sync_engine.Engine | None = None
        self._ours = OurTasks(self.apps, rename=self.receivers.rename, has_channels=self._has_channels)
        self._channels_known = False
        self._is_unannounced = True
        self._final: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._role = "publisher"
        self._is_program = False
        self._is_refused = False
        self._source: Callable[[], Any] = _nothing
        self._declarations = Declarations(self.apps)
        self._node: str | None = None
        self._attempts_at_once = 0
        self._cannot_share = ""
        self._announcer: Announcer | None = None
        self._forked_from_worker = False
        self._main: MainProcess | None = None
        self._takes_leave = False
        self._warned_of_variables = False
        self._warned_of_settings = False
        self._beat: Any = None
        self._heart: BeatHeart | None = None
        self._start_hook = StartHook(self.beat_starting)

    # -- apps -------------------------------------------------------------------------------------------------------

    def add(self, app: Any) -> None:
        """
        Observe *app*, too.
        """
        if not self.apps.add(app):
            return
        app.steps["worker"].add(ObservabilityStep)
        app.steps["consumer"].update((BrokerStep, tasks.AliasStep))
        app.on_after_configure.connect(_configured, weak=False, dispatch_uid="celery_obs.configured")
        app.on_after_finalize.connect(_finalized, weak=False, dispatch_uid="celery_obs.finalized")
        self._publishing.look()  # Where it has published before, it asks for no routes of ours.
        self._publishing.may_overlook = True
        if app.configured:
            self.app_configured(app)
        if app.finalized:
            self.app_finalized(app)

    def app_configured(self, app: Any) -> None:
        """
        Do what has to be done whenever *app* has read its configuration, for the first time or again.
        """
        if app not in self.apps:
            return
        _amend(app)
        self._is_refused = False
        if self.settings is not None and self._source() is app and not self._is_program:
            with contextlib.suppress(CeleryObsError):  # Then what was right before stays in force.
                if self._load(app) != self.settings:
                    self._deactivate()
        self._tell_other_settings(app)

    def app_finalized(self, app: Any) -> None:
        """
        Do what has to be done when *app* has all of its tasks.
        """
        if app in self.apps:
            self._final.add(app)
            self._ours.register(app)
            self._schedule(app)

    def _schedule(self, app: Any, settings: Settings | None = None) -> None:
        """
        Merge our entries into the schedule of *app* where it has channels, in a worker or beat: no other process reads the schedule.

        Done when a program loads the app and when that is final: later would be too late, for schedulers read the schedule before they say that they start.
        """
        if not self._is_program:
            return
        with contextlib.suppress(ConfigurationError):  # The process that starts is told in a moment, when it becomes active.
            settings = settings or self.settings or self._load(app)
            whole = entries.merged(app.conf.beat_schedule or {}, settings) if self._has_channels(app, settings) else None
            if whole is not None:
                change(app, "beat_schedule", whole)

    def aliases(self, app: Any) -> Mapping[str, str]:
        """
        Return the bare names of our tasks that mean them in *app*.
        """
        return self._ours.aliases(app)

    # -- activation -------------------------------------------------------------------------------------------------

    def activate(self, app: Any) -> None:
        """
        Read the settings and connect what they switch on.

        Raises:
            ConfigurationError: if a setting is wrong.
        """
        with self._lock:
            if self.settings is not None:
                return
            settings = self._load(app)
            if self._cannot_share:
                log.warning(
                    "The broker cannot hold the cluster's state, so cluster features are off: %s Set redis_url (CELERY_OBS_REDIS_URL) to have them.",
                    self._cannot_share,
                )
            entries.entries(settings)  # Refuses what the settings alone cannot know to be wrong.
            self.receivers.ignore(settings.ignore_tasks)
            metrics = self._connect_metrics(settings) if settings.metrics else []
            self._observers.connect(metrics, self._telemetry.observers(app, settings, reports=self._role in {"worker", "beat"}))
            self._engine = sync_engine.Engine(hub=self.hub, settings=settings)
            self.settings = settings
            self._source = weakref.ref(app)
            if self.recorder is not None:
                self.recorder.exemplar = self._observers.exemplar
        self._ours.activate(settings)
        self._publishing.may_overlook = True
        self._tell_unknown_variables()
        for each in self.apps:
            if each.configured:
                self._tell_other_settings(each)

    def _tell_unknown_variables(self) -> None:
        """
        Warn of variables with our prefix that nothing reads, once a process, and not in each process of a pool.
        """
        found = environment.unknown(os.environ) if not self._warned_of_variables and _pool_index() is None else {}
        self._warned_of_variables = True
        if found:
            log.warning("celery_obs: %s.", environment.advice(found))

    def _tell_other_settings(self, app: Any) -> None:
        """
        Warn, once a process, of an app that is configured otherwise than the one whose settings are in force.
        """
        source = self._source()
        if self.settings is None or source is None or source is app or self._warned_of_settings:
            return
        with contextlib.suppress(ConfigurationError):  # It is told where that app is the first.
            found, usual = load(app.conf, os.environ, self.overrides), load({}, os.environ, self.overrides)
            given = [each.name for each in fields(Settings) if getattr(found, each.name) != getattr(usual, each.name)]
            other = [name for name in given if getattr(found, name) != getattr(self.settings, name)]
            if other:
                self._warned_of_settings = True
                log.warning(
                    "celery_obs: a process has one set of settings, and here those of the app %r are in force. What the app %r says of %s is not used: "
                    "give both the same configuration, or use environment variables.",
                    str(source.main or source),
                    str(app.main or app),
                    ", ".join(other),
                )

    def _deactivate(self) -> None:
        """
        Become as before the activation: the next use activates anew.
        """
        declared.disconnect()
        self._publishing.uninstall()
        if self._announcer is not None:
            self._announcer.stop()
            self._announcer = None
        self._observers.disconnect()
        self._flush()
        self._telemetry.close()
        if self.recorder is not None:
            self.recorder.close()
        self.errors.count = None
        self.settings = self.recorder = self.attempts = self._engine = None

    def _load(self, app: Any) -> Settings:
        settings = load(app.conf, os.environ, self.overrides)
        if settings.redis_url is None:
            try:
                settings = replace(settings, broker_redis=shared_by(app))
            except CeleryObsError as exc:
                self._cannot_share = str(exc)
            except Exception as exc:  # noqa: BLE001 -- what is inferred never stops the app; its words may quote a password.
                self._cannot_share = f"{type(exc).__name__} while its configuration was read."
        return settings

    def _has_channels(self, app: Any, settings: Settings | None = None) -> bool:
        """
        Tell whether *app* has channels, so that there is something for our own tasks to do.
        """
        found = settings or self.settings
        if found is None:
            return False
        return presence.is_on(found, used=self._channels_known or _uses_channels(app, found))

    def program_started(self, sender: Any) -> None:
        """
        Get ready in a worker or beat what has to be there before its logging is set up and its pool forks.
        """
        if sender not in self.apps:
            return
        self._is_program = True
        _amend(sender)  # Once more, for what the program has assigned since.
        self._start_hook.install()
        with contextlib.suppress(CeleryObsError):  # As above.
            settings = self.settings or self._load(sender)
            self._look_for_channels(sender, settings)
            self._schedule(sender, settings)
            self._telemetry.prepare(sender, settings)

    def _look_for_channels(self, app: Any, settings: Settings) -> None:
        """
        Ask Redis whether channels were used, in a worker or beat that would not know otherwise.
        """
        if settings.sync_engine is None and not self._has_channels(app, settings):
            self._channels_known = presence.are_known(settings)

    def _channel_of(self, task: str) -> str:
        """
        Return the channel that a task is about by its class, or nothing.
        """
        for app in self.apps:
            found = registry_of(app).get(task)
            if isinstance(found, SyncTask):
                return found.channel_type or ""
        return ""

    def route(self, name: str, args: Any, kwargs: Any, options: Any, task: Any) -> Any:
        """
        Return where a message to one of our tasks goes; None for all others.  A process that sends a message is active from then on.

        Celery asks this before it sends, so that the first message of a process is seen through as all others are.
        """
        if self.settings is None:
            self._activate_quietly(getattr(task, "app", None))
        if self._publishing.may_overlook:
            self._publishing.look()
            self._announce_published()
        return self._ours.route(name, args, kwargs, options, self._router(task)) if is_ours(name) else None

    def _router(self, task: Any) -> Any:
        """
        Return what routes the messages of the app that sends one: of the first app that has one, where *task* does not tell.
        """
        found = (amqp_of(app) for app in (getattr(task, "app", None), *self.apps) if app is not None)
        return next((amqp.router for amqp in found if amqp is not None), None)

    def _announce_published(self) -> None:
        """
        Tell sidecars which queues this process publishes to, and how its broker stores them; workers tell more, and their pools nothing.
        """
        settings = self.settings
        if self._announcer is not None or settings is None or not settings.redis or not settings.announce_queues:
            return
        if self._role == "worker" or self._forked_from_worker or _pool_index() is not None:
            return
        try:
            self._announcer = publishers_announcer(settings.redis, self.apps, on_error=self.hub.on_error)
            self._announcer.start()
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self.hub.on_error(exc, component="plugin.announce")
            return
        atexit.register(self._end_announcements, os.getpid())

    def _end_announcements(self, pid: int) -> None:
        if pid == os.getpid() and self._announcer is not None:
            self._announcer.stop()
            self._announcer.join(within=_LAST_WORD)

    def observe(self) -> None:
        """
        Become active, in a process that has something to tell and is none of Celery's.
        """
        if self._engine is None:
            self._activate_quietly(next(iter(self.apps), None))

    def engine(self) -> sync_engine.Engine | None:
        """
        Return this process's sync engine; a process that uses it is active from then on.  None where the settings are wrong.
        """
        self.observe()
        if self._is_unannounced:
            self._is_unannounced = False
            self._announce_channels()
        return self._engine

    def sync_task_made(self, app: Any) -> None:
        """
        Bring what looks after channels into an app that was final before it got its first sync task; others get it when they become final.
        """
        if app in self._final:
            self._schedule(app)
            self._ours.register(app)

    def _announce_channels(self) -> None:
        """
        Say, at the first use of a channel in a process, what that means where nothing said before that there are channels.
        """
        settings = self.settings
        if settings is None or settings.redis is None or settings.sync_engine is not None:
            return
        if not any(self._has_channels(app) for app in self.apps):
            logging.getLogger("celery_obs").info(
                "celery_obs: a channel is used here for the first time. Restart worker and beat to have the tasks that look after channels; "
                "with sync_engine = True they are there from the first start on."
            )

    def _connect_metrics(self, settings: Settings) -> list[Observer]:
        self.recorder = Recorder(
            settings.metrics_dir,
            identify=self._identify,
            label_limit=settings.label_limit,
            lane_limit=settings.lane_limit,
            gauge_limit=settings.gauge_limit,
            attempt_bytes=settings.attempt_bytes,
        )
        self.recorder.declares = self._declarations.include
        self.attempts = AttemptMeter(
            self.recorder,
            runtime=_with_buckets(RUNTIME, settings.runtime_buckets),
            wait=_with_buckets(QUEUE_WAIT, settings.wait_buckets),
            latency=_with_buckets(LATENCY, settings.latency_buckets),
        )
        self.attempts.on_lost_sync = self.hub.emit
        self.recorder.on_claim.append(self._count_restart)  # After the attempts: settling them may tell why.
        self.recorder.on_claim.append(self._say_who_we_are)
        self.errors.count = self.recorder.count_error
        declared.connect(self.recorder)
        return [MetricsObserver(self.recorder, attempts=self.attempts)]

    def _say_who_we_are(self, node: Node, _: Slot) -> None:
        """
        Leave word in the node's folder of what is switched on in this process, for the doctor.
        """
        app = self.apps.configured()
        if self.recorder is None or self.recorder.role == "child" or app is None:
            return
        try:
            from celery_obs.telemetry.switches import about  # noqa: PLC0415 -- only who records says it.

            settings = self.settings or self._load(app)
            others = self._telemetry.others_logging() if self.recorder.role != "publisher" else ""
            facts = about(settings, app, os.environ, role=self.recorder.role, node=node.name, others_logging=others)
            write_about(node.folder, facts)
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self.errors(exc, component="about")

    def _activate_quietly(self, app: Any = None) -> None:
        """
        Activate in a process that has its own work to do: wrong settings are logged, and nothing is recorded.

        Args:
            app: Whose settings count where no app has read its configuration yet; with None, none of them is made to.
        """
        if self.settings is not None or self._is_refused:
            return
        app = self.apps.configured() or app
        if app is not None:
            try:
                self.activate(app)
            except CeleryObsError as exc:
                self._is_refused = True
                log.error("celery_obs: this process is not observed. %s", reason(exc))  # noqa: TRY400 -- the message says it all.

    def _identify(self) -> Identity:
        host = socket.gethostname()
        if self._role == "worker":
            return Identity(node=self._node or f"celery@{host}", role="worker", number=0, attempts=self._attempts_at_once)
        index = _pool_index()
        if index is not None and self._node is not None:
            return Identity(node=self._node, role="child", number=index + 1, attempts=1)
        if self._role == "beat":
            return Identity(node=f"beat@{host}", role="beat")
        return Identity(node=self._node or f"publisher@{host}", role="publisher")

    def _bindings(self) -> Iterator[Binding]:
        for app in self.apps:
            for queue in list(queues_of(app).values()):
                exchange = queue.exchange
                yield Binding(
                    queue.name,
                    exchange.name if exchange else "",
                    exchange.type if exchange else "direct",
                    queue.routing_key or "",
                    shared_label(queue),
                )

    def after_fork(self) -> None:
        """
        Become a process of its own, in a child that was just forked.
        """
        self._lock = threading.Lock()
        if self._role == "worker":
            self._forked_from_worker = True
        self._role = "publisher"
        self._main = None
        self._beat = self._heart = None
        self._announcer = None
        self._publishing.may_overlook = True
        if self._engine is not None:
            self._engine.after_fork()
        if self.recorder is not None:
            self.recorder.forget_parent()
        self._observers.after_fork()

    def close(self) -> None:
        """
        Let go of everything.
        """
        self._start_hook.uninstall()
        self.receivers.firing = None
        if self._main is not None:
            self._main.silence()
        if self._announcer is not None:
            self._announcer.stop()
        self._deactivate()
        self.hub.unsubscribe_all()

    def _flush(self) -> None:
        if self._engine is not None:
            self._engine.flush(within=_FAREWELL)
        self._observers.flush(within=_FAREWELL)

    # -- a worker's main process ------------------------------------------------------------------------------------

    def worker_created(self, worker: Any) -> None:
        """
        Claim the worker's slot and lay out every series that is known, before the pool forks.

        Raises:
            SystemExit: with one paragraph, if a setting or the metrics directory cannot work.
        """
        if _plugin is not self:
            return
        self._role = "worker"
        _prepare_spawning(worker.app)
        self._attempts_at_once = attempts_at_once(worker)
        self._is_program = True
        with _fatal():
            self.activate(worker.app)
            self._declarations.consume(shared_label(queue) or name for name, queue in worker.app.amqp.queues.consume_from.items())
            self._node = (self.settings and self.settings.node_name) or str(worker.hostname)
            os.environ[_NODE_VARIABLE] = self._node
            self._open()
        self._telemetry.tell(runs_tasks=True)
        if self.settings is None:
            return
        self._main = MainProcess(
            worker,
            settings=self.settings,
            recorder=self.recorder,
            attempts=self.attempts,
            lost=self.receivers.lost,
            on_error=self.hub.on_error,
        )
        if self._engine is not None and self._engine.redis is not None:
            self.hub.subscribe(TaskDiscarded, Discards(self._engine.redis, tasks.periodic(self.settings)).discarded)
        atexit.register(self._main.leave)
        if not self._takes_leave:
            self._takes_leave = True
            atexit.register(self._leave, os.getpid())
        if self.attempts is None or self.recorder is None:
            return
        pairs = list(_known_pairs(worker.app))
        self.attempts.prepare(pairs)
        self.recorder.declare([(CLOCK_SKEW, (queue,)) for queue in sorted({queue for _, queue in pairs})])
        self.recorder.declare(list(_known_syncs(worker.app, self.settings)))
        self.attempts.sweep()

    def _open(self) -> None:
        """
        Claim a slot.  A directory that was configured has to be one; what lies in it, or in one that was not, ends no process: metrics are off then.

        Raises:
            ConfigurationError: if the metrics directory that was configured cannot be one.
        """
        if self.recorder is None or self.settings is None:
            return
        directory = self.settings.metrics_dir
        try:
            prepare_metrics_dir(directory)
        except ConfigurationError as error:
            is_full = getattr(error.__cause__, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
            if not is_full and directory != default_metrics_dir(os.environ):
                raise
            self.recorder.switch_off(error)
            return
        if self.recorder.role != self._role:
            self.recorder.close()  # It published before it turned out what it is.
        self.recorder.ready()

    def worker_started(self, worker: Any) -> None:
        """
        Begin with what is done beside the worker's work.
        """
        if _plugin is self and self._main is not None:
            self._main.start()

    def broker_found(self) -> None:
        """
        Say that the worker is ready.
        """
        if _plugin is self and self._main is not None:
            self._main.broker_found()

    def broker_lost(self) -> None:
        """
        Say that it is not.
        """
        if _plugin is self and self._main is not None:
            self._main.broker_lost()

    def _leave(self, pid: int) -> None:
        """
        Write what is still to be written, at the end of a main process: a cold shutdown gives no other notice.
        """
        if pid == os.getpid():
            self._flush()

    def worker_stopped(self, worker: Any) -> None:
        """
        Say that no new work is taken.
        """
        if self._main is not None:
            self._main.stop()

    # -- the other processes ----------------------------------------------------------------------------------------

    def publisher_started(self) -> bool:
        """
        Activate at the first publish of an app that we know.
        """
        self._activate_quietly()
        return self.settings is not None or self._is_refused

    def child_started(self, node: str | None) -> None:
        """
        Claim the pool process's slot, before its first task.
        """
        if _pool_index() is None:  # The solo pool sends this signal in the main process, before the worker is built.
            return
        if self._node is None:
            self._node = node or os.environ.get(_NODE_VARIABLE)
        self._activate_quietly(next(iter(self.apps), None))
        if self.recorder is not None:
            self.recorder.shares_hash_seed = self._forked_from_worker
            self.recorder.ready()

    def child_stopping(self, exitcode: int) -> None:
        """
        Leave word why this pool process goes.
        """
        self._flush()
        recorder = self.recorder
        if recorder is not None and recorder.slot is not None and recorder.role == "child":
            app = self.apps.configured()
            limit = app.conf.worker_max_memory_per_child if app is not None else None
            if recorder.slot.words[Header.EXIT] != Exit.REMOVED:
                recorder.slot.words[Header.EXIT] = exit_word(exitcode, memory_limit=limit)

    def _count_restart(self, node: Node, slot: Slot) -> None:
        recorder = self.recorder
        if recorder is None or recorder.role != "child" or slot.inherited[Header.PARENT_PID] != os.getppid() or self._node is None:
            return
        why = restart_reason(slot.words[Header.EXIT])
        place = None if why is None else node.layout.place(PROCESS_RESTARTS, (self._node, why))
        if place is not None:
            slot.back(slot.lanes_at + place)
            slot.words[slot.lanes_at + place] += 1

    def beat_starting(self, service: Any) -> None:
        """
        Let the heart of beat begin to beat, before its scheduler is made.

        Raises:
            SystemExit: with one paragraph, if a setting or the metrics directory cannot work.
        """
        from celery_obs.areas.schedules import schedulers  # noqa: PLC0415 -- only beat needs it.

        if _plugin is not self or service is self._beat or service.app not in self.apps:
            return
        self._beat = service
        if self._role != "worker":  # In a worker whose pool has no processes, beat is a thread of it and shares its slot.
            self._role = "beat"
        with _fatal():
            self.activate(service.app)
            if self.recorder is not None and self.recorder.slot is None:
                self._open()
        self._telemetry.tell(runs_tasks=False)
        if self.settings is None:
            return
        schedule = schedulers.prepared(
            scheduler_class_of(service), service.app.conf.beat_schedule or {}, entries.entries(self.settings).keys()
        )
        if schedule is not None:
            change(service.app, "beat_schedule", schedule)
        if self._role == "beat" and self.recorder is not None and self.recorder.node is not None:
            self._heart = BeatHeart(
                self.recorder,
                self.recorder.node.folder,
                interval=self.settings.heartbeat_interval,
                hung_after=self.settings.beat_hung_after,
                waits_for=lambda: schedulers.waits_for(vars(service).get("scheduler")),  # It is made when it is first asked for.
            )
            self._heart.start()

    def beat_started(self, service: Any) -> None:
        """
        Watch the scheduler.

        Raises:
            SystemExit: with one paragraph, if a setting or the metrics directory cannot work.
        """
        from celery_obs.areas.schedules.freshness import ScheduleWatch  # noqa: PLC0415 -- only beat needs it.

        self.beat_starting(service)
        if service is not self._beat or self.settings is None:
            return
        self.receivers.firing = firing.stamp
        waiting = None
        if self._engine is not None and self._engine.redis is not None:
            waiting = Waiting(
                self._engine.redis,
                ours=tasks.periodic(self.settings),
                depth=lambda entry: waiting_in(service.scheduler, entry),
                on_error=self.hub.on_error,
            )
        pulse = self.settings.heartbeat_interval
        ScheduleWatch(service.scheduler, self.hub, pulse=pulse, pace=self._heart, waiting=waiting).install()
        if self._heart is not None and self.recorder is not None:
            retiring_thread(self.recorder, self.attempts, self.settings, self.hub.on_error).start()


class _fatal:  # noqa: N801 -- reads like the context manager that it is.
    """
    Turn errors of start-up into one paragraph and an end, for the person who started the process.
    """

    def __enter__(self) -> None:
        """
        Begin.
        """

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """
        End the process if something was wrong.
        """
        if isinstance(error, CeleryObsError | OSError):
            _say_last(f"celery_obs: {error}")
            raise SystemExit(1) from None


def _say_last(message: str) -> None:
    """
    Say why the process ends, in its log and on its standard error, once where these are the same.

    By now Celery may have made a logger of ``sys.stderr``, and with ``-l ERROR`` what is written there is lost.
    """
    if log.hasHandlers():
        log.critical("%s", message)
    stream = sys.__stderr__
    if stream is not None and not any(getattr(handler, "stream", None) is stream for handler in logging.getLogger().handlers):
        with contextlib.suppress(OSError, ValueError):  # A daemon's is closed.
            stream.write(message + "\n")
            stream.flush()


def _with_buckets(metric: Metric, buckets: tuple[float, ...] | None) -> Metric:
    return metric if buckets is None else replace(metric, buckets=buckets)


def _nothing() -> None:
    return None


def _amend(app: Any) -> None:
    """
    Have *app* ask us for routes, and show none of our secrets.
    """
    known = app.conf.task_routes or ()
    known = tuple(known) if isinstance(known, (list, tuple)) else (known,)
    if routes.ROUTE not in known:
        change(app, "task_routes", (routes.ROUTE, *known))
    for key, value in hidden(app.conf).items():
        change(app, key, value)


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


def _uses_channels(app: Any, settings: Settings) -> bool:
    """
    Tell whether *app* has a sync task, or schedules a task of ours itself.
    """
    if any(isinstance(task, SyncTask) for task in list(registry_of(app).values())):
        return True
    if not app.configured:
        return False
    ours = {tasks.full_name(settings, spec.name) for spec in tasks.specs()}
    scheduled = (app.conf.beat_schedule or {}).values()
    return any(isinstance(entry, Mapping) and entry.get("task") in ours for entry in scheduled)


def _known_syncs(app: Any, settings: Settings | None) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """
    Go through the series of the sync engine that are known at the start, so that they exist at 0.
    """
    channels = dict.fromkeys(name for name in (settings.channels if settings is not None else ()) if name != ANY_CHANNEL)
    for task in list(app.tasks.values()):
        if isinstance(task, SyncTask) and task.channel_type:
            channels[task.channel_type] = None
            yield from sync_series(task.channel_type, task.sync_name, task.direction)
    for channel in channels:
        yield from channel_series(channel)


def _pool_index() -> int | None:
    """
    Return this process's place in its pool, or None outside one.
    """
    module = sys.modules.get("billiard.process")
    return getattr(module.current_process(), "index", None) if module else None
