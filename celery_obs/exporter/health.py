"""
The health of what is watched: workers, queues, tasks and beat, told from the exporter's own page by the numbers of the alerts.

What is true now is told now; the alert of the same name fires when it lasts.
"""

from __future__ import annotations

import threading

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.schedules import metrics as beat
from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.areas.workers import metrics as workers
from celery_obs.clock import Clock, wall
from celery_obs.vocabulary import conditions
from celery_obs.vocabulary.conditions import CONDITIONS, Area, Condition
from celery_obs.vocabulary.spec import Metric

from .samples import Samples


__all__ = ["AREAS", "Health", "Past", "Report", "Trouble", "duration", "find"]


AREAS: Final[tuple[Area, ...]] = ("workers", "queues", "tasks", "beat", "sidecar")
"""
What is looked at, in the order in which it is told.
"""

_DYING: Final = frozenset({"killed", "lost"})
_UNREADABLE: Final = frozenset({"corrupt", "unsupported"})
_SPACING: Final = 15.0
_SHORTEST_MEMORY: Final = 0.9


class Trouble(NamedTuple):
    """
    Something that is wrong.

    Attributes:
        condition: Which of the known ones; its alert has the same name.

        labels: What it is about, as the alert's labels are.

        value: What the alert would show.

        text: What is known, in a sentence.

        advice: What to do next.
    """

    condition: Condition
    labels: Mapping[str, str]
    value: float
    text: str
    advice: str


class Past:
    """
    What counters said during the last minutes, so that it can be told what they did since.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, Mapping[str, float], Mapping[str, float]]] = deque()

    def note(self, samples: Samples, *, at: float) -> None:
        """
        Remember the counters of *samples*; what comes within seconds of the last time is passed over.
        """
        with self._lock:
            if self._seen and 0 <= at - self._seen[-1][0] < _SPACING:
                return
            self._seen.append((at, _started(samples), _died(samples)))
            oldest = at - max(condition.window_seconds for condition in CONDITIONS.values()) - _SPACING
            while self._seen and self._seen[0][0] < oldest:
                self._seen.popleft()

    def started(self, now: Mapping[str, float], *, window: float, at: float) -> Mapping[str, float] | None:
        """
        Return how many attempts began within *window*, by queue; None where that is longer than anything is remembered.
        """
        known = self._at(at - window, at)
        return None if known is None else _increase(known[1], now)

    def died(self, now: Mapping[str, float], *, window: float, at: float) -> Mapping[str, float]:
        """
        Return how many pool processes died within *window*, or for as long as anything is remembered, by worker.
        """
        known = self._at(at - window, at, or_later=True)
        return {} if known is None else _increase(known[2], now)

    def _at(self, moment: float, now: float, *, or_later: bool = False) -> tuple[float, Mapping[str, float], Mapping[str, float]] | None:
        """
        Return what was remembered last before *moment*, give or take a scrape.
        """
        with self._lock:
            before = [seen for seen in self._seen if seen[0] <= moment + (now - moment) * (1 - _SHORTEST_MEMORY)]
            if before:
                return before[-1]
            return self._seen[0] if or_later and self._seen else None


@dataclass(frozen=True, slots=True)
class Report:
    """
    How things stand.

    Attributes:
        troubles: What is wrong, worst first within an area.

        unknown: What cannot be told and why, by area.

        areas: What was looked at.
    """

    troubles: tuple[Trouble, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    areas: tuple[Area, ...] = ()

    def status(self, area: str) -> str:
        """
        Return *unhealthy*, *degraded*, *unknown* or *healthy*.
        """
        severities = {trouble.condition.severity for trouble in self.troubles if trouble.condition.area == area}
        if severities:
            return "unhealthy" if "critical" in severities else "degraded"
        return "unknown" if area in self.unknown else "healthy"


class Health:
    """
    Tells it, again and again.

    Args:
        watches_workers: Whether the page has what the processes beside us wrote.

        watches_queues: Whether it has the broker's queues.

        clock: Tells the time.

    Threads: safe.
    """

    def __init__(self, *, watches_workers: bool, watches_queues: bool, clock: Clock = wall) -> None:
        self._watches_workers = watches_workers
        self._watches_queues = watches_queues
        self._clock = clock
        self._past = Past()

    def note(self, pages: Iterable[str]) -> None:
        """
        Remember what a scrape showed.
        """
        self._past.note(Samples(pages), at=self._clock())

    def report(self, pages: Iterable[str], *, failed: Mapping[str, str] = MappingProxyType({})) -> Report:
        """
        Look at *pages*.

        Args:
            pages: What the collectors show.

            failed: The collectors that failed, each with its error: what they would have shown is unknown.
        """
        samples = Samples(pages)
        now = self._clock()
        self._past.note(samples, at=now)
        troubles = tuple(find(samples, self._past, now=now, watches_workers=self._watches_workers))
        return Report(troubles, dict(self._unknown(samples, failed)), tuple(self._areas(samples)))

    def _areas(self, samples: Samples) -> Iterator[Area]:
        if self._watches_workers:
            yield "workers"
        if self._watches_queues:
            yield "queues"
        if self._watches_workers:
            yield "tasks"
            if samples.of(beat.HEARTBEAT):
                yield "beat"
            yield "sidecar"

    def _unknown(self, samples: Samples, failed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        if self._watches_workers:
            if "workers" in failed:
                for area in ("workers", "tasks"):
                    yield area, f"the metric files cannot be read ({failed['workers']})"
            elif not _was_a_worker_here(samples):
                waiting = sum(samples.of(queues.DEPTH).values())
                also = f", and {waiting:.0f} messages wait" if waiting else ""
                advice = "Start one with the same metrics_dir, or ask the exporter beside a worker"
                yield "workers", f"no worker has written to this exporter's metrics directory{also}. {advice}"
        if self._watches_queues:
            for name, error in failed.items():
                if name.partition(":")[0] == "queues":  # One collector for each broker, where there are several.
                    _, _, which = name.partition(":")
                    yield "queues", f"the broker{f' {which}' if which else ''} cannot be asked ({error})"


def find(samples: Samples, past: Past, *, now: float, watches_workers: bool = True) -> Iterator[Trouble]:
    """
    Find everything that is wrong, in the order of the areas.
    """
    finders: tuple[Callable[[_Scene], Iterator[Trouble]], ...] = (
        *((_no_worker, _workers_down, _workers_hang, _children_die) if watches_workers else ()),
        _without_consumers,
        *((_not_consumed,) if watches_workers else ()),
        _backlogs,
        _old_messages,
        _hung_tasks,
        _beat,
        _overdue,
        _not_succeeding,
        _unreadable,
    )
    scene = _Scene(samples, past, now)
    for finder in finders:
        yield from finder(scene)


class _Scene:
    """
    What is looked at, at one moment.
    """

    def __init__(self, samples: Samples, past: Past, now: float) -> None:
        self.samples = samples
        self.past = past
        self.now = now
        self.up = {worker: value for (worker,), value in samples.of(workers.UP).items()}
        self.no_worker_is_up = 1.0 not in self.up.values()
        self.had_workers = _was_a_worker_here(samples)
        self.beats = {worker: at for (worker,), at in samples.of(workers.HEARTBEAT).items()}
        self.depths = {queue: depth for (queue,), depth in samples.of(queues.DEPTH).items()}
        self.consumers = {queue: count for (queue,), count in samples.of(queues.CONSUMERS).items()}

    def ago(self, worker: str) -> str:
        """
        Say when *worker* last gave a sign of life.
        """
        return f"{duration(self.now - self.beats[worker])} ago" if worker in self.beats else "at an unknown time"


# -- workers --------------------------------------------------------------------------------------------------------


def _no_worker(scene: _Scene) -> Iterator[Trouble]:
    if not scene.no_worker_is_up or not scene.had_workers:
        return
    waiting = sum(scene.depths.values())
    also = f" {waiting:.0f} messages wait." if waiting else ""
    last = max(scene.beats, key=scene.beats.__getitem__, default="")
    seen = f" The last sign of life was that of {last}, {scene.ago(last)}." if last else ""
    yield Trouble(
        conditions.WORKERS_ABSENT,
        {},
        1.0,
        f"No worker is up, so no task is being run.{also}{seen}",
        "Start a worker; if one should be running, its log says why it ended.",
    )


def _workers_down(scene: _Scene) -> Iterator[Trouble]:
    for worker, value in sorted(scene.up.items()):
        if value == 0:
            yield Trouble(
                conditions.WORKER_DOWN,
                {"worker": worker},
                0.0,
                f"Worker {worker} is down without having been stopped; its last sign of life was {scene.ago(worker)}.",
                f"Look in its log, or the kernel's, for what ended it, and start it again. If it is gone for good: celery-obs forget-node {worker}.",
            )


def _workers_hang(scene: _Scene) -> Iterator[Trouble]:
    condition = conditions.WORKER_NOT_RESPONDING
    for worker, at in sorted(scene.beats.items()):
        silent = scene.now - at
        if scene.up.get(worker) == 1 and silent > condition.threshold:
            yield Trouble(
                condition,
                {"worker": worker},
                silent,
                f"Worker {worker} is up and does not respond: its event loop last ran {duration(silent)} ago.",
                "See where it hangs (py-spy dump), then restart it.",
            )


def _children_die(scene: _Scene) -> Iterator[Trouble]:
    condition = conditions.WORKER_CHILDREN_DYING
    died = scene.past.died(_died(scene.samples), window=condition.window_seconds, at=scene.now)
    for worker, count in sorted(died.items()):
        if count > condition.threshold:
            yield Trouble(
                condition,
                {"worker": worker},
                count,
                f"{count:.0f} pool processes of worker {worker} were killed or died within {condition.window}.",
                "Look for the OOM killer in the kernel's log, and for crashes in the worker's.",
            )


# -- queues ---------------------------------------------------------------------------------------------------------


def _without_consumers(scene: _Scene) -> Iterator[Trouble]:
    condition = conditions.QUEUE_WITHOUT_CONSUMERS
    for queue, depth in sorted(scene.depths.items()):
        unattended = scene.consumers[queue] == 0 if queue in scene.consumers else scene.no_worker_is_up and scene.had_workers
        if depth > condition.threshold and unattended:
            yield Trouble(
                condition,
                {"queue": queue},
                depth,
                f"{_messages(depth)} in queue {queue}, and no worker consumes it.",
                f"Start a worker with -Q {queue}, or fix the route that leads there.",
            )


def _not_consumed(scene: _Scene) -> Iterator[Trouble]:
    condition = conditions.QUEUE_NOT_CONSUMED
    busy = scene.samples.of(workers.POOL_BUSY)
    size = scene.samples.of(workers.POOL_SIZE)
    if not busy or not size or not sum(busy.values()) < sum(size.values()):
        return
    started = scene.past.started(_started(scene.samples), window=condition.window_seconds, at=scene.now)
    if started is None:
        return
    for queue, depth in sorted(scene.depths.items()):
        if depth > condition.threshold and not started.get(queue, 0.0) > 0:
            yield Trouble(
                condition,
                {"queue": queue},
                depth,
                f"{_messages(depth)} in queue {queue}, workers have room, and none has started a task of it for {condition.window}.",
                f"See whether a worker consumes {queue} (-Q), and whether it still has its connection to the broker.",
            )


def _backlogs(scene: _Scene) -> Iterator[Trouble]:
    for condition in (conditions.QUEUE_BACKED_UP, conditions.QUEUE_BACKLOG):
        for queue, depth in sorted(scene.depths.items()):
            if depth > condition.threshold:
                yield Trouble(
                    condition,
                    {"queue": queue},
                    depth,
                    f"{_messages(depth)} in queue {queue} (threshold: {condition.threshold:.0f}).",
                    "Start more workers, or find out why tasks got slower or more are published.",
                )


def _old_messages(scene: _Scene) -> Iterator[Trouble]:
    return _above(
        scene,
        conditions.QUEUE_MESSAGES_OLD,
        queues.OLDEST_MESSAGE_AGE,
        "The oldest message of queue {name} has waited for {value} since it was due.",
        "Start more workers for it, or move long tasks to a queue of their own.",
    )


# -- tasks ----------------------------------------------------------------------------------------------------------


def _hung_tasks(scene: _Scene) -> Iterator[Trouble]:
    return _above(
        scene,
        conditions.TASK_HUNG,
        tasks.LONGEST_RUNNING,
        "An attempt of {name} has been running for {value}.",
        "See where it hangs (py-spy dump of its pool process), and give it a time limit.",
    )


# -- beat -----------------------------------------------------------------------------------------------------------


def _beat(scene: _Scene) -> Iterator[Trouble]:
    condition = conditions.BEAT_STOPPED
    passes = scene.samples.of(beat.HEARTBEAT).values()
    if passes and scene.now - max(passes) > condition.threshold:
        silent = scene.now - max(passes)
        yield Trouble(
            condition,
            {},
            silent,
            f"Beat has stopped: it last ran its schedule {duration(silent)} ago. No periodic task is started.",
            "Start beat again; its log says why it ended or what it waits for.",
        )


def _overdue(scene: _Scene) -> Iterator[Trouble]:
    return _above(
        scene,
        conditions.BEAT_ENTRY_OVERDUE,
        beat.ENTRY_OVERDUE,
        "Schedule entry {name} is {value} overdue.",
        "See whether beat runs and what its log says of this entry.",
    )


def _not_succeeding(scene: _Scene) -> Iterator[Trouble]:
    condition = conditions.BEAT_ENTRY_NOT_SUCCEEDING
    due, fired = scene.samples.of(beat.ENTRY_DUE), scene.samples.of(beat.ENTRY_LAST_FIRED)
    for (entry,), at in sorted(scene.samples.of(beat.SUCCEEDED_ENTRY).items()):
        since = scene.now - at
        if (entry,) not in due or (entry,) not in fired or since <= conditions.LEAST_SINCE_SUCCESS:
            continue
        if since > condition.threshold * (due[entry,] - fired[entry,]):
            yield Trouble(
                condition,
                {"entry": entry},
                since,
                f"Schedule entry {entry} is fired and does not succeed: the last success was {duration(since)} ago.",
                "Look at the failures of its task, and whether a worker consumes its queue.",
            )


# -- ourselves ------------------------------------------------------------------------------------------------------


def _unreadable(scene: _Scene) -> Iterator[Trouble]:
    condition = conditions.METRIC_FILES_UNREADABLE
    for (state,), count in sorted(scene.samples.of(ourselves.METRIC_FILES).items()):
        if state in _UNREADABLE and count > condition.threshold:
            yield Trouble(
                condition,
                {"state": state},
                count,
                f"{count:.0f} metric files are {state}; what is in them is not counted.",
                "The exporter's log names them; use one version of celery_obs for workers and exporter.",
            )


def _above(scene: _Scene, condition: Condition, metric: Metric, text: str, advice: str) -> Iterator[Trouble]:
    """
    Go through the series of *metric*, which has one label and counts seconds, that are above the condition's threshold.
    """
    (label,) = metric.labels
    for (name,), value in sorted(scene.samples.of(metric).items()):
        if value > condition.threshold:
            yield Trouble(condition, {label: name}, value, text.format(name=name, value=duration(value)), advice)


def _was_a_worker_here(samples: Samples) -> bool:
    """
    Tell whether a worker has ever written where we read: without one, its absence says nothing.
    """
    return bool(samples.of(workers.UP) or samples.of(tasks.RECEIVED))


def _started(samples: Samples) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for (_, queue), count in samples.of(tasks.STARTED).items():
        found[queue] = found.get(queue, 0.0) + count
    return found


def _died(samples: Samples) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for (worker, reason), count in samples.of(workers.PROCESS_RESTARTS).items():
        if reason in _DYING:
            found[worker] = found.get(worker, 0.0) + count
    return found


def _increase(before: Mapping[str, float], now: Mapping[str, float]) -> Mapping[str, float]:
    return {name: max(0.0, count - before.get(name, 0.0)) for name, count in now.items()}


def _messages(depth: float) -> str:
    return f"{depth:.0f} message{'s wait' if depth != 1 else ' waits'}"


def duration(seconds: float) -> str:
    """
    Say how long something is: ``12 s``, ``4 min``, ``2 h 5 min``, ``3 d 4 h``.
    """
    whole = max(0, round(seconds))
    if whole < 60:  # noqa: PLR2004 -- a minute.
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:  # noqa: PLR2004 -- an hour.
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:  # noqa: PLR2004 -- a day.
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
