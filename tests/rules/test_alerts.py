"""
Every alert fires when it should, not before, and falls silent again, with the texts that a person reads.
"""

from __future__ import annotations

import itertools

from pathlib import Path

import pytest

from celery_obs.rules.alerts import ALERTS
from celery_obs.rules.links import Links
from celery_obs.rules.rules import Group, rule_file

from .alert_cases import CASES
from .promtool import Case, as_test, run_tests


_A_DAY = 1440
"""
Stories that are longer are looked at every five minutes only: they would take most of the time.
"""

BY_NAME = {alert.name: alert for alerts in ALERTS.values() for alert in alerts}
STORIES = {
    f"{name}{number or ''}": case
    for name, cases in itertools.groupby(itertools.chain.from_iterable(CASES.values()), key=lambda case: case.alert)
    for number, case in enumerate(cases)
}


def rules_of(case: Case, folder: Path) -> Path:
    """
    Write the rule of one alert: the others of its file, evaluated along with it, would take half of the time.
    """
    path = folder / "rules.yml"
    path.write_text(rule_file("here", [Group(name="g", comment="", rules=(BY_NAME[case.alert],))], Links()), encoding="utf-8")
    return path


@pytest.mark.parametrize("story", STORIES)
def test_an_alert_fires_waits_and_recovers(story: str, tmp_path: Path) -> None:
    """
    It is silent while all is well, waits while it may pass, fires with its labels and texts, and recovers.
    """
    case = STORIES[story]

    done = run_tests(
        [rules_of(case, tmp_path)], [as_test(case, BY_NAME[case.alert])], tmp_path, every="1m" if case.fires < _A_DAY else "5m"
    )

    assert 0 == done.returncode, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    """
    An alert that has never been seen firing is none.
    """
    assert {area: [alert.name for alert in alerts] for area, alerts in ALERTS.items()} == {
        area: list(dict.fromkeys(case.alert for case in cases)) for area, cases in CASES.items()
    }


def test_a_case_that_is_wrong_is_found(tmp_path: Path) -> None:
    """
    Promtool is asked in earnest: the same story with another value in the text fails.
    """
    case = STORIES["CeleryBeatStopped"]

    done = run_tests([rules_of(case, tmp_path)], [as_test(case._replace(value="21m 0s"), BY_NAME[case.alert])], tmp_path)

    assert 1 == done.returncode
    assert "21m 0s" in done.stdout + done.stderr
