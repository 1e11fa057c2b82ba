"""
The scrape runner: whatever one collector does, the page is made.
"""

from __future__ import annotations

import logging
import threading
import time

from collections.abc import Callable

import pytest

from prometheus_client.parser import text_string_to_metric_families

from celery_obs.areas.queues import metrics as queues
from celery_obs.exporter.exposition import Page, family, render
from celery_obs.exporter.scrape import InternalErrors, Runner


class Scripted:
    """
    A collector that does what the test says.
    """

    def __init__(self, name: str, does: Callable[[], Page]) -> None:
        self.name = name
        self.does = does
        self.runs = 0

    def collect(self) -> Page:
        self.runs += 1
        return self.does()


def depth(value: float, queue: str = "q") -> Page:
    return render([family(queues.DEPTH, [((queue,), value)])])


def broken() -> Page:
    message = "out of order"
    raise RuntimeError(message)


def samples(text: str) -> dict[str, float]:
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for parsed in text_string_to_metric_families(text)
        for sample in parsed.samples
    }


def test_a_broken_collector_does_not_spoil_the_others() -> None:
    """
    The page has what the good one shows, and says that the other failed.
    """
    errors = InternalErrors()
    runner = Runner([Scripted("bad", broken), Scripted("good", lambda: depth(3))], errors)

    found = samples(runner.scrape(openmetrics=False))

    assert 3 == found["celery_queue_depth{q}"]
    assert 0 == found["celery_obs_collector_success{bad}"]
    assert 1 == found["celery_obs_collector_success{good}"]
    assert "celery_obs_collector_age_seconds{bad}" not in found
    assert {"collector:bad": 1} == errors.snapshot()


def test_a_failure_is_logged_once_a_minute_and_kind(caplog: pytest.LogCaptureFixture) -> None:
    """
    A hundred failing scrapes do not make a hundred lines.
    """
    runner = Runner([Scripted("bad", broken)], InternalErrors())

    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            runner.scrape(openmetrics=False)

    assert ["The collector bad failed: RuntimeError: out of order"] == [record.message for record in caplog.records]


def test_a_hanging_collector_delays_no_further_than_its_deadline() -> None:
    """
    The scrape goes on without it, it is not started a second time meanwhile, and its late page is served afterwards.
    """
    release = threading.Event()

    def hang() -> Page:
        release.wait(10)
        return depth(7)

    hanging = Scripted("slow", hang)
    runner = Runner([hanging, Scripted("good", lambda: depth(1, "other"))], InternalErrors(), deadline=0.05)
    begin = time.monotonic()

    first = samples(runner.scrape(openmetrics=False))
    runner.scrape(openmetrics=False)

    assert time.monotonic() - begin < 1
    assert 1 == hanging.runs
    assert 0 == first["celery_obs_collector_success{slow}"]
    # Its own clock starts a moment after that of the deadline.
    assert first["celery_obs_collector_duration_seconds{slow}"] > 0.04
    assert 1 == first["celery_queue_depth{other}"]

    release.set()
    deadline = time.monotonic() + 5
    while "celery_queue_depth{q}" not in samples(runner.scrape(openmetrics=False)):
        assert time.monotonic() < deadline


def test_the_last_good_page_stands_in_until_it_is_stale() -> None:
    """
    After a failure the old numbers are shown with their age, and after a minute nothing is.
    """
    now = 1000.0
    collector = Scripted("c", lambda: depth(3))
    runner = Runner([collector], InternalErrors(), clock=lambda: now)
    runner.scrape(openmetrics=False)
    collector.does = broken

    now = 1059.0
    young = samples(runner.scrape(openmetrics=False))
    now = 1061.0
    old = samples(runner.scrape(openmetrics=False))

    assert (3, 59) == (young["celery_queue_depth{q}"], young["celery_obs_collector_age_seconds{c}"])
    assert "celery_queue_depth{q}" not in old
    assert 61 == old["celery_obs_collector_age_seconds{c}"]


def test_scrapes_at_the_same_time_share_one_run() -> None:
    """
    Ten scrapers that ask while a collector is busy all get that run's page.
    """
    entered, release = threading.Event(), threading.Event()

    def wait() -> Page:
        entered.set()
        release.wait(10)
        return depth(3)

    collector = Scripted("c", wait)
    runner = Runner([collector], InternalErrors(), deadline=10)
    found: list[str] = []
    scrapers = [threading.Thread(target=lambda: found.append(runner.scrape(openmetrics=False))) for _ in range(10)]
    scrapers[0].start()
    assert entered.wait(5)
    for scraper in scrapers[1:]:
        scraper.start()
    job = runner._jobs["c"]
    assert job._wanted == 1

    release.set()
    for scraper in scrapers:
        scraper.join(5)

    assert 10 == len(found)
    assert collector.runs <= 2


def test_of_a_series_that_two_collectors_show_the_first_stays() -> None:
    """
    Their families become one, the doubled series is left out and counted.
    """
    errors = InternalErrors()
    one = Scripted("one", lambda: depth(1))
    two = Scripted("two", lambda: render([family(queues.DEPTH, [(("q",), 2), (('o"th{e}r # 1 ',), 5)])]))

    body = Runner([one, two], errors).scrape(openmetrics=True)

    assert 1 == body.count("# TYPE celery_queue_depth gauge")
    assert 'celery_queue_depth{queue="q"} 1.0\n' in body
    assert 'celery_queue_depth{queue="o\\"th{e}r # 1 "} 5.0\n' in body
    assert 'celery_queue_depth{queue="q"} 2.0\n' not in body
    assert body.endswith("\n# EOF\n")
    assert {"duplicate_family": 1} == errors.snapshot()


def test_a_family_of_another_type_is_left_out_whole() -> None:
    """
    One name cannot have two types on one page.
    """
    gauge = Page("# HELP x X.\n# TYPE x gauge\nx 1.0\n", "")
    counter = Page('# HELP x X.\n# TYPE x counter\nx{a="b"} 2.0\n# HELP y Y.\n# TYPE y gauge\ny 1.0\n', "")

    body = Runner([Scripted("a", lambda: gauge), Scripted("b", lambda: counter)], InternalErrors()).scrape(openmetrics=False)

    assert " 2.0\n" not in body
    assert "x 1.0\n" in body
    assert "y 1.0\n" in body


class Shared(Scripted):
    """
    A collector of what all exporters would show.
    """

    shared = True


class Door:
    """
    A gate that the test opens and closes.
    """

    def __init__(self, *epochs: int | None, holder: str = "another") -> None:
        self.epochs = list(epochs)
        self.who = holder

    def holder(self) -> str:
        return self.who

    def epoch(self) -> int | None:
        return self.epochs.pop(0) if len(self.epochs) > 1 else self.epochs[0]


def test_what_is_shared_is_not_even_collected_by_those_who_do_not_show_it() -> None:
    """
    A closed gate means no series, none about the collector, and no question to the broker.
    """
    collector = Shared("c", lambda: depth(3))
    runner = Runner([collector, Scripted("own", lambda: depth(1, "own"))], InternalErrors(), gate=Door(None))

    found = samples(runner.scrape(openmetrics=False))

    assert 0 == collector.runs
    assert (0, 1) == (found["celery_obs_leader{}"], found["celery_queue_depth{own}"])
    assert not {"celery_queue_depth{q}", "celery_obs_collector_success{c}", "celery_obs_collector_age_seconds{c}"} & set(found)


@pytest.mark.parametrize(("epochs", "shown"), [((1, 1), True), ((1, None), False), ((1, 2), False), ((None, 1), False)])
def test_what_is_shared_is_shown_by_who_was_in_turn_from_beginning_to_end(epochs: tuple[int | None, int | None], shown: bool) -> None:
    """
    Losing the lease in the middle of a scrape, or winning it, or both, means not to show.
    """
    runner = Runner([Shared("c", lambda: depth(3))], InternalErrors(), gate=Door(*epochs))

    found = samples(runner.scrape(openmetrics=False))

    assert (shown, float(shown)) == ("celery_queue_depth{q}" in found, found["celery_obs_leader{}"])


def test_the_last_good_page_ends_with_the_lease() -> None:
    """
    A page of an earlier epoch does not stand in, however young it is; one of this epoch does.
    """
    door = Door(1)
    collector = Shared("c", lambda: depth(3))
    runner = Runner([collector], InternalErrors(), gate=door)
    runner.scrape(openmetrics=False)
    collector.does = broken

    assert "celery_queue_depth{q}" in samples(runner.scrape(openmetrics=False))
    door.epochs = [None]
    assert "celery_queue_depth{q}" not in samples(runner.scrape(openmetrics=False))
    door.epochs = [2]
    assert "celery_queue_depth{q}" not in samples(runner.scrape(openmetrics=False))


def test_where_nobody_is_in_turn_the_collector_is_told_to_fail() -> None:
    """
    Redis is away, so no exporter shows anything; that nothing comes, and for how long, is said all the same.
    """
    now = 100.0
    door = Door(1)
    runner = Runner([Shared("c", lambda: depth(3))], InternalErrors(), gate=door, clock=lambda: now)
    runner.scrape(openmetrics=False)

    door.epochs, door.who, now = [None], "", 130.0
    found = samples(runner.scrape(openmetrics=False))

    assert "celery_queue_depth{q}" not in found
    assert (0, 30) == (found["celery_obs_collector_success{c}"], found["celery_obs_collector_age_seconds{c}"])


def test_without_a_gate_everybody_shows_everything_and_nobody_leads() -> None:
    """
    An exporter without Redis goes on as before.
    """
    found = samples(Runner([Shared("c", lambda: depth(3))], InternalErrors()).scrape(openmetrics=False))

    assert 3 == found["celery_queue_depth{q}"]
    assert "celery_obs_leader{}" not in found
