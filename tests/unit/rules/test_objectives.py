"""
A file of objectives that cannot work is refused, with the line and the reason.
"""

from __future__ import annotations

import builtins
import re

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.exceptions import ConfigurationError, MissingExtraError
from celery_obs.rules.objectives import WINDOWS, read
from celery_obs.rules.rules import Alert
from celery_obs.rules.slo import groups


GOOD = """\
slos:
  - name: sync-availability
    description: Syncs work.
    objective: 99.9
    events:
      metric: channel_sync_total
      all: {status: [success, failure]}
      good: {status: success}
"""


def written(tmp_path: Path, text: str) -> Path:
    """
    Write a file of objectives.
    """
    path = tmp_path / "slo.yml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(old: str, new: str) -> str:
    """
    Return the good file with one thing changed.
    """
    assert old in GOOD
    return GOOD.replace(old, new)


def test_the_origin_of_a_promise_is_printed_above_its_rules(tmp_path: Path) -> None:
    """
    It is for people, and may be left out.
    """
    [plain] = read(written(tmp_path, GOOD))
    [signed] = read(written(tmp_path, GOOD + "    origin: the contract of 2026\n"))

    assert "Syncs work." == next(groups((plain,))).comment
    assert "Syncs work. Origin: the contract of 2026." == next(groups((signed,))).comment


def test_the_old_key_of_the_origin_still_works_and_says_its_new_name(tmp_path: Path) -> None:
    """
    Files of objectives that were written for the last release go on working.
    """
    with pytest.warns(FutureWarning, match="Line 9 of the objectives: the key seed is now called origin"):
        [objective] = read(written(tmp_path, GOOD + "    seed: the contract of 2026\n"))

    assert "the contract of 2026" == objective.origin


def test_a_good_file_is_understood(tmp_path: Path) -> None:
    """
    What is not said has its default.
    """
    [objective] = read(written(tmp_path, GOOD))

    assert ("sync-availability", Decimal("0.999"), 30, 20) == (
        objective.name,
        objective.objective,
        objective.period_days,
        objective.min_events,
    )


def test_the_old_name_of_min_events_is_read_with_a_warning(tmp_path: Path) -> None:
    """
    A file of objectives with ``least_events`` goes on working for a release.
    """
    path = written(tmp_path, changed("    objective", "    least_events: 7\n    objective"))

    with pytest.warns(FutureWarning, match="line 4: The key least_events is deprecated. Write min_events instead."):
        [objective] = read(path)

    assert 7 == objective.min_events


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (changed("99.9", "100"), "line 4: The objective of sync-availability is 100 percent. Expected more than 0 and less than 100"),
        (changed("99.9", "0"), "line 4: The objective of sync-availability is 0 percent"),
        (
            changed("99.9", "93"),
            "line 4: The objective of sync-availability is 93 percent over 30 days, and its alert on 1h would need 100.8 percent",
        ),
        (changed("99.9", "much"), "line 4: There is 'much'. Expected a number"),
        (changed("99.9", "-1"), "line 4: There is '-1'. Expected a number that is not negative"),
        (
            changed("channel_sync_total", "channel_syncs_total"),
            "line 6: There is no metric 'channel_syncs_total' in the catalogue. Did you mean channel_sync_total?",
        ),
        (changed("channel_sync_total", "channel_paused"), "line 6: The metric channel_paused is a gauge, and good needs a counter"),
        (changed("all: {status:", "all: {state:"), "line 6: The metric channel_sync_total has no label 'state'"),
        (
            changed("good: {status: success}", "below: 10"),
            "line 6: The metric channel_sync_total is a counter, and below needs a histogram",
        ),
        (changed("good: {status: success}", ""), "line 6: What is good or bad is said by nothing. Expected exactly one of"),
        (
            changed("good: {status: success}", "good: {status: success}\n      bad: {status: failure}"),
            "line 6: What is good or bad is said by good and bad. Expected exactly one of",
        ),
        (changed("objective:", "objectiv:"), "line 4: There is no key 'objectiv' here. Expected name, description, objective"),
        (changed("    objective: 99.9\n", ""), "line 2: The key objective is missing"),
        (changed("sync-availability", "Sync availability"), "line 2: The name is 'Sync availability'. Expected lower case with dashes"),
        (GOOD + GOOD.removeprefix("slos:\n"), "line 9: The name sync-availability is taken by the objective in line 2"),
        (changed("    objective", "    period: 2w\n    objective"), "line 4: The period is '2w'. Expected days, from 1d to 90d"),
        (changed("    objective", "    period: 400d\n    objective"), "line 4: The period is '400d'"),
        (
            changed("    objective", "    period: 60d\n    objective"),
            "line 4: The objective sync-availability looks back 60 days, and Prometheus keeps 45, so its budget would silently be that of 45 days. Start Prometheus with --storage.tsdb.retention.time=61d or more and say so here with retention: 61d",
        ),
        ("retention: 15d\n" + GOOD, "line 3: The objective sync-availability looks back 30 days, and Prometheus keeps 15"),
        ("retention: long\n" + GOOD, "line 1: The retention is 'long'. Expected days, from 1d to 3660d."),
        (changed("    objective", "    min_events: 2.5\n    objective"), "line 4: There is '2.5'. Expected a whole number."),
        (changed("    objective", "    name: b\n    objective"), "line 4: The key name is there twice"),
        ("slos: 3\n", "line 1: Expected a list here"),
        ("- 3\n", "line 1: Expected keys and values here"),
        ("slos:\n  - 3\n", "line 2: Expected keys and values here"),
        ("slos: [\n", "line 2: this is not YAML"),
        ("", "are empty. Expected the key slos"),
        (changed("description: Syncs work.", "description: []"), "line 3: Expected a text here"),
        ("metrics:\n  - {name: x_total, kind: gauge}\n" + GOOD, "line 2: The metric x_total is a gauge. Expected counter or histogram"),
        ("metrics:\n  - {name: x, kind: counter}\n" + GOOD, "line 2: The metric 'x' is a counter, so its name has to end with _total"),
        ("metrics:\n  - {name: channel_sync_total, kind: counter}\n" + GOOD, "line 2: The metric channel_sync_total is known already"),
    ],
)
def test_what_cannot_work_is_refused_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    """
    Who wrote the file is told where, what is there, and what was expected.
    """
    path = written(tmp_path, text)

    with pytest.raises(ConfigurationError, match=re.escape(problem)) as refused:
        read(path)

    assert str(path) in str(refused.value)


def test_a_threshold_between_two_buckets_is_refused(tmp_path: Path) -> None:
    """
    It is unknown how many syncs took less than 7 seconds.
    """
    text = changed("channel_sync_total", "channel_sync_duration_seconds").replace("      all: {status: [success, failure]}\n", "")

    with pytest.raises(ConfigurationError, match=r"line 6: .+ has no bucket that ends at 7, so how many were within that is not known"):
        read(written(tmp_path, text.replace("good: {status: success}", "below: 7")))


def test_a_period_may_be_as_long_as_prometheus_remembers(tmp_path: Path) -> None:
    """
    Who keeps more says so.
    """
    text = changed("    objective", "    period: 90d\n    objective")

    assert [90] == [each.period_days for each in read(written(tmp_path, f"retention: 100d\n{text}"))]


def test_a_metric_of_the_users_can_be_declared(tmp_path: Path) -> None:
    """
    Objectives are not about our metrics only.
    """
    declared = "metrics:\n  - {name: bookings_seconds, kind: histogram, labels: [source], buckets: [1, 30]}\n"
    text = changed("channel_sync_total", "bookings_seconds").replace("{status: [success, failure]}", "{source: web}")

    [objective] = read(written(tmp_path, declared + text.replace("good: {status: success}", "below: 30")))

    assert 'bookings_seconds_bucket{source="web", le=~"30(\\\\.0)?"}' in objective.events.bad_of("5m")


def test_the_example_of_the_documentation_is_understood(tmp_path: Path) -> None:
    """
    What people copy from the page works.
    """
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "load-rules-and-alerts.md").read_text(encoding="utf-8")
    [example] = [block for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL) if block.startswith("slos:")]

    assert ["bookings-confirmed"] == [each.name for each in read(written(tmp_path, example))]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """
    With the option to check.
    """
    with pytest.raises(ConfigurationError, match=r"cannot be read: No such file or directory\. Expected a YAML file; check --slo"):
        read(tmp_path / "none.yml")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who lacks the package learns what to install.
    """
    really = builtins.__import__

    def without_yaml(name: str, *rest: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_yaml)

    with pytest.raises(MissingExtraError, match=r"celery_obs\[exporter\]"):
        read()


@given(st.decimals(min_value="0.01", max_value="99.999", places=3), st.integers(min_value=1, max_value=90))
@settings(max_examples=40)
def test_an_alert_that_could_never_fire_is_always_refused(tmp_path_factory: pytest.TempPathFactory, promised: Decimal, days: int) -> None:
    """
    What is accepted can be seen broken by every one of its alerts; what is refused could not.
    """
    path = written(tmp_path_factory.mktemp("slo"), changed("99.9", f"{promised}\n    period: {days}d") + "retention: 91d\n")
    budget = 1 - promised / 100
    possible = all(window.budget * days * 24 / window.hours * budget < 1 for window in WINDOWS)

    try:
        read(path)
    except ConfigurationError:
        assert not possible
    else:
        assert possible


def test_the_windows_are_those_of_the_workbook() -> None:
    """
    For thirty days the factors are the well-known ones.
    """
    assert [Decimal("14.4"), 6, 3, 1] == [window.factor(30) for window in WINDOWS]


def test_without_objectives_there_are_no_rules() -> None:
    """
    An empty list is no mistake.
    """
    assert [] == list(groups(()))


def test_an_objective_has_all_its_alerts() -> None:
    """
    One that pages, one that waits, and what there is to tell of the period.
    """
    names = [rule.name for group in groups(read()[:1]) for rule in group.rules if isinstance(rule, Alert)]

    assert ["SLOErrorBudgetBurnFast", "SLOErrorBudgetBurnSlow", "SLOErrorBudgetExhausted", "SLOEventsAbsent"] == names
