"""
What can be watched: one folder an area, with everything about it in files of the same names.

The rooms (the runtime, the sidecar, the rules, the commands) go through `AREAS` and take the parts that they work with.  Another distribution's area comes
by an entry point of the group ``celery_obs.areas``.  The parts, each a module that may be missing:

=================== ===================================================================================================================
``metrics``         `Metric` values, which the catalogue gathers; standard library only
``events``          what can happen, as named tuples; those that end what another began, in the same thread, are in ``ENDINGS``
``recording``       ``Recording(recorder, attempts)`` with ``subscriptions()``: which numbers the events change; ``channel_series(channel)``
``runtime``         ``Runtime(process)``, a `celery_obs.areas.area_runtime.AreaRuntime`: what it does in the processes that are watched
``lines``           ``Lines(log)`` with ``subscriptions()``: which events have a line in the log, by a `celery_obs.telemetry.logs.sync_observer.SyncLogObserver`
``spans``           ``Spans(traces)`` with ``subscriptions()``: which events have a span, by a `celery_obs.telemetry.traces.observer.TraceObserver`
``tasks``           ``TASKS``, values of `celery_obs.areas.task_spec.TaskSpec`
``collector``       ``collectors(sidecar)``: what the sidecar asks at each scrape, of a `celery_obs.exporter.options.Sidecar`
``gauges``          ``gauges(series)``: what it shows of the state that all workers share, by a `celery_obs.areas.channels.series.Series`
``history``         ``REMEMBERED``: which numbers of the page the sidecar remembers for two hours, see `celery_obs.exporter.history.declared`
``recording_rules`` ``RULES``, values of `celery_obs.rules.rules.RecordingRule`; ``GROUP``, where several areas share a group
``alerts``          ``ALERTS``, values of `celery_obs.rules.rules.Alert`; their runbooks are pages in the folder ``runbooks``
``dashboards``      ``DASHBOARDS``, values of `celery_obs.rules.dashboards.model.Dashboard`
``panels``          ``PANELS`` and ``COLUMNS``: what it gives to dashboards and tables of others, see `celery_obs.rules.dashboards.model`
``reference``       ``pages()``: pages of the reference besides those of its metrics, alerts and dashboards: path, source and text
``http``            ``QUESTIONS`` and ``DEEDS``: what can be asked and done over HTTP, see `celery_obs.exporter.api.model`
``page``            ``facts(samples)``: pairs of a fact and its value, as texts, for the sidecar's status page
``commands``        ``COMMANDS``, click commands by the word that people type
=================== ===================================================================================================================

An area goes by taking away its folder and its line below: webhooks, tokens, conflicts and reconciliation, each for itself.  The others stay.  Tasks,
workers, queues, schedules and the sidecar are what every app has.  Syncs, calls, rate limits, breakers, connections and pauses are what the sync engine is
made of: a call asks breaker and limit, a sync asks pauses, and what is known of connections is what tokens and reconciliation are about.
The folder of channels can go as a whole, too.
"""

from __future__ import annotations

import contextlib
import functools
import logging

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from typing import Final, NamedTuple


__all__ = ["AREAS", "GROUP", "Area", "left_out_if_broken", "optional", "parts"]


GROUP: Final = "celery_obs.areas"
"""
The group of entry points by which another distribution brings an area: its name, and the package that its parts are in.
"""

_CHANNELS: Final = f"{__name__}.channels"

log = logging.getLogger("celery_obs")


class Area(NamedTuple):
    """
    One area.

    Attributes:
        name: What its files of rules and its pages are called.

        package: Its folder, as Python names it.

        commands: The commands in its ``commands`` by the word that people type, each with a sentence for the overview, which loads none of them.
    """

    name: str
    package: str
    commands: Mapping[str, str] = MappingProxyType({})

    @property
    def is_ours(self) -> bool:
        """
        Whether it comes with celery_obs.
        """
        return self.package.startswith(f"{__name__}.")

    @property
    def is_about_channels(self) -> bool:
        """
        Whether it comes with celery_obs and means nothing to an app without channels.
        """
        return self.package == _CHANNELS or self.package.startswith(f"{_CHANNELS}.")

    def part(self, name: str) -> ModuleType | None:
        """
        Import a part, such as ``metrics`` or ``alerts``; None if the area has no file of that name.
        """
        whole = f"{self.package}.{name}"
        return import_module(whole) if _is_there(whole) else None


@functools.cache
def _is_there(module: str) -> bool:
    # Looked for once: Python goes through the whole path for what is missing, and the parts are asked for with each app and each task of ours.
    return find_spec(module) is not None


def _ours(name: str, place: str = "", **commands: str) -> Area:
    return Area(
        name, f"{__name__}.{place or name}", MappingProxyType({word.replace("_", "-"): sentence for word, sentence in commands.items()})
    )


_OURS: Final[tuple[Area, ...]] = (
    _ours(
        "tasks",
        attempts="Search the latest attempts of tasks.",
        simulate="Simulate another number of pool processes.",
        stack="Show where a process is at this moment.",
    ),
    _ours("workers"),
    _ours("queues"),
    _ours("beat", "schedules"),
    _ours("channels"),
    _ours("syncs", "channels.syncs"),
    _ours("api_calls", "channels.api_calls"),
    _ours("rate_limiter", "channels.rate_limits", rate_limit="Reset rate-limit counters."),
    _ours("circuit_breaker", "channels.breakers", breaker="Show circuit breakers, and override them."),
    _ours("webhooks", "channels.webhooks"),
    _ours("tokens", "channels.tokens", tokens="Show how long tokens are valid."),
    _ours("connections", "channels.connections"),
    _ours("conflicts", "channels.conflicts"),
    _ours("reconciliation", "channels.reconciliation", reconciliation="Show what reconciliation found."),
    _ours("pauses", "channels.pauses", channel="Pause and resume channels."),
    _ours("ourselves", "sidecar"),
)


def _installed() -> tuple[Area, ...]:
    """
    Find the areas of other distributions, by their entry points; ours come first, and keep their names.
    """
    names = {area.name for area in _OURS}
    found = {entry.name: entry.value for entry in entry_points(group=GROUP) if entry.name not in names}
    return tuple(Area(name, package) for name, package in sorted(found.items()))


AREAS: Final[tuple[Area, ...]] = (*_OURS, *_installed())
"""
All areas, in the order in which a reader meets them.
"""


def parts(name: str) -> Iterator[tuple[Area, ModuleType]]:
    """
    Go through the parts of that name, such as ``alerts``, of all areas that have one.

    Another distribution's that cannot be imported is left out, and told: it takes nothing of ours along.
    """
    for area in AREAS:
        with left_out_if_broken(area, name):
            part = area.part(name)
            if part is not None:
                yield area, part


def optional(name: str, part: str) -> ModuleType | None:
    """
    Return a part of the area of that *name*, for what works without it; None where the area or the part is not there.
    """
    return next((area.part(part) for area in _OURS if area.name == name), None)


@contextlib.contextmanager
def left_out_if_broken(area: Area, name: str) -> Iterator[None]:
    """
    Do something with a part of an *area*: what goes wrong in another distribution's is told once in the log, and goes no further.
    """
    try:
        yield
    except Exception as exc:
        if area.is_ours:
            raise
        if (area.package, name) not in _told:
            _told.add((area.package, name))
            log.error(  # noqa: TRY400 -- the message says it all.
                "celery_obs: %s of the area %r (%s) does not work, so it is left out. %s: %s",
                name,
                area.name,
                area.package,
                type(exc).__name__,
                exc,
            )


_told: set[tuple[str, str]] = set()
