"""
The ring of the latest attempts: each once, whole, through a death at any store.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import struct
import subprocess
import sys
import time

from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.areas.tasks.metrics import ATTEMPTS, FINISHED, LATENCY, QUEUE_WAIT, RUNTIME, STARTED, STATES, TaskState
from celery_obs.recorder import attempts as meters
from celery_obs.recorder import ring as rings
from celery_obs.recorder.attempt_log import Attempt, AttemptLog, Wanted
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.format import folder_name
from celery_obs.recorder.reader import NodeReader
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.ring import AttemptRing, Finished, RingHeader, Shape, encode_id, shape_of

from .builders import finished, meter, recorder, started, states
from .test_attempts import KilledError, Tripwire, _wire_slot


SMALL = 64 * 128
"""
Bytes of a ring of 48 attempts and 16 failures.
"""


class Torn:
    """
    A structure that is written in two halves, with a death possible before, between and after.
    """

    def __init__(self, form: struct.Struct, fuse: list[int]) -> None:
        self._form = form
        self._fuse = fuse
        self.unpack_from = form.unpack_from

    def pack_into(self, memory: Any, at: int, *values: Any) -> None:
        data = self._form.pack(*values)
        for first in (0, len(data) // 2):
            if not self._fuse[0]:
                raise KilledError
            self._fuse[0] -= 1
            memory[at + first : at + len(data) - (len(data) // 2 if not first else 0)] = data[
                first : len(data) - (len(data) // 2 if not first else 0)
            ]


def wire(at: Recorder, fuse: list[int], patch: pytest.MonkeyPatch) -> None:
    """
    Let every store of the recorder burn down *fuse*.
    """
    assert at.slot is not None
    assert at.ring is not None
    _wire_slot(at.slot, fuse)
    _wire_ring(at.ring, fuse, patch)
    at.epoch = object()


def _wire_ring(ring: AttemptRing, fuse: list[int], patch: pytest.MonkeyPatch) -> None:
    ring.words = Tripwire(ring.words, fuse)  # type: ignore[assignment]
    patch.setattr(meters, "_BEGUN", Torn(struct.Struct("=2qdqdq"), fuse))
    patch.setattr(rings, "ROW_FORM", Torn(struct.Struct("=40sdq8x"), fuse))
    patch.setattr(rings, "FACTS_FORM", Torn(struct.Struct("=3q4d40s24x"), fuse))


def live_until_killed(folder: Path, stores: int, *, state: TaskState) -> bool:
    """
    Run three attempts, and count them in two batches, in a process that is killed after so many stores; return whether it survived.
    """
    victim = recorder(folder, attempt_bytes=SMALL)
    counting = meter(victim)
    with pytest.MonkeyPatch.context() as patch:
        wire(victim, [stores], patch)
        try:
            for number in range(3):
                opened = started(task_id=f"id-{number}")
                counting.started(opened)
                counting.finished(finished(opened, state, exception="KeyError" if state == "failure" else ""))
                if number:
                    counting.count_tail()
        except KilledError:
            return False
    return True


def found(folder: Path, **wanted: Any) -> list[Attempt]:
    """
    Search, the newest first.
    """
    return AttemptLog(folder).search(Wanted(**wanted)).attempts


@pytest.mark.parametrize("state", ["success", "failure"])
def test_an_attempt_killed_at_any_store_is_in_the_ring_once_as_it_was_counted(tmp_path: Path, state: TaskState) -> None:
    """
    Wherever SIGKILL falls, who follows finds every attempt that was counted, once, under its id and in the state in which it was counted.
    """
    for stores in itertools.count():
        folder = tmp_path / str(stores)
        survived = live_until_killed(folder, stores, state=state)
        read = read_by_sidecar(folder)

        heir = recorder(folder, attempt_bytes=SMALL)
        meter(heir)

        counted = states(heir)
        kept = found(folder)
        assert counted.get("started", 0) == read.pop("started", 0), f"killed before store {stores}"
        assert {**counted, **read} == counted
        assert counted == read_by_sidecar(folder)
        begun, final = counted.get("started", 0), counted.get(state, 0)
        assert {"wait": begun, "runtime": begun, "latency": final, "attempts": final} == observations(heir)
        assert counted.pop("started", 0) == len(kept), f"killed before store {stores}"
        assert sorted(attempt.state for attempt in kept) == sorted(itertools.chain(*([name] * number for name, number in counted.items())))
        assert {attempt.id for attempt in kept} == {f"id-{number}" for number in range(len(kept))}
        assert {(attempt.task, attempt.queue, attempt.started_at, attempt.wait, attempt.due_at) for attempt in kept} <= {
            ("t", "q", 100.0, 0.2, 99.0)
        }
        heir.close()
        if survived:
            break
    assert [attempt.state for attempt in kept] == [state] * 3
    assert stores > 60


def read_by_sidecar(folder: Path) -> dict[str, int]:
    """
    What the sidecar would tell: starts, and ends by state.
    """
    reader = NodeReader(folder / folder_name("w@h"))
    try:
        lanes = reader.read().lanes
        found = {series.values[2]: lanes[series.at] for series in reader.layout if series.family.name == FINISHED.name}
        found["started"] = sum(lanes[series.at] for series in reader.layout if series.family.name == STARTED.name)
    finally:
        reader.close()
    return {state: count for state, count in found.items() if count}


def observations(at: Recorder) -> dict[str, int]:
    """
    How many values each histogram of attempts has taken; of the runtime, in all states together.
    """
    assert at.node is not None
    assert at.slot is not None
    names = {QUEUE_WAIT.name: "wait", RUNTIME.name: "runtime", LATENCY.name: "latency", ATTEMPTS.name: "attempts"}
    sums = dict.fromkeys(names.values(), 0)
    for series in at.node.layout:
        if series.family.name in names:
            first = at.slot.lanes_at + series.at
            sums[names[series.family.name]] += sum(at.slot.words[first : first + len(series.family.buckets) + 1].tolist())
    return sums


def test_settling_into_a_ring_may_itself_be_killed_at_any_store(tmp_path: Path) -> None:
    """
    A successor that dies while it puts its predecessor's attempt into the ring leaves the next one the same list.
    """
    for first, second in itertools.product(range(0, 150, 7), range(0, 60, 2)):
        folder = tmp_path / f"{first}-{second}"
        live_until_killed(folder, first, state="failure")
        heir = recorder(folder, attempt_bytes=SMALL)
        AttemptMeter(heir)
        with pytest.MonkeyPatch.context() as patch:
            wire_heir(heir, [second], patch)
            with contextlib.suppress(KilledError):
                heir.open()

        last = recorder(folder, attempt_bytes=SMALL)
        meter(last)

        counted = states(last)
        kept = found(folder)
        assert counted.pop("started", 0) == len(kept), f"killed before store {first}, heir before store {second}"
        assert len({attempt.id for attempt in kept}) == len(kept)
        for at in (heir, last):
            at.close()


def wire_heir(at: Recorder, fuse: list[int], patch: pytest.MonkeyPatch) -> None:
    """
    Let every store into the slot and the ring that a process is about to take over burn down *fuse*.
    """
    of_another = AttemptRing.of_another

    def wired(*args: Any, **options: Any) -> AttemptRing | None:
        ring = of_another(*args, **options)
        if ring is not None:
            _wire_ring(ring, fuse, patch)
        return ring

    patch.setattr(AttemptRing, "of_another", wired)
    at.on_claim.insert(0, lambda _, slot: _wire_slot(slot, fuse))


@given(outcomes=st.lists(st.sampled_from(["success", "success", "failure", "retry"]), max_size=150), threads=st.sampled_from([1, 3]))
@settings(max_examples=20, deadline=None)
def test_the_latest_attempts_are_kept_and_failures_longer(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[TaskState], threads: int
) -> None:
    """
    Of any sequence of outcomes the last 48 are found, and the last 16 that did not succeed; what was overwritten is told.
    """
    folder = tmp_path_factory.mktemp("dir")
    at = recorder(folder, attempts=threads, attempt_bytes=SMALL)
    counting = meter(at)

    for number, outcome in enumerate(outcomes):
        opened = started(task_id=f"id-{number}", retries=number)
        counting.started(opened)
        counting.finished(finished(opened, outcome, runtime=float(number), exception="" if outcome == "success" else "KeyError"))

    ledger = list(enumerate(outcomes))
    last = ledger[-48:] + [entry for entry in ledger if entry[1] != "success"][-16:]
    answer = AttemptLog(folder).search(Wanted(limit=1000))
    assert [(f"id-{number}", outcome) for number, outcome in sorted(set(last), reverse=True)] == [
        (attempt.id, attempt.state) for attempt in answer.attempts
    ]
    assert (answer.kept, answer.overwritten) == (min(48, len(outcomes)), max(0, len(outcomes) - 48))
    assert all(attempt.exception == ("" if attempt.state == "success" else "KeyError") for attempt in answer.attempts)
    assert all(attempt.retries == attempt.runtime for attempt in answer.attempts)
    at.close()


def test_a_ring_goes_on_where_its_last_owner_left_it(tmp_path: Path) -> None:
    """
    A recycled pool process adds to what the one before it kept, however many threads both have.
    """
    for owner, threads in enumerate((1, 1, 4, 4)):
        at = recorder(tmp_path, attempts=threads, attempt_bytes=SMALL)
        counting = meter(at)
        for number in range(10):
            opened = started(task_id=f"{owner}-{number}")
            counting.started(opened)
            counting.finished(finished(opened, runtime=float(10 * owner + number)))
        at.close()

    kept = [attempt.id for attempt in found(tmp_path)]
    assert [f"{owner}-{number}" for owner in (3, 2) for number in range(9, -1, -1)] == kept[:20]


@pytest.mark.parametrize("size", [SMALL, 2 * SMALL, SMALL // 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_ring_of_another_size_keeps_the_latest_attempts(tmp_path: Path, size: int, threads: int) -> None:
    """
    Changing the setting, or the number of threads, keeps as many of the latest attempts as the new ring has room for.
    """
    for owner, (bytes_, at_once) in enumerate(((SMALL, 2), (size, threads))):
        at = recorder(tmp_path, attempts=at_once, attempt_bytes=bytes_)
        counting = meter(at)
        for number in range(60 if owner == 0 else 1):
            opened = started(task_id=f"{owner}-{number}")
            counting.started(opened)
            state: TaskState = "failure" if number < 10 and owner == 0 else "success"
            counting.finished(finished(opened, state, runtime=100.0 * owner + number, exception="KeyError" if state == "failure" else ""))
        at.close()

    room, failures = size // 128 * 3 // 4, size // 128 // 4
    latest = [f"0-{number}" for number in range(59, -1, -1)][: min(room, 48) - (room <= 48)]
    expected = dict.fromkeys(["1-0", *latest, *(f"0-{number}" for number in range(9, 9 - failures, -1) if number >= 0)])
    assert list(expected) == [attempt.id for attempt in found(tmp_path, limit=1000)]


def test_attempts_side_by_side_are_each_kept_with_their_own_facts(tmp_path: Path) -> None:
    """
    Threads that end in another order than they began do not mix up their attempts.
    """
    at = recorder(tmp_path, attempts=4, attempt_bytes=SMALL)
    counting = meter(at)
    opened = [started(task_id=f"id-{number}", retries=number, wait=float(number)) for number in range(4)]

    for each in opened:
        counting.started(each)
    for number in (2, 0, 3, 1):
        counting.finished(finished(opened[number], runtime=float(number)))

    assert [(f"id-{number}", number, float(number)) for number in (3, 2, 1, 0)] == [
        (attempt.id, attempt.retries, attempt.wait) for attempt in found(tmp_path)
    ]


WRITER = """
import sys
from pathlib import Path
from tests.unit.recorder.builders import finished, meter, recorder, started
at = recorder(Path(sys.argv[1]), attempt_bytes=64 * 128)
counting = meter(at)
print("ready", flush=True)
for number in range(10 ** 7):
    opened = started(task_id=str(number), retries=number % 1000, wait=float(number), due_at=float(number + 1))
    counting.started(opened)
    counting.finished(finished(opened, "failure" if number % 3 == 0 else "success", runtime=float(number), latency=None))
"""


def test_a_record_that_is_overwritten_while_it_is_read_is_never_half_read(tmp_path: Path) -> None:
    """
    Beside a process that overwrites its ring at full speed, all facts of every attempt that is found belong together.
    """
    seen = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            log = AttemptLog(tmp_path)
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                for attempt in log.search(Wanted(limit=1000, state=STATES)).attempts:
                    number = float(attempt.id)
                    seen += 1
                    assert (number, number, number + 1, number % 1000) == (attempt.runtime, attempt.wait, attempt.due_at, attempt.retries)
                    assert attempt.state == ("failure" if number % 3 == 0 else "success")
        finally:
            writer.kill()
    assert seen > 100


@given(cuts=st.lists(st.tuples(st.integers(0, 64 * 128), st.integers(0, 60), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_read_that_a_writer_overtakes_at_any_byte_mixes_no_two_attempts(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int, bool]]
) -> None:
    """
    Whichever part of a read saw the ring before and which after any number of further attempts, the facts of what is found belong together.
    """
    at = recorder(tmp_path_factory.mktemp("dir"), attempt_bytes=SMALL)
    counting, numbers, real = meter(at), itertools.count(), os.pread
    steps = itertools.cycle(cuts)
    writing: list[bool] = []

    def write(attempts: int) -> None:
        for number in itertools.islice(numbers, attempts):
            opened = started(task_id=str(number), retries=number, wait=float(number), due_at=float(number + 1))
            counting.started(opened)
            counting.finished(finished(opened, runtime=float(number), latency=None))

    def overtaken(descriptor: int, size: int, offset: int) -> bytes:
        if writing:
            return real(descriptor, size, offset)
        cut, attempts, backward = next(steps)
        before = real(descriptor, size, offset)
        writing.append(True)
        write(attempts)
        writing.clear()
        after = real(descriptor, size, offset)
        return after[:cut] + before[cut:] if backward else before[:cut] + after[cut:]

    write(100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("celery_obs.recorder.attempt_log.os.pread", overtaken)
        answer = AttemptLog(at.metrics_dir).search(Wanted(limit=1000))

    for attempt in answer.attempts:
        number = int(attempt.id)
        assert (number, number, number, number + 1) == (attempt.runtime, attempt.wait, attempt.retries, attempt.due_at)
    at.close()


def test_threads_that_told_their_numbers_in_another_order_leave_no_number_to_be_used_again(tmp_path: Path) -> None:
    """
    Where a thread wrote a lower number of records than were written, the next owner goes on behind the highest all the same.
    """
    for owner in range(2):
        at = recorder(tmp_path, attempts=4, attempt_bytes=SMALL)
        counting = meter(at)
        for number in range(10):
            opened = started(task_id=f"{owner}-{number}")
            counting.started(opened)
            counting.finished(finished(opened, runtime=float(10 * owner + number)))
        assert at.ring is not None
        at.ring.words[RingHeader.WRITTEN] -= 3
        at.close()

    assert [f"{owner}-{number}" for owner in (1, 0) for number in range(9, -1, -1)] == [attempt.id for attempt in found(tmp_path)]


@pytest.mark.parametrize("task_id", ["x", "é" * 20, "0" * 40, "0" * 41, "long-" * 100, "\ud800", "", "a\0b"])
def test_any_id_is_found_by_itself(tmp_path: Path, task_id: str) -> None:
    """
    Ids of any length and of any characters are found; a long one is shown as a digest.
    """
    at = recorder(tmp_path, attempt_bytes=SMALL)
    counting = meter(at)
    for each in (task_id, "another"):
        opened = started(task_id=each)
        counting.started(opened)
        counting.finished(finished(opened))

    assert len(encode_id(task_id)) == 40
    assert len(found(tmp_path, id=task_id)) == (1 if task_id else 2)  # An empty one asks for all.


def test_a_full_disk_costs_the_ring_and_not_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Without disk space for the ring attempts are counted as ever, and the log says once what is missing.
    """
    at = recorder(tmp_path, attempt_bytes=1 << 20)
    counting = meter(at)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rings, "allocate", full)
    for number in range(2000):
        opened = started(task_id=str(number))
        counting.started(opened)
        counting.finished(finished(opened))

    assert states(at) == {"success": 2000, "started": 2000}
    assert caplog.text.count("No space left on device") == 1


@pytest.mark.parametrize("spoil", ["directory", "text", "short", "version", "layout"])
def test_what_lies_in_the_place_of_a_ring_costs_nothing_but_its_own_content(tmp_path: Path, spoil: str) -> None:
    """
    Something else under the ring's name is passed over by readers, and never keeps a process from counting.
    """
    at = recorder(tmp_path, attempt_bytes=SMALL)
    meter(at)
    assert at.node is not None
    path = at.node.folder / "attempts-1"
    at.close()
    data = bytearray(path.read_bytes())
    path.unlink()
    match spoil:
        case "directory":
            path.mkdir()
        case "text":
            path.write_text("no ring")
        case "short":
            path.write_bytes(data[:500])
        case "version" | "layout":
            data[8 if spoil == "version" else 16] ^= 1
            path.write_bytes(data)

    assert found(tmp_path) == []
    again = recorder(tmp_path, attempt_bytes=SMALL)
    counting = meter(again)
    opened = started()
    counting.started(opened)
    counting.finished(finished(opened))

    assert states(again) == {"success": 1, "started": 1}
    assert [attempt.id for attempt in found(tmp_path)] == ([] if spoil == "directory" else ["id-1"])


def test_a_ring_that_is_cut_off_under_its_owner_is_made_long_again(tmp_path: Path) -> None:
    """
    The next look around gives the file its length back, so that the process does not die of it; what was kept is gone, and what follows is found.
    """
    at = recorder(tmp_path, attempt_bytes=SMALL)
    counting = meter(at)
    assert at.node is not None
    path = at.node.folder / "attempts-1"
    with path.open("r+b") as file:
        file.truncate(100)

    at.mend()
    opened = started()
    counting.started(opened)
    counting.finished(finished(opened))

    assert at.ring is not None
    assert path.stat().st_size == at.ring.shape.words * 8
    assert states(at) == {"success": 1, "started": 1}
    assert [attempt.id for attempt in found(tmp_path)] == ["id-1"]


def test_the_main_process_makes_a_childs_ring_long_again(tmp_path: Path) -> None:
    """
    It looks at the files of its children at each heartbeat: a child whose ring was cut off in between would die of its next attempt.
    """
    child = recorder(tmp_path, attempt_bytes=SMALL)
    counting = meter(child)
    main = AttemptMeter(recorder(tmp_path, number=0, attempts=0))
    main._recorder.open()
    main.sweep()
    assert child.node is not None
    path = child.node.folder / "attempts-1"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(100)

    main.sweep()
    opened = started()
    counting.started(opened)
    counting.finished(finished(opened))

    assert path.stat().st_size == size
    assert [attempt.id for attempt in found(tmp_path)] == ["id-1"]


@given(size=st.integers(0, 1 << 24), rows=st.integers(0, 500))
def test_a_ring_takes_no_more_than_its_size_and_no_record_lies_across_two_pages_of_disk_space(size: int, rows: int) -> None:
    """
    Whatever the size and the number of threads, records are aligned, and failures have a quarter of the room.
    """
    shape = shape_of(size, rows=rows)

    if shape is None:
        assert size < 4 * 128 or rows == 0
        return
    assert isinstance(shape, Shape)
    assert (shape.records + shape.failures) * 128 <= size
    assert shape.failures == (shape.records + shape.failures) // 4
    assert shape.records_at % Finished.WORDS == shape.failures_at % Finished.WORDS == 0
