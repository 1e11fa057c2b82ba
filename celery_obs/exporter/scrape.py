"""
The scrape runner: every collector in a thread of its own, each with a deadline, so that none can delay or spoil the page.
"""

from __future__ import annotations

import logging
import threading
import time

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, Protocol, TypeVar

from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.clock import Clock
from celery_obs.telemetry.redaction import reason, without_secrets
from celery_obs.throttle import LogThrottle

from .exposition import EMPTY, Page, family, merge, render


__all__ = ["BackgroundJob", "Collector", "InternalErrors", "JobState", "LeaderGate", "Runner"]


DEADLINE: Final = 0.5
"""
Seconds that a scrape waits for a collector with a network behind it.
"""

INLINE_DEADLINE: Final = 0.8
"""
Seconds that a scrape waits for a collector that reads files only: a busy machine should not hide the tasks.
"""

STALE_AFTER: Final = 60.0
"""
Seconds for which a collector's last good page is served in place of a new one.
"""

_OFTEN_ENOUGH: Final = 15.0

log = logging.getLogger("celery_obs.exporter")

T = TypeVar("T")


class Collector(Protocol):
    """
    Something that can be scraped.

    Attributes:
        name: A fixed word, the ``collector`` label of the metrics about it.

    A collector with a true attribute ``inline`` uses no network; the scrape is a little more patient with it.
    One with a true attribute ``shared`` shows what all exporters would show; where there is a gate, it is run while that is open only.
    """

    @property
    def name(self) -> str: ...

    def collect(self) -> Page:
        """
        Return what is to be shown now.  Blocks; is never called twice at once; may raise anything.
        """


class LeaderGate(Protocol):
    """
    Lets one exporter at a time show what is shared.
    """

    def epoch(self) -> int | None:
        """
        Return the number of the time for which it is open, another one each time; None while it is closed.  Never blocks.
        """

    def holder(self) -> str:
        """
        Name the one for whom it is open; empty where none is known.  Never blocks.
        """


class InternalErrors:
    """
    Counts of what went wrong in the exporter, by component; any thread may add to them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, component: str, times: int = 1) -> None:
        with self._lock:
            self._counts[component] += times

    def snapshot(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._counts)


@dataclass(frozen=True, slots=True)
class JobState(Generic[T]):
    """
    How things stand with a job that runs again and again.

    Attributes:
        value: What the last run that succeeded returned; None before.

        ok: Whether the last run that ended succeeded.  A run that is late counts as failed for as long as it is late.

        duration: Seconds that the last run took, or takes so far when it is late.

        succeeded_at: When the last good run ended, by the job's clock; None before.

        error: The last failure in words; empty after a success.
    """

    value: T | None
    ok: bool
    duration: float
    succeeded_at: float | None
    error: str


class BackgroundJob(Generic[T]):
    """
    One job in one thread: asked for by many, run once at a time, waited for up to a deadline.

    Args:
        name: What the thread is called.

        job: What to run.

        on_error: Told of every exception of the job, in the job's thread.
    """

    def __init__(self, name: str, job: Callable[[], T], *, on_error: Callable[[Exception], None], clock: Clock = time.monotonic) -> None:
        self._name = name
        self._job = job
        self._on_error = on_error
        self._clock = clock
        self._changed = threading.Condition()
        self._wanted = 0
        self._done = 0
        self._started_at: float | None = None
        self._state: JobState[T] = JobState(None, ok=False, duration=0.0, succeeded_at=None, error="has not run yet")
        self._thread: threading.Thread | None = None

    def ask(self) -> int:
        """
        Have the job run, and return a ticket to wait with; a run that is under way serves everybody who asks meanwhile.
        """
        with self._changed:
            if self._wanted == self._done:
                self._wanted += 1
                self._started_at = self._clock()
                if self._thread is None:
                    # A daemon: a job that hangs in the kernel must not keep the process from ending.
                    self._thread = threading.Thread(target=self._run, name=f"celery-obs-{self._name}", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
            return self._wanted

    def wait(self, ticket: int, *, until: float) -> JobState[T]:
        """
        Return how things stand when the run of *ticket* has ended, or at *until* by the clock, whichever comes first.
        """
        with self._changed:
            while self._done < ticket:
                left = until - self._clock()
                if left <= 0:
                    took = self._clock() - (self._started_at or 0.0)
                    return replace(self._state, ok=False, duration=took, error=f"has not answered for {took:.1f} s")
                self._changed.wait(left)
            return self._state

    def last(self) -> JobState[T]:
        """
        Return how things stand without running anything.
        """
        with self._changed:
            return self._state

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._wanted == self._done:
                    self._changed.wait()
            begin = self._clock()
            try:
                value = self._job()
            except Exception as error:  # noqa: BLE001 -- one of the two places: a collector never spoils the scrape.
                self._on_error(error)
                end = self._clock()
                state = replace(self._state, ok=False, duration=end - begin, error=_in_words(error))
            else:
                end = self._clock()
                state = JobState(value, ok=True, duration=end - begin, succeeded_at=end, error="")
            with self._changed:
                self._state = state
                self._done = self._wanted
                self._changed.notify_all()


class Runner:
    """
    Runs the collectors for each scrape and makes one page of theirs, whatever becomes of any of them.

    Args:
        collectors: In the order in which their families are shown; the earlier wins where two show one series.

        errors: Where failures are counted.

        deadline: Seconds to wait for a collector, for one that is not inline.

        stale_after: Seconds for which the last good page stands in.

        gate: Tells whether this exporter shows what is shared; without one it does.
    """

    def __init__(
        self,
        collectors: Sequence[Collector],
        errors: InternalErrors,
        *,
        deadline: float = DEADLINE,
        inline_deadline: float = INLINE_DEADLINE,
        stale_after: float = STALE_AFTER,
        gate: LeaderGate | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._errors = errors
        self._gate = gate
        self._epoch: tuple[int | None, float] = (None, 0.0)
        self._epoch_lock = threading.Lock()
        self._stale_after = stale_after
        self._clock = clock
        self._throttle = LogThrottle(clock=clock)
        self._jobs: dict[str, BackgroundJob[Page]] = {}
        self._deadlines: dict[str, float] = {}
        self._watched_at: dict[str, float] = {}
        self._inline: set[str] = set()
        self._shared: set[str] = set()
        for collector in collectors:
            name = collector.name
            self._jobs[name] = BackgroundJob(name, collector.collect, on_error=self._reporter(name), clock=clock)
            inline = bool(getattr(collector, "inline", False))
            self._deadlines[name] = inline_deadline if inline else deadline
            if inline:
                self._inline.add(name)
            if getattr(collector, "shared", False):
                self._shared.add(name)

    def states(self) -> Mapping[str, JobState[Page]]:
        """
        Run all collectors whose turn it is and tell how each fared.  Blocks up to the longest deadline.
        """
        return self._run(self._begin_epoch())

    def looked_at(self) -> tuple[Mapping[str, JobState[Page]], tuple[str, ...]]:
        """
        Return how the collectors fared, those included whose turn is another exporter's, and the pages that are good at the moment.

        Blocks as `states` does.  What another exporter shows is collected here a few times a minute at most, for it costs the broker.
        """
        epoch = self._begin_epoch()
        states = dict(self._run(epoch))
        asked_at = self._clock()
        for name in self._shared - states.keys():
            last = self._jobs[name].last()
            if last.succeeded_at is None or asked_at - last.succeeded_at > _OFTEN_ENOUGH:
                last = self._jobs[name].wait(self._jobs[name].ask(), until=asked_at + self._deadlines[name])
            states[name] = last
        now = self._clock()
        good = (each for each in states.values() if each.succeeded_at is not None and now - each.succeeded_at < self._stale_after)
        return states, tuple(each.value.text for each in good if each.value is not None)

    def watched(self, names: Container[str] | None, *, shared_every: float) -> Mapping[str, JobState[Page]]:
        """
        Return how those collectors fare whose *names* are given, or all, for who looks every second.

        What is local is collected now, and waited for.  What is shared is asked for by the leader alone, every *shared_every* seconds and without waiting:
        of it, what is fresh enough is returned.
        """
        epoch = self._begin_epoch()
        begin, leads = self._clock(), self._gate is None or epoch is not None
        tickets = {name: job.ask() for name, job in self._jobs.items() if name not in self._shared and (names is None or name in names)}
        states = {name: self._jobs[name].wait(ticket, until=begin + self._deadlines[name]) for name, ticket in tickets.items()}
        for name in self._shared if leads else ():
            if names is None or name in names:
                last = self._jobs[name].last()
                if begin - max(last.succeeded_at or 0.0, self._watched_at.get(name, 0.0)) >= shared_every:
                    self._watched_at[name] = begin
                    self._jobs[name].ask()
                is_ours = last.succeeded_at is not None and last.succeeded_at >= self._epoch[1]
                if is_ours and begin - (last.succeeded_at or 0.0) < 2 * shared_every:
                    states[name] = last
        return states

    def _run(self, epoch: int | None) -> Mapping[str, JobState[Page]]:
        asked_at = self._clock()
        closed = self._shared if self._gate is not None and epoch is None else set()
        tickets = {name: job.ask() for name, job in self._jobs.items() if name not in closed}
        return {name: self._jobs[name].wait(ticket, until=asked_at + self._deadlines[name]) for name, ticket in tickets.items()}

    def scrape(self, *, openmetrics: bool) -> str:
        """
        Return the whole body of ``/metrics``.  Blocks up to the longest deadline; never raises because of a collector.
        """
        epoch = self._begin_epoch()
        states = self._run(epoch)
        # Asked again as late as can be: a process that was stopped on its way here may have lost its turn.
        open_all_along = self._gate is None or (epoch is not None and self._gate.epoch() == epoch)
        if not open_all_along:
            states = self._without_shared(states)
        now = self._clock()
        pages = [self._page(name, state, now) for name, state in states.items() if open_all_along or name not in self._shared]
        pages.append(self._about(states, now, leads=open_all_along))
        merged = merge(page.openmetrics if openmetrics else page.text for page in pages)
        if merged.dropped:
            self._errors.count("duplicate_family", merged.dropped)
            if self._throttle.allows("duplicate_family"):
                log.warning("Two collectors show the same series; %d were left out.", merged.dropped)
        size = render([family(ourselves.PAGE_SAMPLES, [((), float(_samples_in(merged.body) + 1))])])
        return f"{merged.body}{size.openmetrics}# EOF\n" if openmetrics else merged.body + size.text

    def has_run(self, states: Mapping[str, JobState[Page]]) -> bool:
        """
        Tell whether every collector that needs no network has succeeded at least once.
        """
        return all(states[name].succeeded_at is not None for name in self._inline)

    def _begin_epoch(self) -> int | None:
        """
        Return the gate's epoch, and remember when it began for us: what we collected in an earlier one is older than what others showed since.
        """
        if self._gate is None:
            return None
        with self._epoch_lock:
            epoch = self._gate.epoch()
            if epoch != self._epoch[0]:
                self._epoch = (epoch, self._clock())
        return epoch

    def _without_shared(self, states: Mapping[str, JobState[Page]]) -> Mapping[str, JobState[Page]]:
        """
        Leave out what another one answers for; where no exporter is known to, say that these collectors fail, and since when.
        """
        if self._gate is None or self._gate.holder():
            return {name: state for name, state in states.items() if name not in self._shared}
        silent = {name: replace(self._jobs[name].last(), ok=False, error="no exporter holds the lease") for name in self._shared}
        return {**states, **silent}

    def _page(self, name: str, state: JobState[Page], now: float) -> Page:
        if state.value is None or state.succeeded_at is None:
            return EMPTY
        if name in self._shared and state.succeeded_at < self._epoch[1]:
            return EMPTY
        return state.value if now - state.succeeded_at < self._stale_after else EMPTY

    def _about(self, states: Mapping[str, JobState[Page]], now: float, *, leads: bool) -> Page:
        ages = ((name, state.succeeded_at) for name, state in states.items())
        return render(
            [
                family(ourselves.COLLECTOR_SUCCESS, (((name,), float(state.ok)) for name, state in states.items())),
                family(ourselves.COLLECTOR_DURATION, (((name,), state.duration) for name, state in states.items())),
                family(ourselves.COLLECTOR_AGE, (((name,), max(0.0, now - since)) for name, since in ages if since is not None)),
                family(ourselves.LEADER, [] if self._gate is None else [((), float(leads))]),
            ]
        )

    def _reporter(self, name: str) -> Callable[[Exception], None]:
        def report(error: Exception) -> None:
            self._errors.count(f"collector:{name}")
            if self._throttle.allows(name, type(error).__name__):
                log.warning(
                    "The collector %s failed: %s",
                    name,
                    _in_words(error),
                    exc_info=without_secrets(error) if log.isEnabledFor(logging.DEBUG) else None,
                )

        return report


def _samples_in(body: str) -> int:
    """
    Count the lines of *body*, which all end, that are no comments.
    """
    return body.count("\n") - body.count("\n#") - body.startswith("#")


def _in_words(error: Exception) -> str:
    name, words = type(error).__name__, reason(error)
    return name if words == name else f"{name}: {words}"
