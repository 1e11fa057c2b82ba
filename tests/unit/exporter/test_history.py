"""
The history: what is remembered of a page, and what is told of it.
"""

from __future__ import annotations

import asyncio
import math
import os

from pathlib import Path
from typing import Any

import httpx
import pytest

from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from celery_obs.exceptions import ConfigurationError
from celery_obs.exporter.api.history import HistoryApi, described
from celery_obs.exporter.api.openapi import document
from celery_obs.exporter.exposition import Page
from celery_obs.exporter.history import sampler as sampling
from celery_obs.exporter.history.declared import Name, Remembered
from celery_obs.exporter.history.file import HistoryFile, Moment, Shape, read_columns
from celery_obs.exporter.history.of_areas import declared
from celery_obs.exporter.history.sampler import History, Reading, Sampler, read_path, shares
from celery_obs.exporter.history.view import Asked, Lines, look
from celery_obs.exporter.options import Options
from celery_obs.exporter.samples import Samples
from celery_obs.exporter.scrape import InternalErrors, Runner
from celery_obs.exporter.server import build_history
from celery_obs.vocabulary.spec import Metric


JOBS = Metric(kind="counter", name="jobs_total", help="How many?", labels=("task", "state"))
DEPTH = Metric(kind="gauge", name="depth", help="How deep?", labels=("queue",))
TOOK = Metric(kind="histogram", name="took_seconds", help="How long?", labels=("task",), buckets=(1.0,))
REMEMBERED = (
    Remembered(metric=JOBS, by=("task",), skips_zeros=True),
    Remembered(metric=DEPTH, fold="max"),
    Remembered(metric=TOOK, by=("task",)),
)
PAGE = """# HELP jobs_total How many?
# TYPE jobs_total counter
jobs_total{task="a",state="success"} 3
jobs_total{task="a",state="failure"} 2
jobs_total{task="b\\\\\\"",state="success"} 0
# HELP depth How deep?
# TYPE depth gauge
depth{queue="q"} 7
# HELP took_seconds How long?
# TYPE took_seconds histogram
took_seconds_bucket{task="a",le="1.0"} 1
took_seconds_bucket{task="a",le="+Inf"} 2
took_seconds_count{task="a"} 2
took_seconds_sum{task="a"} 4.5
took_seconds_bucket{task="c",le="1.0"} 1
took_seconds_bucket{task="c",le="+Inf"} 1
took_seconds_count{task="c"} 1
took_seconds_sum{task="c"} 0.5
"""
JOBS_A = Name("jobs_total", (("task", "a"),), True, "last")
DEPTH_Q = Name("depth", (("queue", "q"),), False, "max")


def test_what_is_declared_is_found_on_the_page_and_added_up() -> None:
    """
    Series that only other labels tell apart are one; sums and counts of a histogram are found, and zeros that take no room are not.
    """
    found = Reading(REMEMBERED).values([PAGE])

    assert found == {
        JOBS_A: 5.0,
        DEPTH_Q: 7.0,
        Name("took_seconds_sum", (("task", "a"),), True, "last"): 4.5,
        Name("took_seconds_sum", (("task", "c"),), True, "last"): 0.5,
        Name("took_seconds_count", (("task", "a"),), True, "last"): 2.0,
        Name("took_seconds_count", (("task", "c"),), True, "last"): 1.0,
    }


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(1, 9), max_size=6))
def test_any_label_is_read_as_the_page_has_it(values: dict[str, int]) -> None:
    """
    What the reader of pages finds of a gauge, the history does, too.
    """
    from celery_obs.exporter.exposition import family, render

    page = render([family(DEPTH, [((queue,), float(depth)) for queue, depth in values.items()])]).text

    found = {name.labels[0][1]: value for name, value in Reading(REMEMBERED).values([page]).items()}

    assert found == values == {queue: value for (queue,), value in Samples([page]).of(DEPTH).items()}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metric": JOBS, "by": ("no",)}, "has no label no"),
        ({"metric": JOBS, "fold": "max"}, "only grows"),
        ({"metric": DEPTH, "weight": 17}, "from 1 to 16"),
    ],
)
def test_what_cannot_be_remembered_is_refused(wrong: dict[str, Any], message: str) -> None:
    """
    An area that declares what the history cannot keep hears of it at import.
    """
    with pytest.raises(ValueError, match=message):
        Remembered(**wrong)


def test_all_areas_declare_what_fits_and_nothing_twice() -> None:
    """
    The series that areas have remembered have names of their own, and each group has room for eight series at the default size.
    """
    groups = [(sample, *each.labels) for each in declared() for sample in each.samples]
    share = shares(tuple(declared()), 660)

    assert len(groups) == len(set(groups))
    assert min(map(share, groups)) >= 8
    assert sum(map(share, groups)) <= 660
    assert 0 == share(("another's",))


# -- what is told -------------------------------------------------------------------------------------------------------


def keep(samples: list[tuple[Moment, dict[Name, float]]], *, whole: bool = True) -> Any:
    """
    Return columns of samples, as they lie in a file.
    """
    file = HistoryFile(os.memfd_create("test"), Shape(8, 600, 120), shares=lambda group: 8)
    for at, values in samples:
        file.append(at, values, period=1.0, zero_before={name.group for name in values} if whole else ())
    columns = read_columns(file.descriptor, file.shape)
    file.close()
    return columns


def see(columns: Any, now: Moment, *, seconds: float = 5.0, step: float = 1.0, limit: int = 10) -> Lines:
    return look(columns, Asked(lambda name: True, seconds, step, limit), now=now)


def at(ticks: float, *, offset: float = 1000.0, boot: int = 1) -> Moment:
    return Moment(ticks + offset, ticks, boot)


def test_a_gap_is_told_as_a_gap() -> None:
    """
    While there was no look nothing is known: no zero, no line from before to after; and what grew meanwhile belongs to no rate.
    """
    columns = keep(
        [
            (at(10.0), {JOBS_A: 5.0, DEPTH_Q: 1.0}),
            (at(11.0), {JOBS_A: 7.0, DEPTH_Q: 2.0}),
            (at(16.0), {JOBS_A: 100.0, DEPTH_Q: 3.0}),
            (at(17.0), {JOBS_A: 101.0, DEPTH_Q: 4.0}),
        ]
    )

    depth, jobs = see(columns, at(17.2), seconds=8.0).lines

    assert [1.0, 2.0, None, None, None, None, 3.0, 4.0] == depth.values
    assert [2.0, None, None, None, None, None, 1.0, None] == jobs.values


def test_a_series_that_was_zero_has_its_first_rate() -> None:
    """
    What was 0 and took no room grew from 0; what was there before anyone looked did not.
    """
    samples = [(at(1.0), {DEPTH_Q: 1.0}), (at(2.0), {DEPTH_Q: 1.0, JOBS_A: 4.0})]

    rates = [see(keep(samples, whole=whole), at(2.0), seconds=2.0).lines[1].values for whole in (True, False)]

    assert [[4.0, None], [None, None]] == rates


def test_a_counter_that_begins_anew_grows_from_zero() -> None:
    """
    A directory that was made anew costs no negative rate.
    """
    columns = keep([(at(1.0), {JOBS_A: 50.0}), (at(2.0), {JOBS_A: 3.0})])

    assert [3.0, None] == see(columns, at(2.0), seconds=2.0).lines[0].values


def test_a_clock_that_is_set_moves_the_past_with_it() -> None:
    """
    Set back by an hour between two samples, or forward: they stay a second apart, at the times that the clock has for them now.
    """
    for jump in (-3600.0, 3600.0):
        columns = keep([(at(1.0), {DEPTH_Q: 1.0}), (at(2.0, offset=1000.0 + jump), {DEPTH_Q: 2.0})])

        found = see(columns, at(2.0, offset=1000.0 + jump), seconds=2.0)

        assert [1.0, 2.0] == found.lines[0].values
        assert 1000.0 + jump + 1.0 == found.start


def test_what_was_before_the_machine_started_is_shown_at_its_time() -> None:
    """
    After a start of the machine its clock begins anew; what was seen before is told by the other clock.
    """
    columns = keep([(at(5000.0), {DEPTH_Q: 1.0}), (Moment(6003.0, 2.0, 2), {DEPTH_Q: 2.0})])

    assert [1.0, None, None, 2.0] == see(columns, Moment(6003.0, 2.0, 2), seconds=4.0).lines[0].values


@given(st.lists(st.integers(0, 5), min_size=2, max_size=300), st.integers(1, 4))
def test_rates_of_minutes_are_exact(growth: list[int], every: int) -> None:
    """
    What a minute's rates say of a counter adds up to what it grew by, whatever the seconds between samples.
    """
    total, samples = 0, []
    for number, more in enumerate(growth):
        total += more
        samples.append((at(60.0 + number * every), {JOBS_A: float(total)}))
    columns = keep(samples, whole=False)

    minutes = list(columns.minutes())
    found = see(columns, samples[-1][0], seconds=1800.0, step=60.0).lines[0].values

    begin, end = minutes[0].at.ticks, minutes[-1].at.ticks
    first = math.floor(end / 60) - len(found) + 1
    grown = 0.0
    for number, rate in enumerate(found, first):
        grown += (rate or 0.0) * max(0.0, min(end, (number + 1) * 60.0) - max(begin, number * 60.0))
    place = next(iter(columns.rows))
    assert grown == pytest.approx(total - minutes[0].values[place])


def test_a_look_that_comes_late_is_no_gap() -> None:
    """
    A second without a look between two that are near each other has the value before it, and its part of the rate.
    """
    columns = keep([(at(1.9), {JOBS_A: 1.0, DEPTH_Q: 5.0}), (at(3.1), {JOBS_A: 2.2, DEPTH_Q: 6.0})])

    depth, jobs = see(columns, at(3.2), seconds=3.0).lines

    assert [5.0, 5.0, 6.0] == depth.values
    assert [1.0, 1.0, 1.0] == [round(value or 0.0, 6) for value in jobs.values]


def test_minutes_have_the_highest_and_the_last() -> None:
    """
    A queue that was long for a second within a minute is seen two hours later.
    """
    columns = keep([(at(60.0 + second), {DEPTH_Q: 100.0 if second == 20 else 1.0}) for second in range(0, 180, 5)])

    assert [100.0, 1.0, 1.0] == see(columns, at(239.0), seconds=180.0, step=60.0).lines[0].values


# -- the sampler --------------------------------------------------------------------------------------------------------


class Told:
    """
    A collector that shows what it is told to.
    """

    name = "told"
    inline = True

    def __init__(self) -> None:
        self.text = PAGE

    def collect(self) -> Page:
        return Page(self.text, self.text)


class Shared(Told):
    name = "shared"
    inline = False
    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.text = '# TYPE depth gauge\ndepth{queue="far"} 1\n'
        self.asked = 0

    def collect(self) -> Page:
        self.asked += 1
        return super().collect()


class Closed:
    """
    A gate that another exporter has.
    """

    def epoch(self) -> int | None:
        return None

    def holder(self) -> str:
        return "another"


def sampler(tmp_path: Path, *collectors: Any, gate: Any = None, **options: Any) -> tuple[Sampler, History]:
    errors = InternalErrors()
    history = History(tmp_path / "history", 300_000, REMEMBERED, errors=errors)
    ticks = iter(range(1, 1000))
    return Sampler(
        Runner(collectors, errors, gate=gate), history, Reading(REMEMBERED), errors=errors, now=lambda: at(float(next(ticks)))
    ), history


def test_a_look_a_second_is_written_down(tmp_path: Path) -> None:
    """
    What the page has is in the file, for another process to read.
    """
    told = Told()
    looking, history = sampler(tmp_path, told)
    looking.step()
    told.text = PAGE.replace('state="failure"} 2', 'state="failure"} 5')
    looking.step()

    columns = read_path(tmp_path / "history", fine=True)

    place = next(place for place, row in columns.rows.items() if row.name == JOBS_A)
    assert [5.0, 8.0] == [column.values[place] for column in columns.fine]
    assert 1.0 == looking.period
    history.close()


def test_what_all_share_is_asked_for_by_the_leader_alone_and_seldom(tmp_path: Path) -> None:
    """
    A broker is asked by one exporter every ten seconds, not by each every second.
    """
    for gate, times in ((None, 1), (Closed(), 0)):
        shared = Shared()
        folder = tmp_path / str(times)
        folder.mkdir()
        looking, history = sampler(folder, Told(), shared, gate=gate)
        for _ in range(20):
            looking.step()
        assert times == shared.asked
        history.close()


def test_a_second_exporter_reads_and_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Two on one directory write one file, one at a time; the other one tells what is in it, and goes on once the first is gone.
    """
    monkeypatch.setattr(sampling, "_LOOK_AGAIN", 0.0)
    first, one = sampler(tmp_path, Told())
    second, other = sampler(tmp_path, Told())
    assert not other.read(True).fine
    first.step()
    second.step()
    assert (True, False) == (one.is_ours, other.is_ours)
    assert 1 == len(other.read(True).fine)
    one.close()

    second.step()

    assert other.is_ours
    assert 2 == len(other.read(True).fine)
    other.close()


def test_where_no_file_can_be_the_history_is_in_memory(tmp_path: Path) -> None:
    """
    A link in the file's place, or a directory that cannot be written, costs what a restart would show, and nothing else.
    """
    (tmp_path / "history").symlink_to(tmp_path / "other")
    looking, history = sampler(tmp_path, Told())

    looking.step()

    assert 1 == len(history.read(True).fine)
    assert not (tmp_path / "other").exists()
    history.close()


def test_a_slow_page_is_looked_at_less_often(tmp_path: Path) -> None:
    """
    Looks take a hundredth of a processor at most.
    """
    looking, _ = sampler(tmp_path, Told())
    looking._took.extend([0.03, 0.02, 0.04, 0.05])
    assert 1.0 == looking.period  # Too early to say.
    looking._took.append(0.02)
    assert 5.0 == looking.period
    looking._took.extend([10.0] * 5)
    assert 60.0 == looking.period


def test_it_looks_until_it_is_stopped(tmp_path: Path) -> None:
    """
    The thread writes, and lets the file go at its end.
    """
    import time

    looking, history = sampler(tmp_path, Told())
    looking.start()
    deadline = time.monotonic() + 60
    while not (history.is_ours and history.read(True).fine) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert history.read(True).fine
    looking.stop()
    assert not history.is_ours


def test_its_room_is_an_option(tmp_path: Path) -> None:
    """
    0 keeps none, and too little is refused with what is expected.
    """
    assert build_history(Options(metrics_dir=tmp_path, history_bytes=0), InternalErrors()) is None
    with pytest.raises(ConfigurationError, match="at least 262144"):
        build_history(Options(metrics_dir=tmp_path, history_bytes=10), InternalErrors())
    assert build_history(Options(metrics_dir=tmp_path), InternalErrors()) is not None


# -- over HTTP ----------------------------------------------------------------------------------------------------------

TASKS = [Name("celery_task_in_progress", (("task", f"t{number}"),), False, "max") for number in range(5)]


def ask(columns: Any, **parameters: str) -> httpx.Response:
    """
    Ask the API once.
    """

    async def once() -> httpx.Response:
        app = Starlette(routes=HistoryApi(None if columns is None else lambda fine: columns, now=lambda: at(20.0)).routes())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.get("/api/v1/history", params=parameters)

    return asyncio.run(once())


def test_series_are_found_by_name_and_labels_page_by_page() -> None:
    """
    Patterns choose, and pages follow one another; the answer fits its description.
    """
    columns = keep([(at(19.0), {DEPTH_Q: 1.0, **dict.fromkeys(TASKS, 2.0)}), (at(20.0), {DEPTH_Q: 3.0})])

    every, after = [], ""
    while True:
        page = ask(columns, series="celery_task_*", since="-2", limit="2", **({"after": after} if after else {})).json()
        every += [series["labels"]["task"] for series in page["series"]]
        after = page["following"] or ""
        if not after:
            break
    one = ask(columns, task="t3").json()

    assert ["t0", "t1", "t2", "t3", "t4"] == every
    assert [{"task": "t3"}] == [series["labels"] for series in one["series"]]
    assert [2.0, None] == one["series"][0]["values"][-2:]
    assert 600 == len(one["series"][0]["values"])
    assert sorted(one) == described()["answer"]["required"]
    assert sorted(one["series"][0]) == described()["answer"]["properties"]["series"]["items"]["required"]
    assert "/api/v1/history" in document()["paths"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"since": "60"}, "Expected seconds ago as a negative number"),
        ({"since": "-7201"}, "from -7200 to -1"),
        ({"since": "x"}, "since is 'x'. Expected a number"),
        ({"since": "nan"}, "Expected a number"),
        ({"since": "-3600", "step": "1"}, "Expected from 60 to 7200 seconds for the last 3600 s"),
        ({"limit": "0"}, "Expected a whole number from 1 to"),
        ({"limit": "400"}, "more with fewer values each"),
        ({"colour": "red"}, "There is no parameter 'colour'"),
        ({"after": "x"}, "Expected what the answer before this one named"),
        ({"series": "x" * 501}, "Expected at most 500"),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_expected(parameters: dict[str, str], message: str) -> None:
    """
    A mistake is a 400 that says what was expected.
    """
    answer = ask(keep([]), **parameters)

    assert 400 == answer.status_code
    assert message in answer.json()["message"]


def test_an_exporter_without_a_history_says_how_to_have_one() -> None:
    """
    Switched off, it is a 404 that names the option.
    """
    answer = ask(None)

    assert (404, "no_history") == (answer.status_code, answer.json()["error"])
    assert "--history-bytes" in answer.json()["message"]
