"""
The composition root of the worker side: what `setup` puts together in a process, and what `teardown` takes apart.

Setting up connects receivers and leaves hooks; it opens no file, starts no thread and reads no setting.
A process *activates* when it turns out what it is (`celery_obs.runtime.roles`): a worker when its bootstep is created (before the pool forks), a pool child
when it starts, beat when it starts, any other process at its first publish.  Settings are read then, because Celery reads its configuration late, too.

An app is never made to read its configuration, or to keep anything of it, before it does so itself (`celery_obs.runtime.apps`), and is held weakly.
The one exception is a program that uses the sync engine and no app: its settings are to be found somewhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery.local import Proxy

from celery_obs.areas.queues.metrics import shared_label
from celery_obs.areas.schedules.start import StartHook
from celery_obs.areas.tasks.metrics import LATENCY, QUEUE_WAIT, RUNTIME
from celery_obs.compat.celery import amqp_of, object_of, queues_of, registry_of
from celery_obs.exceptions import CeleryObsError, ConfigurationError
from celery_obs.recorder import declared
from celery_obs.recorder.about import write_about
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.recorder.slots import Node, Slot
from celery_obs.settings import Settings, hidden, load
from celery_obs.settings.checks import signal_number
from celery_obs.state.connection import connect
from celery_obs.telemetry.process import Telemetry
from celery_obs.telemetry.redaction import reason
from celery_obs.vocabulary.spec import Metric

from . import bootstep, hooks, signals
from .apps import Apps, change
from .area_parts import AreaParts
from .bootstep import BrokerStep, ObservabilityStep
from .builtin_tasks import entries, routes
from .builtin_tasks import registration as tasks
from .builtin_tasks.apps import OurTasks, is_ours
from .configuration import Configuration
from .declarations import Declarations
from .hub import ErrorReporter, Hub
from .listeners import how_attempts_are_heard
from .main_process import MainProcess
from .observers import Observers
from .publishing import Publishing
from .recording import MetricsObserver
from .roles.beat import Beat, BeatService
from .roles.child import NODE_VARIABLE, PoolChild, pool_index
from .roles.publisher import PublishedQueues, Publisher
from .roles.role import Role
from .roles.worker import WorkerMain
from .stack_answers import StackAnswers
from .tracer import AroundTracer
from .translate import Binding, QueueNames


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["Active", "Numbers", "Plugin", "join", "plugin", "setup", "teardown"]


_FAREWELL: Final = 1.0
"""
Seconds that a process which ends gives to what is still to be written.
"""

log = logging.getLogger("celery_obs")

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
        _plugin.areas.each(lambda part: part.connect())
        routes.connect(_plugin.route)
        bootstep.connect(_plugin)
        tasks.connect(_plugin.aliases, redis=_plugin.redis)
        if not _hears_of_forks:  # That cannot be taken back.
            _hears_of_forks = True
            os.register_at_fork(after_in_child=_after_fork)
    elif overrides and overrides != _plugin.configuration.overrides:
        message = (
            f"celery_obs.setup() was called before in this process with {_plugin.configuration.overrides or 'no arguments'}, and now with {overrides}. "
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
        _plugin.areas.each(lambda part: part.disconnect())
        routes.disconnect()
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


class Numbers(NamedTuple):
    """
    Where the numbers of a process go.
    """

    recorder: Recorder
    attempts: AttemptMeter


class Active(NamedTuple):
    """
    What a process has from its activation on, made and dropped as a whole.

    Attributes:
        settings: The settings in force.

        source: Returns the app that they are of, while it is there.

        redis: The cluster's state; None where there is none.

        numbers: Where numbers go; None where metrics are off.
    """

    settings: Settings
    source: Callable[[], Any]
    redis: Redis | None
    numbers: Numbers | None


class Plugin:
    """
    All that we have in one process.

    Args:
        overrides: The arguments of `setup`.

    Attributes:
        configuration: Reads the settings.

        apps: The apps that were set up.

        hub: Where events go.

        areas: What the areas do here.

        role: What the process is, as far as that has turned out.

        active: What is there while the process is active, else None.
    """

    def __init__(self, overrides: Mapping[str, Any]) -> None:
        self.configuration = Configuration(overrides)
        self.errors = ErrorReporter()
        self.hub = Hub(on_error=self.errors)
        self.apps = Apps()
        self.areas = AreaParts(self)
        self.declarations = Declarations(self.apps)
        self.telemetry = Telemetry(self.hub, tags_of=self._tags_of)
        self.role: Role = Publisher()
        self.active: Active | None = None
        self._observers = Observers(self.hub)
        self._publishing = Publishing(self.hub, self.apps)
        self._published = PublishedQueues(self.apps, self.hub.on_error)
        self._queues = QueueNames(self._bindings)
        self._around: AroundTracer | None = None
        self.receivers = signals.Receivers(self.hub, queues=self._queues, lifecycle=self, publishing=self._publishing)
        self._ours = OurTasks(self.apps, rename=self.receivers.rename, needs_tasks=self._needs_tasks)
        self._beat: BeatService | None = None
        self._start_hook = StartHook(self.beat_starting)
        self._final: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_program = False
        self._is_refused = False
        self._is_closed = False

    @property
    def settings(self) -> Settings | None:
        """
        The settings in force; None until the process activates.
        """
        return self.active.settings if self.active is not None else None

    @property
    def recorder(self) -> Recorder | None:
        """
        Where numbers go; None until the process activates, and when metrics are off.
        """
        return self.active.numbers.recorder if self.active is not None and self.active.numbers is not None else None

    def redis(self) -> Redis | None:
        """
        Return the cluster's state; None until the process activates, and where there is none.
        """
        return self.active.redis if self.active is not None else None

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
        if self.active is not None and self.active.source() is app and not self._is_program:
            with contextlib.suppress(CeleryObsError):  # Then what was right before stays in force.
                if self.configuration.of(app) != self.active.settings:
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

    def bring_tasks(self, app: Any) -> None:
        """
        Bring our own tasks into an app that was final before there was work for them; others get them when they become final.
        """
        if app in self._final:
            self._schedule(app)
            self._ours.register(app)

    def _schedule(self, app: Any, settings: Settings | None = None) -> None:
        """
        Merge our entries into the schedule of *app* where they have something to do, in a worker or beat: no other process reads the schedule.

        Done when a program loads the app and when that is final: later would be too late, for schedulers read the schedule before they say that they start.
        """
        if not self._is_program:
            return
        with contextlib.suppress(ConfigurationError):  # The process that starts is told in a moment, when it becomes active.
            settings = settings or self.settings or self.configuration.of(app)
            whole = entries.merged(app.conf.beat_schedule or {}, settings) if self._needs_tasks(app, settings) else None
            if whole is not None:
                change(app, "beat_schedule", whole)

    def _needs_tasks(self, app: Any, settings: Settings) -> bool:
        return any(self.areas.each(lambda part: part.needs_tasks(app, settings)))

    def _tags_of(self, task: str) -> Mapping[str, str]:
        return {name: tag for tags in self.areas.each(lambda part: part.tags_of(task)) for name, tag in tags.items()}

    def aliases(self, app: Any) -> Mapping[str, str]:
        """
        Return the bare names of our tasks that mean them in *app*.
        """
        return self._ours.aliases(app)

    def route(self, name: str, args: Any, kwargs: Any, options: Any, task: Any) -> Any:
        """
        Return where a message to one of our tasks goes; None for all others.  A process that sends a message is active from then on.

        Celery asks this before it sends, so that the first message of a process is seen through as all others are.
        """
        if self.active is None:
            self._activate_quietly(getattr(task, "app", None))
        if self._publishing.may_overlook:
            self._publishing.look()
            if self.active is not None and self.role.announces:
                self._published.announce(self.active.settings)
        return self._ours.route(name, args, kwargs, options, self._router(task)) if is_ours(name) else None

    def _router(self, task: Any) -> Any:
        """
        Return what routes the messages of the app that sends one: of the first app that has one, where *task* does not tell.
        """
        found = (amqp_of(app) for app in (getattr(task, "app", None), *self.apps) if app is not None)
        return next((amqp.router for amqp in found if amqp is not None), None)

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

    # -- activation -------------------------------------------------------------------------------------------------

    def activate(self, app: Any) -> Active:
        """
        Read the settings and connect what they switch on.

        Raises:
            ConfigurationError: if a setting is wrong.
        """
        with self._lock:
            if self.active is not None:
                return self.active
            settings = self.configuration.of(app)
            self.configuration.tell_what_is_off()
            entries.entries(settings)  # Refuses what the settings alone cannot know to be wrong.
            self.receivers.ignore(settings.ignore_tasks)
            if settings.call_in_tracer:
                signals.hear_in_tracer()
            redis = connect(settings.redis) if settings.redis else None
            numbers = self._make_numbers(settings) if settings.metrics else None
            others = self.telemetry.observers(app, settings, reports=self.role.is_celerys)
            self._observers.connect([MetricsObserver(numbers.recorder, attempts=numbers.attempts)] if numbers is not None else [], others)
            self.areas.each(lambda part: part.activated(settings, redis))
            self.active = active = Active(settings, weakref.ref(app), redis, numbers)
            if numbers is not None:
                numbers.recorder.exemplar = self._observers.exemplar
                self.errors.count = numbers.recorder.count_error
                declared.connect(numbers.recorder)
        self._ours.activate(settings)
        self._publishing.may_overlook = True
        self.configuration.tell_unknown_variables(is_in_pool=pool_index() is not None)
        for each in self.apps:
            if each.configured:
                self._tell_other_settings(each)
        return active

    def _make_numbers(self, settings: Settings) -> Numbers:
        recorder = Recorder(
            settings.metrics_dir,
            identify=self._identify,
            label_limit=settings.label_limit,
            lane_limit=settings.lane_limit,
            gauge_limit=settings.gauge_limit,
            attempt_bytes=settings.attempt_bytes,
        )
        recorder.declares = self.declarations.include
        attempts = AttemptMeter(
            recorder,
            runtime=_with_buckets(RUNTIME, settings.runtime_buckets),
            wait=_with_buckets(QUEUE_WAIT, settings.wait_buckets),
            latency=_with_buckets(LATENCY, settings.latency_buckets),
        )
        attempts.tell = self.hub.emit
        recorder.on_claim.append(partial(self._claimed, recorder))  # After the attempts: settling them may tell why a process went.
        answers = StackAnswers(signal_number(settings.stack_signal) if settings.stack_signal else 0)
        recorder.on_claim.append(lambda node, slot: answers.claimed(recorder, node, slot) if self.role.runs_tasks else None)
        return Numbers(recorder, attempts)

    def _identify(self) -> Identity:
        return self.role.identity()

    def _claimed(self, recorder: Recorder, node: Node, slot: Slot) -> None:
        """
        Leave word in the node's folder of what is switched on in this process, for the doctor.
        """
        app = self.apps.configured()
        if not self.role.claimed(node, slot) or app is None:
            return
        try:
            from celery_obs.telemetry.switches import about  # noqa: PLC0415 -- only who records says it.

            settings = self.settings or self.configuration.of(app)
            others = self.telemetry.others_logging() if self.role.is_celerys else ""
            attempts = how_attempts_are_heard(in_tracer=settings.call_in_tracer) if self.role.runs_tasks else None
            facts = about(settings, app, os.environ, role=recorder.role, node=node.name, others_logging=others, attempts=attempts)
            write_about(node.folder, facts)
        except Exception as exc:  # noqa: BLE001 -- never fail the observed.
            self.errors(exc, component="about")

    def _tell_other_settings(self, app: Any) -> None:
        if self.active is not None:
            self.configuration.tell_other_settings(app, source=self.active.source(), settings=self.active.settings)

    def _activate_quietly(self, app: Any = None) -> None:
        """
        Activate in a process that has its own work to do: wrong settings are logged, and nothing is recorded.

        Args:
            app: Whose settings count where no app has read its configuration yet; with None, none of them is made to.
        """
        if self.active is not None or self._is_refused:
            return
        app = self.apps.configured() or app
        if app is not None:
            try:
                self.activate(app)
            except CeleryObsError as exc:
                self._is_refused = True
                log.error("celery_obs: this process is not observed. %s", reason(exc))  # noqa: TRY400 -- the message says it all.

    def _deactivate(self) -> None:
        """
        Become as before the activation: the next use activates anew.
        """
        declared.disconnect()
        self._publishing.uninstall()
        self._published.stop()
        self._observers.disconnect()
        self.flush()
        self.telemetry.close()
        recorder = self.recorder
        if recorder is not None:
            recorder.close()
        self.errors.count = None
        self.areas.each(lambda part: part.deactivated())
        self.active = None

    def flush(self) -> None:
        """
        Write what is kept back.
        """
        self.areas.each(lambda part: part.flush(_FAREWELL))
        active = self.active
        if active is not None and active.numbers is not None:
            active.numbers.attempts.count_tail()
        self._observers.flush(within=_FAREWELL)

    def close(self) -> None:
        """
        Let go of everything.
        """
        self._is_closed = True
        if self._around is not None:
            self._around.take_away()
            self._around = None
        self._start_hook.uninstall()
        self.receivers.firing = None
        main = self._main
        if main is not None:
            main.silence()
        self._deactivate()
        self.hub.unsubscribe_all()

    # -- what the process turns out to be ---------------------------------------------------------------------------

    def observe(self) -> None:
        """
        Become active, in a process that has something to tell and is none of Celery's.
        """
        self._activate_quietly(next(iter(self.apps), None))

    def publisher_started(self) -> bool:
        """
        Activate at the first publish of an app that we know.
        """
        self._activate_quietly()
        return self.active is not None or self._is_refused

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
            settings = self.settings or self.configuration.of(sender)
            self.areas.each(lambda part: part.program_started(sender, settings))
            self._schedule(sender, settings)
            self.telemetry.prepare(sender, settings)

    def after_fork(self) -> None:
        """
        Become a process of its own, in a child that was just forked.
        """
        self._lock = threading.Lock()
        self.role = self.role.forked()
        self._beat = None
        self._published = PublishedQueues(self.apps, self.hub.on_error)
        self._publishing.may_overlook = True
        self.areas.each(lambda part: part.after_fork())
        recorder = self.recorder
        if recorder is not None:
            recorder.forget_parent()
        self._observers.after_fork()

    def worker_created(self, worker: Any) -> None:
        """
        Become a worker's main process, before its pool forks.

        Raises:
            SystemExit: with one paragraph, if a setting or the metrics directory cannot work.
        """
        if not self._is_closed:
            self._is_program = True
            self.role = role = WorkerMain(worker)
            role.create(worker, self)

    @property
    def _main(self) -> MainProcess | None:
        return self.role.main if isinstance(self.role, WorkerMain) else None

    def worker_started(self, worker: Any) -> None:
        """
        Begin with what is done beside the worker's work.
        """
        main = self._main
        if main is not None and not self._is_closed:
            main.start()

    def broker_found(self) -> None:
        """
        Say that the worker is ready.
        """
        main = self._main
        if main is not None and not self._is_closed:
            main.broker_found()

    def broker_lost(self) -> None:
        """
        Say that it is not.
        """
        main = self._main
        if main is not None and not self._is_closed:
            main.broker_lost()

    def worker_stopped(self, worker: Any) -> None:
        """
        Say that no new work is taken.
        """
        main = self._main
        if main is not None:
            main.stop()

    def child_started(self, node: str | None) -> None:
        """
        Claim the pool process's slot, before its first task.
        """
        if pool_index() is None:  # The solo pool sends this signal in the main process, before the worker is built.
            return
        signals.remember()
        node = node or os.environ.get(NODE_VARIABLE)
        if not isinstance(self.role, PoolChild) and node:
            self.role = PoolChild(node, is_forked=False)
        self.observe()
        recorder = self.recorder
        if recorder is not None:
            recorder.shares_hash_seed = isinstance(self.role, PoolChild) and self.role.is_forked
            recorder.ready()
            self._count_around_tracer()

    def _count_around_tracer(self) -> None:
        """
        Have attempts counted around the tracers of this pool process, where that is wanted and their traces are not asked for.
        """
        active, app = self.active, self.apps.configured()
        if active is None or active.numbers is None or app is None or not active.settings.call_in_tracer:
            return
        if active.numbers.recorder.exemplar is None and not app.conf.worker_deduplicate_successful_tasks:
            around = AroundTracer(self.receivers, active.numbers.attempts, hub=self.hub, queues=self._queues)
            if around.put(registry_of(app)):
                self._around = around

    def child_stopping(self, exitcode: int) -> None:
        """
        Leave word why this pool process goes.
        """
        self.flush()
        recorder, app = self.recorder, self.apps.configured()
        if recorder is not None and recorder.slot is not None and isinstance(self.role, PoolChild):
            limit = app.conf.worker_max_memory_per_child if app is not None else None
            self.role.leaves(recorder.slot, exitcode, memory_limit=limit)

    def beat_starting(self, service: Any) -> None:
        """
        Become beat, or a worker that has one, before its scheduler is made.

        Raises:
            SystemExit: with one paragraph, if a setting or the metrics directory cannot work.
        """
        if self._is_closed or service.app not in self.apps or (self._beat is not None and self._beat.service is service):
            return
        if not isinstance(self.role, (WorkerMain, Beat)):
            self.role = Beat(self.role)
        self._beat = BeatService(service, self)
        self._beat.starting()

    def beat_started(self, service: Any) -> None:
        """
        Watch the scheduler of beat.

        Raises:
            SystemExit: with one paragraph, if a setting or the metrics directory cannot work.
        """
        self.beat_starting(service)
        if self._beat is not None and self._beat.service is service:
            self._beat.started()


def _with_buckets(metric: Metric, buckets: tuple[float, ...] | None) -> Metric:
    return metric if buckets is None else replace(metric, buckets=buckets)


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
