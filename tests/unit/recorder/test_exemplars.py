"""
Exemplars: from an observation in one process to bytes in its slot, and back.
"""

from __future__ import annotations

import threading

from pathlib import Path

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.channels.syncs.metrics import DURATION
from celery_obs.areas.tasks.metrics import LATENCY, QUEUE_WAIT, RUNTIME
from celery_obs.recorder.exemplars import PLACES, Exemplars, Noted, decode, encode
from celery_obs.recorder.format import WORD, Exemplar, Gauge, Header, exemplar_region
from celery_obs.recorder.recorder import Recorder
from celery_obs.recorder.series import SeriesWriter
from tests.unit.recorder.builders import finished, meter, recorder, started


TRACE = 0x0AF7651916CD43DD8448EB211C80319C
ENTRY = Exemplar.WORDS * WORD

traces = st.integers(1, 2**128 - 1)
noted = st.tuples(st.integers(0, 2**40), traces, st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 2**62))


def whole(entry: bytes) -> bytes:
    return entry.ljust(ENTRY, b"\0")


def traced(folder: Path, *, attempts: int = 1, number: int | None = 1, trace: int = TRACE) -> Recorder:
    """
    A recorder in a process that traces.
    """
    made = recorder(folder, attempts=attempts, number=number)
    made.exemplar = lambda: trace
    return made


def kept(recorder: Recorder) -> dict[int, Noted]:
    """
    What a slot keeps, by lane.
    """
    assert recorder.slot is not None
    slot = recorder.slot
    return dict(decode(bytes(slot.memory[slot.exemplars_at * WORD : (slot.exemplars_at + slot.exemplars * Exemplar.WORDS) * WORD])))


def bucket(recorder: Recorder, metric: object, values: tuple[str, ...], number: int) -> int:
    assert recorder.node is not None
    place = recorder.node.layout.place(metric, values)  # type: ignore[arg-type]  # a metric.
    assert place is not None
    return place + number


@given(st.lists(noted))
def test_what_was_written_is_read(entries: list[tuple[int, int, float, int]]) -> None:
    """
    Any lane, trace, value and time come back as they were given.
    """
    data = b"".join(whole(encode(*entry)) for entry in entries)

    assert [(lane, Noted(at, value, f"{trace:032x}")) for lane, trace, value, at in entries] == list(decode(data))


@given(noted, noted, st.integers(0, Exemplar.CHECK + 1))
def test_one_that_is_torn_is_none(first: tuple[int, int, float, int], second: tuple[int, int, float, int], words: int) -> None:
    """
    Of an exemplar that is being written over another one, one of the two is read, or none: never a mixture.
    """
    old, new = encode(*first), encode(*second)
    torn = new[: words * WORD] + old[words * WORD :]

    found = list(decode(whole(torn)))

    assert found in ([], list(decode(whole(old))), list(decode(whole(new))))


@given(st.binary(max_size=4 * ENTRY).map(lambda data: data[: len(data) // ENTRY * ENTRY]))
def test_garbage_is_no_exemplar(data: bytes) -> None:
    """
    Whatever bytes lie in the region, reading them is no error, and hardly anything is taken for an exemplar.
    """
    assert [] == list(decode(data))


@given(*[st.integers(-10, 100) | st.integers(-(2**62), 2**62)] * 5)
def test_a_region_never_reaches_beyond_its_place(gauges_at: int, gauges: int, at: int, places: int, lanes_at: int) -> None:
    """
    A header that lies does not lead a writer into gauges or lanes.
    """
    header = [0] * Header.WORDS
    header[Header.GAUGES_AT : Header.LANES_AT + 1] = [gauges_at, gauges, at, places, lanes_at]

    found_at, found = exemplar_region(header)

    assert (found_at, found) == (0, 0) or gauges_at + gauges * Gauge.WORDS <= found_at <= lanes_at - found * Exemplar.WORDS


def test_an_attempt_is_an_example_of_each_of_its_times(tmp_path: Path) -> None:
    """
    Runtime, wait and latency of a traced attempt lead to its trace, each from the bucket that it fell into.
    """
    at = traced(tmp_path)
    counting = meter(at)

    opened = started(wait=0.2)
    counting.started(opened)
    counting.finished(finished(opened, runtime=0.5, latency=1.5))

    trace = f"{TRACE:032x}"
    assert {
        bucket(at, RUNTIME, ("t", "q", "success"), 6): Noted(100_500_000, 0.5, trace),
        bucket(at, QUEUE_WAIT, ("t", "q"), 2): Noted(100_000_000, 0.2, trace),
        bucket(at, LATENCY, ("t", "q"), 5): Noted(100_500_000, 1.5, trace),
    } == kept(at)


def test_a_sync_run_is_an_example_of_its_duration(tmp_path: Path) -> None:
    """
    What is timed by label values, as syncs are and what users declare, leads to its trace, too.
    """
    at = traced(tmp_path)

    SeriesWriter(at, DURATION).observe(("airbnb", "full"), 42.0)

    ((lane, found),) = kept(at).items()
    assert (bucket(at, DURATION, ("airbnb", "full"), 7), 42.0, f"{TRACE:032x}") == (lane, found.value, found.trace)


def test_what_was_not_traced_is_no_example(tmp_path: Path) -> None:
    """
    An attempt that the sampler left out leads nowhere.
    """
    at = traced(tmp_path, trace=0)
    counting = meter(at)

    opened = started()
    counting.started(opened)
    counting.finished(finished(opened))

    assert {} == kept(at)


def test_without_tracing_there_is_no_room_for_exemplars(tmp_path: Path) -> None:
    """
    Who does not trace pays nothing: neither file nor time.
    """
    at = recorder(tmp_path)
    meter(at)

    assert at.slot is not None
    assert (0, None) == (at.slot.exemplars, at.exemplars)


def test_a_slot_without_room_is_remade_with_its_counts(tmp_path: Path) -> None:
    """
    When tracing is switched on, a slot of a release that knew no exemplars goes on counting where it was.
    """
    before = recorder(tmp_path)
    counting = meter(before)
    opened = started()
    counting.started(opened)
    counting.finished(finished(opened))
    assert before.slot is not None
    lanes, identity = before.slot.words[before.slot.lanes_at :].tolist(), before.slot.words[Header.SLOT_ID]
    before.close()

    after = traced(tmp_path)
    after.open()

    assert after.slot is not None
    assert (PLACES, identity) == (after.slot.exemplars, after.slot.words[Header.SLOT_ID])
    assert lanes == after.slot.words[after.slot.lanes_at :].tolist()


def test_exemplars_outlive_their_process(tmp_path: Path) -> None:
    """
    The next owner of a recycled child's slot keeps what is known of its traces, also when it does not trace itself.
    """
    at = traced(tmp_path)
    SeriesWriter(at, DURATION).observe(("airbnb", "full"), 42.0)
    before = kept(at)
    at.close()

    after = recorder(tmp_path)
    after.open()

    assert before == kept(after)
    assert before


def test_of_a_bucket_one_exemplar_a_second_is_written(tmp_path: Path) -> None:
    """
    A thousand tasks a second do not write a thousand exemplars; a clock that was set back does not end them.
    """
    at = traced(tmp_path)
    at.open()
    assert at.slot is not None
    assert at.exemplars is not None
    word = at.slot.lanes_at

    written = []
    for now in (100.0, 100.9, 101.1, 50.0):
        at.exemplars.note(word, 1.0, now)
        written.append(at.slot.words[Header.EXEMPLARS_WRITTEN])

    assert [1, 1, 2, 3] == written


def test_buckets_that_share_a_place_take_turns(tmp_path: Path) -> None:
    """
    Room is bounded: of two buckets that are a whole table apart, the one written last is there, as itself.
    """
    at = traced(tmp_path)
    at.open()
    assert at.slot is not None
    assert at.exemplars is not None

    at.exemplars.note(at.slot.lanes_at + 5, 1.0, 100.0)
    at.exemplars.note(at.slot.lanes_at + 5 + PLACES, 2.0, 101.0)

    assert {5 + PLACES: 2.0} == {lane: found.value for lane, found in kept(at).items()}


def test_what_threads_write_at_once_is_read_as_one_of_them(tmp_path: Path) -> None:
    """
    Threads that write one place at the same time leave an exemplar of one of them.
    """
    at = recorder(tmp_path)
    local = threading.local()
    at.exemplar = lambda: int(local.trace)
    at.open()
    assert at.slot is not None
    slot = at.slot

    def write(trace: int) -> None:
        local.trace = trace
        mine = Exemplars(slot, at.exemplar or int)
        for number in range(500):
            mine.note(slot.lanes_at, float(trace), 2.0 * number + 2.0)

    threads = [threading.Thread(target=write, args=(trace,)) for trace in (1, 2, 3)]
    for thread in threads:
        thread.start()
    seen: list[Noted] = []
    while any(thread.is_alive() for thread in threads):
        seen.extend(kept(at).values())

    assert all(found.value == int(found.trace, 16) for found in [*seen, *kept(at).values()])


def test_a_source_that_raises_costs_no_count(tmp_path: Path) -> None:
    """
    An attempt is counted whole before its trace is asked for.
    """
    at = recorder(tmp_path)

    def broken() -> int:
        raise RuntimeError

    at.exemplar = broken
    counting = meter(at)
    opened = started()
    counting.started(opened)

    with pytest.raises(RuntimeError):
        counting.finished(finished(opened))

    assert at.slot is not None
    assert 0 == at.slot.words[Header.WORDS]
