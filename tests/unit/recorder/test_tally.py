"""
The tally counts as the meter does that counts each attempt by itself.
"""

from __future__ import annotations

import math

from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.areas.tasks.metrics import FINAL_STATES, HELD_BACK
from celery_obs.recorder.attempts import AttemptMeter
from celery_obs.recorder.batches import count_tail
from celery_obs.recorder.layout import Layout, width
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.ring import BATCH, JOURNAL
from celery_obs.recorder.tally import Tally

from .builders import finished, meter, recorder, started
from .test_ring import SMALL


_OUTCOMES = st.one_of(
    st.tuples(st.sampled_from(["success", "ignored", "rejected"]), st.just("")),
    st.tuples(st.sampled_from(["failure", "retry"]), st.sampled_from(["KeyError", "ValueError"])),
    st.tuples(st.just("ignored"), st.just(HELD_BACK)),
)
_ATTEMPTS = st.lists(
    st.tuples(
        st.sampled_from(["t", "u"]),
        _OUTCOMES,
        st.integers(0, 3),
        st.floats(0, 5000),
        st.none() | st.floats(0, 5000),
        st.none() | st.floats(1, 4000),
    ),
    max_size=80,
)


@given(attempts=_ATTEMPTS)
@settings(deadline=None, max_examples=15)
def test_any_attempts_are_counted_as_if_each_were_counted_by_itself(tmp_path_factory: pytest.TempPathFactory, attempts: list[Any]) -> None:
    """
    Every lane of every series holds the same, whatever the tasks, outcomes, causes, retries, times, and their order.
    """
    held: list[dict[Any, Any]] = []
    for attempt_bytes in (0, SMALL):
        at = recorder(tmp_path_factory.mktemp("dir"), attempt_bytes=attempt_bytes)
        run(meter(at), attempts)
        held.append(lanes_of(at))
        at.close()

    assert held[0] == held[1]


def run(counting: AttemptMeter, attempts: list[Any]) -> None:
    """
    Have all attempts counted.
    """
    for task, (state, exception), retries, runtime, wait, due_at in attempts:
        opened = started(task, retries=retries, wait=wait, due_at=due_at)
        is_final = state in FINAL_STATES and exception != HELD_BACK
        latency = max(0.0, opened.started_at + runtime - due_at) if is_final and due_at is not None else None
        counting.started(opened)
        counting.finished(finished(opened, state, runtime=runtime, latency=latency, exception=exception))


def lanes_of(at: Recorder) -> dict[Any, Any]:
    """
    Return what each series holds that is not all zeros.
    """
    assert at.node is not None
    assert at.slot is not None
    if at.ring is not None:
        count_tail(at.ring, at.slot, Tally(at.node.layout))
    held = {}
    for family, values, place in at.node.layout:
        if family.kind != "gauge":
            first = at.slot.lanes_at + place
            held[family.name, values] = at.slot.words[first : first + width(family)].tolist()
    return {series: lanes for series, lanes in held.items() if any(lanes)}


@given(
    records=st.lists(
        st.tuples(
            st.just(1),
            st.integers(-5, 200),
            st.integers(-(1 << 63), (1 << 63) - 1),
            st.integers(-(1 << 63), (1 << 63) - 1),
            *[st.floats()] * 4,
            st.just(b""),
            st.just(b""),
        ),
        max_size=BATCH,
    )
)
@settings(deadline=None, max_examples=30)
def test_records_that_another_program_wrote_cost_nothing_but_themselves(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any]
) -> None:
    """
    Whatever numbers stand there, nothing is raised, lanes are those of the layout, they only grow, and all fit into the journal.
    """
    at = recorder(tmp_path_factory.mktemp("dir"))
    meter(at)
    assert at.node is not None

    changes = Tally(at.node.layout).of(records)

    assert all(0 <= lane < at.node.layout.lanes and more >= 0 and math.isfinite(more) for lane, more in changes.items())
    assert len(changes) <= JOURNAL
    at.close()


def test_what_no_layout_knows_changes_nothing() -> None:
    """
    Nor does an attempt that runs.
    """
    assert {} == Tally(Layout()).of([(1, 5, 0, 0, 1.0, 1.0, 1.0, 1.0, b"", b"")])
    assert {} == Tally(Layout()).of_running(5, 1.0)
