"""
The recorder and its slots: claimed once, handed on, switched off rather than in the way.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal

from pathlib import Path

import pytest

from celery_obs.areas.sidecar.metrics import DROPPED, LABELS_FOLDED
from celery_obs.areas.tasks.metrics import PUBLISHED
from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder import slots
from celery_obs.recorder.format import Header
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.slots import Node, holder_lives
from celery_obs.vocabulary.spec import OTHER, Metric

from .builders import finished, lane, meter, recorder, started, states


GAUGE = Metric(kind="gauge", name="level", help="How high?", labels=("tank",))
LASTING = Metric(kind="gauge", name="last", help="When?", labels=("report",), aggregate="mostrecent")


def die(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_successor_counts_on_where_its_predecessor_left(tmp_path: Path) -> None:
    """
    Counters of a slot go on with its next owner, in the same file.
    """
    first = recorder(tmp_path)
    first.open()
    first.count(PUBLISHED, ("t", "q"), 41)

    second = recorder(tmp_path)
    second.open()
    second.count(PUBLISHED, ("t", "q"))

    assert 42 == lane(second, PUBLISHED, "t", "q")
    assert ["slot-1"] == sorted(path.name for path in (tmp_path / "w@h.v1").glob("slot*"))


def test_gauges_begin_anew_with_the_next_owner_but_for_lasting_ones(tmp_path: Path) -> None:
    """
    What a dead process had set is not taken for the state of the living one; the time of a last event stays true.
    """
    first = recorder(tmp_path)
    first.open()
    first.set(GAUGE, ("a",), 3.0, at=50.0)
    first.set(LASTING, ("nightly",), 4.0, at=50.0)

    second = recorder(tmp_path)
    second.open()

    assert second.slot is not None
    words, at = second.slot.words, second.slot.gauges_at
    assert (0, 50_000_000) == (words[at + 1], words[at + 3])


def test_a_forked_child_takes_a_slot_of_its_own(tmp_path: Path) -> None:
    """
    A fork that goes on recording does not write into its parent's slot.
    """
    parent = recorder(tmp_path, number=None)
    parent.open()
    parent.count(PUBLISHED, ("t", "q"))

    pid = os.fork()
    if pid == 0:
        parent.forget_parent()
        parent.count(PUBLISHED, ("t", "q"), 10)
        os._exit(0 if parent.slot is not None and parent.slot.number == 1 else 1)
    _, status = os.waitpid(pid, 0)

    assert 0 == status
    assert 1 == lane(parent, PUBLISHED, "t", "q")


def test_a_slot_that_is_held_is_left_alone_and_a_spare_one_taken(tmp_path: Path) -> None:
    """
    Two processes that believe to have the same place do not write into one file.
    """
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        recorder(tmp_path, number=1).open()
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)

    late = recorder(tmp_path, number=1)
    late.open()

    die(pid)
    os.close(ready)
    os.close(told)
    assert late.slot is not None
    assert 100_000 == late.slot.number


def test_whether_the_owner_lives_is_told_by_its_lock(tmp_path: Path) -> None:
    """
    Liveness is the kernel's word, right after SIGKILL too, and asking disturbs no process.
    """
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        recorder(tmp_path, number=5).open()
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    lock = os.open(tmp_path / "w@h.v1" / "lock", os.O_RDONLY)

    alive = holder_lives(lock, 5), holder_lives(lock, 6)
    die(pid)

    assert (True, False) == alive
    assert not holder_lives(lock, 5)
    for descriptor in (lock, ready, told):
        os.close(descriptor)


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, bytes(8192)])
def test_a_damaged_slot_file_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    """
    A slot file that is none is kept for inspection, and a new one begun.
    """
    folder = tmp_path / "w@h.v1"
    first = recorder(tmp_path)
    first.open()
    first.close()
    (folder / "slot-1").write_bytes(damage)

    second = recorder(tmp_path)
    second.open()
    second.count(PUBLISHED, ("t", "q"))

    assert 1 == lane(second, PUBLISHED, "t", "q")
    assert damage == (folder / "slot-1.bad").read_bytes()


def test_a_layout_that_lost_its_end_is_not_written_on(tmp_path: Path) -> None:
    """
    Lanes that a truncated layout no longer tells of are not given to other series.
    """
    layout = tmp_path / "w@h.v1" / "layout"
    first = recorder(tmp_path)
    first.open()
    first.count(PUBLISHED, ("t", "q"), 7)
    first.close()
    layout.write_bytes(layout.read_bytes().splitlines(keepends=True)[0])

    second = recorder(tmp_path)
    second.open()
    second.count(PUBLISHED, ("other", "q"))

    assert 1 == lane(second, PUBLISHED, "other", "q")
    assert layout.with_suffix(".bad").exists()


def test_two_processes_agree_on_the_place_of_a_new_series(tmp_path: Path) -> None:
    """
    Series that two processes meet at the same time get one place each, the same for both.
    """
    one, two = recorder(tmp_path, number=1), recorder(tmp_path, number=2)
    one.open()
    two.open()

    one.count(PUBLISHED, ("a", "q"))
    two.count(PUBLISHED, ("b", "q"))
    one.count(PUBLISHED, ("b", "q"))
    two.count(PUBLISHED, ("a", "q"))

    assert one.node is not None
    assert two.node is not None
    two.node.file.refresh()
    one.node.file.refresh()
    assert dict(one.node.layout.places(PUBLISHED)) == dict(two.node.layout.places(PUBLISHED))


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    """
    A line that a full disk cut off is closed before the next one is written.
    """
    first = recorder(tmp_path)
    first.open()
    with (tmp_path / "w@h.v1" / "layout").open("ab") as layout:
        layout.write(b'[0,"torn')

    first.count(PUBLISHED, ("t", "q"))

    again = recorder(tmp_path, number=2)
    again.open()
    assert again.node is not None
    assert again.node.layout.place(PUBLISHED, ("t", "q")) is not None


def test_labels_beyond_their_limit_are_folded_and_that_is_counted(tmp_path: Path) -> None:
    """
    The first values keep their series; later ones share ``_other``.
    """
    at = recorder(tmp_path, label_limit=2)
    at.open()

    for number in range(5):
        at.count(PUBLISHED, (f"t{number}", "q"))

    assert [1, 1, 3] == [lane(at, PUBLISHED, task, "q") for task in ("t0", "t1", OTHER)]
    assert 3 == lane(at, LABELS_FOLDED, PUBLISHED.name)


def test_more_lanes_than_allowed_are_dropped_and_that_is_counted(tmp_path: Path) -> None:
    """
    A node that is full counts on what it knows, and tells of the rest.
    """
    at = recorder(tmp_path, lane_limit=3)
    at.open()
    at.count(DROPPED, ("no_room",), 0)

    for number in range(6):
        at.count(PUBLISHED, (f"t{number}", "q"))

    assert 4 == lane(at, DROPPED, "no_room")


def test_a_slot_grows_when_its_lanes_are_used_up(tmp_path: Path) -> None:
    """
    Numbers written before the file grew and after are in one place.
    """
    at = recorder(tmp_path, label_limit=10_000)
    counting = meter(at)
    opened = started()
    counting.started(opened)

    counting.prepare([(f"t{number}", "q") for number in range(200)])
    counting.finished(finished(opened))
    later = started(task="t199")
    counting.started(later)
    counting.finished(finished(later))

    assert {"started": 1, "success": 1} == states(at) == states(at, task="t199")


def test_a_slot_is_readable_while_others_lay_out_more_than_it_has_room_for(tmp_path: Path) -> None:
    """
    A process that goes on with series it knew says nothing of lanes that its file does not have: no reader takes the file for truncated.
    """
    main, child = recorder(tmp_path, number=0), recorder(tmp_path, number=1)
    main.open()
    main.count(PUBLISHED, ("t", "q"))
    child.open()
    assert main.slot is not None
    assert main.node is not None

    child.declare([(PUBLISHED, (f"t{number}", "q")) for number in range(main.slot.lanes + 1)])
    main.node.file.refresh()
    main.count(PUBLISHED, ("t", "q"))

    assert main.node.layout.lanes > main.slot.lanes
    errors = InternalErrors()
    page = WorkersCollector(tmp_path, errors=errors).collect().text
    assert 'celery_task_published_total{task="t",queue="q"} 2' in page
    assert 'celery_obs_metric_files{state="corrupt"} 0' in page


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_switches_metrics_off_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Without room for a slot nothing is recorded, nothing is raised, and the log says so once.
    """
    monkeypatch.setattr(slots, "allocate", refuse)
    at = recorder(tmp_path)

    with caplog.at_level(logging.ERROR, "celery_obs"):
        for _ in range(3):
            at.count(PUBLISHED, ("t", "q"))

    (record,) = caplog.records
    assert "metrics are off" in record.getMessage()
    assert "No space left on device" in record.getMessage()


def test_without_room_for_new_series_the_known_ones_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A disk that fills up later costs new series only.
    """
    at = recorder(tmp_path)
    at.open()
    at.count(DROPPED, ("no_room",), 0)
    at.count(PUBLISHED, ("known", "q"))
    monkeypatch.setattr(os, "write", refuse)

    for _ in range(3):
        at.count(PUBLISHED, ("new", "q"))
        at.count(PUBLISHED, ("known", "q"))

    assert (4, 3) == (lane(at, PUBLISHED, "known", "q"), lane(at, DROPPED, "no_room"))
    assert 1 == len(caplog.records)


def test_what_was_laid_out_when_a_process_began_is_counted_on_a_disk_that_is_full_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A process that takes over a slot has its room at once, also for series that its predecessor never counted.
    """
    first = recorder(tmp_path)
    first.open()
    first.declare([(PUBLISHED, ("never counted", "q")), *((PUBLISHED, (f"t{number}", "q")) for number in range(2000))])
    first.close()
    successor = recorder(tmp_path)
    successor.open()
    monkeypatch.setattr(slots, "allocate", refuse)

    successor.count(PUBLISHED, ("never counted", "q"))
    successor.count(PUBLISHED, ("t1999", "q"))

    assert (1, 1) == (lane(successor, PUBLISHED, "never counted", "q"), lane(successor, PUBLISHED, "t1999", "q"))


def test_a_full_disk_at_a_take_over_costs_only_what_has_no_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    What is to be told of the last owner may find no room; the process records what it does all the same.
    """
    at = recorder(tmp_path)
    at.on_claim.append(refuse)

    at.count(PUBLISHED, ("t", "q"))

    assert 1 == lane(at, PUBLISHED, "t", "q")
    assert "new series cannot be recorded" in caplog.text


def test_a_directory_that_cannot_be_made_switches_metrics_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    A metrics directory below a file is no reason to fail a task.
    """
    (tmp_path / "file").write_text("")
    at = recorder(tmp_path / "file")

    at.count(PUBLISHED, ("t", "q"))

    assert at.is_off
    assert 1 == len(caplog.records)


def test_a_directory_that_goes_away_does_no_harm(tmp_path: Path) -> None:
    """
    Numbers go on into memory when the files are deleted under a living process.
    """
    at = recorder(tmp_path / "metrics")
    counting = meter(at)
    shutil.rmtree(tmp_path / "metrics")

    opened = started()
    counting.started(opened)
    counting.finished(finished(opened))

    assert {"started": 1, "success": 1} == states(at)


def test_a_bigger_table_takes_over_what_was_counted(tmp_path: Path) -> None:
    """
    A node whose pool changes from processes to threads keeps its totals and its slot's identity.
    """
    small = recorder(tmp_path, attempts=1)
    counting = meter(small)
    counting.started(started())
    assert small.slot is not None
    identity = small.slot.words[Header.SLOT_ID]

    big = recorder(tmp_path, attempts=50)
    meter(big)

    assert big.slot is not None
    assert (identity, 50) == (big.slot.words[Header.SLOT_ID], big.slot.records)
    assert {"started": 1, "lost": 1} == states(big)


def test_the_sweep_does_not_take_the_lock_of_a_slot_it_owns(tmp_path: Path) -> None:
    """
    A process does not lock its own slot twice, which would drop the lock with the second release.
    """
    node = Node(tmp_path, "w@h", gauges=8)
    node.claim(3, records=1)

    assert not node.try_lock(3)


def test_a_closed_recorder_opens_again(tmp_path: Path) -> None:
    """
    A process that gives its slot back can claim one later, and counts on.
    """
    at = recorder(tmp_path)
    at.open()
    at.count(PUBLISHED, ("t", "q"))
    at.close()

    at.count(PUBLISHED, ("t", "q"))

    assert isinstance(at, Recorder)
    assert 2 == lane(at, PUBLISHED, "t", "q")
