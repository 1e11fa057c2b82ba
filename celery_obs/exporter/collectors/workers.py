"""
The workers' collector: all that the processes beside us wrote into their metric files, as one page.
"""

from __future__ import annotations

import logging

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from celery_obs.clock import Clock, wall
from celery_obs.exceptions import ConfigurationError, LayoutError
from celery_obs.exporter.exposition import Page
from celery_obs.exporter.files.merge import MergedText, NodeNumbers, SampleFamily, escape_help, labels_text
from celery_obs.exporter.files.reader import FileCounts, GaugeReading, NodeReader, NodeReading
from celery_obs.exporter.scrape import InternalErrors, Said
from celery_obs.metrics.format import node_name
from celery_obs.vocabulary.beat import ENTRY_DUE, ENTRY_OVERDUE
from celery_obs.vocabulary.ourselves import METRIC_FILES
from celery_obs.vocabulary.spec import Metric
from celery_obs.vocabulary.tasks import IN_PROGRESS, LONGEST_RUNNING, STARTED
from celery_obs.vocabulary.workers import UP


__all__ = ["WorkersCollector"]


_MICRO: Final = 1e6
_MOST_RETIRED: Final = 256

log = logging.getLogger("celery_obs.exporter")


class WorkersCollector:
    """
    Serve the metric files under one directory.

    Args:
        metrics_dir: The directory that workers, beat and publishers write to.

        errors: Counts what went wrong.

        clock: Tells the time.

    Threads: `collect` is called by one at a time.
    """

    name = "workers"
    inline = True

    def __init__(self, metrics_dir: Path, *, errors: InternalErrors, clock: Clock = wall) -> None:
        self._metrics_dir = metrics_dir
        self._errors = errors
        self._clock = clock
        self._said = Said()
        self._nodes: dict[str, NodeReader] = {}
        self._gone: list[tuple[NodeReader, NodeReading]] = []
        self._last: dict[NodeReader, NodeReading] = {}
        self._merged = MergedText(on_conflict=self._conflict, on_decrease=lambda: errors.count("merge:decrease"))
        self._heads: dict[Metric, tuple[str, str]] = {}

    def collect(self) -> Page:
        """
        Read what changed and write the page.

        Raises:
            ConfigurationError: if the metrics directory is not there or cannot be read.
        """
        bad_folders, unsupported = self._find_nodes()
        readings = [(node, reading) for node in list(self._nodes.values()) if (reading := self._read(node)) is not None]
        failed = [(node, self._last[node]) for node in self._nodes.values() if node in self._last and node not in dict(readings)]
        self._last.update(readings)
        everything = [*readings, *failed, *self._gone]
        self._merged.update([NodeNumbers(node.layout, reading.lanes, reading.exemplars) for node, reading in everything])
        files = (
            FileCounts(*(sum(column) for column in zip(*(reading.files for _, reading in everything), strict=True)))
            if everything
            else FileCounts()
        )
        files = files._replace(corrupt=files.corrupt + bad_folders + len(self._nodes) - len(readings), unsupported=unsupported)
        return self._page([*self._gauges(readings), _file_states(files)])

    # -- which nodes there are --------------------------------------------------------------------------------------

    def _find_nodes(self) -> tuple[int, int]:
        """
        Open readers for new folders and retire those that went; return how many are damaged, and how many of another version.
        """
        try:
            names = sorted(entry.name for entry in self._metrics_dir.iterdir())
        except OSError as exc:
            message = (
                f"The metrics directory {self._metrics_dir} cannot be read: {exc.strerror}. It has to be the one that the workers write to."
            )
            raise ConfigurationError(message) from exc
        bad = unsupported = 0
        present = set()
        for name in names:
            if node_name(name) is None:
                unsupported += _is_other_version(self._metrics_dir / name)
                continue
            present.add(name)
            bad += not self._open(name)
        for name in self._nodes.keys() - present:
            self._retire(name)
        return bad, unsupported

    def _open(self, name: str) -> bool:
        """
        Make sure that there is a reader for the folder *name* as it is now.
        """
        folder = self._metrics_dir / name
        known = self._nodes.get(name)
        try:
            if known is not None and known.inode == (folder / "layout").stat().st_ino:
                return True
            fresh = NodeReader(folder, clock=self._clock)
        except FileNotFoundError:
            return known is not None or not any(folder.glob("slot-*"))  # A node that is just being made has no layout yet.
        except (OSError, LayoutError) as exc:
            self._fail(f"files:{name}", exc)
            return known is not None
        if known is not None:
            self._retire(name)
        self._gone = [
            (node, last) for node, last in self._gone if node.layout.layout_id != fresh.layout.layout_id
        ]  # It was away, and is back.
        self._nodes[name] = fresh
        return True

    def _retire(self, name: str) -> None:
        node = self._nodes.pop(name)
        self._last.pop(node, None)
        self._gone.append((node, node.retire()))
        if len(self._gone) > _MOST_RETIRED:
            self._errors.count("files:forgotten")
            self._gone.pop(0)

    def _read(self, node: NodeReader) -> NodeReading | None:
        try:
            return node.read()
        except (OSError, LayoutError, ValueError, ArithmeticError) as exc:
            self._fail(f"files:{node.name}", exc)
            return None

    def _fail(self, component: str, error: Exception) -> None:
        self._errors.count("files")
        if self._said.is_news(component, type(error).__name__):
            log.error("%s: %s. What it said before is still served.", component, error)

    def _conflict(self, name: str) -> None:
        self._errors.count("merge:conflict")
        if self._said.is_news("conflict", name):
            log.error("Two definitions of %s differ in kind, labels or resolution; the first one is served.", name)

    # -- gauges -----------------------------------------------------------------------------------------------------

    def _gauges(self, readings: Iterable[tuple[NodeReader, NodeReading]]) -> Iterable[SampleFamily]:
        now = self._clock()
        found: dict[Metric, dict[tuple[str, ...], list[GaugeReading]]] = {}
        running: dict[tuple[str, ...], int] = {}
        oldest: dict[tuple[str, ...], float] = {}
        up: dict[tuple[str, ...], float] = {}
        for node, reading in readings:
            _sort_gauges(node, reading, found)
            tasks = {place: values[0] for values, place in node.layout.places(STARTED)}
            for task in tasks.values():
                running.setdefault((task,), 0)
            for attempt in reading.running:
                name = tasks.get(attempt.cell)
                if name is not None:
                    running[(name,)] += 1
                    oldest[(name,)] = max(oldest.get((name,), 0.0), now - attempt.started_at)
            if reading.is_up is not None:
                up[(node.name,)] = float(reading.is_up)
        families = {metric: {values: _one(metric, readings) for values, readings in series.items()} for metric, series in found.items()}
        due = families.get(ENTRY_DUE, {})
        yield SampleFamily(IN_PROGRESS, running)
        yield SampleFamily(LONGEST_RUNNING, oldest)
        yield SampleFamily(UP, up)
        yield SampleFamily(ENTRY_OVERDUE, {values: max(0.0, now - value) for values, value in due.items()})
        for metric, samples in families.items():
            yield SampleFamily(metric, samples)

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
        for family in families:
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


def _is_other_version(path: Path) -> bool:
    """
    Tell whether *path* is a node's folder in a version of the format that is not ours.
    """
    stem, _, version = path.name.rpartition(".v")
    return bool(stem) and version.isdecimal() and path.is_dir()


def _sort_gauges(node: NodeReader, reading: NodeReading, found: dict[Metric, dict[tuple[str, ...], list[GaugeReading]]]) -> None:
    if not reading.gauges:
        return
    places = {series.at: series for series in node.layout if series.family.kind == "gauge"}
    for gauge in reading.gauges:
        series = places.get(gauge.place)
        if series is not None and (gauge.is_live or series.family.aggregate == "mostrecent"):
            found.setdefault(series.family, {}).setdefault(series.values, []).append(gauge)


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
