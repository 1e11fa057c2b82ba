"""
The workers' collector: all that the processes beside us wrote into their metric files, as one page.
"""

from __future__ import annotations

import logging
import os

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from celery_obs.areas.catalogue import CATALOGUE, NAMES
from celery_obs.areas.schedules.metrics import ENTRY_DUE, ENTRY_LAST_FIRED, ENTRY_OVERDUE, SUCCEEDED_ENTRY
from celery_obs.areas.schedules.metrics import HEARTBEAT as BEAT
from celery_obs.areas.sidecar.metrics import METRIC_FILES
from celery_obs.areas.tasks.metrics import IN_PROGRESS, LONGEST_RUNNING, STARTED
from celery_obs.clock import Clock, wall
from celery_obs.exceptions import ConfigurationError, LayoutError
from celery_obs.exporter.exposition import Page
from celery_obs.exporter.options import Sidecar
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.format import FORGET_AFTER, node_name
from celery_obs.recorder.kept import Kept, Share
from celery_obs.recorder.merge import MergedText, NodeNumbers, SampleFamily, clashing, escape_help, labels_text
from celery_obs.recorder.opening import RefusedError, explain, open_metrics_dir
from celery_obs.recorder.reader import FileCounts, GaugeReading, NodeReader, NodeReading, RemainderReader, look
from celery_obs.recorder.remainder import ENDS_WITH_ITS_NODE, REMAINDER
from celery_obs.recorder.slots import slot_numbers
from celery_obs.throttle import LogThrottle
from celery_obs.vocabulary.spec import Metric

from .metrics import UP


__all__ = ["WorkersCollector", "collectors"]


_MICRO: Final = 1e6
_MOST_VANISHED: Final = 10_000
_MOST_AWAKE: Final = 16  # Dead nodes whose files are kept open: they may be back in a moment.
_TRIES: Final = 5
_MOST_NAMES: Final = 50_000

log = logging.getLogger("celery_obs.exporter")


def collectors(sidecar: Sidecar) -> Iterator[WorkersCollector]:
    """
    Make the collector of the metric files beside the sidecar, where it serves them.
    """
    options = sidecar.options
    if options.serves_workers:
        yield WorkersCollector(options.directory, errors=sidecar.errors, forget_after=options.forget_after)


class _Resting(NamedTuple):
    """
    A node that nothing lives in and whose files are not read while they look the same.
    """

    name: str
    layout_id: int
    looks: tuple[object, ...]
    share: Share
    files: FileCounts
    is_up: bool | None
    lasting: Mapping[Metric, Mapping[tuple[str, ...], list[GaugeReading]]]


class _Vanished(NamedTuple):
    """
    A node whose folder went: its share in what is kept, and how many files it had.
    """

    share: Share
    files: int


class WorkersCollector:
    """
    Serve the metric files under one directory.

    Args:
        metrics_dir: The directory that workers, beat and publishers write to.

        errors: Counts what went wrong.

        forget_after: Seconds for which a worker that went without a word is shown as down.

        clock: Tells the time.

    Threads: `collect` is called by one at a time.
    """

    name = "workers"
    inline = True

    def __init__(self, metrics_dir: Path, *, errors: InternalErrors, forget_after: float = FORGET_AFTER, clock: Clock = wall) -> None:
        self._metrics_dir = metrics_dir
        self._errors = errors
        self._forget_after = forget_after
        self._clock = clock
        self._throttle = LogThrottle()
        self._nodes: dict[str, NodeReader] = {}
        self._last: dict[str, NodeReading] = {}
        self._resting: dict[str, _Resting] = {}
        self._vanished: dict[int, _Vanished] = {}
        self._kept = Kept()
        self._remainder = RemainderReader(metrics_dir / REMAINDER)
        self._merged = MergedText(on_conflict=self._conflict, on_decrease=lambda: errors.count("merge:decrease"))
        self._heads: dict[Metric, tuple[str, str]] = {}
        self._refused: dict[str, tuple[tuple[int, ...], Exception]] = {}
        self._problems: dict[str, str] = {}
        self._reported: dict[str, str] = {}

    def collect(self) -> Page:
        """
        Read what changed and write the page.

        Raises:
            ConfigurationError: if the metrics directory is not there or cannot be read.
        """
        for _ in range(_TRIES):
            self._problems = {}
            self._read_remainder()
            bad_folders, unsupported = self._find_nodes()
            readings = {name: reading for name, node in list(self._nodes.items()) if (reading := self._read(node)) is not None}
            if not self._remainder.has_changed():
                break  # Else a node may have gone from its folder into the remainder meanwhile: everything is looked at once more.
        self._last.update(readings)
        shown = {name: self._last[name] for name in self._nodes if name in self._last}
        numbers = [NodeNumbers(self._nodes[name].layout, reading.lanes, reading.exemplars) for name, reading in shown.items()]
        self._merged.update([*numbers, self._kept.numbers(), self._remainder.numbers()])
        counts = [
            *(reading.files for reading in shown.values()),
            *(resting.files for resting in self._resting.values()),
            *(FileCounts(vanished=vanished.files) for vanished in self._vanished.values()),
        ]
        files = FileCounts(*(sum(column) for column in zip(FileCounts(), *counts, strict=True)))
        unread = len(self._nodes) - len(readings) + (REMAINDER in self._problems)
        files = files._replace(corrupt=files.corrupt + bad_folders + unread, unsupported=unsupported)
        page = self._page([*self._gauges(readings), _file_states(files)])
        self._put_to_rest(readings)
        self._tell_problems()
        return page

    # -- which nodes there are --------------------------------------------------------------------------------------

    def _read_remainder(self) -> None:
        """
        Take over what was merged: such nodes are counted there, and here no more.
        """
        try:
            self._remainder.refresh()
        except (OSError, LayoutError) as exc:
            self._problems[REMAINDER] = _in_words(exc, self._metrics_dir / REMAINDER)
            return
        merged = self._remainder.merged
        for layout_id in self._vanished.keys() & merged:
            self._kept.take(self._vanished.pop(layout_id).share)
        for name, resting in list(self._resting.items()):
            if resting.layout_id in merged:
                self._kept.take(self._resting.pop(name).share)
        for name, node in list(self._nodes.items()):
            if node.layout.layout_id in merged:
                node.close()
                self._drop(name)

    def _drop(self, name: str) -> None:
        del self._nodes[name]
        self._last.pop(name, None)

    def _find_nodes(self) -> tuple[int, int]:
        """
        Open readers for new folders and retire those that went; return how many are damaged, and how many of another version.
        """
        bad = unsupported = 0
        present = set()
        for name, is_folder in self._names():
            if node_name(name) is None:
                unsupported += is_folder and _is_other_version(name)
                continue
            present.add(name)
            if is_folder:
                bad += not self._open(name)
            else:
                bad += 1
                self._problems[name] = f"{self._metrics_dir / name} is not a directory, or is a link to one. Remove it."
        self._refused = {name: refused for name, refused in self._refused.items() if name in present}
        for name in self._nodes.keys() - present:
            self._retire(name)
        for name in self._resting.keys() - present:
            resting = self._resting.pop(name)
            self._keep_vanished(resting.layout_id, _Vanished(resting.share, resting.files.live + resting.files.dead))
        return bad, unsupported

    def _names(self) -> list[tuple[str, bool]]:
        """
        Return what is in the metrics directory, and of each name whether it is a folder, in order.

        Raises:
            ConfigurationError: if the directory cannot be read, or may not be served.
        """
        try:
            descriptor = open_metrics_dir(self._metrics_dir)
            try:
                with os.scandir(descriptor) as entries:
                    found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(entries, _MOST_NAMES + 1)]
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise ConfigurationError(_refusal(self._metrics_dir, exc)) from exc
        if len(found) > _MOST_NAMES:
            message = (
                f"The metrics directory {self._metrics_dir} has more than {_MOST_NAMES} entries. Remove those that celery_obs did not make."
            )
            raise ConfigurationError(message)
        return sorted(found)

    def _open(self, name: str) -> bool:
        """
        Make sure that there is a reader for the folder *name* as it is now.
        """
        folder = self._metrics_dir / name
        resting = self._resting.get(name)
        if resting is not None:
            if resting.looks == look(folder):
                return True
            self._kept.take(self._resting.pop(name).share)
        known = self._nodes.get(name)
        try:
            found = (folder / "layout").lstat()
            if known is not None and known.inode == found.st_ino:
                return True
            fresh = self._reader(name, (found.st_ino, found.st_mtime_ns, found.st_size))
        except FileNotFoundError:
            if known is not None or not any(True for _ in slot_numbers(folder)):
                return True  # A node that is just being made has no layout yet; of one whose layout went, what was read stays.
            self._problems[name] = f"{folder} has slot files and no layout. Remove it."
            return False
        except (OSError, LayoutError) as exc:
            self._problems[name] = _in_words(exc, folder / "layout")
            return False
        if fresh.layout.layout_id in self._remainder.merged:
            fresh.close()  # Merged, and about to be removed.
            return True
        if known is not None:
            self._retire(name)
        if fresh.layout.layout_id in self._vanished:  # It was away, and is back.
            self._kept.take(self._vanished.pop(fresh.layout.layout_id).share)
        self._nodes[name] = fresh
        return True

    def _reader(self, name: str, looks: tuple[int, ...]) -> NodeReader:
        """
        Make a reader for a folder whose layout has *looks*; one that was refused is refused again, at no cost, while that looks the same.

        Raises:
            OSError, LayoutError: as `NodeReader`.
        """
        refused = self._refused.pop(name, None)
        if refused is not None and refused[0] == looks:
            self._refused[name] = refused
            raise refused[1]
        try:
            return NodeReader(self._metrics_dir / name, clock=self._clock)
        except (RefusedError, LayoutError) as exc:
            self._refused[name] = (looks, exc.with_traceback(None))
            raise

    def _retire(self, name: str) -> None:
        """
        The folder is gone: what it said stays counted, until it comes back or is found in the remainder.
        """
        node = self._nodes[name]
        last = node.retire()
        self._drop(name)
        if node.layout.layout_id is not None:
            self._keep_vanished(node.layout.layout_id, _Vanished(self._kept.add(node.layout, last.lanes), last.files.vanished))

    def _keep_vanished(self, layout_id: int, vanished: _Vanished) -> None:
        self._vanished[layout_id] = vanished
        if len(self._vanished) > _MOST_VANISHED:
            self._vanished.pop(next(iter(self._vanished)))  # It stays in the sum; but should it come back, it would be counted twice.

    def _put_to_rest(self, readings: Mapping[str, NodeReading]) -> None:
        """
        Let go of nodes that nothing lives in, but for a few: they cost a look at their files from now on.
        """
        dead = [name for name, reading in readings.items() if not reading.files.live and not reading.files.corrupt]
        for name in dead[: max(0, len(dead) - _MOST_AWAKE)]:
            node, reading = self._nodes[name], readings[name]
            looks = look(node.folder)
            if looks is None or node.layout.layout_id is None or self._read(node) != reading:
                continue  # It changed since it was read.
            lasting: dict[Metric, dict[tuple[str, ...], list[GaugeReading]]] = {}
            _sort_gauges(node, reading, lasting)
            self._resting[name] = _Resting(
                node.name, node.layout.layout_id, looks, self._kept.add(node.layout, reading.lanes), reading.files, reading.is_up, lasting
            )
            node.close()
            self._drop(name)

    def _read(self, node: NodeReader) -> NodeReading | None:
        try:
            reading = node.read()
        except Exception as exc:  # noqa: BLE001 -- whatever lies in a node's folder costs that node only.
            self._problems[node.folder.name] = _in_words(exc, node.folder)
            return None
        self._problems.update((f"{node.folder.name}/{name}", problem) for name, problem in node.problems.items())
        return reading

    def _tell_problems(self) -> None:
        """
        Write to the log why a file or a folder is passed over: once, and again if it was well meanwhile or is bad for another reason.
        """
        for name, problem in self._problems.items():
            if self._reported.get(name) != problem:
                self._errors.count("files")
                log.error("A metric file is skipped: %s What was read there before is still served.", _printable(problem))
        self._reported = self._problems

    def _conflict(self, name: str) -> None:
        self._errors.count("merge:conflict")
        if self._throttle.allows("conflict", name):
            log.error(
                "A second definition of %s is left out: it differs in kind, labels or resolution, or takes another metric's name.", name
            )

    # -- gauges -----------------------------------------------------------------------------------------------------

    def _gauges(self, readings: Mapping[str, NodeReading]) -> Iterable[SampleFamily]:
        now = self._clock()
        found: dict[Metric, dict[tuple[str, ...], list[GaugeReading]]] = {}
        running: dict[tuple[str, ...], int] = {}
        oldest: dict[tuple[str, ...], float] = {}
        up: dict[tuple[str, ...], float] = {}
        for metric, values, gauge in self._remainder.gauges():
            found.setdefault(metric, {}).setdefault(values, []).append(gauge)
        for folder, resting in self._resting.items():
            present = self._is_present(self._metrics_dir / folder, resting.is_up, resting.lasting)
            _join(found, resting.lasting, present=present)
            if resting.is_up is not None and present:
                up[(resting.name,)] = 0.0
        for folder, reading in readings.items():
            node = self._nodes[folder]
            of_node: dict[Metric, dict[tuple[str, ...], list[GaugeReading]]] = {}
            _sort_gauges(node, reading, of_node)
            present = bool(reading.is_up) or self._is_present(node.folder, reading.is_up, of_node)
            _join(found, of_node, present=present)
            tasks = {place: values[0] for values, place in node.layout.places(STARTED)}
            for task in tasks.values():
                running.setdefault((task,), 0)
            for attempt in reading.running:
                name = tasks.get(attempt.started_lane)
                if name is not None:
                    running[(name,)] += 1
                    oldest[(name,)] = max(oldest.get((name,), 0.0), now - attempt.started_at)
            if reading.is_up is not None and present:
                up[(node.name,)] = float(reading.is_up)
        families = {metric: {values: _one(metric, readings) for values, readings in series.items()} for metric, series in found.items()}
        due = families.get(ENTRY_DUE, {})
        _drop_left_entries((self._nodes[folder] for folder in readings), families)
        yield SampleFamily(IN_PROGRESS, running)
        yield SampleFamily(LONGEST_RUNNING, oldest)
        yield SampleFamily(UP, up)
        yield SampleFamily(ENTRY_OVERDUE, {values: max(0.0, now - value) for values, value in due.items()})
        for metric, samples in families.items():
            yield SampleFamily(metric, samples)

    def _is_present(self, folder: Path, is_up: bool | None, gauges: Mapping[Metric, Mapping[tuple[str, ...], list[GaugeReading]]]) -> bool:  # noqa: FBT001 -- as it was read.
        """
        Tell whether what a node without a living main process says of itself is still to be shown.

        One that stopped in order has taken its heartbeat along: it leaves at once, and a beat, whose stillness is to be noticed, after *forget_after*.
        One that went without a word is shown for *forget_after*; a beat until another one takes its place, or it is forgotten by command.
        """
        try:
            beat: float | None = (folder / "heartbeat").lstat().st_mtime
        except OSError:
            beat = None
        if is_up is not None:
            return beat is not None and self._clock() - beat < self._forget_after
        if beat is not None:
            return True
        last = max((gauge.set_at / _MICRO for each in gauges.get(BEAT, {}).values() for gauge in each), default=None)
        return last is None or self._clock() - last < self._forget_after

    # -- the page ---------------------------------------------------------------------------------------------------

    def _page(self, families: Iterable[SampleFamily]) -> Page:
        text: list[str] = []
        openmetrics: list[str] = []
        lines = self._merged.all_lines()
        for metric, start, end in self._merged.parts.values():
            if start < end:
                head, open_head = self._head(metric)
                body = lines[start:end]
                text.append(head)
                text += body
                openmetrics.append(open_head)
                openmetrics += self._with_exemplars(body, start)
        for family in self._each_once(families):
            if family.samples:
                head, open_head = self._head(family.metric)
                body = [
                    f"{family.metric.name}{labels_text(family.metric.labels, values)} {value!r}"
                    for values, value in sorted(family.samples.items())
                ]
                text.append(head)
                text += body
                openmetrics.append(open_head)
                openmetrics += body
        text.append("")
        openmetrics.append("")
        return Page("\n".join(text), "\n".join(openmetrics))

    def _each_once(self, families: Iterable[SampleFamily]) -> Iterable[SampleFamily]:
        """
        Return one family a name, ours before one that a file declares, and none that takes a name which another one has on the page.
        """
        totals = [metric for metric, _, _ in self._merged.parts.values()]
        chosen: dict[str, SampleFamily] = {}
        for family in families:
            name = family.metric.name
            if name not in self._merged.parts and (name not in chosen or family.metric == CATALOGUE.get(name)):
                chosen[name] = family
        for name in clashing((*totals, *(family.metric for family in chosen.values())), owners=NAMES):
            chosen.pop(name, None)
            self._conflict(name)
        return chosen.values()

    def _with_exemplars(self, lines: list[str], start: int) -> list[str]:
        """
        Return *lines*, the first of which is number *start*, those that have an exemplar with it.
        """
        exemplars = self._merged.exemplars
        if not exemplars:
            return lines
        return [line + exemplars.get(number, "") for number, line in enumerate(lines, start)]

    def _head(self, metric: Metric) -> tuple[str, str]:
        head = self._heads.get(metric)
        if head is None:
            name = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
            head = self._heads[metric] = (
                f"# HELP {metric.name} {escape_help(metric.help, openmetrics=False)}\n# TYPE {metric.name} {metric.kind}",
                f"# HELP {name} {escape_help(metric.help, openmetrics=True)}\n# TYPE {name} {metric.kind}",
            )
        return head


def _is_other_version(name: str) -> bool:
    """
    Tell whether a folder is a node's in a version of the format that is not ours, or by its name no node's.
    """
    stem, _, version = name.rpartition(".v")
    return bool(stem) and version.isdecimal()


def _refusal(directory: Path, error: OSError) -> str:
    if isinstance(error, RefusedError):
        return f"The metrics directory {error}"
    return f"The metrics directory {directory} cannot be read: {error.strerror}. Give the directory that the workers write to."


def _in_words(error: Exception, path: Path) -> str:
    text = explain(error, within=path)
    return text if str(path.parent) in text else f"{path}: {text}"


def _printable(text: str) -> str:
    """
    Return *text* on one line, and as text that can be written anywhere: a file's name may be any bytes.
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _join(
    found: dict[Metric, dict[tuple[str, ...], list[GaugeReading]]],
    of_node: Mapping[Metric, Mapping[tuple[str, ...], list[GaugeReading]]],
    *,
    present: bool,
) -> None:
    """
    Add a node's gauges to those of all; of one that is not *present*, only those that say nothing of itself.
    """
    for metric, series in of_node.items():
        if present or metric not in ENDS_WITH_ITS_NODE:
            for values, gauges in series.items():
                found.setdefault(metric, {}).setdefault(values, []).extend(gauges)


def _sort_gauges(node: NodeReader, reading: NodeReading, found: dict[Metric, dict[tuple[str, ...], list[GaugeReading]]]) -> None:
    if not reading.gauges:
        return
    places = {series.at: series for series in node.layout if series.family.kind == "gauge"}
    for gauge in reading.gauges:
        series = places.get(gauge.place)
        if series is not None and (gauge.is_live or series.family.aggregate == "mostrecent"):
            found.setdefault(series.family, {}).setdefault(series.values, []).append(gauge)


def _drop_left_entries(nodes: Iterable[NodeReader], families: Mapping[Metric, dict[tuple[str, ...], float]]) -> None:
    """
    Drop the successes of entries that a beat here fired once and that are in its schedule no more: workers, who note successes, are not told.
    """
    fired, due, succeeded = (families.get(metric, {}) for metric in (ENTRY_LAST_FIRED, ENTRY_DUE, SUCCEEDED_ENTRY))
    for node in nodes:
        for values, _ in node.layout.places(ENTRY_LAST_FIRED):
            if values not in fired and values not in due:
                succeeded.pop(values, None)


def _one(metric: Metric, readings: list[GaugeReading]) -> float:
    """
    Make one value of what several processes have set.
    """
    if metric.aggregate == "mostrecent":
        return max(readings, key=lambda reading: reading.set_at).value
    values = [reading.value for reading in readings]
    if metric.aggregate == "sum":
        return sum(values)
    return min(values) if metric.aggregate == "min" else max(values)


def _file_states(files: FileCounts) -> SampleFamily:
    states: Mapping[tuple[str, ...], float] = {(state,): float(count) for state, count in files._asdict().items()}
    return SampleFamily(METRIC_FILES, states)
