"""
Objectives, held against good and bad times: their alerts, and the budget of a period with quiet nights in it.
"""

from __future__ import annotations

import dataclasses

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from celery_obs.rules.links import Links
from celery_obs.rules.objectives import DEFAULT, Objective, read
from celery_obs.rules.rules import Alert, rule_file
from celery_obs.rules.slo import groups
from celery_obs.rules.yaml_text import Tree

from .promtool import Case, as_test, run_tests


OBJECTIVES = {each.name: each for each in read()}

_GOOD = "0+10x800"
_BAD = "0x60 0+90x90 8100x650"
_ALL = "0+10x60 610+100x90 9620+10x650"


class Story(NamedTuple):
    """
    Ten good events a minute; after an hour, for an hour and a half, ninety bad ones besides.
    """

    series: Mapping[str, str]


def counter(name: str, good: str, bad: str) -> Story:
    """
    Tell it by a counter, whose good and bad events have these labels.
    """
    return Story({f"{name}{{{good}}}": _GOOD, f"{name}{{{bad}}}": _BAD})


def histogram(name: str, edge: str, labels: str = "") -> Story:
    """
    Tell it by a histogram: good events are within *edge*.
    """
    inside = f", {labels}" if labels else ""
    return Story({f'{name}_bucket{{le="{edge}"{inside}}}': _GOOD, f"{name}_count{{{labels}}}": _ALL})


STORIES = {
    "sync-availability": counter("channel_sync_total", 'status="success"', 'status="failure"'),
    "sync-latency": histogram("channel_sync_duration_seconds", "10"),
    "webhook-processing": counter("channel_webhook_processed_total", 'status="duplicate"', 'status="error"'),
    "data-consistency": Story({"channel_reconciliation_days_checked_total": _ALL, "channel_reconciliation_days_drifted_total": _BAD}),
    "task-success": counter("celery_task_finished_total", 'state="success"', 'state="lost"'),
    "alert-delivery": histogram("celery_task_latency_seconds", "30.0", 'queue="alerts"'),
    "newsletter-delivery": counter("publishing_newsletter_deliveries_total", 'status="success"', 'status="failure"'),
    "api-availability": counter("http_requests_total", 'status_code="200"', 'status_code="503"'),
    "api-latency": histogram("http_request_duration_seconds", "0.2"),
}


class Shipped(NamedTuple):
    """
    The rules of one objective.
    """

    path: Path
    alerts: dict[str, Alert]
    order: list[str]


def rules_of(objective: Objective, tmp_path: Path, *, only: tuple[str, ...] = ("",)) -> Shipped:
    """
    Write the rules of one objective.

    Args:
        only: How the names of the recorded series end that a long story needs: the others would take most of its time.
    """
    made = [
        dataclasses.replace(group, rules=tuple(rule for rule in group.rules if isinstance(rule, Alert) or rule.name.endswith(only)))
        for group in groups((objective,))
    ]
    path = tmp_path / "rules.yml"
    path.write_text(rule_file("celery_obs/rules/slo.yml", made, Links()), encoding="utf-8")
    alerts = {rule.name: rule for group in made for rule in group.rules if isinstance(rule, Alert)}
    return Shipped(path, alerts, [group.name for group in made])


def told(objective: Objective, expr: str, value: float, *, at: int) -> Mapping[str, Tree]:
    """
    Expect a query to have one value.
    """
    samples: list[Tree] = [{"labels": f'{{slo="{objective.name}"}}', "value": value}]
    return {"expr": f"sum by (slo) ({expr})", "eval_time": f"{at}m", "exp_samples": samples}


def test_every_objective_has_a_story() -> None:
    """
    A promise whose alerts have never been seen firing is none.
    """
    assert OBJECTIVES.keys() == STORIES.keys()


@pytest.mark.parametrize("name", STORIES)
def test_the_alerts_of_an_objective_fire_and_recover(name: str, tmp_path: Path) -> None:
    """
    Nine events of ten are bad for a while: a page is sent, and both alerts end once their short windows are clean.
    """
    shipped = rules_of(OBJECTIVES[name], tmp_path)
    labels = {"slo": name}
    fast = Case("SLOErrorBudgetBurnFast", STORIES[name].series, (40,), 140, 200, labels, "90%")
    slow = Case("SLOErrorBudgetBurnSlow", STORIES[name].series, (40,), 140, 700, labels, _part_of_a_day())

    both: dict[str, Any] = {**as_test(fast, shipped.alerts[fast.alert])}
    both["alert_rule_test"] += as_test(slow, shipped.alerts[slow.alert])["alert_rule_test"]

    done = run_tests([shipped.path], [both], tmp_path, order=shipped.order, every="20m")

    assert 0 == done.returncode, done.stdout + done.stderr


def _part_of_a_day() -> str:
    # From the first minute on: ten good ones a minute for 140, ninety bad ones for the last 79 of them.
    bad = 90 * 79
    return f"{100 * bad / (bad + 10 * 140):.4g}%"


def test_a_quiet_night_neither_poisons_the_period_nor_weighs_in_it(tmp_path: Path) -> None:
    """
    A hundred good events a minute, then nothing for hours, then ten bad ones a minute: the period knows how many there were of each.
    """
    objective = OBJECTIVES["sync-availability"]
    shipped = rules_of(objective, tmp_path)
    series = {
        'channel_sync_total{status="success"}': "0+100x60 6000x400",
        'channel_sync_total{status="failure"}': "0x300 0+10x60 600x100",
    }
    # 600 of 6600.  The mean of the ratios of the hours in which anything happened would say a half.
    asked: list[Any] = [
        told(objective, "round(slo:period_error:ratio, 0.01)", 0.09, at=400),
        told(objective, "slo:events:rate5m", 0, at=200),
        {"expr": "slo:sli_error:ratio_rate5m", "eval_time": "200m", "exp_samples": []},
        told(objective, "round(slo:period_burn_rate:ratio, 10)", 90, at=400),
        told(objective, "round(slo:error_budget_remaining:ratio, 10)", -90, at=400),
    ]

    done = run_tests(
        [shipped.path],
        [{"interval": "1m", "input_series": _input(series), "promql_expr_test": asked}],
        tmp_path,
        order=shipped.order,
        every="5m",
    )

    assert 0 == done.returncode, done.stdout + done.stderr


def test_a_mean_of_ratios_would_say_something_else(tmp_path: Path) -> None:
    """
    A busy hour, an idle quarter of an hour, and an hour with an event a minute of each kind: each event weighs the same, and idleness nothing.

    The mean of the ratios, as it is often recorded, is no number at all once there was 0 of 0; without that quarter it is a quarter,
    where two events of a thousand were bad.
    """
    objective = OBJECTIVES["sync-availability"]
    shipped = rules_of(objective, tmp_path, only=("rate5m", "period_error:ratio"))
    series = {
        'channel_sync_total{status="success"}': "0+1000x60 60000x15 60001+1x59 60060x60",
        'channel_sync_total{status="failure"}': "0+1x60 60x15 61+1x59 120x60",
    }
    ratio = 'sum(rate(channel_sync_total{status="failure"}[5m])) / sum(rate(channel_sync_total[5m]))'
    guarded = ratio.replace("/ sum", "/ (sum") + " > 0)"
    mean = f"avg_over_time(({ratio})[2h15m:1m])"
    asked: list[Any] = [
        told(objective, "round(slo:period_error:ratio, 0.0001)", 0.002, at=160),
        {"expr": f"count({mean} != {mean})", "eval_time": "135m", "exp_samples": [{"labels": "{}", "value": 1}]},
        {
            "expr": f"round(avg_over_time(({guarded})[2h15m:1m]), 0.05)",
            "eval_time": "135m",
            "exp_samples": [{"labels": "{}", "value": 0.25}],
        },
    ]

    tests = [{"interval": "1m", "input_series": _input(series), "promql_expr_test": asked}]
    done = run_tests([shipped.path], tests, tmp_path, order=shipped.order)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_what_was_promised_and_how_it_stands_is_recorded(tmp_path: Path) -> None:
    """
    Dashboards and reports ask for the promise, its budget, its period, and how fast the budget goes.
    """
    objective = OBJECTIVES["sync-availability"]
    shipped = rules_of(objective, tmp_path, only=("rate5m", "rate1h", "ratio", "days"))
    # Five of a thousand are bad: five times what was promised.
    series = {'channel_sync_total{status="success"}': "0+995x150", 'channel_sync_total{status="failure"}': "0+5x150"}
    asked = [
        told(objective, f"round({name}, 0.0001)", value, at=140)
        for name, value in {
            "slo:objective:ratio": 0.999,
            "slo:error_budget:ratio": 0.001,
            "slo:time_period:days": 30,
            "slo:current_burn_rate:ratio": 5,
            "slo:period_burn_rate:ratio": 5,
            "slo:error_budget_remaining:ratio": -4,
        }.items()
    ]

    tests = [{"interval": "1m", "input_series": _input(series), "promql_expr_test": asked}]
    done = run_tests([shipped.path], tests, tmp_path, order=shipped.order)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_budget_is_told_when_it_is_used_up(tmp_path: Path) -> None:
    """
    A team that plans risky changes learns that there is nothing left, until the period has forgotten it.
    """
    text = DEFAULT.read_text("utf-8").partition("slos:")[2].partition("\n\n")[0].replace("objective:", "period: 1d\n    objective:")
    (tmp_path / "slo.yml").write_text(f"slos:{text}", encoding="utf-8")
    [objective] = read(tmp_path / "slo.yml")
    shipped = rules_of(objective, tmp_path, only=("rate5m", "period_error:ratio", "error_budget_remaining:ratio"))
    # For an hour, one of five hundred events is bad, where one of a thousand might have been; then all rests for the night.
    series = {'channel_sync_total{status="success"}': "0+499x60 29940x1500", 'channel_sync_total{status="failure"}': "0+1x60 60x1500"}

    # It is told all night; a day later the period has forgotten it.
    case = Case("SLOErrorBudgetExhausted", series, (10,), 50, 1520, {"slo": objective.name}, "-100%")
    story: dict[str, Any] = {**as_test(case, shipped.alerts[case.alert])}
    story["alert_rule_test"].append({**story["alert_rule_test"][0], "eval_time": "1400m"})
    done = run_tests([shipped.path], [story], tmp_path, order=shipped.order, every="5m")

    assert 0 == done.returncode, done.stdout + done.stderr


def test_an_objective_that_nobody_measures_any_more_is_told(tmp_path: Path) -> None:
    """
    Idleness is not absence; a series that went is, until it comes back; and what was never there is not missed.
    """
    objective = OBJECTIVES["sync-availability"]
    shipped = rules_of(objective, tmp_path, only=("rate5m", "period_error:ratio"))
    series = {
        'channel_sync_total{status="success"}': "0+99x60 5940x60 stale _x60 0+99x60",
        'channel_sync_total{status="failure"}': "0+1x60 60x60 stale",
    }

    case = Case("SLOEventsAbsent", series, (50, 115, 130), 150, 200, {"slo": objective.name})
    done = run_tests([shipped.path], [as_test(case, shipped.alerts[case.alert])], tmp_path, order=shipped.order)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_one_failure_at_night_wakes_nobody(tmp_path: Path) -> None:
    """
    Below its least number of events an objective is silent, whatever the ratio.
    """
    objective = OBJECTIVES["sync-availability"]
    shipped = rules_of(objective, tmp_path)
    series = {'channel_sync_total{status="success"}': "0x60 1x120", 'channel_sync_total{status="failure"}': "0x60 1x120"}
    quiet: list[Any] = [
        {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}
        for minute in (65, 90, 120)
        for name in shipped.alerts
        if "Burn" in name
    ]
    asked = [told(objective, "slo:sli_error:ratio_rate1h", 0.5, at=90)]

    tests = [{"interval": "1m", "input_series": _input(series), "alert_rule_test": quiet, "promql_expr_test": asked}]
    done = run_tests([shipped.path], tests, tmp_path, order=shipped.order, every="5m")

    assert 0 == done.returncode, done.stdout + done.stderr


def _input(series: Mapping[str, str]) -> list[Tree]:
    return [{"series": name, "values": values} for name, values in series.items()]
