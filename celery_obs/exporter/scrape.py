"""
The scrape runner: every collector in a thread of its own, each with a deadline, so that none can delay or spoil the page.
"""

from __future__ import annotations

import logging
import threading
import time

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, Protocol, TypeVar

from celery_obs.areas.sidecar import metrics as ourselves
from celery_obs.clock import Clock
from celery_obs.telemetry.redaction import reason, without_secrets

from .exposition import EMPTY, Page, family, merge, render


__all__ = ["Collector", "Gate", "InternalErrors", "Lane", "Outcome", "Runner", "Said"]


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


class Gate(Protocol):
    """
    Lets one exporter at a time show what is shared.
    """

    def term(self) -> int | None:
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


class Said:
    """
    Remembers what was said lately, so that the log gets it once a minute at most.

    What is said may come from a spoiled file or a stranger's request, so no more than *most* are remembered: the oldest are forgotten first.
    """

    def __init__(self, *, every: float = 60.0, most: int = 1000, clock: Clock = time.monotonic) -> None:
        self._every = every
        self._most = most
        self._clock = clock
        self._last: dict[tuple[str, ...], float] = {}  # The oldest first.
        self._lock = threading.Lock()

    def is_news(self, *what: str) -> bool:
        """
        Tell whether *what* was not said within the last minute, and take it for said now.
        """
        now = self._clock()
        with self._lock:
            last = self._last.get(what)
            if last is not None and now - last < self._every:
                return False
            self._last.pop(what, None)
            self._last[what] = now
            while len(self._last) > self._most:
                del self._last[next(iter(self._last))]
            return True


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """
    How things stand with a job that runs again and again.

    Attributes:
        value: What the last run that succeeded returned; None before.

        ok: Whether the last run that ended succeeded.  A run that is late counts as failed for as long as it is late.

        duration: Seconds that the last run took, or takes so far when it is late.

        succeeded_at: When the last good run ended, by the lane's clock; None before.

        error: The last failure in words; empty after a success.
    """

    value: T | None
    ok: bool
    duration: float
    succeeded_at: float | None
    error: str


class Lane(Generic[T]):
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
        self._outcome: Outcome[T] = Outcome(None, ok=False, duration=0.0, succeeded_at=None, error="has not run yet")
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

    def wait(self, ticket: int, *, until: float) -> Outcome[T]:
        """
        Return how things stand when the run of *ticket* has ended, or at *until* by the clock, whichever comes first.
        """
        with self._changed:
            while self._done < ticket:
                left = until - self._clock()
                if left <= 0:
                    took = self._clock() - (self._started_at or 0.0)
                    return replace(self._outcome, ok=False, duration=took, error=f"has not answered for {took:.1f} s")
                self._changed.wait(left)
            return self._outcome

    def last(self) -> Outcome[T]:
        """
        Return how things stand without running anything.
        """
        with self._changed:
            return self._outcome

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
                outcome = replace(self._outcome, ok=False, duration=end - begin, error=_in_words(error))
            else:
                end = self._clock()
                outcome = Outcome(value, ok=True, duration=end - begin, succeeded_at=end, error="")
            with self._changed:
                self._outcome = outcome
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
        gate: Gate | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._errors = errors
        self._gate = gate
        self._term: tuple[int | None, float] = (None, 0.0)
        self._term_lock = threading.Lock()
        self._stale_after = stale_after
        self._clock = clock
        self._said = Said(clock=clock)
        self._lanes: dict[str, Lane[Page]] = {}
        self._deadlines: dict[str, float] = {}
        self._inline: set[str] = set()
        self._shared: set[str] = set()
        for collector in collectors:
            name = collector.name
            self._lanes[name] = Lane(name, collector.collect, on_error=self._reporter(name), clock=clock)
            inline = bool(getattr(collector, "inline", False))
            self._deadlines[name] = inline_deadline if inline else deadline
            if inline:
                self._inline.add(name)
            if getattr(collector, "shared", False):
                self._shared.add(name)

    def outcomes(self) -> Mapping[str, Outcome[Page]]:
        """
        Run all collectors whose turn it is and tell how each fared.  Blocks up to the longest deadline.
        """
        return self._run(self._begin_term())

    def looked_at(self) -> tuple[Mapping[str, Outcome[Page]], tuple[str, ...]]:
        """
        Return how the collectors fared, those included whose turn is another exporter's, and the pages that are good at the moment.

        Blocks as `outcomes` does.  What another exporter shows is collected here a few times a minute at most, for it costs the broker.
        """
        term = self._begin_term()
        outcomes = dict(self._run(term))
        asked_at = self._clock()
        for name in self._shared - outcomes.keys():
            last = self._lanes[name].last()
            if last.succeeded_at is None or asked_at - last.succeeded_at > _OFTEN_ENOUGH:
                last = self._lanes[name].wait(self._lanes[name].ask(), until=asked_at + self._deadlines[name])
            outcomes[name] = last
        now = self._clock()
        good = (each for each in outcomes.values() if each.succeeded_at is not None and now - each.succeeded_at < self._stale_after)
        return outcomes, tuple(each.value.text for each in good if each.value is not None)

    def _run(self, term: int | None) -> Mapping[str, Outcome[Page]]:
        asked_at = self._clock()
        closed = self._shared if self._gate is not None and term is None else set()
        tickets = {name: lane.ask() for name, lane in self._lanes.items() if name not in closed}
        return {name: self._lanes[name].wait(ticket, until=asked_at + self._deadlines[name]) for name, ticket in tickets.items()}

    def scrape(self, *, openmetrics: bool) -> str:
        """
        Return the whole body of ``/metrics``.  Blocks up to the longest deadline; never raises because of a collector.
        """
        term = self._begin_term()
        outcomes = self._run(term)
        # Asked again as late as can be: a process that was stopped on its way here may have lost its turn.
        open_all_along = self._gate is None or (term is not None and self._gate.term() == term)
        if not open_all_along:
            outcomes = self._without_shared(outcomes)
        now = self._clock()
        pages = [self._page(name, outcome, now) for name, outcome in outcomes.items() if open_all_along or name not in self._shared]
        pages.append(self._about(outcomes, now, leads=open_all_along))
        merged = merge(page.openmetrics if openmetrics else page.text for page in pages)
        if merged.dropped:
            self._errors.count("duplicate_family", merged.dropped)
            if self._said.is_news("duplicate_family"):
                log.warning("Two collectors show the same series; %d were left out.", merged.dropped)
        size = render([family(ourselves.PAGE_SAMPLES, [((), float(_samples_in(merged.body) + 1))])])
        return f"{merged.body}{size.openmetrics}# EOF\n" if openmetrics else merged.body + size.text

    def has_run(self, outcomes: Mapping[str, Outcome[Page]]) -> bool:
        """
        Tell whether every collector that needs no network has succeeded at least once.
        """
        return all(outcomes[name].succeeded_at is not None for name in self._inline)

    def _begin_term(self) -> int | None:
        """
        Return the gate's term, and remember when it began for us: what we collected in an earlier one is older than what others showed since.
        """
        if self._gate is None:
            return None
        with self._term_lock:
            term = self._gate.term()
            if term != self._term[0]:
                self._term = (term, self._clock())
        return term

    def _without_shared(self, outcomes: Mapping[str, Outcome[Page]]) -> Mapping[str, Outcome[Page]]:
        """
        Leave out what another one answers for; where no exporter is known to, say that these collectors fail, and since when.
        """
        if self._gate is None or self._gate.holder():
            return {name: outcome for name, outcome in outcomes.items() if name not in self._shared}
        silent = {name: replace(self._lanes[name].last(), ok=False, error="no exporter holds the lease") for name in self._shared}
        return {**outcomes, **silent}

    def _page(self, name: str, outcome: Outcome[Page], now: float) -> Page:
        if outcome.value is None or outcome.succeeded_at is None:
            return EMPTY
        if name in self._shared and outcome.succeeded_at < self._term[1]:
            return EMPTY
        return outcome.value if now - outcome.succeeded_at < self._stale_after else EMPTY

    def _about(self, outcomes: Mapping[str, Outcome[Page]], now: float, *, leads: bool) -> Page:
        ages = ((name, outcome.succeeded_at) for name, outcome in outcomes.items())
        return render(
            [
                family(ourselves.COLLECTOR_SUCCESS, (((name,), float(outcome.ok)) for name, outcome in outcomes.items())),
                family(ourselves.COLLECTOR_DURATION, (((name,), outcome.duration) for name, outcome in outcomes.items())),
                family(ourselves.COLLECTOR_AGE, (((name,), max(0.0, now - since)) for name, since in ages if since is not None)),
                family(ourselves.LEADER, [] if self._gate is None else [((), float(leads))]),
            ]
        )

    def _reporter(self, name: str) -> Callable[[Exception], None]:
        def report(error: Exception) -> None:
            self._errors.count(f"collector:{name}")
            if self._said.is_news(name, type(error).__name__):
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
