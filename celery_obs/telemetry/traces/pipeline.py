"""
From spans that ended to a collector: a bounded queue, and a thread that empties it.

The SDK's batch processor does as much, but its flush knows no deadline and its drops go uncounted; a pool process that is recycled has a second to leave.
Ending a span only puts it into the queue.  The thread is started by the first span of a process, and so never before a fork;
it sleeps until there is something to send.  What cannot be sent is counted, and memory stays as it is.
"""

from __future__ import annotations

import contextlib
import mmap
import threading

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from celery_obs.compat.opentelemetry import suppress_key

from .configuration import Batching


__all__ = ["NOT_EXPORTED", "QUEUE_FULL", "Health", "Pipeline"]


QUEUE_FULL: Final = "spans_queue_full"
NOT_EXPORTED: Final = "spans_not_exported"

# What instrumentations of HTTP clients look at, lest they trace the sending of traces; the SDK's own exporters set it in the same way.
_SUPPRESS: Final = suppress_key()


class Health:
    """
    What a worker's processes know together of the collector: whether it is worth waiting for.

    A pool that recycles its processes often would stand still if each of them waited a second for a collector that is away.
    So who waited in vain leaves word, and for a while, longer each time, those that end leave at once.

    Forks: shared with all children, through memory that they inherit.
    """

    _FIRST, _LONGEST = 1.0, 30.0

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock  # The system's, so the same in all processes.
        self._words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    def is_worth_waiting(self) -> bool:
        """
        Tell whether the collector may be expected to answer.
        """
        return self._clock() >= self._words[0]

    def failed(self) -> None:
        """
        Note that it did not answer, or not well.
        """
        now = self._clock()
        if now >= self._words[0]:
            pause = min(max(self._FIRST, 2 * self._words[1]), self._LONGEST)
            self._words[1] = pause
            self._words[0] = now + pause

    def succeeded(self) -> None:
        """
        Note that it did.
        """
        if self._words[1]:
            self._words[0] = self._words[1] = 0.0


class Pipeline(SpanProcessor):
    """
    Send spans in batches.

    Args:
        make_exporter: Makes what sends them, given its time limit in seconds, or None for the user's; called in the thread, in the process that sends.

        batching: How many are kept and sent at once.

        on_drop: Hears why so many will not arrive.

        health: Of the collector.

    Threads: safe.  Forks: of no use in a child, which needs one of its own.
    """

    def __init__(
        self,
        make_exporter: Callable[[float | None], SpanExporter],
        *,
        batching: Batching,
        on_drop: Callable[[str, int], object],
        health: Health,
    ) -> None:
        self._make_exporter = make_exporter
        self._most, self._batch, self._delay = batching
        self._on_drop = on_drop
        self._health = health
        self._queue: deque[ReadableSpan] = deque()
        self._overflown = 0
        self._in_hand = 0
        self._exporter: SpanExporter | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._something = threading.Event()
        self._enough = threading.Event()
        self._empty = threading.Event()

    # -- called by makers of spans -----------------------------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """
        Do nothing.
        """

    def on_end(self, span: ReadableSpan) -> None:
        """
        Take a span that ended, or count it where there is no room.
        """
        queue = self._queue
        if len(queue) >= self._most:
            self._overflown += 1
            return
        queue.append(span)
        if not self._something.is_set():
            self._something.set()
            if self._thread is None:
                self._start()
        elif len(queue) >= self._batch and not self._enough.is_set():
            self._enough.set()

    def _start(self) -> bool:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="celery_obs-traces", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # The interpreter is about to end: no threads any more, since Python 3.12.
                    return False
                self._thread = thread
        return True

    # -- the thread -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        contexts.attach(Context({_SUPPRESS: True}))
        while True:
            self._something.wait()
            self._enough.wait(self._delay)
            self._enough.clear()
            self._something.clear()  # First, so that what comes while this sends is seen.
            self._empty.clear()
            self._send_all(None)
            self._empty.set()

    def _send_all(self, timeout: float | None) -> None:
        with self._sending:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
                self._in_hand = len(batch)
                sent = self._send(batch, timeout)
                in_hand, self._in_hand = self._in_hand, 0
                if sent:
                    self._health.succeeded()
                else:
                    self._health.failed()
                    self._count(NOT_EXPORTED, in_hand)  # 0 where a flush has given it up by now, and has counted it.
            overflown, self._overflown = self._overflown, 0
            self._count(QUEUE_FULL, overflown)

    def _send(self, batch: list[ReadableSpan], timeout: float | None) -> bool:
        try:
            if timeout is not None:
                return self._make_exporter(timeout).export(batch) is SpanExportResult.SUCCESS
            if self._exporter is None:
                self._exporter = self._make_exporter(None)
            return self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:  # noqa: BLE001 -- a user's exporter; what it did not send is counted.
            return False

    def _count(self, reason: str, number: int) -> None:
        if number:
            self._on_drop(reason, number)

    # -- the end --------------------------------------------------------------------------------------------------------

    def flush(self, within: float, *, is_last: bool = True, may_skip: bool = False) -> bool:
        """
        Send what is left; return whether all of it was sent.

        Args:
            within: Seconds that this may take.

            is_last: Whether the process ends: what was not sent by then is counted as lost.

            may_skip: Whether not to wait at all for a collector that others waited for in vain.
        """
        until = monotonic() + within
        if (self._queue or self._in_hand) and (self._health.is_worth_waiting() or not may_skip):
            self._flush(until)
        left = len(self._queue) + self._in_hand
        if is_last:
            self._give_up()
        return not left

    def _flush(self, until: float) -> None:
        if self._thread is None and not self._start():
            self._send_all(max(0.05, until - monotonic()))
            return
        while self._queue or self._in_hand:
            self._empty.clear()
            self._something.set()
            self._enough.set()
            if not self._empty.wait(max(0.0, min(0.05, until - monotonic()))) and monotonic() >= until:
                self._health.failed()
                return

    def _give_up(self) -> None:
        lost = self._in_hand
        self._in_hand = 0
        while self._queue:
            self._queue.popleft()
            lost += 1
        overflown, self._overflown = self._overflown, 0
        self._count(NOT_EXPORTED, lost)
        self._count(QUEUE_FULL, overflown)
        # One that tries again and again would go on in a program that does: in a test's, after the test.
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            with contextlib.suppress(Exception):
                exporter.shutdown()

    def shutdown(self) -> None:
        """
        Send what is left, within a second.
        """
        self.flush(1.0)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """
        Send what is left within so many milliseconds.
        """
        return self.flush(timeout_millis / 1000, is_last=False)
