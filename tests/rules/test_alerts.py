"""
Every alert fires when it should, not before, and falls silent again, with the texts that a person reads.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from celery_obs.generate.alerts import ALERTS, build
from celery_obs.generate.links import Links

from .alert_cases import CASES
from .promtool import as_test, run_tests


_A_DAY = 1440
"""
Stories that are longer are looked at every five minutes only: they would take most of the time.
"""


@pytest.mark.parametrize("area", ALERTS)
def test_the_alerts_of_an_area_fire_wait_and_recover(area: str, tmp_path: Path) -> None:
    """
    Each alert is silent while all is well, waits while it may pass, fires with its labels and texts, and recovers.
    """
    alerts = {alert.name: alert for alert in ALERTS[area]}
    [rules] = [output.text for output in build(Links()) if output.path.endswith(f"/alerts-{area.replace('_', '-')}.yml")]
    (tmp_path / "rules.yml").write_text(rules, encoding="utf-8")

    short = [case for case in CASES[area] if case.fires < _A_DAY]
    long = [case for case in CASES[area] if case.fires >= _A_DAY]

    for every, cases in (("1m", short), ("5m", long)):
        if not cases:
            continue
        done = run_tests([tmp_path / "rules.yml"], [as_test(case, alerts[case.alert]) for case in cases], tmp_path, every=every)

        assert 0 == done.returncode, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    """
    An alert that nobody has seen firing is none.
    """
    assert {area: [alert.name for alert in alerts] for area, alerts in ALERTS.items()} == {
        area: list(dict.fromkeys(case.alert for case in cases)) for area, cases in CASES.items()
    }


def test_a_case_that_is_wrong_is_found(tmp_path: Path) -> None:
    """
    Promtool is asked in earnest: the same story with another value in the text fails.
    """
    [alert] = [alert for alert in ALERTS["beat"] if alert.name == "CeleryBeatStopped"]
    [case] = [case for case in CASES["beat"] if case.alert == alert.name]
    [rules] = [output.text for output in build(Links()) if output.path.endswith("/alerts-beat.yml")]
    (tmp_path / "rules.yml").write_text(rules, encoding="utf-8")

    done = run_tests([tmp_path / "rules.yml"], [as_test(case._replace(value="21m 0s"), alert)], tmp_path)

    assert 1 == done.returncode
    assert "21m 0s" in done.stdout + done.stderr
