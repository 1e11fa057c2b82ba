"""
What if there were more processes: the model.
"""

from __future__ import annotations

import math

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.tasks.simulation import Job, Run, outcome, pause_between, play


TIMES = st.integers(0, 1000).map(float)
JOBS = st.lists(st.tuples(TIMES, st.integers(0, 50).map(float)), max_size=60).map(lambda pairs: [Job(*pair) for pair in sorted(pairs)])


@given(jobs=JOBS, processes=st.integers(1, 8))
def test_more_processes_make_no_job_wait_longer(jobs: list[Job], processes: int) -> None:
    """
    Whatever arrives, one more process only helps; with one for each job none waits.
    """
    fewer, more = play(jobs, processes), play(jobs, processes + 1)

    assert all(wait >= 0 for wait in more)
    assert all(late >= early for late, early in zip(fewer, more, strict=True))
    assert play(jobs, max(1, len(jobs))) == [0.0] * len(jobs)


@given(jobs=JOBS)
def test_one_process_is_lindleys_recursion(jobs: list[Job]) -> None:
    """
    The wait of the next job is the wait and work of the one before, less the time between their arrivals (Lindley, 1952).
    """
    expected, before = [], None
    for job in jobs:
        wait = 0.0 if before is None else max(0.0, expected[-1] + before.busy - (job.arrived_at - before.arrived_at))
        expected.append(wait)
        before = job

    assert play(jobs, 1) == expected


@given(jobs=JOBS, processes=st.integers(1, 5))
def test_no_process_is_idle_while_a_job_waits(jobs: list[Job], processes: int) -> None:
    """
    At the moment at which a waiting job begins, every process is at work until then.
    """
    starts = [(job.arrived_at + wait, job, wait) for job, wait in zip(jobs, play(jobs, processes), strict=True)]
    for begun_at, _, wait in starts:
        if wait > 0:
            busy = sum(1 for start, other, _ in starts if start < begun_at <= start + other.busy)
            assert busy >= processes


def run(started_at: float, runtime: float, wait: float | None = None, **more: Any) -> Run:
    """
    An attempt of the first process.
    """
    return Run(("w@h", more.get("process", 1)), started_at, runtime, wait, is_asked_about=True)


def test_the_pause_of_a_busy_process_is_what_lies_between_two_attempts_of_which_the_second_waited() -> None:
    """
    A process that had nothing to do made no pause.
    """
    busy = [run(0.0, 1.0), run(1.1, 1.0, wait=1.0), run(2.3, 1.0, wait=2.0), run(3.4, 1.0, wait=2.0)]
    idle = [run(50.0, 1.0, wait=0.0), run(0.0, 5.0, process=2)]

    assert math.isclose(0.1, pause_between([*reversed(busy), *idle]), rel_tol=1e-9)
    assert pause_between(idle) == 0.0


def test_an_outcome_is_the_nearest_rank_of_the_waits() -> None:
    """
    Median, 95th percentile, longest and the share of time that processes were busy.
    """
    assert outcome([float(each) for each in range(100, 0, -1)], processes=2, busy=30.0, seconds=20.0) == (2, 50.0, 95.0, 100.0, 0.75)
    assert outcome([7.0], processes=1, busy=1.0, seconds=0.0) == (1, 7.0, 7.0, 7.0, 0.0)
