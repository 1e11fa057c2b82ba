"""
The merge: many nodes, one set of series, as finished text.

An index says, for every lane of every node, which cell of one long vector it is added to, and for every cell which line of text shows it.
It is made anew when a layout has grown, and used as it is otherwise: a scrape adds up, writes the lines whose number changed, and joins.
Exemplars are kept beside the lines, for one of the two formats has none.

Histograms whose buckets were changed by a new release are merged, too: what the old ones counted goes to the new bucket that holds it all.
Families that differ in kind, labels or resolution cannot be, nor can two that take one name on the page; one is shown, and the others are told of.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, starmap
from operator import add, ge

from celery_obs.areas.catalogue import CATALOGUE, NAMES
from celery_obs.vocabulary.spec import Metric

from .exemplars import Noted
from .layout import Layout, Series


__all__ = ["MergedText", "NodeNumbers", "SampleFamily", "clashing", "escape_help", "labels_text"]


@dataclass(frozen=True, slots=True)
class NodeNumbers:
    """
    A node's layout, its totals lane by lane, and exemplars by the lanes of their buckets.
    """

    layout: Layout
    lanes: Sequence[int]
    exemplars: Mapping[int, Noted] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SampleFamily:
    """
    A family of gauges whose values were worked out elsewhere.
    """

    metric: Metric
    samples: Mapping[tuple[str, ...], float]


@dataclass(slots=True)
class _IndexedFamily:
    """
    A family in the index: its series in order, its cells, its lines.
    """

    metric: Metric
    series: list[tuple[str, ...]] = field(default_factory=list)
    first_cell: int = 0
    first_line: int = 0

    @property
    def cells(self) -> int:
        return (len(self.metric.buckets) + 2 if self.metric.kind == "histogram" else 1) * len(self.series)

    @property
    def lines(self) -> int:
        return (len(self.metric.buckets) + 3 if self.metric.kind == "histogram" else 1) * len(self.series)


class MergedText:
    """
    Keep the text of all counters and histograms up to date.

    Args:
        on_conflict: Hears the name of a family that cannot be merged.

        on_decrease: Is called when a total would have fallen; the higher one is kept.

    Attributes:
        parts: Of each family its definition, its first line, and the line after its last one.

        exemplars: What OpenMetrics has behind a line, by the line's number.
    """

    def __init__(self, *, on_conflict: Callable[[str], object], on_decrease: Callable[[], object]) -> None:
        self._on_conflict = on_conflict
        self._on_decrease = on_decrease
        self._shape: list[tuple[Layout, int]] | None = None
        self._families: list[_IndexedFamily] = []
        self._routes: list[list[int]] = []
        self._cells: list[int] = [0]  # The last cell is there from the start: see update.
        self._prefixes: list[str] = []
        self._lines: list[str] = []
        self.parts: dict[str, tuple[Metric, int, int]] = {}
        self.exemplars: dict[int, str] = {}

    def update(self, nodes: Sequence[NodeNumbers]) -> None:
        """
        Take in the nodes' totals.
        """
        shape = [(node.layout, len(node.layout.series)) for node in nodes]
        if shape != self._shape:
            self._index(nodes)
            self._shape = shape
        cells = [0] * len(self._cells)
        for node, route in zip(nodes, self._routes, strict=True):
            for cell, number in zip(route, node.lanes, strict=False):
                cells[cell] += number
        cells[-1] = 0  # Lanes of families that cannot be merged end up in the last cell.
        if not all(map(ge, cells, self._cells)):
            self._on_decrease()
            cells = list(map(max, cells, self._cells))
        self._write(cells)
        self.exemplars = self._exemplars(nodes)

    def lines(self, name: str) -> list[str]:
        """
        Return the lines of the family *name*.
        """
        _, start, end = self.parts[name]
        return self._lines[start:end]

    def all_lines(self) -> list[str]:
        """
        Return all lines, family after family in the order of `parts`; each ends without a line break.
        """
        return self._lines

    # -- the index --------------------------------------------------------------------------------------------------

    def _index(self, nodes: Sequence[NodeNumbers]) -> None:
        known = self._numbers_by_series()
        chosen, conflicts = _choose(nodes, shown={family.metric.name: family.metric for family in self._families})
        for name in sorted(conflicts):
            self._on_conflict(name)
        families = {name: _IndexedFamily(metric) for name, metric in chosen.items()}
        for node in nodes:
            for series in node.layout:
                family = families.get(series.family.name)
                if family is not None and _can_merge(series.family, family.metric):
                    family.series.append(series.values)
        cell = line = 0
        for family in families.values():
            family.series = sorted(set(family.series))
            family.first_cell, family.first_line = cell, line
            cell, line = cell + family.cells, line + family.lines
        self._families = list(families.values())
        places = {(family.metric.name, values): at for family in self._families for values, at in _places(family)}
        self._routes = [_route(node.layout, families, places, spill=cell) for node in nodes]
        self._cells = [0] * (cell + 1)
        self._prefixes = [prefix for family in self._families for prefix in _prefixes(family)]
        self._lines = [prefix + "0" for prefix in self._prefixes]
        self.parts = {family.metric.name: (family.metric, family.first_line, family.first_line + family.lines) for family in self._families}
        for key, numbers in known.items():
            at = places.get(key)
            if at is not None and len(numbers) == _width(chosen[key[0]]):
                self._cells[at : at + len(numbers)] = numbers
        self._render_all()

    def _numbers_by_series(self) -> dict[tuple[str, tuple[str, ...]], list[int]]:
        return {
            (family.metric.name, values): self._cells[at : at + _width(family.metric)]
            for family in self._families
            for values, at in _places(family)
        }

    # -- exemplars --------------------------------------------------------------------------------------------------

    def _exemplars(self, nodes: Sequence[NodeNumbers]) -> dict[int, str]:
        """
        Return what to write behind which line: of all nodes' exemplars the newest.
        """
        newest: dict[int, Noted] = {}
        for node, route in zip(nodes, self._routes, strict=True):
            for lane, noted in node.exemplars.items():
                if lane < len(route):
                    cell = route[lane]
                    newest[cell] = max(noted, newest.get(cell, noted))
        lines = ((self._bucket_line(cell, noted.value), noted) for cell, noted in newest.items())
        return {line: f' # {{trace_id="{noted.trace}"}} {noted.value!r} {noted.at / 1e6:.6f}' for line, noted in lines if line is not None}

    def _bucket_line(self, cell: int, value: float) -> int | None:
        """
        Return the line of the bucket that *cell* counts, if *value* lies in it; of one whose bounds a release moved it may not.
        """
        at = bisect_right(self._families, cell, key=lambda family: family.first_cell) - 1
        family = self._families[at]
        metric, width = family.metric, _width(family.metric)
        number, bucket = divmod(cell - family.first_cell, width)
        if metric.kind != "histogram" or number >= len(family.series) or bisect_left(metric.buckets, value) != bucket:
            return None
        return family.first_line + number * (width + 1) + bucket

    # -- the text ---------------------------------------------------------------------------------------------------

    def _write(self, cells: list[int]) -> None:
        """
        Write the lines whose cells changed.
        """
        old, self._cells = self._cells, cells
        for family in self._families:
            start, end = family.first_cell, family.first_cell + family.cells
            if cells[start:end] != old[start:end]:
                self._render(family, old)

    def _render_all(self) -> None:
        for family in self._families:
            self._render(family, None)

    def _render(self, family: _IndexedFamily, old: list[int] | None) -> None:
        cells, at, line = self._cells, family.first_cell, family.first_line
        metric = family.metric
        if metric.kind == "counter":
            end = at + family.cells
            numbers = map(str, cells[at:end]) if metric.resolution == 1.0 else map(_in_units(metric), cells[at:end])
            self._lines[line : line + family.lines] = map(add, self._prefixes[line : line + family.lines], numbers)
            return
        buckets = len(metric.buckets) + 1
        in_units = _in_units(metric)
        for _ in family.series:
            if old is None or cells[at : at + buckets + 1] != old[at : at + buckets + 1]:
                counts = list(map(str, accumulate(cells[at : at + buckets])))
                counts.append(counts[-1])
                counts.append(in_units(cells[at + buckets]))
                self._lines[line : line + buckets + 2] = map(add, self._prefixes[line : line + buckets + 2], counts)
            at, line = at + buckets + 1, line + buckets + 2


def _choose(nodes: Sequence[NodeNumbers], *, shown: Mapping[str, Metric]) -> tuple[dict[str, Metric], set[str]]:
    """
    Choose one definition a name: the last of the first node that has it.

    Of definitions that cannot be merged, ours before what was *shown* so far, and that before any other: one odd layout takes no other definition's place.
    """
    chosen: dict[str, Metric] = {}
    conflicts: set[str] = set()
    for node in nodes:
        newest = {family.name: family for family in node.layout.families if family.kind != "gauge"}
        for name, metric in newest.items():
            known = chosen.setdefault(name, metric)
            if not _can_merge(metric, known) and _rank(metric, shown) > _rank(known, shown):
                chosen[name] = metric
    for name in [name for name in chosen if name in CATALOGUE and CATALOGUE[name].kind == "gauge"]:
        del chosen[name]
        conflicts.add(name)
    for node in nodes:
        conflicts.update(
            family.name for family in node.layout.families if family.name in chosen and not _can_merge(family, chosen[family.name])
        )
    for name in clashing(sorted(chosen.values(), key=lambda metric: -_rank(metric, shown)), owners=NAMES):
        del chosen[name]
        conflicts.add(name)
    return dict(sorted(chosen.items())), conflicts


def clashing(metrics: Iterable[Metric], *, owners: Mapping[str, str]) -> list[str]:
    """
    Return the names of those *metrics* that take a name on the page which another one has: one of *owners*, or one that comes before.
    """
    taken, found = dict(owners), []
    for metric in metrics:
        if metric.taken(taken) is not None:
            found.append(metric.name)
        else:
            taken.update(dict.fromkeys(metric.names, metric.name))
    return found


def _rank(metric: Metric, shown: Mapping[str, Metric]) -> int:
    ours, before = CATALOGUE.get(metric.name), shown.get(metric.name)
    return 2 * (ours is not None and _can_merge(metric, ours)) + (before is not None and _can_merge(metric, before))


def _can_merge(metric: Metric, into: Metric) -> bool:
    return (metric.kind, metric.labels, metric.resolution) == (into.kind, into.labels, into.resolution)


def _width(metric: Metric) -> int:
    return len(metric.buckets) + 2 if metric.kind == "histogram" else 1


def _places(family: _IndexedFamily) -> Iterable[tuple[tuple[str, ...], int]]:
    step = _width(family.metric)
    return ((values, family.first_cell + number * step) for number, values in enumerate(family.series))


def _route(
    layout: Layout, families: Mapping[str, _IndexedFamily], places: Mapping[tuple[str, tuple[str, ...]], int], *, spill: int
) -> list[int]:
    """
    Return, for each lane of a layout, the cell that it is added to.
    """
    route: list[int] = []
    for series in layout:
        if series.family.kind == "gauge":
            continue
        family = families.get(series.family.name)
        at = places.get((series.family.name, series.values))
        if family is None or at is None or not _can_merge(series.family, family.metric):
            route.extend([spill] * _width(series.family))
        elif series.family.buckets == family.metric.buckets:
            route.extend(range(at, at + _width(series.family)))
        else:
            route.extend(_rebucketed(series, family.metric, at))
    return route


def _rebucketed(series: Series, metric: Metric, at: int) -> Iterable[int]:
    """
    Send each old bucket to the new one with the next higher bound: never early, so that no cumulative count is too high.
    """
    for bound in series.family.buckets:
        yield at + bisect_left(metric.buckets, bound)
    yield at + len(metric.buckets)
    yield at + len(metric.buckets) + 1


def _in_units(metric: Metric) -> Callable[[int], str]:
    """
    Return what turns a number of steps into text in the metric's unit.  Dividing by a whole number rounds once, so order is kept.
    """
    if metric.resolution == 1.0:
        return str
    steps = round(1 / metric.resolution)
    if steps > 1:
        return lambda number: repr(number / steps)
    return lambda number: repr(number * metric.resolution)


def _prefixes(family: _IndexedFamily) -> Iterable[str]:
    metric = family.metric
    for values in family.series:
        text = labels_text(metric.labels, values)
        if metric.kind == "counter":
            yield f"{metric.name}{text} "
            continue
        comma = text[:-1] + "," if text else "{"
        for bound in (*map(repr, metric.buckets), "+Inf"):
            yield f'{metric.name}_bucket{comma}le="{bound}"}} '
        yield f"{metric.name}_count{text} "
        yield f"{metric.name}_sum{text} "


def labels_text(names: Sequence[str], values: Sequence[str]) -> str:
    """
    Write labels as both text formats want them.
    """
    inner = ",".join(starmap(_label_text, zip(names, values, strict=True)))
    return f"{{{inner}}}" if inner else ""


def _label_text(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'{name}="{escaped}"'


def escape_help(text: str, *, openmetrics: bool) -> str:
    """
    Write a help text on one line; OpenMetrics wants quotes escaped, too.
    """
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if openmetrics else escaped
