"""
Schedules while beat is killed, restarted and locked out: what is shown against two ledgers of what was fired, for every known scheduler at once.
"""

from __future__ import annotations

import signal
import sqlite3
import time

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_obs.areas.schedules.metrics import ENTRY_DUE, ENTRY_LAST_FIRED, ENTRY_OVERDUE, HEARTBEAT, SUCCEEDED_ENTRY
from celery_obs.areas.sidecar.metrics import INTERNAL_ERRORS
from celery_obs.areas.workers.collector import WorkersCollector
from celery_obs.exporter.scrape import InternalErrors
from tests.rules.promtool import run_tests
from tests.servers import wait_until
from tests.workers import Process, samples_in

from .schedules import Schedules, says


pytestmark = pytest.mark.integration

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules" / "alerts-beat.yml"
PERIODS = {"2 s": 2.0, "20 s": 20.0, "60 s": 60.0, "cron": "minute", "hourly": 3600.0}
SCRAPES = 0.5
RECORDED = 5
"""
Seconds between two scrapes, and between two that are recorded for Prometheus.
"""

AFTERWARDS = 17 * 60
"""
Seconds for which the clock is moved on when beat is gone for good.
"""

Page = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Eye:
    """
    What a sidecar on one metrics directory shows, now or later.
    """

    def __init__(self, metrics_dir: Path) -> None:
        self.metrics_dir = metrics_dir
        self.later = 0.0
        self._collector = WorkersCollector(metrics_dir, errors=InternalErrors(), clock=lambda: time.time() + self.later)

    def scrape(self) -> Page:
        """
        Return all samples; none before the directory is there.
        """
        return samples_in(self._collector.collect().text) if self.metrics_dir.exists() else {}


def of(pages: Iterable[Page], metric: str, entry: str) -> list[float]:
    return [value for page in pages for (name, labels), value in page.items() if name == metric and ("entry", entry) in labels]


class Played:
    """
    One scheduler, its beats, and what happens to them.

    Args:
        schedules: The stage.

        scheduler: Which one.

        seconds: For how long it plays.
    """

    def __init__(self, schedules: Schedules, scheduler: str, seconds: float) -> None:
        self.schedules = schedules
        self.scheduler = scheduler
        self.entries = {f"{scheduler} {name}": period for name, period in PERIODS.items()}
        self.eyes = [Eye(schedules.folder / f"{scheduler}-{number}") for number in range(2 if scheduler == "redbeat" else 1)]
        self.beats: list[Process] = []
        self.since: list[float] = []
        self.started = time.time()
        self.was_shown = False
        self.locked: sqlite3.Connection | None = None
        for number in range(len(self.eyes)):
            self.beats.append(self._beat(number))
            self.since.append(time.time())
        self._story = self._events(seconds)
        self._next = next(self._story)

    def _beat(self, number: int) -> Process:
        eye = self.eyes[number]
        return self.schedules.beat_of(self.scheduler, name=eye.metrics_dir.name, metrics_dir=eye.metrics_dir, ENTRIES=repr(self.entries))

    def _events(self, seconds: float) -> Iterator[tuple[float, Callable[[], None]]]:
        """
        Go through what happens, each with the part of the time after which it does; the last beats are back long before the end.
        """
        leader = 0
        yield 0.15 * seconds, lambda: self._end(leader, signal.SIGKILL)
        yield 0.15 * seconds + 3, lambda: self._restart(leader)
        yield 0.4 * seconds, self._lock_out
        yield 0.4 * seconds + 3, self._let_in
        leader = 1 if len(self.beats) > 1 else 0
        yield 0.55 * seconds, lambda: self._end(leader, signal.SIGTERM)
        yield 0.55 * seconds + 3, lambda: self._restart(leader)
        yield float("inf"), lambda: None

    def play(self, passed: float) -> None:
        """
        Let happen what is to happen by now.
        """
        while passed >= self._next[0]:
            self._next[1]()
            self._next = next(self._story)

    def _end(self, number: int, how: signal.Signals) -> None:
        self.beats[number].stop(how)
        self.since[number] = float("inf")

    def _restart(self, number: int) -> None:
        self.beats[number] = self._beat(number)
        self.since[number] = time.time()

    def _lock_out(self) -> None:
        if self.scheduler == "django":
            self.locked = sqlite3.connect(self.schedules.database, timeout=20, isolation_level=None)
            self.locked.execute("begin exclusive")

    def _let_in(self) -> None:
        if self.locked is not None:
            self.locked.execute("rollback")
            self.locked.close()
            self.locked = None

    def truth(self, entry: str, now: float, fired: list[float]) -> float:
        """
        Return for how long an entry is overdue by the ledger.  Before its first firing RedBeat takes it for due at once.
        """
        period = self.entries[entry]
        if not fired:
            return max(0.0, now - self.started)
        due = fired[-1] + period if isinstance(period, float) else (fired[-1] // 60 + 1) * 60
        return max(0.0, now - due)

    def check(self, pages: list[Page], before: float, after: float, fired: dict[str, list[float]]) -> None:
        """
        Hold a scrape against the ledger: *fired* is what the receiver had noted before the scrape began.
        """
        shown = {entry for entry in self.entries if of(pages, ENTRY_DUE.name, entry)}
        self.was_shown = self.was_shown or shown == self.entries.keys()
        assert not self.was_shown or shown == self.entries.keys(), shown
        for entry in self.entries:
            late = min(of(pages, ENTRY_OVERDUE.name, entry), default=0.0)
            assert late <= self.truth(entry, after, fired[entry]) + 2.0, (entry, late, self.truth(entry, after, fired[entry]))
        for page in pages:
            assert {} == {sample: n for sample, n in page.items() if sample[0] == INTERNAL_ERRORS.name and n}
        for beat, eye, since in zip(self.beats, self.eyes, self.since, strict=True):
            if before - since > 20 and beat.is_alive():
                healthy, sentence = says("liveness", eye.metrics_dir, max_age=5.0)
                assert healthy, sentence


class Recording:
    """
    What Prometheus would have scraped, as promtool reads it.
    """

    def __init__(self) -> None:
        self.base = time.time()
        self.series: dict[str, list[str]] = {}
        self.length = 0

    def add(self, pages: dict[str, Page]) -> None:
        """
        Record one scrape of all sidecars.
        """
        for instance, page in pages.items():
            for (name, labels), value in page.items():
                if name in {metric.name for metric in (HEARTBEAT, ENTRY_DUE, ENTRY_LAST_FIRED, ENTRY_OVERDUE, SUCCEEDED_ENTRY)}:
                    written = ",".join(f'{label}="{text}"' for label, text in (*labels, ("instance", instance), ("job", "celery-obs")))
                    values = self.series.setdefault(f"{name}{{{written}}}", [])
                    values += ["_"] * (self.length - len(values))
                    values.append(repr(value - self.base if "timestamp" in name else value))
        self.length += 1

    def as_test(self, expected: list[dict[str, Any]]) -> dict[str, Any]:
        """
        Return it with what is to be heard.
        """
        series = [
            {"series": name, "values": " ".join(values + ["_"] * (self.length - len(values)))} for name, values in self.series.items()
        ]
        return {"interval": f"{RECORDED}s", "input_series": series, "promql_expr_test": expected}


HEARD = 'count by (alertname, entry) (ALERTS{alertstate="firing"})'


@pytest.mark.parametrize("seconds", [24.0, pytest.param(600.0, marks=pytest.mark.faults)])
def test_what_is_shown_is_what_the_ledgers_have_whatever_happens_to_beat(schedules: Schedules, seconds: float, tmp_path: Path) -> None:
    """
    While beats are killed, restarted and locked out, nothing is shown as later than it is, every entry is there at every scrape, what was fired last is what
    the ledgers have, and no alert fires; of beats that are gone for good all entries and beat itself are told.
    """
    worker = schedules.worker(app="scheduled")
    eye = Eye(worker.metrics_dir)
    played = [Played(schedules, scheduler, seconds) for scheduler in ("celery", "django", "redbeat")]
    entries = [entry for each in played for entry in each.entries]
    wait_until(lambda: all(schedules.times("sent", f"{each.scheduler} 2 s") for each in played), within=60, what="all beats to fire")
    recording, began, recorded = Recording(), time.monotonic(), 0.0

    while (passed := time.monotonic() - began) < seconds:
        fired = {entry: schedules.times("sent", entry) for entry in entries}
        pages: dict[str, Page] = {"worker": eye.scrape()}
        for each in played:
            before = time.time()
            mine = {one.metrics_dir.name: one.scrape() for one in each.eyes}
            each.check(list(mine.values()), before, time.time(), fired)
            pages.update(mine)
            each.play(passed)
        if passed >= recorded:
            recording.add(pages)
            recorded += RECORDED
        time.sleep(max(0.0, SCRAPES - (time.monotonic() - began - passed)))

    for each in played:
        for beat in each.beats:
            beat.kill()
    sent = {entry: schedules.times("sent", entry) for entry in entries}
    wait_until(
        lambda: {entry: len(at) for entry, at in sent.items()} == {entry: len(schedules.times("ran", entry)) for entry in entries},
        what="all to have run",
    )
    pages = {one.metrics_dir.name: one.scrape() for each in played for one in each.eyes}
    for entry, at in sent.items():
        # A beat that was killed between the message and the note of it is half a second in a hundred.
        shown = max(of(pages.values(), ENTRY_LAST_FIRED.name, entry), default=None)
        assert (shown is None) == (not at), entry
        assert shown is None or min(abs(shown - one) for one in at[-2:]) < 0.5, (entry, shown, at[-2:])
    succeeded = [eye.scrape()]
    assert {entry for entry, at in sent.items() if at} == {entry for entry in entries if of(succeeded, SUCCEEDED_ENTRY.name, entry)}
    assert {entry for entry in entries if not entry.endswith("hourly")} <= {entry for entry, at in sent.items() if at} or seconds < 60

    quiet: list[dict[str, Any]] = [
        {"expr": HEARD, "eval_time": f"{at}s", "exp_samples": []} for at in range(0, recording.length * RECORDED, 30)
    ]
    gone = recording.length * RECORDED
    for later in range(0, AFTERWARDS, RECORDED):
        for one in (eye, *(one for each in played for one in each.eyes)):
            one.later = later
        recording.add({"worker": eye.scrape(), **{one.metrics_dir.name: one.scrape() for each in played for one in each.eyes}})
    late = [f'{{alertname="CeleryBeatEntryOverdue", entry="{entry}"}}' for entry in entries if not entry.endswith("hourly")]
    loud = [{"labels": labels, "value": 1} for labels in ('{alertname="CeleryBeatStopped"}', *late)]
    wanted: list[dict[str, Any]] = [*quiet, {"expr": HEARD, "eval_time": f"{gone + 16 * 60}s", "exp_samples": loud}]
    result = run_tests([RULES], [recording.as_test(wanted)], tmp_path, every="15s")
    assert 0 == result.returncode, result.stdout + result.stderr
