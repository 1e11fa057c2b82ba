"""
The merge: as the official collector has it, whatever the order, and never downwards.
"""

from __future__ import annotations

import itertools

from pathlib import Path

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from celery_obs.recorder.exemplars import Noted
from celery_obs.recorder.layout import Layout, family_line, header_line, series_line, width
from celery_obs.recorder.merge import MergedText, NodeNumbers, labels_text
from celery_obs.vocabulary.spec import Metric
from tests.strategies import counts, label_values


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

HITS = Metric(kind="counter", name="hits_total", help="How many?", labels=("task",))
TIMES = Metric(kind="histogram", name="times_seconds", help="How long?", labels=("task",), buckets=(0.1, 1.0, 10.0))


def layout_of(*series: tuple[Metric, tuple[str, ...]], layout_id: int = 1) -> Layout:
    families = list(dict.fromkeys(metric for metric, _ in series))
    layout = Layout()
    layout.feed(header_line(layout_id) + b"".join(map(family_line, families)))
    layout.feed(b"".join(series_line(families.index(metric), values) for metric, values in series))
    return layout


class Merge:
    """
    A merge, and what it complained about.
    """

    def __init__(self) -> None:
        self.conflicts: list[str] = []
        self.decreases = 0
        self._merged = MergedText(on_conflict=self.conflicts.append, on_decrease=self._count)

    def _count(self) -> None:
        self.decreases += 1

    def lines(self, *nodes: NodeNumbers) -> list[str]:
        self._merged.update(nodes)
        return self._merged.all_lines()

    def examples(self, *nodes: NodeNumbers) -> list[tuple[str, str]]:
        """
        The lines that have an exemplar, each with it.
        """
        lines = self.lines(*nodes)
        return [(lines[number].rpartition(" ")[0], example) for number, example in sorted(self._merged.exemplars.items())]

    def samples(self, *nodes: NodeNumbers) -> Samples:
        return samples_of("\n".join([*self.lines(*nodes), ""]))


def samples_of(text: str) -> Samples:
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in parse_text(text) for sample in family.samples}


@st.composite
def processes(draw: st.DrawFn) -> tuple[list[str], list[list[int]]]:
    """
    A few tasks, and for each of a few processes what it counted: hits and times for each task, lane by lane.
    """
    tasks = draw(st.lists(label_values, unique=True, min_size=1, max_size=3))
    lanes = len(tasks) * (1 + width(TIMES))
    return tasks, draw(st.lists(st.lists(counts, min_size=lanes, max_size=lanes), min_size=1, max_size=4))


def write_stock_files(folder: Path, tasks: list[str], numbers: list[list[int]]) -> None:
    """
    Write the same numbers as prometheus_client's own processes would.
    """
    for pid, lanes in enumerate(numbers, 1):
        hits, times = MmapedDict(str(folder / f"counter_{pid}.db")), MmapedDict(str(folder / f"histogram_{pid}.db"))
        for number, task in enumerate(tasks):
            hits.write_value(mmap_key(HITS.name, HITS.name, ["task"], [task], HITS.help), float(lanes[number]), 0.0)
            at = len(tasks) + number * width(TIMES)
            for offset, bound in enumerate((*map(str, TIMES.buckets), "+Inf")):
                key = mmap_key(TIMES.name, f"{TIMES.name}_bucket", ["task", "le"], [task, bound], TIMES.help)
                times.write_value(key, float(lanes[at + offset]), 0.0)
            times.write_value(
                mmap_key(TIMES.name, f"{TIMES.name}_sum", ["task"], [task], TIMES.help), float(lanes[at + len(TIMES.buckets) + 1]), 0.0
            )
        hits.close()
        times.close()


@given(processes())
@settings(max_examples=40)
def test_the_merge_agrees_with_the_official_collector(
    tmp_path_factory: pytest.TempPathFactory, content: tuple[list[str], list[list[int]]]
) -> None:
    """
    On equal content our samples are those of prometheus_client's MultiProcessCollector, value for value.
    """
    tasks, numbers = content
    folder = tmp_path_factory.mktemp("stock")
    write_stock_files(folder, tasks, numbers)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    layout = layout_of(*[(HITS, (task,)) for task in tasks], *[(TIMES, (task,)) for task in tasks])

    ours = Merge().samples(*[NodeNumbers(layout, lanes) for lanes in numbers])

    assert samples_of(generate_latest(registry).decode()) == ours


@given(processes(), st.randoms())
def test_the_order_of_processes_does_not_matter(content: tuple[list[str], list[list[int]]], random: object) -> None:
    """
    Sums of integers are the same in any order, to the last digit.
    """
    tasks, numbers = content
    layout = layout_of(*[(HITS, (task,)) for task in tasks], *[(TIMES, (task,)) for task in tasks])
    nodes = [NodeNumbers(layout, lanes) for lanes in numbers]
    shuffled = list(nodes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random of Hypothesis'.

    assert Merge().lines(*nodes) == Merge().lines(*shuffled)


@given(st.lists(st.tuples(st.integers(0, 3), counts), max_size=20))
def test_growing_step_by_step_ends_where_one_step_ends(steps: list[tuple[int, int]]) -> None:
    """
    Lines that are rewritten as numbers and layouts grow read as if they had been written at the end.
    """
    growing, numbers = layout_of((HITS, ("t0",))), {0: 0}
    merge = Merge()
    for task, amount in steps:
        if task not in numbers:
            growing.feed(series_line(0, (f"t{task}",)))
            numbers[task] = 0
        numbers[task] += amount
        stepwise = merge.lines(NodeNumbers(growing, list(numbers.values())))

    if steps:
        assert Merge().lines(NodeNumbers(growing, list(numbers.values()))) == stepwise
    assert merge.decreases == 0


def test_nodes_with_other_layouts_add_up_by_series() -> None:
    """
    Two workers that know the tasks in another order count into the same series.
    """
    one, two = layout_of((HITS, ("a",)), (HITS, ("b",))), layout_of((HITS, ("b",)), (HITS, ("c",)), layout_id=2)

    lines = Merge().lines(NodeNumbers(one, [1, 2]), NodeNumbers(two, [10, 20]))

    assert ['hits_total{task="a"} 1', 'hits_total{task="b"} 12', 'hits_total{task="c"} 20'] == lines


def test_a_total_that_would_fall_is_held_and_told() -> None:
    """
    Whatever happens to the files, Prometheus never sees a counter go down.
    """
    layout, merge = layout_of((HITS, ("a",)), (HITS, ("b",))), Merge()
    merge.lines(NodeNumbers(layout, [5, 5]))

    lines = merge.lines(NodeNumbers(layout, [3, 6]))

    assert (['hits_total{task="a"} 5', 'hits_total{task="b"} 6'], 1) == (lines, merge.decreases)


def test_totals_survive_a_new_index() -> None:
    """
    A layout that grows, or a node that comes, does not let the totals before it fall.
    """
    layout, merge = layout_of((HITS, ("b",)), (TIMES, ("b",))), Merge()
    before = merge.samples(NodeNumbers(layout, [5, 1, 2, 3, 4, 100]))

    after = merge.samples(NodeNumbers(layout, [0] * 6), NodeNumbers(layout_of((HITS, ("a",)), layout_id=2), [1]))

    assert before.items() <= after.items()
    assert 1 == merge.decreases


def test_histograms_whose_buckets_changed_are_merged_without_counting_early() -> None:
    """
    What an old release counted up to 0.5 s is at least known to be below 1 s.
    """
    old = Metric(kind="histogram", name=TIMES.name, help=TIMES.help, labels=TIMES.labels, buckets=(0.05, 0.5, 20.0))

    merged = Merge().samples(
        NodeNumbers(layout_of((TIMES, ("t",))), [1, 0, 0, 0, 7]), NodeNumbers(layout_of((old, ("t",)), layout_id=2), [1, 1, 1, 1, 9])
    )

    buckets = {dict(labels)["le"]: value for (name, labels), value in merged.items() if name.endswith("_bucket")}
    assert {"0.1": 2, "1.0": 3, "10.0": 3, "+Inf": 5} == buckets
    assert 16 == merged[f"{TIMES.name}_sum", frozenset({("task", "t")})]


def test_families_that_cannot_be_merged_are_told_and_the_first_is_shown() -> None:
    """
    Two definitions with other labels do not end up in one broken family.
    """
    other = Metric(kind="counter", name=HITS.name, help="What?", labels=("queue",))
    merge = Merge()

    lines = merge.lines(NodeNumbers(layout_of((HITS, ("a",))), [1]), NodeNumbers(layout_of((other, ("q",)), layout_id=2), [5]))

    assert (['hits_total{task="a"} 1'], ["hits_total"]) == (lines, merge.conflicts)


@given(st.lists(label_values, min_size=2, max_size=2))
def test_any_label_value_is_readable_in_both_formats(values: list[str]) -> None:
    """
    Quotes, backslashes and line breaks in labels come out as they went in.
    """
    text = labels_text(("a", "b"), values)

    (metric,) = list(parse_text(f"# TYPE x gauge\nx{text} 1\n"))
    (open_metric,) = list(parse_openmetrics(f"# TYPE x gauge\nx{text} 1\n# EOF\n"))
    for family in (metric, open_metric):
        (sample,) = family.samples
        assert dict(zip("ab", values, strict=True)) == sample.labels


def test_bucket_sums_never_count_down_across_bounds() -> None:
    """
    Cumulative counts rise from bucket to bucket, as Prometheus expects.
    """
    lines = Merge().lines(NodeNumbers(layout_of((TIMES, ("t",))), [3, 0, 2, 1, 5]))

    numbers = [float(line.rpartition(" ")[2]) for line in lines if "_bucket" in line]
    assert [3, 3, 5, 6] == numbers
    assert all(a <= b for a, b in itertools.pairwise(numbers))


@st.composite
def examples(draw: st.DrawFn) -> tuple[Layout, list[dict[int, Noted]]]:
    """
    A layout, and for each of a few nodes what it has for exemplars: each in its own bucket, no two at the same time.
    """
    layout = layout_of((HITS, ("a",)), (TIMES, ("t",)), (TIMES, ("u",)))
    found: list[dict[int, Noted]] = []
    times = iter(draw(st.lists(st.integers(1, 10**15), unique=True, min_size=24, max_size=24)))
    for _ in range(draw(st.integers(1, 3))):
        buckets = draw(st.dictionaries(st.integers(0, 7), st.floats(0.01, 0.99)))
        lows, highs = (0.0, 0.1, 1.0, 10.0), (0.1, 1.0, 10.0, 20.0)
        found.append(
            {
                1 + number // 4 * width(TIMES) + number % 4: Noted(
                    next(times),
                    lows[number % 4] + (highs[number % 4] - lows[number % 4]) * share,
                    f"{draw(st.integers(1, 2**128 - 1)):032x}",
                )
                for number, share in buckets.items()
            }
        )
    return layout, found


@given(examples())
def test_of_all_exemplars_of_a_bucket_the_newest_is_shown(content: tuple[Layout, list[dict[int, Noted]]]) -> None:
    """
    Several processes have traced; the official parser finds, behind each bucket, the newest of their exemplars and no other.
    """
    layout, found = content
    merge = Merge()
    merged = merge._merged
    lines = merge.lines(*[NodeNumbers(layout, [0] * layout.lanes, each) for each in found])
    page = ["# TYPE hits counter", lines[0], "# TYPE times_seconds histogram"]
    page += [line + merged.exemplars.get(number, "") for number, line in enumerate(lines[1:], 1)]

    expected: dict[tuple[str, str], tuple[str, float]] = {}
    for number in range(8):
        lane = 1 + number // 4 * width(TIMES) + number % 4
        candidates = [each[lane] for each in found if lane in each]
        if candidates:
            best = max(candidates, key=lambda noted: noted.at)
            expected["tu"[number // 4], ("0.1", "1.0", "10.0", "+Inf")[number % 4]] = (best.trace, best.value)
    shown = {
        (sample.labels["task"], sample.labels["le"]): (sample.exemplar.labels["trace_id"], sample.exemplar.value)
        for family in parse_openmetrics("\n".join([*page, "# EOF", ""]))
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert expected == shown


def test_an_exemplar_of_moved_bounds_is_shown_only_where_it_belongs() -> None:
    """
    What an old release counted up to 0.5 s is counted up to 1 s now; its example of 0.06 s does not explain that bucket, one of 0.3 s does.
    """
    old = Metric(kind="histogram", name=TIMES.name, help=TIMES.help, labels=TIMES.labels, buckets=(0.05, 0.5, 20.0))
    new, before = layout_of((TIMES, ("t",))), layout_of((old, ("t",)), layout_id=2)

    shown = [
        Merge().examples(NodeNumbers(new, [0] * 5), NodeNumbers(before, [0, 1, 0, 0, 7], {1: Noted(5_000_000, value, "1" * 32)}))
        for value in (0.06, 0.3)
    ]

    assert [[], [('times_seconds_bucket{task="t",le="1.0"}', f' # {{trace_id="{"1" * 32}"}} 0.3 5.000000')]] == shown


@given(st.integers(0, 2**40), st.floats(0, 100))
def test_an_exemplar_of_a_lane_that_is_no_bucket_is_none(lane: int, value: float) -> None:
    """
    Counters, sums and lanes beyond the layout have no exemplars, whatever a file says.
    """
    layout = layout_of((HITS, ("a",)), (TIMES, ("t",)))

    shown = Merge().examples(NodeNumbers(layout, [0] * 6, {lane: Noted(5, value, "1" * 32)}))

    assert len(shown) == (1 <= lane <= 4 and sum(value > bound for bound in TIMES.buckets) == lane - 1)
