"""
The queue in front of the collector: what fits is sent, what does not is counted, and no task waits for long.
"""

from __future__ import annotations

import threading
import time

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from celery_obs.telemetry.traces.configuration import Batching
from celery_obs.telemetry.traces.pipeline import Health, Pipeline
from tests.servers import wait_until


SPANS = [ReadableSpan(f"span {number}", SpanContext(1, 2, False, TraceFlags(1))) for number in range(100)]


class Door(SpanExporter):
    """
    An exporter that a test can close, or break.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.result: SpanExportResult | Exception = SpanExportResult.SUCCESS
        self.is_open = threading.Event()
        self.is_open.set()
        self.knocked = threading.Event()
        self.is_shut_down = False

    def shutdown(self) -> None:
        self.is_shut_down = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.knocked.set()
        self.is_open.wait(10)
        if isinstance(self.result, Exception):
            raise self.result
        if self.result is SpanExportResult.SUCCESS:
            self.sent += [span.name for span in spans]
        return self.result


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def door() -> Iterator[Door]:
    """
    A door that is open at the end, so that no thread is left behind it.
    """
    made = Door()
    yield made
    made.is_open.set()


@pytest.fixture
def dropped() -> Counter[str]:
    """
    What was dropped, by reason.
    """
    return Counter()


def pipeline(door: Door, dropped: Counter[str], *, queue: int = 50, health: Health | None = None) -> Pipeline:
    return Pipeline(
        lambda _: door,
        batching=Batching(queue, min(10, queue), 0.01),
        on_drop=lambda reason, number: dropped.update({reason: number}),
        health=health or Health(),
    )


def test_what_is_put_in_comes_out_in_order(door: Door, dropped: Counter[str]) -> None:
    """
    The thread sends by itself, in batches.
    """
    made = pipeline(door, dropped, queue=100)

    for span in SPANS:
        made.on_end(span)

    wait_until(lambda: len(door.sent) == 100, what="all spans")
    assert [span.name for span in SPANS] == door.sent
    assert {} == dropped


def test_what_does_not_fit_is_counted(door: Door, dropped: Counter[str]) -> None:
    """
    With a collector that hangs, memory is bounded, and every span that is not sent is counted once.
    """
    made = pipeline(door, dropped)
    door.is_open.clear()

    made.on_end(SPANS[0])
    assert door.knocked.wait(10)
    for span in SPANS:
        made.on_end(span)
    door.is_open.set()

    wait_until(lambda: len(door.sent) + sum(dropped.values()) == 101, what="every span to be sent or counted")
    assert {"spans_queue_full": 50} == dropped


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, RuntimeError("broken")])
def test_what_the_collector_refuses_is_counted(door: Door, dropped: Counter[str], result: SpanExportResult | Exception) -> None:
    """
    A batch that was refused, or that an exporter broke on, is gone; the next one is tried.
    """
    made = pipeline(door, dropped)
    door.result = result

    made.on_end(SPANS[0])
    wait_until(lambda: dropped, what="the drop")
    door.result = SpanExportResult.SUCCESS
    made.on_end(SPANS[1])

    wait_until(lambda: door.sent, what="the next one")
    assert ({"spans_not_exported": 1}, ["span 1"]) == (dropped, door.sent)


def test_a_flush_sends_all(door: Door, dropped: Counter[str]) -> None:
    """
    After it nothing is left, however long the batch would have waited.
    """
    made = pipeline(door, dropped)
    made._delay = 60.0
    for span in SPANS[:25]:
        made.on_end(span)

    assert made.flush(10.0)

    assert (25, {}) == (len(door.sent), dropped)


def test_a_flush_keeps_its_deadline(door: Door, dropped: Counter[str]) -> None:
    """
    A collector that hangs costs the time that was given, and what it would have got is counted, once.
    """
    made = pipeline(door, dropped)
    door.is_open.clear()
    for span in SPANS[:25]:
        made.on_end(span)

    began = time.monotonic()
    flushed = made.flush(0.2)
    took = time.monotonic() - began
    door.result = SpanExportResult.FAILURE
    door.is_open.set()

    assert not flushed
    assert 0.2 <= took < 5.0
    wait_until(lambda: made._in_hand == 0, what="the exporter to come back")
    assert {"spans_not_exported": 25} == dropped


def test_an_empty_flush_takes_no_time(door: Door, dropped: Counter[str]) -> None:
    """
    Without spans there is no thread, and nothing to wait for.
    """
    made = pipeline(door, dropped)

    assert made.flush(10.0)

    assert (None, False) == (made._thread, door.knocked.is_set())


def test_a_flush_without_threads_sends_itself(door: Door, dropped: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    At the end of an interpreter no thread can be started any more, since Python 3.12; what is left is sent all the same.
    """

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    made = pipeline(door, dropped)
    made.on_end(SPANS[0])

    assert made.flush(1.0)

    assert ["span 0"] == door.sent


def test_those_that_leave_do_not_wait_for_a_collector_that_is_away(door: Door, dropped: Counter[str]) -> None:
    """
    Where one process waited in vain the next does not, for a second, then two, up to thirty; one success ends that.
    """
    clock = Clock()
    health = Health(clock)
    made = pipeline(door, dropped, health=health)
    door.is_open.clear()
    made.on_end(SPANS[0])
    made.flush(0.05)

    pauses = []
    for _ in range(7):
        began = clock.now
        while not health.is_worth_waiting():
            clock.now += 0.5
        pauses.append(clock.now - began)
        health.failed()
    made.on_end(SPANS[1])
    began = time.monotonic()
    assert not made.flush(5.0, may_skip=True)
    took = time.monotonic() - began
    health.succeeded()

    assert [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] == pauses
    assert took < 2.0
    assert 2 == dropped["spans_not_exported"]
    assert health.is_worth_waiting()


def test_the_last_flush_ends_the_exporter(door: Door, dropped: Counter[str]) -> None:
    """
    One that tries again and again does not go on in a program that does.
    """
    made = pipeline(door, dropped)
    made.on_end(SPANS[0])

    made.shutdown()

    assert (["span 0"], True) == (door.sent, door.is_shut_down)
