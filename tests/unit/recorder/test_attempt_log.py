"""
Searching the attempts of all nodes: what is wanted, all of it, each once.
"""

from __future__ import annotations

import subprocess
import sys

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.recorder.attempt_log import Attempt, AttemptLog, Wanted, shown

from .builders import finished, meter, recorder, started
from .test_ring import SMALL


NAMES = st.sampled_from(["emails.send", "emails.sort", "sync", "ümläut"])
RUNS = st.lists(
    st.tuples(NAMES, st.sampled_from(["q1", "q2"]), st.sampled_from(["success", "failure", "retry"]), st.integers(0, 5), st.integers(0, 3)),
    max_size=60,
)


def write(folder: Path, runs: list[Any], *, node: str = "w@h", size: int = 1 << 20) -> None:
    """
    Have two processes of a node run attempts in turns; the number of each is its id, and its place in time.
    """
    processes = [recorder(folder, number=number, node=node, attempt_bytes=size) for number in (1, 2)]
    meters = [meter(process) for process in processes]
    for number, (task, queue, state, runtime, retries) in enumerate(runs):
        opened = started(task, queue, task_id=f"{node}-{number}", retries=retries)._replace(started_at=float(number * 10))
        meters[number % 2].started(opened)
        meters[number % 2].finished(
            finished(opened, state, runtime=float(runtime), latency=None, exception="" if state == "success" else f"E{runtime}")
        )
    for process in processes:
        process.close()


def everything(folder: Path, **wanted: Any) -> list[Attempt]:
    """
    Return all that is wanted, page by page.
    """
    found: list[Attempt] = []
    ask = Wanted(**wanted)
    while True:
        answer = AttemptLog(folder).search(ask)
        assert len(answer.attempts) <= ask.limit
        found += answer.attempts
        if not answer.following:
            return found
        ask = ask._replace(after=answer.following)


@given(
    runs=RUNS,
    task=st.sampled_from(["", "emails.*", "sync", "no such"]),
    queue=st.sampled_from(["", "q1", "q*"]),
    state=st.sets(st.sampled_from(["success", "failure", "lost", "running"])),
    exception=st.sampled_from(["", "E1", "E*", "HeldBack"]),
    slower_than=st.sampled_from([-1.0, 0.0, 2.5]),
    since=st.integers(0, 700),
    until=st.integers(0, 700),
    limit=st.sampled_from([1, 3, 1000]),
)
@settings(max_examples=150, deadline=None)
def test_a_search_finds_what_is_wanted_and_nothing_else(  # noqa: PLR0917 -- what can be searched for.
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[Any],
    task: str,
    queue: str,
    state: set[str],
    exception: str,
    slower_than: float,
    since: int,
    until: int,
    limit: int,
) -> None:
    """
    Page by page, it is what a look at every attempt in turn finds, the newest end first.
    """
    folder = tmp_path_factory.mktemp("dir")
    write(folder, runs)

    found = everything(
        folder,
        task=task,
        queue=queue,
        state=tuple(state),
        exception=exception,
        slower_than=slower_than,
        since=float(since),
        until=float(until),
        limit=limit,
    )

    expected = {
        f"w@h-{number}": number * 10.0 + runtime
        for number, (name, on, outcome, runtime, _) in enumerate(runs)
        if (not task or fnmatchcase(name, task))
        and (not queue or fnmatchcase(on, queue))
        and (not state or outcome in state)
        and (not exception or (outcome != "success" and fnmatchcase(f"E{runtime}", exception)))
        and runtime > slower_than
        and since <= number * 10.0 + runtime <= until
    }
    assert {attempt.id: attempt.ended_at for attempt in found} == expected
    assert len(found) == len(expected)
    assert [attempt.ended_at for attempt in found] == sorted(expected.values(), reverse=True)


def test_all_attempts_of_an_id_are_its_retry_story(tmp_path: Path) -> None:
    """
    A task that was retried twice has three attempts under one id, on whatever nodes they ran, each with what it was retried for.
    """
    for retries, node in enumerate(("a@h", "b@h", "a@h")):
        at = recorder(tmp_path, node=node, attempt_bytes=SMALL)
        counting = meter(at)
        opened = started(task_id="the-one", retries=retries)._replace(started_at=100.0 + retries)
        counting.started(opened)
        counting.finished(finished(opened, "retry" if retries < 2 else "success", exception="Timeout" if retries < 2 else ""))
        at.close()

    story = everything(tmp_path, id="the-one")

    assert [(2, "a@h", "success", ""), (1, "b@h", "retry", "Timeout"), (0, "a@h", "retry", "Timeout")] == [
        (attempt.retries, attempt.node, attempt.state, attempt.exception) for attempt in story
    ]


def test_it_is_told_since_when_nothing_was_written_over(tmp_path: Path) -> None:
    """
    A ring that went round is complete from the end of its oldest attempt on; the latest of all such times counts.
    """
    write(tmp_path, [("sync", "q1", "success", 1, 0)] * 40, node="quiet@h", size=SMALL)
    log = AttemptLog(tmp_path)
    assert log.complete_since() == 0.0

    write(tmp_path, [("sync", "q1", "success", 1, 0)] * 200, node="busy@h", size=SMALL)

    assert log.complete_since() == (200 - 2 * 48 + 1) * 10.0 + 1.0
    assert log.complete_since(node="quiet*") == 0.0


def test_nodes_are_chosen_by_name_and_leave_with_their_folder(tmp_path: Path) -> None:
    """
    Only the nodes that are asked for are looked at, and what a folder held is not found when it is gone.
    """
    for node in ("web@h", "mail@h"):
        write(tmp_path, [("sync", "q1", "success", 1, 0)], node=node)
    log = AttemptLog(tmp_path)

    assert {"web@h", "mail@h"} == {attempt.node for attempt in log.search(Wanted()).attempts}
    assert ["mail@h"] == [attempt.node for attempt in log.search(Wanted(node="mail*")).attempts]
    (folder,) = tmp_path.glob("mail@h*")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert ["web@h"] == [attempt.node for attempt in log.search(Wanted()).attempts]


HANGS = """
import sys
from pathlib import Path
from tests.unit.recorder.builders import meter, recorder, started
at = recorder(Path(sys.argv[1]), attempt_bytes=64 * 128, attempts=2)
meter(at).started(started(task_id="hangs", retries=3, wait=7.0)._replace(started_at=500.0))
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_runs_is_found_while_its_process_lives(tmp_path: Path) -> None:
    """
    An attempt that has not ended is told first, with how long it has run so far; not when its process is gone and nothing was counted yet.
    """
    write(tmp_path, [("sync", "q1", "success", 1, 0)])
    log = AttemptLog(tmp_path, clock=lambda: 530.0)
    with subprocess.Popen(
        [sys.executable, "-c", HANGS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            found = log.search(Wanted()).attempts
            running = log.search(Wanted(state=("running",), slower_than=29.0, task="t", queue="q", id="hangs")).attempts
            other = log.search(Wanted(state=("running",), slower_than=31.0)).attempts
        finally:
            process.kill()

    assert [("hangs", "running", 30.0, 3, 7.0, 99.0), ("w@h-0", "success", 1.0, 0, 0.2, 99.0)] == [
        (each.id, each.state, each.runtime, each.retries, each.wait, each.due_at) for each in found
    ]
    assert found[:1] == running
    assert [] == other
    assert shown(running[0])["ended_at"] is None
    assert ["w@h-0"] == [attempt.id for attempt in log.search(Wanted()).attempts]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(state=("done",)), "There is no state 'done'. Expected one of running, success"),
        (Wanted(limit=0), "The limit is 0. Expected a whole number from 1 to 200000."),
        (Wanted(after="nonsense"), "The place to go on at is 'nonsense'. Expected what the answer before this one named."),
        (Wanted(after="W10="), "The place to go on at is"),
    ],
)
def test_what_cannot_be_searched_for_is_refused_with_what_is_expected(tmp_path: Path, wanted: Wanted, message: str) -> None:
    """
    A wrong state, limit or place says what came and what would be right.
    """
    with pytest.raises(ValueError, match="Expected") as refused:
        AttemptLog(tmp_path).search(wanted)

    assert str(refused.value).startswith(message)


def test_a_search_that_takes_too_long_says_that_it_is_not_complete(tmp_path: Path) -> None:
    """
    Where its time is over before all was looked through, the answer says so.
    """
    write(tmp_path, [("sync", "q1", "success", 1, 0)])

    assert AttemptLog(tmp_path).search(Wanted()).is_complete
    assert not AttemptLog(tmp_path).search(Wanted(), patience=-1.0).is_complete


def test_an_attempt_is_shown_with_times_that_a_person_can_read(tmp_path: Path) -> None:
    """
    JSON has ISO times in UTC, and null for what is not known.
    """
    write(tmp_path, [("sync", "q1", "failure", 1, 2)])
    (attempt,) = AttemptLog(tmp_path).search(Wanted()).attempts

    assert {
        "id": "w@h-0",
        "task": "sync",
        "queue": "q1",
        "state": "failure",
        "exception": "E1",
        "exhausted": False,
        "retries": 2,
        "due_at": "1970-01-01T00:01:39+00:00",
        "started_at": "1970-01-01T00:00:00+00:00",
        "ended_at": "1970-01-01T00:00:01+00:00",
        "wait_seconds": 0.2,
        "runtime_seconds": 1.0,
        "trace_id": None,
        "node": "w@h",
        "process": 1,
    } == shown(attempt)
