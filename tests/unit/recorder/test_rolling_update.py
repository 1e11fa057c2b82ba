"""
Old and new side by side on one directory: a worker is updated before its sidecar, or after it.
"""

from __future__ import annotations

import json
import tarfile

from pathlib import Path

from celery_obs.areas.tasks.metrics import FINISHED, STARTED
from celery_obs.recorder.format import folder_name
from celery_obs.recorder.reader import NodeReader
from celery_obs.recorder.ring import BATCH

from .builders import finished, meter, recorder, started, states
from .test_batches import by_state, sums
from .test_ring import SMALL, found


OLD = Path(__file__).parent / "data" / "worker-before-rings.tar.gz"
"""
What a pool process of the release before the rings left in its node's folder when it was killed: five successes, two failures, and one attempt at work.

Made at commit 949c643 by a `Recorder` of the node ``w@h``, slot 1, that told an `AttemptMeter` of these attempts of the task ``t`` on the queue ``q``, and
ended with `os._exit`; packed with GNU tar, ``--sparse``.
"""


def unpack(folder: Path) -> None:
    """
    Lay out what the old release left.
    """
    with tarfile.open(OLD) as packed:
        packed.extractall(folder, filter="data")
    (folder / folder_name("w@h")).chmod(0o700)


def test_a_new_sidecar_reads_what_an_old_worker_writes(tmp_path: Path) -> None:
    """
    Without a ring all that is counted is in the lanes.
    """
    unpack(tmp_path)
    reader = NodeReader(tmp_path / folder_name("w@h"))

    assert (8, 7) == sums(reader.layout, reader.read().lanes)[:2]
    assert {"success": 5, "failure": 2} == {state: count for state, count in by_state(reader).items() if count}
    reader.close()


def test_a_new_worker_takes_over_from_an_old_one(tmp_path: Path) -> None:
    """
    It counts on, the attempt that the old process died of is lost, and from then on attempts are kept.
    """
    unpack(tmp_path)
    at = recorder(tmp_path, attempt_bytes=SMALL)
    counting = meter(at)
    opened = started(task_id="new")
    counting.started(opened)
    counting.finished(finished(opened))

    assert {"started": 9, "success": 6, "failure": 2, "lost": 1} == states(at)
    assert ["new"] == [attempt.id for attempt in found(tmp_path)]
    at.close()


def test_an_old_sidecar_counts_the_same_a_batch_later(tmp_path: Path) -> None:
    """
    It adds up the lanes, as the format has said from the beginning: never more than there is, less by a batch at most, and all once the worker has stopped.
    """
    at = recorder(tmp_path, attempt_bytes=SMALL)
    counting = meter(at)
    for number in range(1, 100):
        opened = started(task_id=str(number))
        counting.started(opened)
        counting.finished(finished(opened))
        assert number - BATCH < as_ever(tmp_path)[FINISHED.name] <= number
    counting.count_tail()

    assert {STARTED.name: 99, FINISHED.name: 99} == as_ever(tmp_path)
    at.close()


def as_ever(folder: Path) -> dict[str, int]:
    """
    Read the counters of starts and ends as a program would that knows nothing but the description of the format in its first version.
    """
    node = folder / "w@h.v1"
    families: list[tuple[str, int]] = []
    places: list[tuple[str, int]] = []
    lanes = 0
    for line in (node / "layout").read_text().splitlines()[1:]:
        entry = json.loads(line)
        if isinstance(entry, dict):
            families.append((entry["name"] if entry["kind"] == "counter" else "", len(entry["buckets"]) + 2 if entry["buckets"] else 1))
            if entry["kind"] == "gauge":
                families[-1] = ("", 0)
        else:
            name, width = families[entry[0]]
            places.append((name, lanes))
            lanes += width
    words = memoryview((node / "slot-1").read_bytes()).cast("q")
    totals = {STARTED.name: 0, FINISHED.name: 0}
    for name, place in places:
        if name in totals:
            totals[name] += words[words[15] + place]
    return totals
