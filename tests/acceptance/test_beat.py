"""
Beat: when each schedule entry fired, succeeded, is due and is late; for beat alone and for beat inside a worker.
"""

from __future__ import annotations

import signal
import time

import pytest

from celery_obs.areas.schedules.metrics import ENTRY_DUE, ENTRY_LAST_FIRED, ENTRY_OVERDUE, HEARTBEAT, SUCCEEDED_ENTRY
from tests.servers import wait_until
from tests.workers import settle_at

from .conftest import Page, Stage


pytestmark = pytest.mark.integration

OFTEN = "count often"
YEARLY = "at new year"


def check_freshness(page: Page, *, since: float) -> None:
    """
    See the frequent entry fired, succeeded, due next and in time.
    """
    wait_until(lambda: page.find(SUCCEEDED_ENTRY.name, entry=OFTEN), what="a success")
    fired = page.find(ENTRY_LAST_FIRED.name, entry=OFTEN) or 0
    wait_until(lambda: (page.find(ENTRY_LAST_FIRED.name, entry=OFTEN) or 0) > fired, what="the entry to be fired again")
    for metric in (ENTRY_LAST_FIRED, SUCCEEDED_ENTRY):
        assert since <= (page.find(metric.name, entry=OFTEN) or 0) <= time.time()
    # On a busy machine beat itself may be late for a while; an entry that is in time is seen so again and again.
    wait_until(lambda: abs((page.find(ENTRY_DUE.name, entry=OFTEN) or 0) - time.time()) < 5, what="a due time of now")
    wait_until(lambda: (page.find(ENTRY_OVERDUE.name, entry=OFTEN) or 0) < 2, what="the entry to be in time")
    assert abs((page.find(ENTRY_DUE.name, entry=YEARLY) or 0) - time.time() - 300 * 86400) < 60
    assert 0 == page.find(ENTRY_OVERDUE.name, entry=YEARLY)
    assert page.find(SUCCEEDED_ENTRY.name, entry=YEARLY) is None
    assert page.find(ENTRY_LAST_FIRED.name, entry=YEARLY) is None


def check_overdue_grows(page: Page) -> None:
    """
    See the frequent entry become late, and the yearly one stay in time.
    """
    wait_until(lambda: (page.find(ENTRY_OVERDUE.name, entry=OFTEN) or 0) > 1.5, what="the entry to be overdue")
    late = page.find(ENTRY_OVERDUE.name, entry=OFTEN) or 0
    wait_until(lambda: (page.find(ENTRY_OVERDUE.name, entry=OFTEN) or 0) > late + 1, what="the entry to be later still")
    assert 0 == page.find(ENTRY_OVERDUE.name, entry=YEARLY)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_schedule_is_fresh_while_beat_lives_and_late_when_it_does_not(stage: Stage, ending: signal.Signals) -> None:
    """
    The page tells what beat fired, what succeeded and what is due; once beat is gone, the entries become overdue as their time passes.
    """
    since = time.time()
    stage.worker(app="census")
    page = stage.exporter()
    beat = stage.beat(app="census")

    check_freshness(page, since=since)
    wait_until(lambda: abs((page.find(HEARTBEAT.name) or 0) - time.time()) < 5, what="a heartbeat of now")

    beat.stop(ending)

    check_overdue_grows(page)
    assert since <= (page.find(SUCCEEDED_ENTRY.name, entry=OFTEN) or 0)


def test_beat_inside_a_worker_tells_the_same(stage: Stage) -> None:
    """
    ``worker -B`` shows freshness like a beat of its own, and lateness when the whole worker is gone.
    """
    since = time.time()
    worker = stage.worker("-B", f"--schedule={stage.folder}/schedule", app="census")
    page = stage.exporter()

    check_freshness(page, since=since)

    worker.kill()

    check_overdue_grows(page)


def test_an_entry_that_left_the_schedule_leaves_the_page(stage: Stage) -> None:
    """
    After a restart of beat without the entry, nothing is said of it any more: it is not overdue, it is gone.
    """
    page = stage.exporter()
    beat = stage.beat(app="census")
    settle_at({OFTEN, YEARLY}, lambda: set(page.by("entry", ENTRY_DUE.name)))
    wait_until(lambda: page.find(ENTRY_LAST_FIRED.name, entry=OFTEN), what="the entry to be fired")

    beat.stop()
    stage.beat(app="census", CENSUS_ENTRIES=YEARLY)

    settle_at({YEARLY}, lambda: set(page.by("entry", ENTRY_DUE.name)))
    settle_at(None, lambda: page.find(ENTRY_OVERDUE.name, entry=OFTEN))
    assert page.find(ENTRY_LAST_FIRED.name, entry=OFTEN) is None
