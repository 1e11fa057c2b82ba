"""
The workers' collector: what happens to files, and what the page still says.
"""

from __future__ import annotations

import os
import shutil
import sys

from pathlib import Path

import pytest

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from celery_obs.areas.schedules.metrics import ENTRY_DUE, ENTRY_LAST_FIRED, SUCCEEDED_ENTRY
from celery_obs.areas.tasks.metrics import FINISHED, PUBLISHED, RUNTIME
from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.format import Header
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from celery_obs.vocabulary.spec import Metric
from tests.unit.recorder.builders import finished, meter, recorder, started


_CHANGES = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "os.utime"}
"""
What Python calls changes to a directory where it audits them; opening to write is one more.
"""


class Sidecar:
    """
    A collector, and what it shows.
    """

    def __init__(self, metrics_dir: Path, now: float = 1000.0) -> None:
        self.errors = InternalErrors()
        self.collector = WorkersCollector(metrics_dir, errors=self.errors, clock=lambda: now)

    def samples(self) -> dict[tuple[str, str], float]:
        text = self.collector.collect().text
        return {
            (sample.name, ",".join(sorted(sample.labels.values()))): sample.value
            for family in parse_text(text)
            for sample in family.samples
        }

    def examples(self) -> dict[str, str]:
        """
        The trace of each task's runtime, by task.
        """
        text = self.collector.collect().openmetrics + "# EOF\n"
        return {
            sample.labels["task"]: sample.exemplar.labels["trace_id"]
            for family in parse_openmetrics(text)
            for sample in family.samples
            if sample.exemplar is not None and sample.name == f"{RUNTIME.name}_bucket"
        }

    def published(self) -> float | None:
        return self.samples().get((PUBLISHED.name, "q,t"))

    def files(self) -> dict[str, float]:
        return {state: value for (name, state), value in self.samples().items() if name == "celery_obs_metric_files" and value}


def publish(folder: Path, times: int, *, number: int = 1, node: str = "w@h") -> Recorder:
    made = recorder(folder, number=number, node=node)
    made.open()
    made.count(PUBLISHED, ("t", "q"), times)
    return made


def trace(folder: Path, trace: int, *, number: int = 1, task: str = "t", node: str = "w@h", at: float = 0.0) -> Recorder:
    """
    A process that runs one traced task, which begins at second *at* + 100.
    """
    made = recorder(folder, number=number, node=node)
    made.exemplar = lambda: trace
    counting = meter(made)
    opened = started(task, wait=None)._replace(started_at=at + 100.0)
    counting.started(opened)
    counting.finished(finished(opened, latency=None))
    return made


def slot_file(folder: Path, number: int = 1, node: str = "w@h") -> Path:
    return folder / f"{node}.v1" / f"slot-{number}"


def test_slots_and_nodes_add_up(tmp_path: Path) -> None:
    """
    What several processes of several nodes counted is one total.
    """
    publish(tmp_path, 1, number=1)
    publish(tmp_path, 2, number=2)
    publish(tmp_path, 4, number=1, node="other@h")

    sidecar = Sidecar(tmp_path)

    assert 7 == sidecar.published()


def test_a_directory_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    """
    A sidecar that looks into the wrong place fails its collection, with the place in the message.
    """
    with pytest.raises(ConfigurationError, match="nowhere"):
        Sidecar(tmp_path / "nowhere").samples()


def test_an_empty_directory_is_no_error(tmp_path: Path) -> None:
    """
    A sidecar may start before its worker.
    """
    assert {} == Sidecar(tmp_path).files()


@pytest.mark.parametrize("damage", [b"", b"\0" * 4096, b"garbage!" * 4096])
def test_a_file_that_turns_to_garbage_keeps_its_last_numbers(tmp_path: Path, damage: bytes) -> None:
    """
    A truncated or overwritten slot file is told as corrupt, and no total falls.
    """
    publish(tmp_path, 3, number=1)
    publish(tmp_path, 4, number=2)
    sidecar = Sidecar(tmp_path)
    before = sidecar.published()

    slot_file(tmp_path).write_bytes(damage)

    assert (7, 7) == (before, sidecar.published())
    assert 1 == sidecar.files()["corrupt"]


def test_lanes_that_would_spill_are_corrupt(tmp_path: Path) -> None:
    """
    A negative or absurdly high lane does not change its neighbours' totals.
    """
    at = publish(tmp_path, 3)
    sidecar = Sidecar(tmp_path)
    sidecar.published()
    assert at.slot is not None

    at.slot.words[at.slot.lanes_at] = -1

    assert (3, {"corrupt": 1}) == (sidecar.published(), sidecar.files())


def test_a_truncated_file_that_is_whole_again_counts_on(tmp_path: Path) -> None:
    """
    The sidecar recovers by itself.
    """
    publish(tmp_path, 3)
    sidecar = Sidecar(tmp_path)
    sidecar.published()
    whole = slot_file(tmp_path).read_bytes()

    os.truncate(slot_file(tmp_path), 300)
    damaged = sidecar.published()
    slot_file(tmp_path).write_bytes(whole)

    assert (3, 3, {"dead": 1}) == (damaged, sidecar.published(), sidecar.files())


def test_a_file_that_vanishes_still_counts(tmp_path: Path) -> None:
    """
    Deleting a slot file does not make a total fall, and what is counted into its successor comes on top.
    """
    publish(tmp_path, 3)
    sidecar = Sidecar(tmp_path)
    sidecar.published()

    slot_file(tmp_path).unlink()
    gone = (sidecar.published(), sidecar.files())
    publish(tmp_path, 10)

    assert (3, {"vanished": 1}) == gone
    assert 13 == sidecar.published()


def test_a_file_that_comes_back_is_not_counted_twice(tmp_path: Path) -> None:
    """
    A slot file that was moved away and back is the same file.
    """
    publish(tmp_path, 3)
    sidecar = Sidecar(tmp_path)
    sidecar.published()

    aside = tmp_path / "aside"
    slot_file(tmp_path).rename(aside)
    sidecar.published()
    aside.rename(slot_file(tmp_path))

    assert (3, {"dead": 1}) == (sidecar.published(), sidecar.files())


def test_a_whole_node_that_vanishes_still_counts(tmp_path: Path) -> None:
    """
    Deleting a node's folder does not make a total fall; a new one of the same name comes on top.
    """
    publish(tmp_path, 3)
    sidecar = Sidecar(tmp_path)
    sidecar.published()

    shutil.rmtree(tmp_path / "w@h.v1")
    gone = sidecar.published()
    publish(tmp_path, 10)

    assert (3, 13) == (gone, sidecar.published())


def test_a_node_that_made_its_files_anew_is_not_told_as_corrupt(tmp_path: Path) -> None:
    """
    What is kept of a folder that went is not looked for in the files of its successor.
    """
    publish(tmp_path, 3)
    sidecar = Sidecar(tmp_path)
    sidecar.published()
    shutil.rmtree(tmp_path / "w@h.v1")
    sidecar.published()

    publish(tmp_path, 10)

    assert (13, {"dead": 1, "vanished": 1}) == (sidecar.published(), sidecar.files())


def test_a_node_that_comes_back_is_not_counted_twice(tmp_path: Path) -> None:
    """
    A folder that was moved away and back is the same node.
    """
    publish(tmp_path, 3)
    sidecar = Sidecar(tmp_path)
    sidecar.published()

    (tmp_path / "w@h.v1").rename(tmp_path / "aside")
    away = sidecar.published()
    (tmp_path / "aside").rename(tmp_path / "w@h.v1")

    assert (3, 3, {"dead": 1}) == (away, sidecar.published(), sidecar.files())


def test_a_folder_of_another_version_is_told_and_left_alone(tmp_path: Path) -> None:
    """
    Files of an older or newer layout are not read, and not hidden.
    """
    publish(tmp_path, 3)
    (tmp_path / "old@h.v0").mkdir()
    (tmp_path / "new@h.v2").mkdir()

    sidecar = Sidecar(tmp_path)

    assert (3, 2) == (sidecar.published(), sidecar.files()["unsupported"])


def test_a_damaged_layout_does_not_hide_the_other_nodes(tmp_path: Path) -> None:
    """
    One bad folder is told as corrupt; the rest is served.
    """
    publish(tmp_path, 3)
    publish(tmp_path, 4, node="bad@h")
    (tmp_path / "bad@h.v1" / "layout").write_bytes(b"garbage\n" * 10)

    sidecar = Sidecar(tmp_path)

    assert 3 == sidecar.published()
    assert 1 == sidecar.files()["corrupt"]
    assert sidecar.errors.snapshot()["files"] >= 1


def test_a_file_set_aside_is_told(tmp_path: Path) -> None:
    """
    What a worker set aside as damaged stays visible.
    """
    publish(tmp_path, 3)
    slot_file(tmp_path).with_name("slot-9.bad").write_bytes(b"?")

    assert 1 == Sidecar(tmp_path).files()["corrupt"]


def test_running_attempts_of_dead_processes_are_not_in_progress(tmp_path: Path) -> None:
    """
    What a killed process was at is not shown as running, right after its death.
    """
    pid = os.fork()
    if pid == 0:
        meter(recorder(tmp_path)).started(started())
        os._exit(0)
    os.waitpid(pid, 0)

    assert 0 == Sidecar(tmp_path).samples()["celery_task_in_progress", "t"]


def test_the_age_of_a_running_attempt_is_told(tmp_path: Path) -> None:
    """
    What hangs is shown with its age, from the stamp in the slot, without asking its process.
    """
    ready, told = os.pipe()
    wait, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        meter(recorder(tmp_path)).started(started())
        os.write(told, b"x")
        os.read(wait, 1)
        os._exit(0)
    os.read(ready, 1)

    samples = Sidecar(tmp_path, now=160.0).samples()

    os.close(release)
    os.waitpid(pid, 0)
    for descriptor in (ready, told, wait):
        os.close(descriptor)
    assert (1, 60) == (samples["celery_task_in_progress", "t"], samples["celery_task_longest_running_seconds", "t"])


def test_lasting_gauges_of_dead_processes_are_shown_and_others_are_not(tmp_path: Path) -> None:
    """
    When something last happened stays true; a level that no process holds any more does not.
    """
    level = Metric(kind="gauge", name="level", help="How high?", labels=("tank",))
    at = publish(tmp_path, 1)
    at.set(level, ("a",), 3.0, at=500.0)
    at.set(ENTRY_DUE, ("nightly",), 400.0, at=500.0)

    samples = Sidecar(tmp_path).samples()

    assert ("level", "a") not in samples
    assert 600 == samples["celery_beat_entry_overdue_seconds", "nightly"]


def test_an_entry_in_time_is_not_overdue(tmp_path: Path) -> None:
    """
    An entry that is due in the future is 0 seconds late.
    """
    publish(tmp_path, 1).set(ENTRY_DUE, ("nightly",), 2000.0, at=500.0)

    assert 0 == Sidecar(tmp_path).samples()["celery_beat_entry_overdue_seconds", "nightly"]


def test_an_entry_that_left_the_schedule_takes_its_last_success_along(tmp_path: Path) -> None:
    """
    Workers, who note successes, are not told that an entry is gone; beat is.  One that no beat here has ever fired is left as it is.
    """
    for entry in ("nightly", "gone", "of another beat"):
        publish(tmp_path, 1).set(SUCCEEDED_ENTRY, (entry,), 400.0, at=500.0)
    beat = publish(tmp_path, 2)
    for entry in ("nightly", "gone"):
        beat.set(ENTRY_LAST_FIRED, (entry,), 400.0, at=500.0)

    beat.clear(ENTRY_LAST_FIRED, keep=frozenset({"nightly"}))

    found = {entry for name, entry in Sidecar(tmp_path).samples() if name == SUCCEEDED_ENTRY.name}
    assert {"nightly", "of another beat"} == found


def test_a_new_sidecar_reads_the_same_totals(tmp_path: Path) -> None:
    """
    Restarting the sidecar loses nothing.
    """
    at = recorder(tmp_path)
    counting = meter(at)
    for _ in range(5):
        opened = started()
        counting.started(opened)
        counting.finished(finished(opened))
    first = Sidecar(tmp_path)
    first.samples()

    assert first.samples() == Sidecar(tmp_path).samples()
    assert 5 == first.samples()[FINISHED.name, "q,success,t"]


def test_both_formats_hold_the_same_and_parse(tmp_path: Path) -> None:
    """
    Text and OpenMetrics differ in their heads only, and official parsers take both.
    """
    meter(recorder(tmp_path))
    page = Sidecar(tmp_path).collector.collect()

    text = {sample.name for family in parse_text(page.text) for sample in family.samples}
    openmetrics = {sample.name for family in parse_openmetrics(page.openmetrics + "# EOF\n") for sample in family.samples}

    assert text == openmetrics


@pytest.mark.parametrize(
    "odd",
    [
        Metric(kind="gauge", name="celery_task_published", help="Ours?", aggregate="mostrecent"),
        Metric(kind="histogram", name="celery_task_published", help="Ours?", buckets=(1.0,)),
        Metric(kind="gauge", name="celery_task_runtime_seconds_count", help="Ours?", aggregate="mostrecent"),
        Metric(kind="gauge", name="orders", help="How many are there?", aggregate="mostrecent"),
    ],
    ids=lambda odd: f"{odd.kind} {odd.name}",
)
def test_a_metric_that_takes_the_name_of_another_is_left_out_and_told(tmp_path: Path, odd: Metric) -> None:
    """
    A parser refuses a page on which two families share a name; so one is missing, and not all.
    """
    publish(tmp_path, 3)
    other = recorder(tmp_path, number=1, node="other@h")
    other.open()
    other.count(Metric(kind="counter", name="orders_total", help="How many came?"), (), 2)
    if odd.kind == "gauge":
        other.set(odd, (), 1.0, at=1.0)
    else:
        SeriesWriter(other, odd).observe((), 0.5)
    sidecar = Sidecar(tmp_path)

    assert 3 == sidecar.published()
    assert 2 == sidecar.samples()["orders_total", ""]
    families = [(family.name, family.type) for family in parse_openmetrics(sidecar.collector.collect().openmetrics + "# EOF\n")]
    assert len(dict(families)) == len(families)
    assert (odd.name, odd.kind) not in families
    assert sidecar.errors.snapshot()["merge:conflict"] >= 1


def test_numbers_that_arrive_between_scrapes_show_at_the_next(tmp_path: Path) -> None:
    """
    Every scrape shows what was written before it began, new series included.
    """
    at = publish(tmp_path, 1)
    sidecar = Sidecar(tmp_path)
    seen = [sidecar.published()]

    at.count(PUBLISHED, ("t", "q"))
    seen.append(sidecar.published())
    at.count(PUBLISHED, ("another", "q"), 9)

    assert ([1, 2], 9) == (seen, sidecar.samples()[PUBLISHED.name, "another,q"])


def test_a_header_that_lies_is_corrupt(tmp_path: Path) -> None:
    """
    Offsets from a damaged header are never followed.
    """
    at = publish(tmp_path, 3)
    sidecar = Sidecar(tmp_path)
    sidecar.published()
    assert at.slot is not None

    at.slot.words[Header.RECORDS] = 1 << 40

    assert (3, {"corrupt": 1}) == (sidecar.published(), sidecar.files())


def test_a_bucket_leads_to_its_newest_trace(tmp_path: Path) -> None:
    """
    Of the traces of several processes, dead ones included, a bucket shows the one that ended last; the text format has none.
    """
    trace(tmp_path, 0xA, number=1, at=2.0)
    trace(tmp_path, 0xB, number=2, at=1.0)
    trace(tmp_path, 0xC, number=1, node="other@h", task="other")
    sidecar = Sidecar(tmp_path)

    assert {"t": f"{0xA:032x}", "other": f"{0xC:032x}"} == sidecar.examples()
    assert "trace_id" not in sidecar.collector.collect().text


def test_a_trace_that_follows_is_shown_at_the_next_scrape(tmp_path: Path) -> None:
    """
    Exemplars are read again when there are new ones, through the hands of a process that took the slot over.
    """
    trace(tmp_path, 0xA).close()
    sidecar = Sidecar(tmp_path)
    seen = [sidecar.examples(), sidecar.examples()]

    trace(tmp_path, 0xB, at=5.0)

    seen.append(sidecar.examples())
    assert [{"t": f"{number:032x}"} for number in (0xA, 0xA, 0xB)] == seen


@pytest.mark.parametrize("now", [100.5 + 3601, 100.5 - 61])
def test_old_exemplars_are_not_shown(tmp_path: Path, now: float) -> None:
    """
    What was an hour ago is no recent observation; neither is what a wrong clock puts into the future.
    """
    trace(tmp_path, 0xA)

    assert {} == Sidecar(tmp_path, now=now).examples()


def test_an_exemplar_from_the_future_does_not_hide_those_that_follow(tmp_path: Path) -> None:
    """
    A process whose clock was a day ahead has no say in what is recent once its clock is right.
    """
    trace(tmp_path, 0xA, at=86400.0)
    sidecar = Sidecar(tmp_path)
    before = sidecar.examples()

    trace(tmp_path, 0xB, number=2)

    assert ({}, {"t": f"{0xB:032x}"}) == (before, sidecar.examples())


def test_files_of_writers_that_know_no_exemplars_are_read_beside_others(tmp_path: Path) -> None:
    """
    A release before exemplars left no region, or says so in words that a newer one gives a meaning: its counts are read all the same.
    """
    publish(tmp_path, 3, number=2)
    trace(tmp_path, 0xA)
    sidecar = Sidecar(tmp_path)

    assert ({"t": f"{0xA:032x}"}, 3) == (sidecar.examples(), sidecar.published())


def test_a_region_that_reaches_elsewhere_is_not_read(tmp_path: Path) -> None:
    """
    A header whose exemplars cannot be where it says costs the exemplars, not the counts.
    """
    at = trace(tmp_path, 0xA)
    at.count(PUBLISHED, ("t", "q"), 3)
    assert at.slot is not None
    at.slot.words[Header.EXEMPLARS_AT] = 1
    sidecar = Sidecar(tmp_path)

    assert ({}, 3, {"dead": 1}) == (sidecar.examples(), sidecar.published(), sidecar.files())


def test_the_sidecar_needs_no_right_to_write(tmp_path: Path) -> None:
    """
    A directory that is mounted for it to read only, as in a pod, is enough.
    """
    publish(tmp_path, 3)
    trace(tmp_path, 7, number=2).close()
    sidecar = Sidecar(tmp_path)
    watched = [str(tmp_path)]
    writes = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        # A hook stays for as long as the process does; once the test is over it watches nothing.
        if not watched or not arguments or not str(arguments[0]).startswith(watched[0]):
            return
        flags = arguments[2] if event == "open" else 0
        if event in _CHANGES or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            writes.append((event, arguments[0]))

    sys.addaudithook(watch)
    try:
        assert 3 == sidecar.published()
        assert sidecar.examples()
    finally:
        watched.clear()

    assert [] == writes
