"""
Nodes that come and go: their folders end, and what they counted is in every total once, whichever process dies in the middle.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse_text

from celery_obs.areas.schedules.metrics import ENTRY_DUE, SUCCEEDED_ENTRY
from celery_obs.areas.tasks.metrics import FINISHED, PUBLISHED, RUNTIME
from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.areas.workers.metrics import HEARTBEAT, UP
from celery_obs.cli.group import obs
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.format import Header
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.recorder.remainder import REMAINDER, Remainder
from celery_obs.recorder.retiring import Retiring
from tests.unit.recorder.builders import meter, recorder, started


NEVER = 1 << 30
"""
A step that no merge comes to.
"""

_STEPS_OF_INTEREST = {"open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir", "os.truncate", "os.utime"}


def retire(folder: Path, *, after: float = 0.0, killed_at: int = NEVER, forget: str | None = None) -> int:
    """
    Merge what is gone, in a process of its own that is killed at its step number *killed_at*; return how many steps it took, or -1 if it was killed.
    """
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        steps = 0
        code = 1
        try:

            def count(event: str, args: object) -> None:
                nonlocal steps
                if event in _STEPS_OF_INTEREST:
                    steps += 1
                    if steps == killed_at:
                        os.kill(os.getpid(), signal.SIGKILL)

            settling = AttemptMeter(Recorder(folder, identify=lambda: Identity(node="none", role="publisher")))
            retiring = Retiring(folder, own=None, settle=settling.settle)
            sys.addaudithook(count)
            if forget is None:
                retiring.run(after=after)
            else:
                retiring.forget(forget)
            os.write(theirs, steps.to_bytes(4, "little"))
            code = 0
        finally:
            os._exit(code)
    os.close(theirs)
    answer = os.read(ours, 4)
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    assert status in {0, signal.SIGKILL}
    return int.from_bytes(answer, "little") if answer else -1


def count(folder: Path, node: str, task: str, times: int, *, number: int = 1) -> None:
    """
    A process of *node* that counts and ends.
    """
    at = recorder(folder, node=node, number=number)
    at.open()
    at.count(PUBLISHED, (task, "q"), times)
    at.close()


class Page:
    """
    An exporter that goes on, and what it shows.
    """

    def __init__(self, folder: Path, *, now: float | None = None, forget_after: float = 3600.0) -> None:
        self.errors = InternalErrors()
        clock = {} if now is None else {"clock": lambda: now}
        self.collector = WorkersCollector(folder, errors=self.errors, forget_after=forget_after, **clock)

    def samples(self) -> dict[tuple[str, ...], float]:
        text = self.collector.collect().text
        assert {} == self.errors.snapshot()
        return {
            (sample.name, *(value for name, value in sample.labels.items() if name != "queue")): sample.value
            for family in parse_text(text)
            for sample in family.samples
        }

    def published(self) -> Counter[str]:
        return Counter({key[1]: int(value) for key, value in self.samples().items() if key[0] == PUBLISHED.name and value})


nodes = st.sampled_from(["a@h", "b@h", "c@h"])
actions = st.one_of(
    st.tuples(st.just("count"), nodes, st.integers(0, 2), st.sampled_from("xyz"), st.integers(1, 9)),
    st.tuples(st.just("retire"), st.integers(1, 70)),
    st.tuples(st.just("retire"), st.just(NEVER)),
    st.tuples(st.just("scrape"), st.integers(0, 1)),
    st.tuples(st.just("restart"), st.integers(0, 1)),
)


@pytest.mark.parametrize("examples", [10, pytest.param(150, marks=pytest.mark.faults)])
def test_totals_equal_the_ledger_whoever_comes_goes_and_dies(tmp_path_factory: pytest.TempPathFactory, examples: int) -> None:
    """
    Nodes count, are merged by processes that are killed anywhere, and come back; two exporters look at any time, are restarted, and are always exact.
    """

    @given(st.lists(actions, max_size=25))
    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    def check(steps: list[tuple[Any, ...]]) -> None:
        follow(tmp_path_factory.mktemp("metrics"), steps)

    check()


def follow(folder: Path, steps: list[tuple[Any, ...]]) -> None:
    """
    Do what *steps* say, and hold every page against the ledger.
    """
    ledger: Counter[str] = Counter()
    pages = [Page(folder), Page(folder)]
    for step in steps:
        if step[0] == "count":
            _, node, number, task, times = step
            count(folder, node, task, times, number=number)
            ledger[task] += times
        elif step[0] == "retire":
            retire(folder, killed_at=step[1])
        elif step[0] == "restart":
            pages[step[1]] = Page(folder)
        else:
            assert ledger == pages[step[1]].published()

    assert [ledger] * 3 == [page.published() for page in (*pages, Page(folder))]
    retire(folder)
    assert [ledger] * 3 == [page.published() for page in (*pages, Page(folder))]


def test_every_step_of_a_merge_may_be_its_last(tmp_path: Path) -> None:
    """
    Killed at each of its steps in turn, and each time looked at by an exporter that goes on and by a new one: nothing is lost, doubled or seen to fall.
    """
    page, total, step, killed = Page(tmp_path), 0, 0, True
    while killed:
        step += 1
        for node in ("a@h", "b@h"):
            count(tmp_path, node, "x", step)
            total += step
        assert {"x": total} == page.published()

        killed = retire(tmp_path, killed_at=step) == -1

        assert {"x": total} == page.published() == Page(tmp_path).published()
    assert step > 20
    assert {REMAINDER, f"{REMAINDER}.lock"} == {path.name for path in tmp_path.iterdir()}


def test_a_node_that_comes_back_in_the_middle_counts_on(tmp_path: Path) -> None:
    """
    A merge dies before it has removed the folder; the node starts anew there, and neither its old nor its new numbers are lost.
    """
    for step in range(1, 60):
        folder = tmp_path / str(step)
        folder.mkdir()
        count(folder, "a@h", "x", 5)
        page = Page(folder)
        assert {"x": 5} == page.published()
        retire(folder, killed_at=step)

        count(folder, "a@h", "x", 2)

        assert {"x": 7} == page.published() == Page(folder).published()


def test_600_nodes_that_come_and_go_are_all_in_the_totals(tmp_path: Path) -> None:
    """
    The directory stays small, and the totals are exact at every look.
    """
    page, total, most = Page(tmp_path), 0, 0
    for number in range(600):
        count(tmp_path, f"celery@pod-{number}", f"task-{number % 7}", number + 1)
        total += number + 1
        if number % 50 == 49:
            assert total == page.published().total()
            most = max(most, sum(1 for _ in tmp_path.iterdir()))
            retire(tmp_path)

    assert total == page.published().total() == Page(tmp_path).published().total()
    assert 2 == sum(1 for _ in tmp_path.iterdir())
    assert most < 60


def test_600_names_in_one_directory_are_all_served_and_cost_no_files(tmp_path: Path) -> None:
    """
    Folders that nothing has removed yet are counted, too, and not kept open.
    """
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    page = Page(tmp_path)
    for number in range(600):
        count(tmp_path, f"celery@pod-{number}", "x", 1)
        if number % 100 == 99:
            assert {"x": number + 1} == page.published()

    count(tmp_path, "celery@pod-3", "x", 10)

    assert {"x": 610} == page.published() == Page(tmp_path).published()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 150


def test_folders_that_are_removed_by_hand_keep_their_numbers_however_many(tmp_path: Path) -> None:
    """
    300 folders go one after the other while the exporter runs: no total freezes, and what comes after them is counted.
    """
    page = Page(tmp_path)
    for number in range(300):
        count(tmp_path, f"celery@pod-{number}", "x", 1)
        page.published()
        for path in (tmp_path / f"celery@pod-{number}.v1").iterdir():
            path.unlink()
        (tmp_path / f"celery@pod-{number}.v1").rmdir()

    count(tmp_path, "celery@last", "x", 1)

    assert {"x": 301} == page.published()


def test_what_a_dead_node_was_at_is_counted_when_it_is_forgotten(tmp_path: Path) -> None:
    """
    A pod that was killed in the middle of a task and never comes back lost that attempt.
    """
    at = recorder(tmp_path, node="pod@h")
    counting = meter(at)
    counting.started(started())
    at.close()

    retire(tmp_path)

    samples = Page(tmp_path).samples()
    assert 1 == samples[FINISHED.name, "t", "lost"]
    assert 1 == samples[f"{RUNTIME.name}_count", "t", "lost"]


def test_gauges_that_outlive_their_node_stay_and_those_about_it_go(tmp_path: Path) -> None:
    """
    When an entry last did its work is still known, by the newest of the nodes; when a node last beat and what its beat planned is not.
    """
    for node, value in (("a@h", 7.0), ("b@h", 5.0)):
        at = recorder(tmp_path, node=node)
        at.open()
        now = Page(tmp_path).collector._clock() - value
        at.set(SUCCEEDED_ENTRY, ("nightly",), value, at=now)
        at.set(HEARTBEAT, (node,), value, at=now)
        at.set(ENTRY_DUE, ("nightly",), value, at=now)
        at.close()

    retire(tmp_path)

    samples = Page(tmp_path).samples()
    assert 5.0 == samples[SUCCEEDED_ENTRY.name, "nightly"]
    assert not {HEARTBEAT.name, ENTRY_DUE.name} & {key[0] for key in samples}


def test_a_living_node_is_left_alone(tmp_path: Path) -> None:
    """
    While one process of a node holds its slot, nothing of it is merged or removed.
    """
    at = recorder(tmp_path, node="a@h")
    at.open()
    at.count(PUBLISHED, ("x", "q"), 3)

    retire(tmp_path)
    at.count(PUBLISHED, ("x", "q"), 4)

    assert (tmp_path / "a@h.v1" / "slot-1").exists()
    assert {"x": 7} == Page(tmp_path).published()


def test_a_node_is_not_merged_before_its_time(tmp_path: Path) -> None:
    """
    A node that stopped a moment ago keeps its folder, for it may be back.
    """
    count(tmp_path, "a@h", "x", 3)

    retire(tmp_path, after=60.0)

    assert (tmp_path / "a@h.v1").exists()


@pytest.mark.parametrize("damage", ["slot-1", "slot-2.bad"])
def test_a_node_with_a_file_that_cannot_be_read_is_left_for_a_person(tmp_path: Path, damage: str) -> None:
    """
    What cannot be understood is not merged half.
    """
    count(tmp_path, "a@h", "x", 3)
    (tmp_path / "a@h.v1" / damage).write_bytes(b"garbage!" * 600)

    retire(tmp_path)

    assert (tmp_path / "a@h.v1" / damage).exists()


def test_a_damaged_remainder_is_not_written_over(tmp_path: Path) -> None:
    """
    Nothing is merged into a file that lost its end, and an exporter shows what it said before.
    """
    count(tmp_path, "a@h", "x", 3)
    retire(tmp_path)
    page = Page(tmp_path)
    assert {"x": 3} == page.published()
    whole = (tmp_path / REMAINDER).read_bytes()
    count(tmp_path, "b@h", "x", 4)

    (tmp_path / REMAINDER).write_bytes(whole[:-5])
    with pytest.raises(AssertionError):
        retire(tmp_path)

    assert whole[:-5] == (tmp_path / REMAINDER).read_bytes()
    assert (tmp_path / "b@h.v1").exists()
    page.collector.collect()
    page.errors = InternalErrors()
    assert {"x": 7} == page.published()


@given(
    st.dictionaries(
        st.tuples(st.text(max_size=8).filter(lambda text: text.isprintable()), st.text(max_size=8).filter(lambda text: text.isprintable())),
        st.integers(0, 2**60),
        max_size=6,
    )
)
def test_a_remainder_reads_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, numbers: dict[tuple[str, str], int]) -> None:
    """
    Any names and any numbers come back.
    """
    path = tmp_path_factory.mktemp("metrics") / REMAINDER
    made = Remainder(lanes={(PUBLISHED, values): [number] for values, number in numbers.items()}, pending={5: "a.v1"}, merged={5: 1.5})

    made.write(path)

    assert made == Remainder.read(path)


class Worker:
    """
    A worker's main process, as its files show it.
    """

    def __init__(self, folder: Path, node: str = "w@h", *, beat_at: float = 1000.0) -> None:
        self.folder = folder / f"{node}.v1"
        self.recorder = Recorder(folder, identify=lambda: Identity(node=node, role="worker", number=0))
        self.recorder.open()
        self.recorder.set(HEARTBEAT, (node,), beat_at, at=beat_at)
        (self.folder / "heartbeat").write_text('{"pid": 1, "role": "worker", "ready": true}\n')
        os.utime(self.folder / "heartbeat", (beat_at, beat_at))

    def vanish(self) -> None:
        self.recorder.close()

    def leave(self) -> None:
        (self.folder / "heartbeat").unlink()
        self.recorder.close()


@pytest.mark.parametrize("now", [1001.0, 4599.0])
def test_a_worker_that_vanished_is_down_for_a_stated_time(tmp_path: Path, now: float) -> None:
    """
    Killed without a word, it is shown as down for an hour, with the time of its last beat.
    """
    Worker(tmp_path).vanish()

    samples = Page(tmp_path, now=now).samples()

    assert (0.0, 1000.0) == (samples[UP.name, "w@h"], samples[HEARTBEAT.name, "w@h"])


@pytest.mark.parametrize("names", [1, 40])
def test_after_that_time_a_worker_is_gone_and_its_counts_are_not(tmp_path: Path, names: int) -> None:
    """
    An hour later nothing says that it is missing, of how many ever; its counters stay.
    """
    for number in range(names):
        worker = Worker(tmp_path, f"w{number}@h")
        worker.recorder.count(PUBLISHED, ("x", "q"), 3)
        worker.vanish()

    for page in (Page(tmp_path, now=4601.0), Page(tmp_path, now=1001.0)):
        page.samples()
        page.collector._clock = lambda: 4601.0
        samples = page.samples()
        assert not {key for key in samples if key[0].startswith("celery_worker_")}
        assert 3 * names == samples[PUBLISHED.name, "x"]


def test_a_worker_that_stopped_in_order_leaves_at_once(tmp_path: Path) -> None:
    """
    It takes its heartbeat along, and is not shown as down for a moment.
    """
    worker = Worker(tmp_path)
    worker.recorder.count(PUBLISHED, ("x", "q"), 3)
    worker.leave()

    samples = Page(tmp_path, now=1001.0).samples()

    assert not {key for key in samples if key[0].startswith("celery_worker_")}
    assert 3 == samples[PUBLISHED.name, "x"]


def test_a_beat_that_vanished_is_not_forgotten_by_itself(tmp_path: Path) -> None:
    """
    What a killed beat planned goes on being overdue, until another beat takes its place; one that stopped in order is merged.
    """
    for node in ("beat@old", "beat@left"):
        at = recorder(tmp_path, node=node, number=0)
        at.open()
        at.set(ENTRY_DUE, (node,), 5.0, at=5.0)
        at.close()
    old = tmp_path / "beat@old.v1" / "heartbeat"
    old.write_text('{"pid": 1, "role": "beat", "ready": true}\n')
    os.utime(old, (1000, 1000))

    retire(tmp_path)
    first = sorted(path.name for path in tmp_path.glob("*.v1"))
    count(tmp_path, "beat@new", "x", 1)
    (tmp_path / "beat@new.v1" / "heartbeat").write_text('{"pid": 1, "role": "beat", "ready": true}\n')
    retire(tmp_path)

    assert ["beat@old.v1"] == first
    assert ["beat@new.v1"] == sorted(path.name for path in tmp_path.glob("*.v1"))


def forget(folder: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(obs, ["forget-node", "--metrics-dir", str(folder), *arguments])
    return result.exit_code, result.output


def test_a_node_is_forgotten_by_command(tmp_path: Path) -> None:
    """
    Whenever it went: it leaves the page, and its counts stay.
    """
    worker = Worker(tmp_path)
    worker.recorder.count(PUBLISHED, ("x", "q"), 3)
    worker.vanish()
    page = Page(tmp_path, now=1001.0)
    assert 0.0 == page.samples()[UP.name, "w@h"]

    code, output = forget(tmp_path, "w@h")

    assert (0, True) == (code, output.startswith("Forgot w@h."))
    samples = page.samples()
    assert (UP.name, "w@h") not in samples
    assert 3 == samples[PUBLISHED.name, "x"]


def test_an_unknown_node_is_refused_with_the_nearest_names(tmp_path: Path) -> None:
    """
    A typing error names what was meant.
    """
    count(tmp_path, "celery@web-1", "x", 1)

    code, output = forget(tmp_path, "celery@wbe-1")

    assert 2 == code
    assert "There is no node 'celery@wbe-1'" in output
    assert "Did you mean celery@web-1?" in output


def test_a_node_that_is_alive_is_refused_unless_forced(tmp_path: Path) -> None:
    """
    What a living node goes on to count would be lost, so one has to ask for that.
    """
    hold, release = os.pipe()
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(release)
            at = recorder(tmp_path, node="a@h")
            at.open()
            at.count(PUBLISHED, ("x", "q"), 3)
            os.write(tell, b"!")
            os.read(hold, 1)
        finally:
            os._exit(0)
    os.read(ready, 1)

    refused = forget(tmp_path, "a@h")
    page = Page(tmp_path)
    before = page.published()
    forced = forget(tmp_path, "a@h", "--force")

    assert (2, True) == (refused[0], "The node a@h is alive." in refused[1])
    assert 0 == forced[0], forced[1]
    assert {"x": 3} == before == page.published() == Page(tmp_path).published()
    os.close(release)
    os.waitpid(pid, 0)


def test_words_of_the_header_are_not_disturbed_by_looking(tmp_path: Path) -> None:
    """
    A node that comes back after it was at rest is read again at once.
    """
    page = Page(tmp_path)
    for number in range(30):
        count(tmp_path, f"n{number:02}@h", "x", 1)
    page.published()
    page.published()

    at = recorder(tmp_path, node="n00@h")
    at.open()
    at.count(PUBLISHED, ("x", "q"), 5)

    assert at.slot is not None
    assert 2 == at.slot.words[Header.GENERATION]
    assert {"x": 35} == page.published()
