"""
What tasks use of processors and memory: how it is shared out.
"""

from __future__ import annotations

import math
import os
import random

from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.areas.tasks import usage as module
from celery_obs.areas.tasks.collector import UsageCollector
from celery_obs.areas.tasks.usage import Look, Totals, Usage, look_at, shares
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.recorder.attempt_log import Spell, Work


FOREVER = math.inf
SPELLS = st.lists(
    st.builds(
        lambda task, began, took: Spell(task, float(began), began + took),
        st.sampled_from("abc"),
        st.integers(0, 100),
        st.sampled_from([0.0, 1.0, 10.0, FOREVER]),
    ),
    max_size=10,
)


@given(spells=SPELLS, begin=st.integers(0, 100).map(float), took=st.integers(0, 50))
def test_all_that_a_process_used_is_shared_out_among_what_it_was_at(spells: list[Spell], begin: float, took: int) -> None:
    """
    The shares are those of the time that each task was there, and make one whole; or there are none, where it was at nothing.
    """
    end = begin + took
    parts = shares(spells, begin, end)

    there = {spell.task for spell in spells if min(spell.ended_at, end) > max(spell.began_at, begin)}
    assert parts.keys() == there
    assert not parts or math.isclose(sum(parts.values()), 1.0)
    assert all(part > 0 for part in parts.values())


class Log:
    """
    A log that tells, one look after the other, what it is given.
    """

    def __init__(self, *looks: list[Work]) -> None:
        self._looks = iter(looks)
        self.asked: list[Mapping[tuple[str, int], int]] = []

    def work(self, seen: Mapping[tuple[str, int], int]) -> Iterator[Work]:
        self.asked.append(dict(seen))
        return iter(next(self._looks))


def added(log: Log, looks: list[Look | None], *, at: list[float]) -> Mapping[str, Totals]:
    """
    Look as often as there are looks, at these times, and return what came together.
    """
    seen, times = iter(looks), iter(at)
    usage = Usage(log, look=lambda _: next(seen), clock=lambda: next(times))  # type: ignore[arg-type]  # As much of a log as it uses.
    for _ in at:
        usage.step()
    return usage.totals


def work(*spells: Spell, pid: int = 7, written: int = 0) -> Work:
    """
    What the one process did.
    """
    return Work("w@h", 1, pid, written, list(spells))


def test_what_one_task_used_is_its_own() -> None:
    """
    Between two looks the process was at one task alone: the time is its own.
    """
    log = Log([work()], [work(Spell("a", 10.2, FOREVER))], [work(Spell("a", 10.2, 11.5), Spell("b", 11.5, FOREVER))])

    totals = added(log, [Look(1.0, 0.1, 0), Look(1.8, 0.2, 0), Look(2.8, 0.2, 0)], at=[10.0, 11.0, 12.0])

    assert [(task, round(used.cpu, 9), round(used.delay, 9), used.runs) for task, used in totals.items()] == [
        ("a", 1.3, 0.1, 1),
        ("b", 0.5, 0.0, 0),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_task_that_leaks_is_named_within_twenty_runs_among_fifty_others(seed: int) -> None:
    """
    Twenty of 300 short runs leak 10 MB each, unseen within the second in which fifteen others take longer: its task stands out, and is about right.
    """
    chance = random.Random(seed)
    names = ["leak"] * 20 + [f"some-{number % 50}" for number in range(280)]
    chance.shuffle(names)
    totals: dict[str, Totals] = {}
    for at in range(0, 300, 15):
        runs = Counter(names[at : at + 15])
        gained = runs["leak"] * 10_000_000 + chance.randint(-300_000, 300_000)
        module._learn_gains(totals, runs, gained)

    first, second = sorted(totals, key=lambda task: -totals[task].growth)[:2]
    assert first == "leak"
    assert totals["leak"].growth > 3 * totals[second].growth
    assert 0.4 < totals["leak"].growth / 200_000_000 < 1.3


@given(gains=st.lists(st.integers(-1000, 1000), min_size=3, max_size=3), seed=st.integers(0, 100))
def test_what_a_run_adds_is_learned_from_sums(gains: list[int], seed: int) -> None:
    """
    From nothing but how often each task ran and what their process gained altogether, what each run adds is found.
    """
    chance, totals = random.Random(seed), dict[str, Totals]()
    for _ in range(400):
        runs = Counter({task: number for task in "abc" if (number := chance.randint(0, 3))})
        module._learn_gains(totals, runs, sum(gains["abc".index(task)] * number for task, number in runs.items()))

    assert all(math.isclose(totals[task].gain, gain, abs_tol=1.0) for task, gain in zip("abc", gains, strict=True))


def test_another_process_in_the_same_place_begins_anew() -> None:
    """
    What a recycled process used is not taken for less, nor its successor's beginning for use.
    """
    spell = Spell("a", 0.0, FOREVER)
    log = Log([work(spell)], [work(spell, pid=8)], [], [work(spell, pid=8)])

    totals = added(log, [Look(9.0, 0.0, 10), Look(1.0, 0.0, 99), Look(5.0, 0.0, 99)], at=[1.0, 2.0, 4.0])

    assert totals == {}


def test_a_process_that_is_gone_is_passed_over_and_asked_for_from_where_it_was() -> None:
    """
    It costs nothing but its own last second.
    """
    log = Log([work(written=5)], [work(written=9)], [work(written=9)])

    added(log, [Look(1.0, 0.0, 0), None, Look(1.0, 0.0, 0)], at=[1.0, 2.0, 3.0])

    assert [{}, {("w@h", 1): 5}, {("w@h", 1): 9}] == log.asked


def test_tasks_without_end_share_one_name() -> None:
    """
    Beyond so many names all that is used is that of ``_other``.
    """
    totals: dict[str, Totals] = {}
    for number in range(module._MOST_TASKS + 10):
        module._add_time(totals, {f"task-{number}": 1.0}, 1.0, 0.0)

    assert len(totals) == module._MOST_TASKS + 1
    assert totals["_other"].cpu == 10.0


def test_a_look_is_what_the_system_says() -> None:
    """
    Of this process there is something to tell, of none nothing.
    """
    found = look_at(os.getpid())

    assert found is not None
    assert found.memory > 1 << 20
    assert abs(found.cpu - sum(os.times()[:2])) < 0.5
    assert look_at(1 << 30) is None


def test_the_page_has_a_line_for_each_task() -> None:
    """
    Three families; a look that fails is counted, and the page goes on.
    """
    errors = InternalErrors()
    usage = Usage(Log())  # type: ignore[arg-type]  # As above.
    usage.totals = {"a": Totals(1.5, 0.25, 2, -2048.0)}
    collector = UsageCollector(usage, errors=errors, period=0.001)

    text = collector.collect().text

    assert 'celery_task_cpu_seconds_total{task="a"} 1.5\n' in text
    assert 'celery_task_cpu_delay_seconds_total{task="a"} 0.25\n' in text
    assert 'celery_task_memory_growth_bytes{task="a"} -4096.0\n' in text
    collector._asked_at = -1e9  # Nothing asks any more: the thread ends.
    assert collector._thread is not None
    collector._thread.join(5)
    assert not collector._thread.is_alive()
    assert errors.snapshot().keys() <= {"usage"}
